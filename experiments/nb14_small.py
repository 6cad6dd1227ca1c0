"""Notebook 14, the lesson: a benchmark in small, made as the large one is made.

python -m experiments.nb14_small    writes results/14_small.jsonl, a few minutes on one core

Four data sets of three regressions each, eight inputs, 80 rows; a trunk of one small layer. Tasks
are alike and share their hidden features; or each has features of its own; or their units differ;
or one target is mostly noise. It is there to read a benchmark with, not to say which rule is best.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from experiments.benchmark import run, step_time, train_block
from experiments.protocol import Contender, Study
from experiments.search import Knob
from mtl_utils import sweep
from mtl_utils.datasets import MultiTaskData
from mtl_utils.models import HardSharing, mlp

RECORD = "14_small"
INPUTS, FEATURES = 8, 6
ROWS = {"train": 80, "val": 80, "test": 400}
KINDS = {  # units of the three targets; noise of each, as a share of its spread
    "alike": ((1.0, 1.0, 1.0), (0.3, 0.3, 0.3)),
    "units": ((1.0, 3.0, 10.0), (0.3, 0.3, 0.3)),
    "noisy": ((1.0, 1.0, 1.0), (0.3, 0.3, 3.0)),
}


def draw(seed: int, kind: str, shared: bool) -> MultiTaskData:
    """Three regressions on hidden features that they share, or that each has for itself.

    The noise is in training and validation targets; test targets have none.
    """
    units, noise = KINDS[kind]
    generator = torch.Generator().manual_seed(seed)
    n = sum(ROWS.values())
    x = torch.randn(n, INPUTS, generator=generator)
    first = torch.randn(3, INPUTS, FEATURES, generator=generator) / INPUTS**0.5
    last = torch.randn(3, FEATURES, 1, generator=generator)
    errors = torch.randn(3, n, 1, generator=generator)
    errors[:, -ROWS["test"] :] = 0
    columns = [x]
    for k in range(3):
        y = torch.tanh(2 * x @ first[0 if shared else k]) @ last[k]
        y = (y - y.mean()) / y.std() + noise[k] * errors[k]
        columns.append(units[k] * y)
    splits = zip(*(t.split(list(ROWS.values())) for t in columns), strict=True)
    return MultiTaskData(kind, ("first", "second", "third"), *splits)


def model(data: MultiTaskData, width: int) -> HardSharing:
    return HardSharing(mlp(INPUTS, width, last=True), [nn.Linear(width, 1) for _ in range(3)])


def single(data: MultiTaskData, width: int, task: int) -> nn.Module:
    return mlp(INPUTS, width, 1)


def losses(network: nn.Module, x: Tensor, *targets: Tensor) -> Tensor:
    """Mean squared errors, [3]."""
    return torch.stack([mse_loss(o, y) for o, y in zip(network(x), targets, strict=True)])


def unexplained(network: nn.Module, x: Tensor, *targets: Tensor) -> Tensor:
    """Share of each target's variance that is not explained, [3]."""
    return losses(network, x, *targets) / torch.stack([y.var() for y in targets])


DATA: dict[str, Callable[[int], MultiTaskData]] = {
    "alike": partial(draw, kind="alike", shared=True),
    "apart": partial(draw, kind="alike", shared=False),
    "units": partial(draw, kind="units", shared=True),
    "noisy": partial(draw, kind="noisy", shared=True),
}
STUDY = Study(
    data=DATA,
    model=model,
    single=single,
    losses=losses,
    metric=unexplained,
    contenders=(
        Contender("alone", network="alone"),
        Contender("equal"),
        Contender("fixed", "fixed", ratios=True),
        Contender("uncertainty", "uncertainty", knobs=(Knob("own_rate", 0.03, 4.0, 2),)),
        Contender("log", "log"),
        Contender("mgda", "mgda"),
    ),
    widths=(12,),
    epochs=(60,),
    rates={"adam": Knob("rate", 0.03, reach=2)},
    batch_size=80,
    trials=4,
    reporting=tuple(range(20)),
    evaluations=10,
)


def block(data, optimiser, width, epochs, contender, trials, stage):
    """The unit of work: see `experiments.benchmark.train_block`."""
    return train_block(STUDY, data, optimiser, width, epochs, contender, trials, stage)


def cost(data, width, contender, steps):
    """Seconds of a step: see `experiments.benchmark.step_time`."""
    return step_time(STUDY, data, width, contender, steps)


if __name__ == "__main__":
    options = sweep.options(__doc__)
    run((STUDY,), block, record=RECORD, **options)
    configs = [
        {"data": next(iter(DATA)), "width": STUDY.widths[0], "contender": c.name, "steps": 200}
        for c in STUDY.contenders
    ]
    sweep.run(cost, configs, record=RECORD, **options | {"n_jobs": 1})
