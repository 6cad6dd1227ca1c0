"""Notebook 02: what does sharing cost on two overlapping digits, and against what?

python -m experiments.nb02_digits    writes results/02_digits.jsonl

A shared trunk with equal, tuned and random weights; two networks that have together as many hidden
units and parameters ("untied"); two networks of full width ("alone"). Adam; two widths; early and
trained to a plateau.
"""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from experiments.protocol import Study, run, train_block, usual_controls
from experiments.search import Knob
from experiments.small import cross_entropies, wrong
from mtl_utils import sweep
from mtl_utils.datasets import MultiTaskData, overlapping_digits
from mtl_utils.models import HardSharing, mlp

N_INPUTS, N_CLASSES = 324, 10


def pairs(seed: int) -> MultiTaskData:
    """Pairs of digits, 18 x 18, as rows of 324 numbers."""
    drawn = overlapping_digits(n_train=3000, n_val=1000, n_test=2000, size=18, seed=seed)
    splits = {
        split: (getattr(drawn, split)[0].flatten(1), *getattr(drawn, split)[1:])
        for split in ("train", "val", "test")
    }
    return replace(drawn, **splits)


def shared(data: MultiTaskData, width: int) -> HardSharing:
    """A hidden layer that both tasks share."""
    heads = [nn.Linear(width, N_CLASSES) for _ in data.tasks]
    return HardSharing(mlp(N_INPUTS, width, last=True), heads)


def single(data: MultiTaskData, width: int, task: int) -> nn.Sequential:
    """The same for one task."""
    return mlp(N_INPUTS, width, N_CLASSES)


STUDY = Study(
    data={"digits": pairs},
    model=shared,
    single=single,
    losses=cross_entropies,
    metric=wrong,
    contenders=usual_controls(units=False),
    widths=(12, 32),
    epochs=(10, 40),
    rates={"adam": Knob("rate", 0.003)},
    batch_size=100,
)


def block(data, optimiser, width, epochs, contender, trials, stage):
    """The unit of work: see `experiments.protocol.train_block`."""
    return train_block(STUDY, data, optimiser, width, epochs, contender, trials, stage)


if __name__ == "__main__":
    run(STUDY, block, record="02_digits", **sweep.options(__doc__))
