"""Notebook 04: what learned weights are worth on diamonds, the price standardised or in dollars.

python -m experiments.nb04_dollars    writes results/04_dollars.jsonl

The diamonds of `experiments.nb04_diamonds`: noisy heights, the first target is the price. With the
price in dollars: equal weights, and uncertainty weighting from log-variances at 0 or where the
price's has to end, at every pair of learning rates of a grid. With the price standardised: equal
weights, uncertainty weighting, and fixed weights in the ratio that it learns, at every learning
rate. All of it is in the record; the seeds from 100 on are there to choose by. A shared trunk of 64
units, Adam, two lengths.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from experiments.nb04_diamonds import noisy_heights
from experiments.small import shared_mlp, squared_errors
from mtl_utils import make_weighting, sweep
from mtl_utils.datasets import MultiTaskData
from mtl_utils.ensemble import early_stopping, train_many
from mtl_utils.ensemble_optim import many_optimizer

PICKING, REPORTING = tuple(range(100, 105)), tuple(range(20))
WIDTH, EPOCHS = 64, (20, 60)
LEARNED = 1.0, 13.0, 0.0014  # ratio of the weights where uncertainty ends, price standardised
SPREAD = 4000.0  # dollars: a standard deviation of the price, about
THERE = 2 * math.log(SPREAD)  # where the log-variance has to go while the price is not learned
RATES = (0.001, 0.004, 0.016, 0.064, 0.256)
NOT_TOO_LARGE = RATES[:2]  # above them equal weights lose the length
SMALL_RATES = (0.0000625, 0.00025)  # also tried where the price is standardised
OWN_RATES = (0.003, 0.03, 0.3, 1.0, 3.0)


def diamonds_in(unit: str, seed: int) -> MultiTaskData:
    """Diamonds with noisy heights and the price in "dollars" or in standard deviations, "sd"."""
    data = noisy_heights(seed, in_dollars=True)
    if unit == "dollars":
        return data
    price = data.train[1]
    mean, spread = price.mean(), price.std()
    splits = {
        split: (rows[0], (rows[1] - mean) / spread, *rows[2:])
        for split, rows in (("train", data.train), ("val", data.val), ("test", data.test))
    }
    return replace(data, **splits)


def train(rule: str, unit: str, rate: float, own_rate: float, start: float) -> list[dict[str, Any]]:
    """All seeds side by side.

    Args:
        rule: "equal", "uncertainty", or "fixed", at the ratio `LEARNED`.
        unit: of the price, see `diamonds_in`.
        rate: of the network.
        own_rate: of the log-variances.
        start: the price's log-variance at the start.

    Returns:
        a row for each seed and length: "seed", "epochs", the root mean square errors in standard
        deviations, [3], on validation rows ("val", of the best evaluation so far) and on test rows
        at that time ("test") and at the end ("last"), and "log_var", the price's at the end.
    """
    seeds = PICKING + REPORTING
    sets = [diamonds_in(unit, seed) for seed in seeds]
    rows = {
        split: [torch.stack(t) for t in zip(*(getattr(s, split) for s in sets), strict=True)]
        for split in ("train", "val", "test")
    }
    spread = torch.tensor([SPREAD if unit == "dollars" else 1.0, 1.0, 1.0])

    def make():
        ratio = {"weights": [3 * r / sum(LEARNED) for r in LEARNED]}
        weighting = make_weighting(rule, n_tasks=3, **(ratio if rule == "fixed" else {}))
        for log_vars in weighting.parameters():
            log_vars.data[0] = start
        return shared_mlp(sets[0], WIDTH), weighting

    def errors(model: nn.Module, *batch: Tensor) -> Tensor:
        return squared_errors(model, *batch).sqrt() / spread

    trained = train_many(
        make,
        squared_errors,
        rows.pop("train"),
        seeds,
        max(EPOCHS),
        batch_size=100,
        optimizer=many_optimizer("adam", rate, own_rate),
        order_seeds=seeds,
        own_data=True,
        record=["weighting.log_vars"] if rule == "uncertainty" else [],
        metric=errors,
        splits=rows,
        evaluate_at=range(0, max(EPOCHS) + 1, 5),
        progress=False,
    )
    found = []
    for epochs in EPOCHS:
        until = trained.epochs.index(epochs) + 1
        val, test = (trained.curves[split][:until] for split in ("val", "test"))
        _, (best_val, best_test) = early_stopping(val, test)
        log_vars = trained.history.get("weighting.log_vars")
        for s, seed in enumerate(seeds):
            row = {"seed": seed, "epochs": epochs}
            row |= {"val": finite(best_val[s]), "test": finite(best_test[s])}
            row["last"] = finite(test[-1, s])
            row["log_var"] = None if log_vars is None else log_vars[epochs - 1, s, 0]
            found.append(row)
    return found


def finite(values: Tensor) -> list[float | None]:
    """A list, with None where a training had diverged."""
    return [value if math.isfinite(value) else None for value in values.tolist()]


# ---- reading the record ----------------------------------------------------------------------

TASKS = ("price", "length", "height")
KNOBS = ["rate", "own_rate", "start", "epochs"]


def reported(runs: pd.DataFrame, when: str = "test") -> pd.DataFrame:
    """Rows of the reporting seeds, with an error a task in columns; NaN where it had diverged."""
    rows = runs[runs["seed"] < min(PICKING)].reset_index(drop=True)
    errors = pd.DataFrame(rows[when].tolist(), columns=list(TASKS), dtype=float)
    return pd.concat([rows[["rule", "unit", "seed", *KNOBS]], errors], axis=1)


def picked(runs: pd.DataFrame, rule: str, unit: str, start: float = 0.0) -> pd.DataFrame:
    """What `reported` has for the setting that the picking seeds chose.

    That is the one with the smallest error on validation rows, mean over tasks, at either length.
    """
    mine = runs[(runs["rule"] == rule) & (runs["unit"] == unit) & (runs["start"] == start)]
    trials = mine[mine["seed"] >= min(PICKING)]
    errors = pd.DataFrame(trials["val"].tolist(), index=trials.index, dtype=float)
    scores = errors.fillna(math.inf).mean(axis=1).groupby([trials[knob] for knob in KNOBS]).mean()
    chosen = (mine[KNOBS] == list(scores.idxmin())).all(axis=1)
    return reported(mine[chosen]).set_index("seed")


def config(rule: str, unit: str, rate: float, own_rate: float = 0.03, start: float = 0.0) -> dict:
    return {"rule": rule, "unit": unit, "rate": rate, "own_rate": own_rate, "start": start}


RULES = ("equal", "uncertainty", "fixed")
CONFIGS = [
    *(config(rule, "sd", rate) for rule in RULES for rate in SMALL_RATES + RATES),
    *(config("equal", "dollars", rate) for rate in RATES),
    *(config("uncertainty", "dollars", rate, start=THERE) for rate in NOT_TOO_LARGE),
    *(config("uncertainty", "dollars", rate, own) for rate in NOT_TOO_LARGE for own in OWN_RATES),
]

if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    sweep.run(train, CONFIGS, record="04_dollars", **sweep.options(__doc__))
