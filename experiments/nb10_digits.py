"""Notebook 10: fronts of networks on overlapping digits, an earlier comparison of 12 epochs.

python -m experiments.nb10_digits    writes results/10_pareto_digits.csv (about 25 minutes)

It is told in the report as what it is: one length, one size, three learning rates, and the control
of as many networks with equal weights is missing. `experiments.nb10_pareto` is the study on the
protocol.

3000 training pairs of 18 x 18 pixels, `digit_model`, Adam with a rate that falls to 0 along a
cosine, 12 epochs of batches of 125. Each method gets five networks: Pareto MTL five preference
vectors (over the whole quarter circle, or from 25 to 65 degrees), fixed weights five pairs of
weights, MGDA (also with gradients divided by their norms) five initial weights and orders of the
batches. "pareto, official" is Pareto MTL with three habits of the authors' code for images, see
`Official`. Beside them, "alone": two networks that share nothing. Each method has a choice of three
learning rates: the one with the largest hypervolume of validation errors, averaged over two seeds
that are used for nothing else. It is then run on five seeds. A seed draws the pairs, the initial
weights and the batches, the same for all methods. The record also has seed 0 after one epoch, to
compare with. A record that is there is completed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.record import Record, short
from mtl_utils import make_weighting
from mtl_utils.datasets import overlapping_digits
from mtl_utils.gradients import task_gradients
from mtl_utils.metrics import hypervolume
from mtl_utils.models import SeparateModels, digit_model, lenet_trunk, mlp
from mtl_utils.training import accuracy, batches, train
from mtl_utils.weighting import Weighting
from mtl_utils.weighting.methods.pareto_mtl import ParetoMTL

FILE = Path(__file__).resolve().parents[1] / "results" / "10_pareto_digits.csv"
SEEDS, TUNING_SEEDS = range(5), (100, 101)
EPOCHS, BATCH = 12, 125
RATES = (6e-3, 1.2e-2, 2.4e-2)
METHODS = {"fixed": 5, "pareto_mtl": 5, "mgda": 5, "mgda, norm": 5, "alone": 1}  # networks
METHODS |= {"pareto, narrow": 5, "pareto, official": 5}
SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the weight of the left digit
ANGLES = {"pareto_mtl": (90, 67.5, 45, 22.5, 0), "pareto, narrow": (65, 55, 45, 35, 25)}  # degrees
ANGLES["pareto, official"] = ANGLES["pareto_mtl"]
MEASURED = ("weight", "train_loss", "train_error", "val_error", "test_error")
COLUMNS = ["method", "rate", "seed", "member", "epochs"]
COLUMNS += [f"{what}_{side}" for what in MEASURED for side in ("left", "right")]


def losses(model: nn.Module, x: Tensor, *classes: Tensor) -> Tensor:
    return torch.stack([cross_entropy(out, c) for out, c in zip(model(x), classes, strict=True)])


class Official(ParetoMTL):
    """Pareto MTL with the habits of its authors' code for images.

    Phase 1 lasts `limit` steps (two epochs) at most; in phase 2 the coefficients are scaled to
    sum |alpha| = K. The third habit is in `run`: the heads count as shared, so that the
    coefficients act on them too.
    """

    def __init__(self, n_tasks: int, preferences: np.ndarray, index: int, limit: int) -> None:
        super().__init__(n_tasks, preferences, index)
        self.limit = limit
        self.steps: Tensor
        self.register_buffer("steps", torch.tensor(0))

    def towards(self, gramian: np.ndarray, losses: np.ndarray) -> np.ndarray:
        self.inside = self.inside | (self.steps >= self.limit)
        self.steps = self.steps + 1
        alpha = super().towards(gramian, losses)
        size = np.abs(alpha).sum()
        return self.n_tasks * alpha / size if self.inside and size > 0 else alpha

    def _backward(self, losses: Tensor, shared: list[Tensor] | None, features: object) -> Tensor:
        assert shared is not None
        found = task_gradients(losses, shared, method="loop")  # heads included: nothing to cut
        alpha = self._combine(found.gramian(), losses)
        found.fill(alpha)
        return alpha


def rule(method: str, member: int) -> Weighting:
    """The weighting of one of the five networks of a method."""
    if method == "fixed":
        share = SHARES[member]
        return make_weighting("fixed", 2, weights=(2 * share, 2 - 2 * share))
    if method == "alone":
        return make_weighting("equal", 2)
    if method in ANGLES:
        angle = np.radians(ANGLES[method])  # 90 degrees favour the left digit
        vectors = np.stack([np.cos(angle), np.sin(angle)], 1)
        if method == "pareto, official":
            return Official(2, vectors, member, limit=2 * 3000 // BATCH)
        return make_weighting("pareto_mtl", 2, preferences=vectors, index=member)
    return make_weighting("mgda", 2, normalise="norm" if method == "mgda, norm" else "none")


def run(method: str, rate: float, seed: int, member: int, epochs: int = EPOCHS) -> dict:
    """One training.

    Args:
        method: a key of `METHODS`.
        rate: learning rate of Adam at the start.
        seed: of data, initial weights and batches.
        member: which of its networks.
        epochs: how many of the `EPOCHS`.
    """
    data = overlapping_digits(3000, 1000, 2000, size=18, seed=seed)
    start = seed + 1000 * member if method.startswith("mgda") else seed
    torch.manual_seed(start)
    model: nn.Module = digit_model(18)
    if method == "alone":
        parts = [nn.Sequential(lenet_trunk(18), mlp(50, 50, 10)) for _ in range(2)]
        model = SeparateModels(parts)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    loader = batches(data.train, BATCH, torch.Generator().manual_seed(start))
    history = train(
        model,
        losses,
        loader,
        rule(method, member),
        optimizer,
        epochs,
        tasks=("left", "right"),
        shared=list(model.parameters()) if method == "pareto, official" else None,
        scheduler=scheduler,
        progress=False,
    )
    model.eval()
    weights = history.groupby("task")["weight"].mean()  # over all steps
    found = {f"weight_{side}": float(weights[side]) for side in ("left", "right")}
    with torch.no_grad():
        for split in ("train", "val", "test"):
            x, *classes = getattr(data, split)
            for side, out, c in zip(("left", "right"), model(x), classes, strict=True):
                found[f"{split}_loss_{side}"] = cross_entropy(out, c).item()
                found[f"{split}_error_{side}"] = 1 - accuracy(out, c)
    named = {"method": method, "rate": rate, "seed": seed, "member": member, "epochs": epochs}
    return named | {name: found[name] for name in COLUMNS[5:]}


def best_rate(rows: list[dict], method: str) -> float:
    """The rate with the largest hypervolume of validation errors, mean of the tuning seeds."""

    def area(rate: float, seed: int) -> float:
        wanted = (method, str(rate), str(seed))
        mine = [r for r in rows if (r["method"], r["rate"], r["seed"]) == wanted]
        points = [(float(r["val_error_left"]), float(r["val_error_right"])) for r in mine]
        return hypervolume(points, (1, 1))

    return max(RATES, key=lambda rate: sum(area(rate, seed) for seed in TUNING_SEEDS))


def in_single_precision(method: str, seed: int, member: int, epochs: int) -> dict[str, Any]:
    """`run` at the rate that every method picked, in float32 as the record was made."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        return run(method, RATES[1], seed, member, epochs)
    finally:
        torch.set_default_dtype(before)


