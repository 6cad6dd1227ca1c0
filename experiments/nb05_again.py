"""Notebook 05: how far the lead of weights by sample carries, at the picks of its record.

python -m experiments.nb05_again    writes results/05_again.jsonl, a few minutes on one core

`05_pair` has one pair of noise levels, two widths, two lengths, twenty seeds. Here what it picked
for uneven noise and 120 epochs trains again: on forty other seeds, with 64 units (the picks of 32),
for 400 epochs, and with noise of 0.5 in place of 2. Nothing is picked anew.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd
import torch

from experiments import nb05_pair as pair
from experiments.protocol import Trial, train_block
from experiments.verdicts import paired
from mtl_utils import records, sweep

RECORD, DATA = "05_again", "uneven noise"
CONTENDERS = ("fixed", "uncertainty", "heteroscedastic", "heteroscedastic, beta 0.5")
SETTINGS = {  # what is changed: width, width of the picks, epochs
    "fresh seeds, 16 units": (16, 16, 120),
    "fresh seeds, 32 units": (32, 32, 120),
    "64 units": (64, 32, 120),
    "400 epochs, 32 units": (32, 32, 400),
    "noise of 0.5, 32 units": (32, 32, 120),
}


def block(setting: str, contender: str, trial: Trial) -> list[dict[str, Any]]:
    """Train one contender on the seeds that report."""
    width, _, epochs = SETTINGS[setting]
    study = replace(pair.STUDY, losses=pair.losses_of(contender, DATA, epochs))
    if setting.startswith("fresh"):
        study = replace(study, reporting=tuple(range(20, 60)))
    if setting.startswith("noise"):
        study = replace(study, data={DATA: partial(pair.two_tasks, even=False, loud=0.5)})
    return train_block(study, DATA, "adamw", width, epochs, contender, [trial], "report")


def configs() -> list[dict[str, Any]]:
    """Every setting and contender, with the trial that `05_pair` picked."""
    runs = records.read("05_pair")
    runs = runs[(runs["data"] == DATA) & (runs["epochs"] == 120) & (runs["stage"] == "report")]
    found = []
    for setting, (_, picked_at, _) in SETTINGS.items():
        for contender in CONTENDERS:
            mine = (runs["width"] == picked_at) & (runs["contender"] == contender)
            (trial,) = runs.loc[mine, "trial"]
            found.append({"setting": setting, "contender": contender, "trial": trial})
    return found


def against(runs: pd.DataFrame, other: str) -> pd.DataFrame:
    """Each contender minus another one in each setting, paired by seed: the mean over both tasks of
    the squared error, in per cent of the other's; columns setting, contender, difference, low and
    high (95 %)."""
    errors = {
        (row["setting"], row["contender"]): torch.tensor(row["test"]).mean(1).numpy()
        for row in runs.to_dict("records")
    }
    rows = []
    for (setting, contender), mine in errors.items():
        if contender != other:
            theirs = errors[setting, other]
            found = paired(100 * (mine - theirs) / theirs.mean())
            ends = {name: found[name] for name in ("difference", "low", "high")}
            rows.append({"setting": setting, "contender": contender, **ends})
    return pd.DataFrame(rows)


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    sweep.run(block, configs(), record=RECORD, **sweep.options(__doc__))
