"""Notebook 04: does the published toy gain anything from its weights?

python -m experiments.nb04_toy    writes results/04_toy.jsonl

y1 = 2x + 8 + 10 e1 and y2 = 3x + 3 + e2, 100 points to train on and 100 to choose by, each seed its
own; judged by the distance to the true lines, in units of each task's noise. Adam; batches of 20 as
published; two widths; early and trained to a plateau.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from experiments.nb04_diamonds import UNCERTAINTY, fixed_at
from experiments.protocol import Study, run, sum_to_k, train_block, usual_controls
from experiments.search import Knob
from experiments.small import shared_mlp, single_mlp, squared_errors
from mtl_utils import sweep
from mtl_utils.datasets import MultiTaskData, two_regressions

POINTS = 100
NOISE = (10.0, 1.0)


def points_and_lines(seed: int) -> MultiTaskData:
    """Noisy points in train and val, the true lines in test."""
    drawn = two_regressions(n=2 * POINTS, n_test=500, seed=seed)
    x = drawn.test[0]
    return MultiTaskData(
        drawn.name,
        drawn.tasks,
        train=tuple(t[:POINTS] for t in drawn.train),
        val=tuple(t[POINTS:] for t in drawn.train),
        test=(x, 2 * x + 8, 3 * x + 3),
    )


def in_noise(model: nn.Module, x: Tensor, *targets: Tensor) -> Tensor:
    """Mean squared error of each task, divided by the variance of its noise, [K]."""
    return squared_errors(model, x, *targets) / torch.tensor(NOISE).square()


STUDY = Study(
    data={"two lines": points_and_lines},
    model=shared_mlp,
    single=single_mlp,
    losses=squared_errors,
    metric=in_noise,
    contenders=(
        *usual_controls(units=False),
        fixed_at("1 / variance", 1 / 104, 1 / 10),  # as if the targets were standardised
        fixed_at("true noise", 1 / NOISE[0] ** 2, 1 / NOISE[1] ** 2),
        UNCERTAINTY,
        sum_to_k(UNCERTAINTY),
    ),
    widths=(32, 128),
    epochs=(40, 400),
    rates={"adam": Knob("rate", 0.004)},
    batch_size=20,
)


def block(data, optimiser, width, epochs, contender, trials, stage):
    """The unit of work: see `experiments.protocol.train_block`."""
    return train_block(STUDY, data, optimiser, width, epochs, contender, trials, stage)


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    run(STUDY, block, record="04_toy", **sweep.options(__doc__))
