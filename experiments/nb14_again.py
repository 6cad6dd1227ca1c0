"""Notebook 14: the sets on which nobody had come to rest, trained four times as long.

python -m experiments.nb14_again    writes results/14_again.jsonl, some 80 minutes on one core

After 300, 250 and 120 steps a lead may be early speed. Here those who lead on the mean of the five
sets, and what they are held against, train on with what was picked for the shorter training:
nothing is picked anew.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from experiments import benchmark
from experiments.benchmark import for_longer, train_block
from experiments.nb14_benchmark import ADAM
from experiments.nb14_benchmark import RECORD as SHORT
from mtl_utils import records, sweep

RECORD, TIMES = "14_again", 4
CONTENDERS = ("alone", "equal", "fixed", "fairgrad", "aligned_mtl", "nash_mtl", "cagrad")
STUDIES = {
    name: replace(
        study,
        contenders=tuple(c for c in study.contenders if c.name in CONTENDERS),
        epochs=(TIMES * study.epochs[0],),
    )
    for study in ADAM
    for name in study.data
    if name in ("digits", "glyphs", "rooms")
}


def block(data, optimiser, width, epochs, contender, trials, stage):
    """The unit of work: see `experiments.benchmark.train_block`."""
    return train_block(STUDIES[data], data, optimiser, width, epochs, contender, trials, stage)


def _shorter() -> pd.DataFrame:
    runs = records.read(SHORT)
    wanted = runs["data"].isin(list(STUDIES)) & runs["contender"].isin(CONTENDERS)
    return runs[wanted & (runs["optimiser"] == "adam")]


def configs() -> list[dict[str, Any]]:
    """The reports of the benchmark, for more epochs."""
    return for_longer(_shorter(), TIMES)


def with_picks(runs: pd.DataFrame) -> pd.DataFrame:
    """The record beside the trials of the benchmark: see `benchmark.with_picks`."""
    return benchmark.with_picks(runs, _shorter(), TIMES)


if __name__ == "__main__":
    sweep.run(block, configs(), record=RECORD, **sweep.options(__doc__))
