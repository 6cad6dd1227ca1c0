"""Notebook 15: the rooms with standardised depth, trained four times as long.

python -m experiments.nb15_again    writes results/15_again.jsonl, a quarter of an hour on one core

In `15_rooms` nothing is at rest after 20 epochs. Here those who have standardised depth train for
80, with what was picked for 20: nothing is picked anew.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from experiments import benchmark, nb15_rooms
from experiments.benchmark import for_longer, train_block
from mtl_utils import records, sweep

RECORD, TIMES = "15_again", 4
CONTENDERS = (
    "standardised",
    "fixed, standardised",
    "uncertainty, standardised",
    "alone, standardised",
)
STUDY = replace(
    nb15_rooms.STUDY,
    data={"metres": nb15_rooms.draw},
    contenders=tuple(c for c in nb15_rooms.STUDY.contenders if c.name in CONTENDERS),
    epochs=(TIMES * nb15_rooms.STUDY.epochs[0],),
)


def block(data, optimiser, width, epochs, contender, trials, stage):
    """The unit of work: see `experiments.benchmark.train_block`."""
    return train_block(STUDY, data, optimiser, width, epochs, contender, trials, stage)


def _shorter() -> pd.DataFrame:
    runs = records.read(nb15_rooms.RECORD)
    return runs[(runs["data"] == "metres") & runs["contender"].isin(CONTENDERS)]


def configs() -> list[dict[str, Any]]:
    """The reports of `15_rooms` in metres, for more epochs."""
    return for_longer(_shorter(), TIMES)


def with_picks(runs: pd.DataFrame) -> pd.DataFrame:
    """The record beside the trials of `15_rooms`: see `benchmark.with_picks`."""
    return benchmark.with_picks(runs, _shorter(), TIMES)


if __name__ == "__main__":
    sweep.run(block, configs(), record=RECORD, **sweep.options(__doc__))
