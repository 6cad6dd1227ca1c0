"""Notebook 07: dynamic task priority and uncertainty weighting, with and without a noisy task.

python -m experiments.nb07_dtp    writes results/07_dtp.jsonl

Two overlapping digits at 7 x 7 pixels, the left one whole and easier; none or 40 % of its training
labels are wrong. Validation and test labels are right. Adam, and SGD with momentum; two widths;
early and trained to a plateau.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from experiments.protocol import Contender, Study, run, sum_to_k, train_block, usual_controls
from experiments.search import Knob
from experiments.small import cross_entropies, wrong
from mtl_utils import sweep
from mtl_utils.datasets import MultiTaskData, overlapping_digits
from mtl_utils.models import HardSharing, mlp

CLASSES, PIXELS = 10, 49


def digits(seed: int, share: float) -> MultiTaskData:
    """The frame of the left digit, 49 pixels; this share of its training labels is wrong."""
    data = overlapping_digits(1000, 500, 2000, size=18, seed=seed)
    own = torch.Generator().manual_seed(seed)
    splits: dict[str, tuple[Tensor, ...]] = {}
    for split in ("train", "val", "test"):
        images, left, right = getattr(data, split)
        x = avg_pool2d(images, 2)[:, :, :7, :7].flatten(1).to(torch.get_default_dtype())
        if split == "train":
            is_wrong = torch.rand(len(left), generator=own) < share
            other = (left + torch.randint(1, CLASSES, left.shape, generator=own)) % CLASSES
            left = torch.where(is_wrong, other, left)
        splits[split] = (x, left, right)
    return MultiTaskData(
        "two digits", ("left", "right"), splits["train"], splits["val"], splits["test"]
    )


def clean(seed: int) -> MultiTaskData:
    return digits(seed, share=0.0)


def noisy(seed: int) -> MultiTaskData:
    return digits(seed, share=0.4)


def shared(data: MultiTaskData, width: int) -> HardSharing:
    trunk = mlp(PIXELS, width, activation=nn.Tanh, last=True)
    return HardSharing(trunk, [nn.Linear(width, CLASSES) for _ in data.tasks])


def single(data: MultiTaskData, width: int, task: int) -> nn.Sequential:
    return mlp(PIXELS, width, CLASSES, activation=nn.Tanh)


def kpis(model: nn.Module, x: Tensor, *classes: Tensor) -> dict[str, Tensor]:
    """Accuracy of each task on the batch."""
    return {"kpis": 1 - wrong(model, x, *classes)}


DTP = Contender(
    "dtp",
    "dtp",
    knobs=(Knob("gamma", 1.0, reach=3, least=1 / 16, because="the weights are -log KPI there"),),
    held={
        "momentum": "an average over ten batches, against the noise of one; the paper names none",
        "kpi_min": "a guard where the logarithm ends",
    },
)
UNCERTAINTY = Contender(
    "uncertainty",
    "uncertainty",
    {"forms": "classification"},
    knobs=(
        Knob("own_rate", 0.03, reach=3, least=0.03 / 2**8, because="weights stay where they start"),
    ),
)

STUDY = Study(
    data={"all labels right": clean, "40 % of the left labels wrong": noisy},
    model=shared,
    single=single,
    losses=cross_entropies,
    metric=wrong,
    contenders=(
        *usual_controls(units=False),
        DTP,
        sum_to_k(DTP),
        UNCERTAINTY,
        sum_to_k(UNCERTAINTY),
    ),
    widths=(8, 24),
    epochs=(15, 100),
    rates={"adam": Knob("rate", 0.01), "momentum": Knob("rate", 0.02)},
    batch_size=50,
    observe=kpis,
)


def block(data, optimiser, width, epochs, contender, trials, stage):
    """The unit of work: see `experiments.protocol.train_block`."""
    return train_block(STUDY, data, optimiser, width, epochs, contender, trials, stage)


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    run(STUDY, block, record="07_dtp", **sweep.options(__doc__))
