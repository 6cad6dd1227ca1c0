"""Notebook 04: three regressions on diamonds, one of which is noisy.

python -m experiments.nb04_diamonds    writes results/04_diamonds.jsonl

Log price, length and height; noise of three standard deviations in the heights to train on and to
choose by, none in those to judge by. Adam; two widths; early and trained to a plateau.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from experiments.protocol import Contender, Study, run, sum_to_k, train_block, usual_controls
from experiments.search import Knob
from experiments.small import shared_mlp, single_mlp, squared_errors
from mtl_utils import sweep
from mtl_utils.datasets import MultiTaskData, diamonds

TRAIN, VAL, TEST = 2000, 2000, 4000
NOISE = 3.0
IMPOSSIBLE = 10.0  # standard deviations: the table has a diamond of 3 cm


def noisy_heights(seed: int, in_dollars: bool = False) -> MultiTaskData:
    """Targets in standard deviations of the training rows; noise in the heights of train and val.

    Args:
        seed: of the rows and of the noise.
        in_dollars: the first target is the price in dollars, as it is, instead of its logarithm.
    """
    drawn = diamonds(n_train=TRAIN, n_test=VAL + TEST + 1, raw_price=in_dollars, seed=seed)
    x, *targets = (torch.cat(parts) for parts in zip(drawn.train, drawn.test, strict=True))
    possible = targets[2][:, 0].abs() < IMPOSSIBLE
    x, targets = x[possible], [y[possible] for y in targets]
    for k in range(1 if in_dollars else 0, 3):
        targets[k] = (targets[k] - targets[k][:TRAIN].mean()) / targets[k][:TRAIN].std()
    noise = NOISE * torch.randn(len(x), 1, generator=torch.Generator().manual_seed(seed))
    noisy, clean = (x, *targets[:2], targets[2] + noise), (x, *targets)
    train = tuple(t[:TRAIN] for t in noisy)
    val = tuple(t[TRAIN : TRAIN + VAL] for t in noisy)
    test = tuple(t[TRAIN + VAL : TRAIN + VAL + TEST] for t in clean)
    return MultiTaskData(drawn.name, drawn.tasks, train, val, test, drawn.source)


def rms_errors(model: nn.Module, x: Tensor, *targets: Tensor) -> Tensor:
    """Root mean square error of each task, in standard deviations, [K]."""
    return squared_errors(model, x, *targets).sqrt()


def fixed_at(name: str, *ratio: float) -> Contender:
    """Fixed weights in a given ratio, with sum K."""
    return Contender(name, "fixed", {"weights": [len(ratio) * r / sum(ratio) for r in ratio]})


UNCERTAINTY = Contender(
    "uncertainty",
    "uncertainty",
    knobs=(Knob("own_rate", 0.03, reach=3, least=0.03 / 2**8, because="the weights stay equal"),),
    held={"forms": "all tasks are regressions"},
)

CONTENDERS = (
    *usual_controls(units=False),
    fixed_at("same size at the start", 1, 1, 0.1),  # as if the noisy heights were standardised
    fixed_at("1, 1, 0.001", 1, 1, 0.001),
    fixed_at("learned ratio", 1, 13, 0.0014),  # where uncertainty ends on the picking seeds
    UNCERTAINTY,
    sum_to_k(UNCERTAINTY),
)

STUDY = Study(
    data={"noisy heights": noisy_heights},
    model=shared_mlp,
    single=single_mlp,
    losses=squared_errors,
    metric=rms_errors,
    contenders=CONTENDERS,
    widths=(16, 64),
    epochs=(20, 60),
    rates={"adam": Knob("rate", 0.004)},
    batch_size=100,
)


def block(data, optimiser, width, epochs, contender, trials, stage):
    """The unit of work: see `experiments.protocol.train_block`."""
    return train_block(STUDY, data, optimiser, width, epochs, contender, trials, stage)


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    run(STUDY, block, record="04_diamonds", **sweep.options(__doc__))
