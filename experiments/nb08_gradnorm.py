"""Notebook 08: GradNorm on the toy of its paper, with two and with ten tasks, and its controls.

python -m experiments.nb08_gradnorm    writes results/08_gradnorm.jsonl

y_k = sigma_k tanh((B + E_k) x), the scales sigma_k from 1 to 100. The functions are those of the
paper at a smaller size (20 inputs, 10 outputs, trunk of two layers), from 200 rows that are fixed,
so that a training comes to rest; two widths; early and trained to a plateau; Adam.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from experiments.protocol import Contender, Study, run, sum_to_k, train_block, usual_controls
from experiments.search import Knob
from experiments.small import squared_errors, unexplained
from mtl_utils import make_weighting, sweep
from mtl_utils.datasets import MultiTaskData
from mtl_utils.models import HardSharing, mlp
from mtl_utils.weighting import Weighting

INPUTS, OUTPUTS, ROWS = 20, 10, {"train": 200, "val": 500, "test": 2000}
SIGMA = {2: (1.0, 100.0), 10: (48.0, 3.0, 54.0, 16.0, 9.0, 30.0, 52.0, 26.0, 47.0, 81.0)}


def toy(seed: int, n_tasks: int) -> MultiTaskData:
    """The functions and rows of one seed.

    The entries of B and E_k have standard deviations 10 and 3.5, inputs have length 1 (the paper
    leaves their distribution open).
    """
    own = torch.Generator().manual_seed(seed)
    common = 10 * torch.randn(OUTPUTS, INPUTS, generator=own)
    each = 3.5 * torch.randn(n_tasks, OUTPUTS, INPUTS, generator=own)
    splits: dict[str, tuple[Tensor, ...]] = {}
    for split, n in ROWS.items():
        x = torch.randn(n, INPUTS, generator=own)
        x = x / x.norm(dim=1, keepdim=True)
        targets = [
            sigma * torch.tanh(x @ (common + part).T)
            for sigma, part in zip(SIGMA[n_tasks], each, strict=True)
        ]
        splits[split] = (x, *targets)
    names = tuple(f"sigma {sigma:g}" for sigma in SIGMA[n_tasks])
    return MultiTaskData("GradNorm's toy", names, splits["train"], splits["val"], splits["test"])


def two_tasks(seed: int) -> MultiTaskData:
    return toy(seed, 2)


def ten_tasks(seed: int) -> MultiTaskData:
    return toy(seed, 10)


def shared(data: MultiTaskData, width: int) -> HardSharing:
    trunk = mlp(INPUTS, width, width, last=True)
    return HardSharing(trunk, [nn.Linear(width, OUTPUTS) for _ in data.tasks])


def single(data: MultiTaskData, width: int, task: int) -> nn.Sequential:
    return mlp(INPUTS, width, width, OUTPUTS)


def fixed_by_scale(n_tasks: int, power: float) -> Weighting:
    """Fixed weights in proportion to sigma^-power, which sum to K."""
    weights = torch.tensor(SIGMA[n_tasks]) ** -power
    return make_weighting("fixed", n_tasks, weights=n_tasks * weights / weights.sum())


BY_SCALE = Contender(
    "fixed",
    fixed_by_scale,
    knobs=(Knob("power", 1.0, 2**0.5, least=0.25, because="weights are nearly equal there"),),
    held={"weights": "in proportion to sigma^-power: ten ratios are too many to tune"},
)
OWN_RATE = Knob("own_rate", 0.1, reach=3, least=0.1 / 2**9, because="weights stay where they start")
ALPHA = Knob("alpha", 0.5, least=1 / 32, because="norms are level there; see alpha = 0")
RATE = Knob("lr", 0.025, reach=3, least=0.025 / 2**8, because="weights stay where they start")
HELD = {"floor": "a guard against weights below 0", "forms": "all tasks are regressions"}
UNCERTAINTY = Contender("uncertainty", "uncertainty", knobs=(OWN_RATE,), held=HELD)

STUDY = Study(
    data={"2 tasks": two_tasks, "10 tasks": ten_tasks},
    model=shared,
    single=single,
    losses=squared_errors,
    metric=unexplained,
    contenders=(
        *(c if c.name != "fixed" else BY_SCALE for c in usual_controls(units=True)),
        UNCERTAINTY,
        sum_to_k(UNCERTAINTY),
        Contender("gradnorm", "gradnorm", knobs=(ALPHA, RATE), held=HELD),
        Contender("gradnorm, alpha = 0", "gradnorm", {"alpha": 0.0}, knobs=(RATE,), held=HELD),
        Contender(
            "gradnorm, standardised",
            "gradnorm",
            knobs=(ALPHA, RATE),
            held=HELD,
            standardise=True,
        ),
    ),
    widths=(20, 40),
    epochs=(40, 500),
    rates={"adam": Knob("rate", 0.005)},
    batch_size=50,
    units=True,
)


def block(data, optimiser, width, epochs, contender, trials, stage):
    """The unit of work: see `experiments.protocol.train_block`."""
    return train_block(STUDY, data, optimiser, width, epochs, contender, trials, stage)


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    run(STUDY, block, record="08_gradnorm", **sweep.options(__doc__))
