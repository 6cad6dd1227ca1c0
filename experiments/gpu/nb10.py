"""Notebook 10 with many networks: fronts of 24 on overlapping digits.

Four ways to get 24 networks from the same 24 initial weights and orders of the rows: equal weights
(the control: as many networks that aim at nothing), 24 fixed pairs of weights, Pareto MTL with 24
preference vectors, and MGDA. Each at two learning rates, which fall to 0 along a cosine; `summary`
picks the one with the largest hypervolume of validation errors. A seed draws the pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from experiments.gpu.digits import draw, tune_convolutions
from experiments.gpu.pieces import carry_out
from experiments.small import cross_entropies, wrong
from mtl_utils import Weighting, make_weighting
from mtl_utils.ensemble import train_many
from mtl_utils.ensemble_optim import many_optimizer
from mtl_utils.metrics import hypervolume
from mtl_utils.models import digit_model

RECORD = "10_gpu"
RATES = (6e-3, 1.2e-2)
GROUPS = (("equal", "fixed"), ("pareto_mtl",), ("mgda",))
WORST = (1.0, 1.0)  # reference point of the hypervolume: every class wrong


@dataclass(frozen=True)
class Size:
    """Of the data, the front and the training."""

    pairs: int
    held_out: int
    batch: int
    epochs: int
    networks: int
    seeds: int


FULL = Size(8000, 2000, 250, 10, 24, 2)
SMALL = Size(40, 20, 20, 2, 3, 1)


def weighting(method: str, index: int, networks: int) -> Weighting:
    """Of one of the networks; a small index favours the left digit."""
    if method == "pareto_mtl":
        angle = np.linspace(np.pi / 2, 0, networks)
        vectors = np.stack([np.cos(angle), np.sin(angle)], 1)
        return make_weighting("pareto_mtl", 2, preferences=vectors, index=index)
    if method == "mgda":
        return make_weighting("mgda", 2)
    share = 0.5 if method == "equal" else (index + 0.5) / networks  # of the right digit
    return make_weighting("fixed", 2, weights=(2 - 2 * share, 2 * share))


def front(
    methods: tuple[str, ...], seed: int, size: Size, device: torch.device | str
) -> list[dict]:
    """The networks of some methods at all rates, side by side."""
    data = draw(size.pairs, size.held_out, 18, seed)
    members = [(m, i, rate) for m in methods for i in range(size.networks) for rate in RATES]
    starts = [1000 * seed + index for _, index, _ in members]

    def maker(method: str, index: int) -> Callable[[], tuple[nn.Module, Weighting]]:
        return lambda: (digit_model(18), weighting(method, index, size.networks))

    trained = train_many(
        [maker(method, index) for method, index, _ in members],
        cross_entropies,
        data.train,
        starts,
        size.epochs,
        size.batch,
        many_optimizer("adam", torch.tensor([rate for _, _, rate in members], device=device)),
        order_seeds=starts,
        schedule="cosine",
        metric=wrong,
        splits={"val": data.val, "test": data.test},
        evaluate_at=[size.epochs],
        device=device,
        progress=False,
    )
    val, test = (trained.curves[split][0].tolist() for split in ("val", "test"))
    return [
        {
            "method": method,
            "seed": seed,
            "rate": rate,
            "network": index,
            "val left": val[m][0],
            "val right": val[m][1],
            "test left": test[m][0],
            "test right": test[m][1],
        }
        for m, (method, index, rate) in enumerate(members)
    ]


def run(
    device: torch.device | str, seconds: float = 50, folder: Path | None = None, size: Size = FULL
) -> pd.DataFrame:
    """Train all networks, write results/10_gpu.csv: the errors of each.

    Args:
        device: where to train.
        seconds, folder: see `carry_out`.
        size: of everything.
    """
    tune_convolutions()
    pieces = {
        f"{' and '.join(methods)}, seed {seed}": partial(front, methods, seed, size, device)
        for seed in range(size.seeds)
        for methods in GROUPS
    }
    return carry_out(RECORD, pieces, seconds, folder)


def area(networks: pd.DataFrame, split: str, count: int | None = None) -> float:
    """Hypervolume of errors, of all networks or of some, spread evenly over them."""
    points = networks.sort_values("network")[[f"{split} left", f"{split} right"]].to_numpy()
    if count is not None:
        points = points[np.linspace(0, len(points) - 1, count).round().astype(int)]
    return hypervolume(points[np.isfinite(points).all(1)], WORST)


def summary(table: pd.DataFrame, counts: tuple[int, ...] = (1, 3, 6, 12, 24)) -> pd.DataFrame:
    """Hypervolume of test errors by method and number of networks, mean over the seeds."""
    rows = []
    for (method, seed), mine in table.groupby(["method", "seed"], sort=False):
        at_rate = {rate: networks for rate, networks in mine.groupby("rate")}
        best = max(at_rate.values(), key=lambda networks: area(networks, "val"))
        for count in counts:
            if count <= len(best):
                row = {"method": method, "seed": seed, "networks": count}
                rows.append(row | {"hypervolume": area(best, "test", count)})
    groups = pd.DataFrame(rows).groupby(["method", "networks"], sort=False).hypervolume
    return groups.mean().unstack()