# ---- reading the record ----------------------------------------------------------------------


def dominated(points: np.ndarray, by: np.ndarray) -> np.ndarray:
    """For each point [N, 2], whether one of `by` [M, 2] dominates it, [N]."""
    each, other = points[:, None], by[None]
    return ((other <= each).all(-1) & (other < each).any(-1)).any(1)


def measures(final: pd.DataFrame, worst: Mapping[str, float]) -> pd.DataFrame:
    """How good each set of networks is.

    Args:
        final: rows of the record, all of one length.
        worst: reference of the hypervolume for "train_loss" and "test_error".

    Returns:
        a row for each method, seed and quantity: `hypervolume`, as a share of the square up to the
        reference; `own front`, how many of the networks no other of the set dominates; `beaten`,
        how many some network of the sweep of fixed weights of the same seed dominates.
    """
    rows = []
    for (method, seed), mine in final.groupby(["method", "seed"], sort=False):
        sweep = final[(final["method"] == "fixed") & (final["seed"] == seed)]
        for what, limit in worst.items():
            points, fixed = (t[[f"{what}_left", f"{what}_right"]].to_numpy() for t in (mine, sweep))
            row = {"method": method, "seed": seed, "what": what}
            row["hypervolume"] = hypervolume(points, (limit, limit)) / limit**2
            row["own front"] = int((~dominated(points, points)).sum())
            rows.append(row | {"beaten": int(dominated(points, fixed).sum())})
    return pd.DataFrame(rows)


def main() -> None:
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(1)
    record = Record(FILE, COLUMNS, key=COLUMNS[:5])

    def complete(method: str, rate: float, seed: int, epochs: int = EPOCHS) -> None:
        for member in range(METHODS[method]):
            if (method, rate, seed, member, epochs) not in record:
                row = run(method, rate, seed, member, epochs)
                record.add([[short(row[column]) for column in COLUMNS]])

    for method in METHODS:
        for rate in RATES:
            for seed in TUNING_SEEDS:
                complete(method, rate, seed)
    for seed in SEEDS:
        for method in METHODS:
            complete(method, best_rate(record.rows, method), seed)
    for method in METHODS:
        complete(method, best_rate(record.rows, method), SEEDS[0], epochs=1)


if __name__ == "__main__":
    main()
