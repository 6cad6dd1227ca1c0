"""A small experiment for the tests of `mtl_utils.sweep`.

python -m tests.sweep_experiment    writes killed.jsonl
"""

import os
import time
from collections.abc import Sequence

import torch

from mtl_utils import sweep

RUNS = sweep.grid(seed=range(160), wait=[0.05])


def train(seed: int, lr: float = 0.1, wait: float = 0.0, end: str = "") -> dict:
    """Fit a line for three epochs; `end` says how it goes wrong."""
    if log := os.environ.get("SWEEP_TEST_LOG"):
        with open(log, "a") as file:
            file.write(f"{os.getpid()} {seed}\n")
    time.sleep(wait)
    if end == "raise":
        open("/nowhere/at/all/data.csv")
    if end == "exit":
        raise SystemExit("out of patience")
    if end == "die":
        os._exit(1)
    torch.manual_seed(seed)
    x = torch.randn(20)
    slope = torch.zeros((), requires_grad=True)
    losses = []
    for _ in range(3):
        loss = ((slope * x - 2 * x) ** 2).mean()
        (slope.grad,) = torch.autograd.grad(loss, slope)
        with torch.no_grad():
            slope -= lr * slope.grad
        losses.append(loss.detach())
    return {"slope": slope.detach(), "loss": torch.stack(losses)}


def train_many(first: int, n_seeds: int) -> list:
    """Several members side by side."""
    return [{"seed": seed, **train(seed)} for seed in range(first, first + n_seeds)]


def main(arguments: Sequence[str] | None = None, **environment: str) -> None:
    os.environ.update(environment)
    sweep.run(train, RUNS, record="killed", **sweep.options(__doc__, arguments))


if __name__ == "__main__":
    main()
