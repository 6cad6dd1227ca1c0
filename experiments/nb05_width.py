"""Notebook 05: is the trap one of a small network?

python -m experiments.nb05_width    writes results/05_width.jsonl, two minutes on one core

The trap of `nb05_trap` at one rate and length, with two layers of 128 units in place of 32: the
error in the hard half of each of the ten seeds.
"""

from __future__ import annotations

from typing import Any

import torch

from experiments import nb05_trap
from mtl_utils import sweep


def hard_half(method: str, rate: float, width: int) -> list[dict[str, Any]]:
    """A row for each seed: "seed" and "hard", the error of `half_errors` after 200 epochs."""
    hard = nb05_trap.train(method, rate, width=width).curves["test"][-1, :, 0]
    pairs = zip(nb05_trap.SEEDS, hard.tolist(), strict=True)
    return [{"seed": seed, "hard": error} for seed, error in pairs]


CONFIGS = [{"method": method, "rate": 0.02, "width": 128} for method in ("likelihood", "beta 0.5")]

if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    sweep.run(hard_half, CONFIGS, record="05_width", **sweep.options(__doc__))
