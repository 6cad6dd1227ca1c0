"""Notebook 01: why does a second task help? A main task and helpers that know one thing each.

python -m experiments.nb01_helpers    writes results/01_helpers.jsonl

Three main tasks, one for each way in which a second task could help that Caruana proposed and that
a small experiment can show (Machine Learning 28, 1997), with helpers that can and helpers that
cannot help in this way:

- amplification: a smooth function, noisy labels; the helper has the same function and noise of its
  own, or an unrelated function, or nothing but noise;
- selection: 5 of 30 inputs matter; to the helper the same 5, or 5 others;
- eavesdropping: a sine of high frequency of a hidden direction; the helper is linear in the same
  direction, or in another one.

The helper's error counts nowhere: everybody is tuned, stopped and judged by the main task. "fixed"
is the weight of the helper, tuned; "alone" has no helper, and "untied" is alone at half the width.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from experiments.protocol import Study, run, train_block, usual_controls
from experiments.search import Knob
from experiments.small import n_inputs, squared_errors
from mtl_utils import sweep
from mtl_utils.datasets import MultiTaskData
from mtl_utils.models import HardSharing, mlp

ROWS = {"train": 100, "val": 300, "test": 1000}
MORE = ROWS | {"train": 500}  # of the sine, which is hard to find and not to be memorised
NOISE = 0.5


def directions(seed: int, inputs: int, count: int) -> Tensor:
    """Orthogonal directions of length 1, [inputs, count]."""
    own = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(inputs, count, generator=own)).Q


def data_of(
    seed: int,
    name: str,
    inputs: int,
    main: Callable[[Tensor], Tensor],
    helper: Callable[[Tensor], Tensor],
    noise: float,
    rows: Mapping[str, int] = ROWS,
) -> MultiTaskData:
    """Rows of a main task and its helper, functions of x [N, inputs] that return [N, 1].

    The main task has noise in its training and validation labels, none in those of the test.
    """
    own = torch.Generator().manual_seed(1000 + seed)
    splits: dict[str, tuple[Tensor, ...]] = {}
    for split, n in rows.items():
        x = torch.randn(n, inputs, generator=own)
        disturbed = noise * torch.randn(n, 2, generator=own)
        y = main(x) if split == "test" else main(x) + disturbed[:, :1]
        splits[split] = (x, y, helper(x) + disturbed[:, 1:])
    return MultiTaskData(name, ("main", "helper"), **splits)  # type: ignore[arg-type]


def wave(x: Tensor, direction: Tensor) -> Tensor:
    """A smooth function of one direction, [N, 1]."""
    z = x @ direction[:, None]
    return z + torch.sin(z)


def amplification(seed: int, helper: str) -> MultiTaskData:
    u, v = directions(seed, 10, 2).T
    helpers = {
        "the same function": lambda x: wave(x, u),
        "a stranger": lambda x: wave(x, v),
        "noise": lambda x: torch.zeros(len(x), 1),
    }
    name = f"amplification: {helper}"
    noise = 1.5 if helper == "noise" else NOISE
    data = data_of(seed, name, 10, lambda x: wave(x, u), helpers[helper], NOISE)
    if noise == NOISE:
        return data
    splits = {}
    for split in ROWS:
        x, y, other = getattr(data, split)
        splits[split] = (x, y, other * noise / NOISE)
    return MultiTaskData(name, data.tasks, **splits)


def selection(seed: int, same: bool) -> MultiTaskData:
    """Five inputs matter to the main task; to the helper the same five, or the next five."""
    own = torch.Generator().manual_seed(seed)
    order = torch.randperm(30, generator=own)
    u, v = torch.randn(2, 5, generator=own) / math.sqrt(5)
    first, second = order[:5], order[5:10]
    mine = first if same else second
    return data_of(
        seed,
        f"selection: {'the same' if same else 'other'} inputs",
        30,
        lambda x: wave(x[:, first], u),
        lambda x: wave(x[:, mine], v),
        NOISE,
    )


def eavesdropping(seed: int, same: bool) -> MultiTaskData:
    """A sine of a hidden direction; the helper is linear in the same direction or another."""
    u, v = directions(seed, 10, 2).T
    told = u if same else v
    return data_of(
        seed,
        f"eavesdropping: {'the same' if same else 'another'} direction",
        10,
        lambda x: 2**0.5 * torch.sin(3 * x @ u[:, None]),
        lambda x: x @ told[:, None],
        0.1,
        MORE,
    )


DATA = {
    "amplification: the same function": functools.partial(
        amplification, helper="the same function"
    ),
    "amplification: a stranger": functools.partial(amplification, helper="a stranger"),
    "amplification: noise": functools.partial(amplification, helper="noise"),
    "selection: the same inputs": functools.partial(selection, same=True),
    "selection: other inputs": functools.partial(selection, same=False),
    "eavesdropping: the same direction": functools.partial(eavesdropping, same=True),
    "eavesdropping: another direction": functools.partial(eavesdropping, same=False),
}


def shared(data: MultiTaskData, width: int) -> HardSharing:
    trunk = mlp(n_inputs(data), width, activation=nn.Tanh, last=True)
    return HardSharing(trunk, [nn.Linear(width, 1) for _ in range(2)])


def single(data: MultiTaskData, width: int, task: int) -> nn.Sequential:
    return mlp(n_inputs(data), width, 1, activation=nn.Tanh)


def of_the_main_task(model: nn.Module, x: Tensor, *targets: Tensor) -> Tensor:
    """Share of the main target's variance that is not explained, in the helper's place too: [2]."""
    error = squared_errors(model, x, *targets)[0] / targets[0].var()
    return error.expand(2)


STUDY = Study(
    data=DATA,
    model=shared,
    single=single,
    losses=squared_errors,
    metric=of_the_main_task,
    contenders=usual_controls(units=False),
    widths=(8, 32),
    epochs=(50, 400),
    rates={"adamw": Knob("rate", 0.02)},
    weight_decay=Knob(
        "weight_decay", 0.1, factor=4, reach=2, least=0.1 / 4**4, because="nothing decays there"
    ),
    batch_size=50,
)


def block(data, optimiser, width, epochs, contender, trials, stage):
    """The unit of work: see `experiments.protocol.train_block`."""
    return train_block(STUDY, data, optimiser, width, epochs, contender, trials, stage)


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    run(STUDY, block, record="01_helpers", **sweep.options(__doc__))
