"""Notebook 09 at full size: MGDA and its relatives on 36 x 36 digits, 20,000 pairs, a LeNet.

Each seed draws its pairs, the initial weights and the order of the rows, the same for all rules;
each rule runs at three learning rates, which fall to 0 along a cosine. `summary` picks, for each
seed, the rate (and for "tuned" also the weights) with the best validation accuracy. MGDA-UB reads
the gradients of the representation, which networks side by side do not have, so it trains one
network after another, on the same batches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from experiments.gpu.digits import draw, stacked, tune_convolutions
from experiments.gpu.pieces import Piece, carry_out
from experiments.small import cross_entropies, wrong
from mtl_utils import Weighting, make_weighting
from mtl_utils.datasets import MultiTaskData
from mtl_utils.ensemble import train_many
from mtl_utils.ensemble_optim import SCHEDULES, many_optimizer
from mtl_utils.models import digit_model

RECORD = "09_gpu"
RATES = (2e-3, 5e-3, 1e-2)
RULES: dict[str, tuple[str, dict]] = {
    "equal": ("fixed", {"weights": (1.0, 1.0)}),
    "fixed 0.35": ("fixed", {"weights": (0.7, 1.3)}),
    "uncertainty": ("uncertainty", {"forms": "classification"}),
    "mgda": ("mgda", {}),
    "mgda, norm": ("mgda", {"normalise": "norm"}),
}
GROUPS = (("equal", "fixed 0.35"), ("mgda",), ("uncertainty",), ("mgda, norm",))


@dataclass(frozen=True)
class Size:
    """Of the data and the training."""

    pixels: int
    pairs: int
    held_out: int
    batch: int
    epochs: int
    seeds: int


FULL = Size(36, 20_000, 2000, 250, 5, 3)
SMALL = Size(36, 40, 20, 20, 2, 2)


@cache
def pairs(size: Size, seed: int) -> MultiTaskData:
    """The data of one seed."""
    return draw(size.pairs, size.held_out, size.pixels, seed)


def rows_of(
    members: list[tuple[str, int, float]], val: Tensor, test: Tensor
) -> list[dict[str, object]]:
    """A row for each network, from shares of wrong classes, [M, 2] each."""
    return [
        {
            "rule": rule,
            "seed": seed,
            "rate": rate,
            "val left": 1 - val[m, 0].item(),
            "val right": 1 - val[m, 1].item(),
            "test left": 1 - test[m, 0].item(),
            "test right": 1 - test[m, 1].item(),
        }
        for m, (rule, seed, rate) in enumerate(members)
    ]


def side_by_side(rules: tuple[str, ...], size: Size, device: torch.device | str) -> list[dict]:
    """All seeds and rates of some rules."""
    draws = [pairs(size, seed) for seed in range(size.seeds)]
    members = [(rule, seed, r) for rule in rules for seed in range(size.seeds) for r in RATES]
    seeds = [seed for _, seed, _ in members]

    def maker(rule: str) -> Callable[[], tuple[nn.Module, Weighting]]:
        name, options = RULES[rule]
        return lambda: (digit_model(size.pixels), make_weighting(name, 2, **options))

    trained = train_many(
        [maker(rule) for rule, _, _ in members],
        cross_entropies,
        stacked(draws, "train"),
        seeds,
        size.epochs,
        size.batch,
        many_optimizer("adam", torch.tensor([r for _, _, r in members], device=device), 0.02),
        own_data=seeds,
        order_seeds=seeds,
        schedule="cosine",
        metric=wrong,
        splits={split: stacked(draws, split) for split in ("val", "test")},
        evaluate_at=[size.epochs],
        device=device,
        progress=False,
    )
    return rows_of(members, trained.curves["val"][0], trained.curves["test"][0])


def representation(seed: int, size: Size, device: torch.device | str) -> list[dict]:
    """MGDA-UB at all rates, as `train_many` trains the others."""
    data = pairs(size, seed).to(device)
    found: dict[str, list[Tensor]] = {"val": [], "test": []}
    for rate in RATES:
        torch.manual_seed(seed)
        model = digit_model(size.pixels).to(device)
        rule = make_weighting("mgda", 2, gramian="representation").to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=rate)
        generator = torch.Generator().manual_seed(seed)
        n_steps = -(-size.pairs // size.batch)
        for epoch in range(size.epochs):
            order = torch.randperm(size.pairs, generator=generator).to(device)
            for step, index in enumerate(order.split(size.batch)):
                share = (epoch * n_steps + step) / (size.epochs * n_steps)
                optimizer.param_groups[0]["lr"] = rate * SCHEDULES["cosine"](share)
                optimizer.zero_grad()
                losses = cross_entropies(model, *(t[index] for t in data.train))
                rule.backward(losses, model.trunk.parameters())
                optimizer.step()
        with torch.no_grad():
            for split, errors in found.items():
                errors.append(wrong(model, *getattr(data, split)))
    members = [("mgda-ub", seed, rate) for rate in RATES]
    return rows_of(members, torch.stack(found["val"]), torch.stack(found["test"]))


def run(
    device: torch.device | str, seconds: float = 65, folder: Path | None = None, size: Size = FULL
) -> pd.DataFrame:
    """Train all networks, write results/09_gpu.csv: accuracies for each rule, seed and rate.

    Args:
        device: where to train.
        seconds, folder: see `carry_out`.
        size: of everything.
    """
    tune_convolutions()
    together: dict[str, Piece] = {
        " and ".join(rules): partial(side_by_side, rules, size, device) for rules in GROUPS
    }
    one_by_one: dict[str, Piece] = {
        f"mgda-ub, seed {seed}": partial(representation, seed, size, device)
        for seed in range(size.seeds)
    }
    order = [*list(together)[:2], *one_by_one, *list(together)[2:]]  # what matters most first
    return carry_out(RECORD, {n: (together | one_by_one)[n] for n in order}, seconds, folder)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean test accuracies in percent, at the rate that is best on the validation pairs of each
    seed; "tuned" may also choose between equal weights and those of 0.35 and 0.65."""
    fixed = table[table.rule.isin(GROUPS[0])].assign(rule="tuned")
    both = pd.concat([table, fixed], ignore_index=True)
    both["val"] = both["val left"] + both["val right"]
    best = both.loc[both.groupby(["rule", "seed"], sort=False).val.idxmax()]
    return 100 * best.groupby("rule", sort=False)[["test left", "test right"]].mean()
