"""Notebook 14: the five task sets, each with a small network, losses, and errors to be averaged.

A seed draws the rows. Sizes are small, so that thousands of trainings fit into hours; the error of
a task is a share in [0, 1] that is 0 where all is right: of the variance that is not explained, of
wrong classes or pixels, 1 - area under the ROC curve (0.5 by chance) for attributes and genres that
are rare, and of the largest angle for normals.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    l1_loss,
    mse_loss,
    normalize,
)

from mtl_utils.datasets import (
    MultiTaskData,
    glyph_attributes,
    movie_genres,
    overlapping_digits,
    rooms,
)
from mtl_utils.datasets.tabular import _diamonds_table
from mtl_utils.models import HardSharing, mlp

# ---- diamonds: two regressions in units of their own and two classifications ------------------

ROWS = {"train": 960, "val": 500, "test": 2000}
INPUTS = ("x", "y", "z", "depth", "table")
GRADES = {
    "cut": ("Fair", "Good", "Very Good", "Premium", "Ideal"),
    "clarity": ("I1", "SI2", "SI1", "VS2", "VS1", "VVS2", "VVS1", "IF"),
}


def stones(seed: int) -> MultiTaskData:
    """Size, proportions and colour of a diamond -> price (thousand dollars), weight (carats),
    cut, clarity. The weights of training and validation rows are read off a bad scale: noise of
    half a carat, as much as their own spread; test weights are right."""
    table, colours = _stones()
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(table), generator=generator)[: sum(ROWS.values())].tolist()
    part = table.iloc[rows]
    x = torch.tensor(part[list(INPUTS)].to_numpy(float))
    n = ROWS["train"]
    x = torch.cat([(x - x[:n].mean(0)) / x[:n].std(0), colours[rows]], 1).clamp(-5, 5)
    price = torch.tensor(part["price"].to_numpy(float) / 1000)[:, None]
    weight = torch.tensor(part["carat"].to_numpy(float))[:, None]
    noise = 0.5 * torch.randn(len(rows), 1, generator=generator)
    noise[-ROWS["test"] :] = 0
    grades = [
        torch.tensor([names.index(value) for value in part[column]])
        for column, names in GRADES.items()
    ]
    columns = (x.float(), price.float(), (weight + noise).float(), *grades)
    splits = zip(*(t.split(list(ROWS.values())) for t in columns), strict=True)
    return MultiTaskData("diamonds", ("price", "weight", *GRADES), *splits)


@cache
def _stones() -> tuple:
    table = _diamonds_table()
    table = table[(table["y"] < 20) & (table["z"] < 20)].reset_index(drop=True)
    codes = torch.tensor(table["color"].astype("category").cat.codes.to_numpy()).long()
    return table, nn.functional.one_hot(codes).double()


OUTPUTS = (1, 1, 5, 8)


def stones_model(data: MultiTaskData, width: int) -> HardSharing:
    trunk = mlp(data.train[0].shape[1], width, width, last=True)
    return HardSharing(trunk, [nn.Linear(width, n) for n in OUTPUTS])


def stones_single(data: MultiTaskData, width: int, task: int) -> nn.Module:
    return mlp(data.train[0].shape[1], width, width, OUTPUTS[task])


def stones_losses(model: nn.Module, x: Tensor, *targets: Tensor) -> Tensor:
    price, weight, cut, clarity = model(x)
    return torch.stack(
        [
            mse_loss(price, targets[0]),
            mse_loss(weight, targets[1]),
            cross_entropy(cut, targets[2]),
            cross_entropy(clarity, targets[3]),
        ]
    )


def stones_errors(model: nn.Module, x: Tensor, *targets: Tensor) -> Tensor:
    outputs = model(x)
    regressions = [
        mse_loss(out, y) / y.var() for out, y in zip(outputs[:2], targets[:2], strict=True)
    ]
    classes = [
        (out.argmax(-1) != c).to(out.dtype).mean()
        for out, c in zip(outputs[2:], targets[2:], strict=True)
    ]
    return torch.stack([*regressions, *classes])


# ---- overlapping digits -----------------------------------------------------------------------


def digits(seed: int) -> MultiTaskData:
    """Two overlapping digits at 18 x 18."""
    return overlapping_digits(1200, 500, 2000, size=18, seed=seed)


def digits_trunk(width: int) -> nn.Sequential:
    """A convolution in steps of two pixels and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(392, width), nn.ReLU()
    )


def digits_model(data: MultiTaskData, width: int) -> HardSharing:
    return HardSharing(digits_trunk(width), [nn.Linear(width, 10) for _ in range(2)])


def digits_single(data: MultiTaskData, width: int, task: int) -> nn.Module:
    return nn.Sequential(digits_trunk(width), nn.Linear(width, 10))


# ---- many yes-or-no questions: attributes of glyphs, genres of films ---------------------------

ATTRIBUTES = 14


def glyphs(seed: int) -> MultiTaskData:
    """The first 14 attributes that a character, its ink and its font have, at 16 x 16."""
    data = glyph_attributes(1200, 500, 1000, size=16, seed=seed)
    splits = {
        s: (getattr(data, s)[0].flatten(1), *getattr(data, s)[1 : ATTRIBUTES + 1])
        for s in ("train", "val", "test")
    }
    return MultiTaskData(data.name, data.tasks[:ATTRIBUTES], **splits)  # type: ignore[arg-type]


