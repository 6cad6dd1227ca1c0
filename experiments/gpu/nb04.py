"""Notebook 04 with thousands of networks: how far do the estimate and the verdict spread?

Own data: each network has 100 points of its own. Same data: all have the published 100 points, and
initial weights of their own. "published" is the published setting (two networks 1-1024-1, batches
of 20, 2000 epochs, all rates 0.001), the others that of notebook 04 (a trunk of 32 units, all
points in each batch, log-variances at 0.1). "true weights" are 1 / (2 sigma^2), which uncertainty
weighting has to find. Errors are those of the mean: against the line without noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from experiments.gpu.pieces import Piece, carry_out
from experiments.small import squared_errors
from mtl_utils import make_weighting
from mtl_utils.datasets import two_regressions
from mtl_utils.ensemble import train_many
from mtl_utils.ensemble_optim import many_optimizer
from mtl_utils.models import HardSharing, SeparateModels, mlp

RECORD = "04_gpu"
RULES: dict[str, tuple[str, dict]] = {
    "uncertainty": ("uncertainty", {}),
    "equal": ("equal", {}),
    "true weights": ("fixed", {"weights": (0.005, 0.5)}),
}


@dataclass(frozen=True)
class Size:
    """How many networks, how wide, how long; of the published setting and of the notebook's."""

    networks: int
    epochs: int
    published: int
    published_width: int
    published_epochs: int


FULL = Size(2000, 1500, 1000, 1024, 2000)
SMALL = Size(8, 30, 3, 16, 5)


def own_rows(seeds: Sequence[int]) -> list[Tensor]:
    """100 points for each seed, each tensor [S, 100, 1]; seed 0 is the published draw."""
    draws = [two_regressions(n=100, seed=seed).train for seed in seeds]
    return [torch.stack(tensors) for tensors in zip(*draws, strict=True)]


def shared_net() -> nn.Module:
    return HardSharing(mlp(1, 32, last=True), [nn.Linear(32, 1) for _ in range(2)])


def errors(outputs: Sequence[Tensor], x: Tensor) -> Tensor:
    """Root mean squared error of the mean of each network and task, [M, 2]."""
    lines = (2 * x + 8, 3 * x + 3)
    squared = [(out.cpu() - line).square() for out, line in zip(outputs, lines, strict=True)]
    return torch.stack([s.mean((1, 2)).sqrt() for s in squared], 1)


def rows_of(setting: str, rule: str, data: Sequence[str], seeds: Sequence[int], trained) -> list:
    """A row for each network."""
    x = torch.linspace(-2, 2, 41)[:, None]
    found = errors(trained.predict(x), x)
    log_vars = trained.parameters.get("weighting.log_vars")
    sigma = torch.full_like(found, torch.nan) if log_vars is None else (log_vars / 2).exp().cpu()
    numbers = torch.cat([sigma, found], 1).tolist()
    names = ("sigma 1", "sigma 2", "error 1", "error 2")
    return [
        {"setting": setting, "rule": rule, "data": d, "seed": s, **dict(zip(names, n, strict=True))}
        for d, s, n in zip(data, seeds, numbers, strict=True)
    ]


def notebooks_setting(rule: str, own: bool, size: Size, device: torch.device | str) -> list[dict]:
    """The setting of notebook 04, for one rule."""
    name, options = RULES[rule]
    seeds = range(size.networks)
    trained = train_many(
        lambda: (shared_net(), make_weighting(name, 2, **options)),
        squared_errors,
        own_rows(seeds) if own else two_regressions(n=100, seed=0).train,
        seeds,
        size.epochs,
        batch_size=100,
        optimizer=many_optimizer("adam", 3e-3, own_lr=0.1),
        own_data=own,
        device=device,
        progress=False,
    )
    data = ["own" if own else "same"] * size.networks
    return rows_of("notebook", rule, data, seeds, trained)


def published_setting(size: Size, device: torch.device | str) -> list[dict]:
    """Half of the networks with the published points, half with points of their own."""
    n, width = size.published, size.published_width
    trained = train_many(
        lambda: (
            SeparateModels([mlp(1, width, 1) for _ in range(2)]),
            make_weighting("uncertainty", 2),
        ),
        squared_errors,
        own_rows(range(n + 1)),
        range(2 * n),
        size.published_epochs,
        batch_size=20,
        optimizer=lambda p: torch.optim.Adam(p.values(), lr=1e-3, eps=1e-7, fused=True),
        own_data=[0] * n + list(range(1, n + 1)),
        order_seeds=[member % 20 for member in range(2 * n)],
        device=device,
        progress=False,
    )
    data = ["same"] * n + ["own"] * n
    return rows_of("published", "uncertainty", data, range(2 * n), trained)


def run(
    device: torch.device | str, seconds: float = 60, folder: Path | None = None, size: Size = FULL
) -> pd.DataFrame:
    """Train all networks, write results/04_gpu.csv: a row for each network.

    Args:
        device: where to train.
        seconds, folder: see `carry_out`.
        size: how much.
    """
    wanted = [
        ("uncertainty", True),
        ("uncertainty", False),
        ("equal", True),
        ("true weights", True),
    ]
    pieces: dict[str, Piece] = {}
    for rule, own in wanted:
        name = f"{rule}, {'own' if own else 'same'} data"
        pieces[name] = partial(notebooks_setting, rule, own, size, device)
    pieces["published"] = partial(published_setting, size, device)
    return carry_out(RECORD, pieces, seconds, folder)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and spread of estimates and errors, by setting, rule and data."""
    groups = table.drop(columns="seed").groupby(["setting", "rule", "data"], sort=False)
    return groups.agg(["mean", "std"])
