"""Notebook 15: the rooms with standardised depth, trained four times as long.

python -m experiments.nb15_again    writes results/15_again.jsonl, a quarter of an hour on one core

In `15_rooms` nothing is at rest after 20 epochs. Here those who have standardised depth train for
80, with what was picked for 20: nothing is picked anew.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from experiments import nb15_rooms
from experiments.benchmark import train_block
from mtl_utils import records, sweep

RECORD, EPOCHS = "15_again", 80
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
    epochs=(EPOCHS,),
)


def block(data, optimiser, width, epochs, contender, trials, stage):
    """The unit of work: see `experiments.benchmark.train_block`."""
    return train_block(STUDY, data, optimiser, width, epochs, contender, trials, stage)


def configs() -> list[dict[str, Any]]:
    """The reports of `15_rooms` in metres, for more epochs."""
    runs = records.read(nb15_rooms.RECORD)
    runs = runs[(runs["stage"] == "report") & (runs["data"] == "metres")]
    runs = runs[runs["contender"].isin(CONTENDERS)]
    names = ["data", "optimiser", "width", "contender", "stage"]
    return [
        {name: row[name] for name in names} | {"epochs": EPOCHS, "trials": [row["trial"]]}
        for row in runs.to_dict("records")
    ]


def with_picks(runs: pd.DataFrame) -> pd.DataFrame:
    """The record beside the trials of `15_rooms`, by which tasks alone find their reports."""
    picking = records.read(nb15_rooms.RECORD).query("stage == 'pick' and data == 'metres'")
    picking = picking[picking["contender"].isin(CONTENDERS)].assign(epochs=EPOCHS)
    return pd.concat([picking, runs], ignore_index=True)


if __name__ == "__main__":
    sweep.run(block, configs(), record=RECORD, **sweep.options(__doc__))
