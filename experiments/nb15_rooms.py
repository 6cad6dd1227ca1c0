"""Notebook 15: class, depth and normals of every pixel of rendered rooms; learned weights, fixed
weights that were searched for, and each task alone.

python -m experiments.nb15_rooms    writes results/15_rooms.jsonl

Three data sets of the same rooms: depth in metres, in centimetres, and in metres with Laplace noise
of 1 m in the depth of training and validation images. A small U-Net, one width and one length, on
the protocol of the benchmark (`experiments.benchmark`); Adam.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, one_hot

from experiments.benchmark import run, train_block
from experiments.nb14_sets import CHANNELS, rooms_losses
from experiments.protocol import Contender, Study, sum_to_k
from experiments.search import Knob
from experiments.verdicts import holm, paired, results
from mtl_utils import make_weighting, sweep
from mtl_utils.datasets import MultiTaskData, rooms
from mtl_utils.models import HardSharing, UNet
from mtl_utils.weighting import Weighting

RECORD = "15_rooms"
FORMS = ("classification", "laplace", "regression")  # of the likelihoods, for uncertainty
IMAGES, SIZE = (120, 60, 200), 16  # training, validation, test; pixels to a side
NOISE = 1.0  # metres, scale of the Laplace noise of "noisy depth"

# ---- data -------------------------------------------------------------------------------------


def with_depth_noise(data: MultiTaskData, scale: float, seed: int) -> MultiTaskData:
    """Laplace noise in the depth of training and validation images; its mean absolute value is
    `scale`, in the unit of the depth. Test labels stay clean."""
    rng, splits = np.random.default_rng([seed, 15]), {}
    for split in ("train", "val"):
        x, classes, depth, normals = getattr(data, split)
        noise = torch.as_tensor(rng.laplace(0, scale, depth.shape), dtype=depth.dtype)
        splits[split] = (x, classes, depth + noise, normals)
    return replace(data, **splits)  # type: ignore[arg-type]


def draw(
    seed: int, centimetres: bool = False, noise: float = 0.0, images: Sequence[int] = IMAGES
) -> MultiTaskData:
    """Rooms of one seed at 16 x 16."""
    data = rooms(*images, size=SIZE, centimetres=centimetres, seed=seed)
    return with_depth_noise(data, noise, seed) if noise else data


def standard_depth(data: MultiTaskData) -> MultiTaskData:
    """Depth with mean 0 and standard deviation 1 over all pixels of the training images."""
    mean, spread = data.train[2].mean(), data.train[2].std()
    splits = {}
    for split in ("train", "val", "test"):
        x, classes, depth, normals = getattr(data, split)
        splits[split] = (x, classes, (depth - mean) / spread, normals)
    return replace(data, **splits)  # type: ignore[arg-type]


# ---- networks and errors ----------------------------------------------------------------------


def shared(data: MultiTaskData, width: int) -> HardSharing:
    """A U-Net with a 1 x 1 convolution for each task."""
    return HardSharing(UNet(width), [nn.Conv2d(width, n, 1) for n in CHANNELS])


def single(data: MultiTaskData, width: int, task: int) -> nn.Sequential:
    """The same for one task."""
    return nn.Sequential(UNet(width), nn.Conv2d(width, CHANNELS[task], 1))


def errors(model: nn.Module, x: Tensor, *targets: Tensor) -> Tensor:
    """Wrong pixels (share), mean absolute error of the depth, mean angle of the normals (degrees),
    [3]."""
    scores, depth, normals = model(x)
    return torch.stack(
        [
            (scores.argmax(-3) != targets[0]).to(depth.dtype).mean(),
            (depth - targets[1]).abs().mean(),
            angle(normals, targets[2]).mean(),
        ]
    )


def angle(one: Tensor, other: Tensor) -> Tensor:
    """Degrees between directions [..., 3, H, W], [..., H, W]."""
    cosine = (normalize(one, dim=-3) * normalize(other, dim=-3)).sum(-3)
    return cosine.clamp(-1, 1).arccos().rad2deg()


def of_a_constant(*targets: Tensor) -> Tensor:
    """The same errors of whoever always says the commonest class, the median depth and the mean
    normal of these images, [3]."""
    classes, depth, normals = targets
    mean = normals.mean((0, 2, 3), keepdim=True)
    shares = one_hot(classes, CHANNELS[0]).to(depth.dtype).mean((0, 1, 2))
    return torch.stack(
        [
            1 - shares.max(),
            (depth - depth.median()).abs().mean(),
            angle(mean.expand_as(normals), normals).mean(),
        ]
    )


def left(model: nn.Module, x: Tensor, *targets: Tensor) -> Tensor:
    """Errors as a share of what a constant answer has, [3]: no unit, 1 is as bad as a constant."""
    return errors(model, x, *targets) / of_a_constant(*targets)


# ---- the study --------------------------------------------------------------------------------


def by_task(n_tasks: int, depth: float, normals: float) -> Weighting:
    """Fixed weights of depth and normals, relative to that of the classes; they sum to 3."""
    weights = torch.tensor([1.0, depth, normals])
    return make_weighting("fixed", n_tasks, weights=n_tasks * weights / weights.sum())


OWN_RATE = Knob("own_rate", 0.03, 4.0, 2, least=0.03 / 4**5, because="weights stay as they start")
UNCERTAINTY = Contender("uncertainty", "uncertainty", {"forms": FORMS}, (OWN_RATE,))

STUDY = Study(
    data={
        "metres": draw,
        "centimetres": partial(draw, centimetres=True),
        "noisy depth": partial(draw, noise=NOISE),
    },
    model=shared,
    single=single,
    losses=rooms_losses,
    metric=left,
    contenders=(
        Contender("equal"),
        Contender(
            "fixed",
            by_task,
            knobs=(Knob("depth", 0.25, 4.0, 3), Knob("normals", 2.0, reach=2)),
            held={"weights": "made from the two ratios"},
        ),
        Contender("random", "random"),
        Contender("standardised", standardise=True),
        Contender("alone", network="alone"),
        Contender("alone, standardised", network="alone", standardise=True),
        Contender(
            "fixed, standardised",
            by_task,
            knobs=(Knob("depth", 1.0, reach=3), Knob("normals", 2.0, reach=2)),
            held={"weights": "made from the two ratios"},
            standardise=True,
        ),
        UNCERTAINTY,
        sum_to_k(UNCERTAINTY),
        replace(UNCERTAINTY, name="uncertainty, standardised", standardise=True),
    ),
    widths=(6,),
    epochs=(20,),
    rates={"adam": Knob("rate", 0.01, reach=3)},
    batch_size=12,
    units=True,
    standardise=standard_depth,
    trials=4,
    reporting=tuple(range(20)),
    evaluations=10,
)


def block(data, optimiser, width, epochs, contender, trials, stage):
    """The unit of work: see `experiments.benchmark.train_block`."""
    return train_block(STUDY, data, optimiser, width, epochs, contender, trials, stage)


def against(runs: pd.DataFrame, other: str = "equal", study: Study = STUDY) -> pd.DataFrame:
    """Each contender against another one, on each data set, paired by seed.

    Args:
        runs: the record.
        other: name of the other one.
        study: of which it is the record.

    Returns:
        A row for each data set, contender and task ("mean": over the three): `left`, the
        contender's mean test error as a share of that of a constant answer; `difference` to the
        other's with `low`, `high`, `p` and `detectable` as of `verdicts.paired`; `p_holm`,
        corrected for all rows of the data set.
    """
    found = results(study, runs)
    names = dict(enumerate(study.data["metres"](0).tasks))
    found["task"] = found["task"].map(names)
    keys = ["data", "contender", "task", "seed"]
    mean = found.groupby(["data", "contender", "seed"], sort=False)["error"].mean().reset_index()
    long = pd.concat([found[[*keys, "error"]], mean.assign(task="mean")])
    wide = long.set_index(keys)["error"].unstack("seed")
    rows = []
    for (data, contender, task), values in wide.iterrows():
        if contender != other:
            pairs = values - wide.loc[(data, other, task)]
            row = {"data": data, "contender": contender, "task": task, "left": values.mean()}
            rows.append(row | paired(pairs.to_numpy()))
    table = pd.DataFrame(rows)
    table["p_holm"] = table.groupby("data")["p"].transform(holm)
    return table


if __name__ == "__main__":
    run((STUDY,), block, record=RECORD, **sweep.options(__doc__))
