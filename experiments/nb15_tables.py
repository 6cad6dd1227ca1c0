"""Notebook 15: the tables and the figure of the tuned comparison, from its record."""

from __future__ import annotations

import pandas as pd

from experiments.benchmark import at_edge
from experiments.nb15_rooms import STUDY, against
from experiments.protocol import Study
from experiments.verdicts import LEVEL, entries, results

GAP = "difference (hundredths)"


def overview(table: pd.DataFrame, task: str = "mean") -> pd.DataFrame:
    """A table of `nb15_rooms.against` for readers: a row a contender, a column a data set.

    An entry is the difference of the errors in hundredths of that of a constant answer, its 95 %
    interval, and a star where it is decided after Holm's correction.
    """
    mine = table[table["task"] == task]
    return entries(mine, mine["data"], 1.0, mine["p_holm"] < LEVEL)


def differences(runs: pd.DataFrame, other: str = "equal", study: Study = STUDY) -> pd.DataFrame:
    """What `mtl_utils.plots.forest_plot` draws: each contender minus another one, mean over the
    tasks, in hundredths of the error of a constant answer; a row for each data set and seed, and
    whether the mean over the seeds is `decided` after Holm's correction."""
    keys = ["data", "contender", "seed"]
    means = results(study, runs).groupby(keys, sort=False)["error"].mean().unstack("contender")
    gaps = 100 * means.sub(means[other], axis=0).drop(columns=other)
    table = against(runs, other, study)
    table = table[table["task"] == "mean"].assign(decided=table["p_holm"] < LEVEL)
    long = gaps.melt(value_name=GAP, ignore_index=False).reset_index()
    return long.merge(table[["data", "contender", "decided"]], on=["data", "contender"])


def picked(runs: pd.DataFrame, study: Study = STUDY) -> pd.DataFrame:
    """What was picked, how many trials there were, and which knobs lie at the edge of what was
    tried; a row for each data set and contender."""
    rows = []
    for cell in study.cells():
        here = runs[runs["data"] == cell[0]]
        for contender in study.contenders:
            mine = here[here["contender"] == contender.name]
            tried = mine[mine["stage"] == "pick"].to_dict("records")
            trials = mine.loc[mine["stage"] == "report", "trial"]
            texts = [", ".join(f"{k} {v:.3g}" for k, v in trial.items()) for trial in trials]
            edge = ", ".join(at_edge(study, cell, contender.name, tried))
            row = {"data": cell[0], "contender": contender.name, "trials": len(tried)}
            rows.append(row | {"picked": "; ".join(texts), "at the edge": edge})
    return pd.DataFrame(rows)