def questions_model(data: MultiTaskData, width: int) -> HardSharing:
    trunk = mlp(data.train[0].shape[1], width, width, last=True)
    return HardSharing(trunk, [nn.Linear(width, 1) for _ in data.tasks])


def questions_single(data: MultiTaskData, width: int, task: int) -> nn.Module:
    return mlp(data.train[0].shape[1], width, width, 1)


def log_losses(model: nn.Module, x: Tensor, *answers: Tensor) -> Tensor:
    """Cross-entropy of each yes-or-no question, [K]."""
    pairs = zip(model(x), answers, strict=True)
    return torch.stack([binary_cross_entropy_with_logits(out[..., 0], y) for out, y in pairs])


def out_of_order(model: nn.Module, x: Tensor, *answers: Tensor) -> Tensor:
    """Share of pairs of a yes and a no that a question's scores have in the wrong order (ties count
    half): 1 - area under the ROC curve, [K]; NaN where all answers are the same."""
    errors = []
    for out, y in zip(model(x), answers, strict=True):
        # mean rank of ties, from the number of scores below and not above; by sorting
        score = out[..., 0].contiguous()
        ordered = score.sort().values.contiguous()
        below = torch.searchsorted(ordered, score)
        not_above = torch.searchsorted(ordered, score, right=True)
        rank = (below + not_above + 1) / 2
        yes, no = y.sum(), (1 - y).sum()
        errors.append(1 - ((rank * y).sum() - yes * (yes + 1) / 2) / (yes * no))
    return torch.stack(errors)


WORDS, LENGTH = 1000, 12


def films(seed: int) -> MultiTaskData:
    """Genres of films from title, director and cast: the eight that 1500 films have."""
    return movie_genres(
        1440, 600, 2000, text="title+people", least=1500, length=LENGTH, n_words=WORDS, seed=seed
    )


class MeanWord(nn.Module):
    """The mean of the embeddings of a text's words, [B, L] -> [B, width]; word 0 is padding."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, width)
        nn.init.normal_(self.embed.weight, std=0.3)

    def forward(self, numbers: Tensor) -> Tensor:
        there = (numbers != 0).to(self.embed.weight.dtype)[..., None]
        return (self.embed(numbers) * there).sum(-2) / there.sum(-2).clamp(min=1)


def films_trunk(width: int) -> nn.Sequential:
    return nn.Sequential(MeanWord(width // 2), nn.Linear(width // 2, width), nn.ReLU())


def films_model(data: MultiTaskData, width: int) -> HardSharing:
    return HardSharing(films_trunk(width), [nn.Linear(width, 1) for _ in data.tasks])


def films_single(data: MultiTaskData, width: int, task: int) -> nn.Module:
    return nn.Sequential(films_trunk(width), nn.Linear(width, 1))


# ---- rooms --------------------------------------------------------------------------------------


def small_rooms(seed: int) -> MultiTaskData:
    """Class, depth in metres and normals of every pixel, at 12 x 12."""
    return rooms(160, 80, 200, size=12, seed=seed)


class Encoder(nn.Module):
    """Convolutions at full size and at half; what both found is mixed pixel by pixel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fine = nn.Conv2d(3, width, 3, padding=1)
        self.coarse = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.around = nn.Conv2d(2 * width, 2 * width, 3, padding=2, dilation=2)
        self.mix = nn.Conv2d(3 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(x).relu()
        coarse = self.around(self.coarse(fine).relu()).relu()
        back = coarse.repeat_interleave(2, -1).repeat_interleave(2, -2)
        return self.mix(torch.cat([fine, back], -3)).relu()


CHANNELS = (5, 1, 3)


def rooms_model(data: MultiTaskData, width: int) -> HardSharing:
    return HardSharing(Encoder(width), [nn.Conv2d(width, n, 1) for n in CHANNELS])


def rooms_single(data: MultiTaskData, width: int, task: int) -> nn.Module:
    return nn.Sequential(Encoder(width), nn.Conv2d(width, CHANNELS[task], 1))


def rooms_losses(model: nn.Module, x: Tensor, *targets: Tensor) -> Tensor:
    """Cross-entropy, mean absolute error of the depth, mean of 1 - cos of the normals' angle."""
    scores, depth, normals = model(x)
    cosine = (normalize(normals, dim=-3) * targets[2]).sum(-3)
    return torch.stack(
        [
            cross_entropy(scores, targets[0]),
            l1_loss(depth, targets[1]),
            (1 - cosine).mean(),
        ]
    )


def rooms_errors(model: nn.Module, x: Tensor, *targets: Tensor) -> Tensor:
    """Share of wrong pixels, of the depth's variance not explained, of the angle of 180 degrees."""
    scores, depth, normals = model(x)
    cosine = (normalize(normals, dim=-3) * targets[2]).sum(-3).clamp(-1, 1)
    return torch.stack(
        [
            (scores.argmax(-3) != targets[0]).to(depth.dtype).mean(),
            mse_loss(depth, targets[1]) / targets[1].var(),
            cosine.arccos().mean() / math.pi,
        ]
    )
