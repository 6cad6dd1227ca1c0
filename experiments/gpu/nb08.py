"""Notebook 08 at the published size: GradNorm's toy with 250 inputs, 100 outputs, 60,000 points.

y_k = sigma_k tanh((B + E_k) x), a trunk of four layers of 100 units, five passes in batches of 200.
The inputs have length 1 (the paper leaves their distribution open). Each rule runs at three
learning rates; `summary` picks, for each seed, the one with the lowest validation loss. The heads
are one layer of K x 100 outputs, which is the same and takes fewer calls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from experiments.gpu.pieces import carry_out
from mtl_utils import Weighting, make_weighting
from mtl_utils.ensemble import train_many
from mtl_utils.ensemble_optim import many_optimizer
from mtl_utils.models import HardSharing, mlp

RECORD = "08_gpu"
SIGMA = {2: (1.0, 100.0), 10: (48.0, 3.0, 54.0, 16.0, 9.0, 30.0, 52.0, 26.0, 47.0, 81.0)}
RATES = (5e-4, 1e-3, 3e-3)
CONSTANT = ("equal", "fixed, 1/sigma^2", "standardised targets")


@dataclass(frozen=True)
class Size:
    """Of the functions, the rows, the network and the training."""

    inputs: int
    outputs: int
    width: int
    rows: int
    held_out: int
    batch: int
    epochs: int
    seeds: int


FULL = Size(250, 100, 100, 60_000, 2000, 200, 5, 3)
SMALL = Size(12, 5, 8, 60, 20, 20, 2, 2)


@lru_cache(maxsize=1)
def toy(n_tasks: int, size: Size) -> dict[str, tuple[Tensor, Tensor]]:
    """Inputs [S, N, in] and targets [S, N, K, out] of each split."""
    sigma = torch.tensor(SIGMA[n_tasks])[:, None]
    counts = {"train": size.rows, "val": size.held_out, "test": size.held_out}
    found: dict[str, list[tuple[Tensor, Tensor]]] = {split: [] for split in counts}
    for seed in range(size.seeds):
        own = torch.Generator().manual_seed(seed)
        common = 10 * torch.randn(size.outputs, size.inputs, generator=own)
        each = 3.5 * torch.randn(n_tasks, size.outputs, size.inputs, generator=own)
        maps = (common + each).flatten(0, 1).T
        for split, n in counts.items():
            x = torch.randn(n, size.inputs, generator=own)
            x = x / x.norm(dim=1, keepdim=True)
            y = torch.tanh(x @ maps).reshape(n, n_tasks, size.outputs)
            found[split].append((x, sigma * y))
    return {
        split: (torch.stack([x for x, _ in draws]), torch.stack([y for _, y in draws]))
        for split, draws in found.items()
    }


def network(n_tasks: int, size: Size) -> HardSharing:
    trunk = mlp(size.inputs, *[size.width] * 4, last=True)
    return HardSharing(trunk, [nn.Linear(size.width, n_tasks * size.outputs)])


def task_losses(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Mean squared error of each task, [K]; y [B, K, out]."""
    (out,) = model(x)
    return (out.reshape(y.shape) - y).square().mean((0, 2))


def weighting(rule: str, n_tasks: int) -> Weighting:
    """By its name in the record."""
    if rule == "gradnorm":
        return make_weighting("gradnorm", n_tasks, alpha=0.12)
    if rule in CONSTANT:
        sigma = torch.tensor(SIGMA[n_tasks])
        inverse = sigma**-2 if rule == "fixed, 1/sigma^2" else torch.ones(n_tasks)
        return make_weighting("fixed", n_tasks, weights=n_tasks * inverse / inverse.sum())
    return make_weighting(rule, n_tasks)


def train(
    n_tasks: int, rules: tuple[str, ...], size: Size, device: torch.device | str
) -> list[dict]:
    """All seeds and rates of some rules side by side; a row for each and each epoch."""
    members = [(rule, seed, r) for rule in rules for seed in range(size.seeds) for r in RATES]
    draws = toy(n_tasks, size)
    own_data = [seed for _, seed, _ in members]
    if "standardised targets" in rules:  # data sets of their own, after the others
        sigma = torch.tensor(SIGMA[n_tasks])[:, None]
        draws = {s: (torch.cat([x, x]), torch.cat([y, y / sigma])) for s, (x, y) in draws.items()}
        own_data = [s + size.seeds * (rule == "standardised targets") for rule, s, _ in members]

    def maker(rule: str) -> Callable[[], tuple[nn.Module, Weighting]]:
        return lambda: (network(n_tasks, size), weighting(rule, n_tasks))

    trained = train_many(
        [maker(rule) for rule, _, _ in members],
        task_losses,
        draws["train"],
        [seed for _, seed, _ in members],
        size.epochs,
        size.batch,
        many_optimizer("adam", torch.tensor([r for _, _, r in members], device=device), 0.03),
        own_data=own_data,
        order_seeds=[seed for _, seed, _ in members],
        metric=task_losses,
        splits={split: draws[split] for split in ("val", "test")},
        evaluate_at=range(size.epochs + 1),
        device=device,
        progress=False,
    )
    left = {split: (curve / curve[0]).cpu() for split, curve in trained.curves.items()}
    return [
        {
            "tasks": n_tasks,
            "rule": rule,
            "seed": seed,
            "rate": rate,
            "epoch": epoch,
            "val": left["val"][epoch, m].mean().item(),
            "test": left["test"][epoch, m].mean().item(),
            "worst task": left["test"][epoch, m].max().item(),
        }
        for m, (rule, seed, rate) in enumerate(members)
        for epoch in trained.epochs
    ]


def run(
    device: torch.device | str, seconds: float = 50, folder: Path | None = None, size: Size = FULL
) -> pd.DataFrame:
    """Train with two and with ten tasks, write results/08_gpu.csv: L(t) / L(0) on held-out rows,
    mean over tasks and of the worst, for each rule, seed, rate and epoch.

    Args:
        device: where to train.
        seconds, folder: see `carry_out`.
        size: of everything.
    """
    pieces = {
        f"{n_tasks} tasks, {' and '.join(rules)}": partial(train, n_tasks, rules, size, device)
        for n_tasks in SIGMA
        for rules in (CONSTANT, ("uncertainty",), ("gradnorm",))
    }
    return carry_out(RECORD, pieces, seconds, folder)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """After the last epoch, at the rate that is best on the validation rows of each seed: mean over
    the seeds of what is left of the test losses, in all tasks and in the worst."""
    end = table[table.epoch == table.epoch.max()].reset_index(drop=True)
    best = end.loc[end.groupby(["tasks", "rule", "seed"], sort=False).val.idxmin()]
    return best.groupby(["tasks", "rule"], sort=False)[["test", "worst task"]].mean()
