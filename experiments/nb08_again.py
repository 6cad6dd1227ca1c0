"""Notebook 08: two differences of its record, with the knobs of the other side.

python -m experiments.nb08_again    writes results/08_again.jsonl, half a minute on one core

In `08_gradnorm` a tuned alpha is ahead of alpha = 0 in one setting, and GradNorm on standardised
targets ahead of equal weights on them in one. In both settings the two sides picked other learning
rates, each on five seeds. Here the side that is behind trains with the rates that the other picked,
on the thirty reporting seeds.
"""

from __future__ import annotations

import torch

from experiments.nb08_gradnorm import block
from mtl_utils import sweep

CONFIGS = [
    {
        "data": data,
        "optimiser": "adam",
        "width": 20,
        "epochs": epochs,
        "contender": contender,
        "trials": [trial],
        "stage": "report",
    }
    for data, epochs, contender, trial in (
        ("2 tasks", 40, "gradnorm, alpha = 0", {"rate": 0.08, "lr": 0.2}),
        ("10 tasks", 500, "standardised", {"rate": 0.04}),
    )
]

if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    sweep.run(block, CONFIGS, record="08_again", **sweep.options(__doc__))
