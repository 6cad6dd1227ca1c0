"""Notebook 13: scalarisations against tuned fixed weights, and what their lengths are worth.

python -m experiments.nb13_scalarisations    writes results/13_scalarisations.jsonl

Three related regressions whose losses are in different units (ratios of 1 : 100 : 10 000), and
three on diamonds, standardised; SGD and Adam; two widths; 300 steps, and trained to a plateau.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from experiments.protocol import Contender, Study, run, sum_to_k, train_block, usual_controls
from experiments.search import Knob
from experiments.small import n_inputs, squared_errors, unexplained
from mtl_utils import sweep
from mtl_utils.datasets import MultiTaskData, diamonds
from mtl_utils.models import HardSharing, mlp
from mtl_utils.weighting import LossWeighting, Weighting

ROWS, K = {"train": 150, "val": 500, "test": 1500}, 3
UNITS = (0.1, 1.0, 10.0)


# ---- data and networks -----------------------------------------------------------------------


def units(seed: int) -> MultiTaskData:
    """Three mixtures of the same four hidden features, in three units, with noise."""
    own = torch.Generator().manual_seed(seed)
    n = sum(ROWS.values())
    x = torch.randn(n, 10, generator=own)
    hidden = torch.tanh(x @ torch.randn(10, 4, generator=own) / 2)
    y = hidden @ torch.randn(4, K, generator=own)
    y = (y - y.mean(0)) / y.std(0) + 0.4 * torch.randn(n, K, generator=own)
    rows = (x, *(torch.tensor(UNITS) * y).split(1, 1))
    train, val, test = zip(*(t.split(list(ROWS.values())) for t in rows), strict=True)
    info = {"units": UNITS}
    return MultiTaskData("units", ("a", "b", "c"), train, val, test, info=info)


def stones(seed: int) -> MultiTaskData:
    """Diamonds, standardised; without the one impossible height."""
    data = diamonds(n_train=ROWS["train"], n_test=ROWS["val"] + ROWS["test"] + 1, seed=seed)
    possible = data.test[3][:, 0].abs() < 10
    held_out = [t[possible] for t in data.test]
    val = tuple(t[: ROWS["val"]] for t in held_out)
    test = tuple(t[ROWS["val"] :][: ROWS["test"]] for t in held_out)
    return MultiTaskData(data.name, data.tasks, data.train, val, test)


class Scale(nn.Module):
    """Outputs in the unit of their target, as a user who knows the unit would have them: so the
    units act on the losses alone."""

    def __init__(self, unit: float) -> None:
        super().__init__()
        self.unit = unit

    def forward(self, x: Tensor) -> Tensor:
        return self.unit * x


def _units_of(data: MultiTaskData) -> tuple[float, ...]:
    return data.info.get("units", (1.0,) * K)


def shared(data: MultiTaskData, width: int) -> HardSharing:
    trunk = mlp(n_inputs(data), width, activation=nn.Tanh, last=True)
    return HardSharing(
        trunk, [nn.Sequential(nn.Linear(width, 1), Scale(u)) for u in _units_of(data)]
    )


def single(data: MultiTaskData, width: int, task: int) -> nn.Sequential:
    net = mlp(n_inputs(data), width, 1, activation=nn.Tanh)
    return nn.Sequential(net, Scale(_units_of(data)[task]))


# ---- contenders ------------------------------------------------------------------------------


class LogOfTheSum(LossWeighting):
    """log sum_k L_k: the direction of equal weights, at the length of a logarithm."""

    name = "log of the sum"

    def objective(self, losses: Tensor) -> Tensor:
        return losses.sum().log()


def log_of_the_sum(n_tasks: int) -> Weighting:
    return LogOfTheSum(n_tasks)


OWN_RATE = Knob("own_rate", 0.1, reach=3, least=0.1 / 2**9, because="weights stay where they start")
UNCERTAINTY = Contender(
    "uncertainty", "uncertainty", knobs=(OWN_RATE,), held={"forms": "all tasks are regressions"}
)
LOG = Contender("log", "log", held={"eps": "a guard; no loss is near 0"})
FAMO = Contender(
    "famo",
    "famo",
    knobs=(Knob("lr", 0.025, reach=3, least=0.025 / 2**7, because="weights stay equal shares"),),
    held={
        "gamma": "0 and 1e-5 gave the same; it keeps the shares near equal",
        "lower": "the losses have no other lower bound than 0",
        "eps": "a guard",
    },
    twin="famo, sum K",
)
SOFT = Contender(
    "uncertainty_soft",
    "uncertainty_soft",
    knobs=(Knob("temperature", 4.0, 4.0, reach=3, most=4.0**8, because="weights are equal"),),
)

STUDY = Study(
    data={"units": units, "diamonds": stones},
    model=shared,
    single=single,
    losses=squared_errors,
    metric=unexplained,
    contenders=(
        *usual_controls(units=True),
        UNCERTAINTY,
        sum_to_k(UNCERTAINTY),
        LOG,
        sum_to_k(LOG),
        Contender("log of the sum", log_of_the_sum, twin="equal"),
        FAMO,
        sum_to_k(FAMO),
        SOFT,
    ),
    widths=(6, 24),
    epochs=(100, 700),
    rates={"sgd": Knob("rate", 0.05, reach=6), "adam": Knob("rate", 0.01)},
    batch_size=50,
    units=True,
    ratios={"units": [(UNITS[0] / unit) ** 2 for unit in UNITS[1:]]},  # those of 1 / variance
)


def block(data, optimiser, width, epochs, contender, trials, stage):
    """The unit of work: see `experiments.protocol.train_block`."""
    return train_block(STUDY, data, optimiser, width, epochs, contender, trials, stage)


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    run(STUDY, block, record="13_scalarisations_tuned", **sweep.options(__doc__))
