"""Notebook 11 with more of everything: 16,000 glyphs of 32 x 32, 20 attributes, batches of 50.

Loss trend at two windows against equal weights and random ones, each at two learning rates, which
fall to 0. A block is one draw of the images and six initial weights; a step sees a batch of
training images and one of validation images, which only steer. The 20 heads are one layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from experiments.gpu.digits import tune_convolutions
from experiments.gpu.pieces import carry_out
from mtl_utils import Weighting, make_weighting
from mtl_utils.datasets import glyph_attributes
from mtl_utils.ensemble import train_many
from mtl_utils.ensemble_optim import many_optimizer
from mtl_utils.models import HardSharing

RECORD = "11_gpu"
RATES = (1e-3, 3e-3)
TASKS = 20
RULES: dict[str, tuple[str, dict]] = {
    "equal": ("equal", {}),
    "trend 200": ("loss_trend", {"window": 200}),
    "trend 50": ("loss_trend", {"window": 50}),
    "random": ("random", {}),
}


@dataclass(frozen=True)
class Size:
    """Of the data and the training."""

    train: int
    val: int
    test: int
    batch: int
    epochs: int
    starts: int
    blocks: int
    width: int


FULL = Size(16_000, 4000, 4000, 50, 5, 6, 3, 32)
SMALL = Size(40, 20, 20, 20, 2, 1, 2, 4)


def network(width: int) -> HardSharing:
    """Three convolutions and a linear layer, shared; 20 outputs."""
    layers: list[nn.Module] = []
    for fan_in, out, kernel in ((1, width // 2, 5), (width // 2, width, 3), (width, width, 3)):
        layers += [nn.Conv2d(fan_in, out, kernel, stride=2), nn.ReLU()]
    trunk = nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * width, 2 * width), nn.ReLU())
    return HardSharing(trunk, [nn.Linear(2 * width, TASKS)])


def task_losses(model: nn.Module, x: Tensor, y: Tensor, *steering: Tensor) -> Tensor:
    """Cross-entropy of each attribute, [20]; y [B, 20]."""
    (out,) = model(x)
    return binary_cross_entropy_with_logits(out, y, reduction="none").mean(0)


def observe(
    model: nn.Module, x: Tensor, y: Tensor, val_x: Tensor, val_y: Tensor
) -> dict[str, Tensor]:
    """The losses of the validation images beside the batch."""
    return {"val_losses": task_losses(model, val_x, val_y)}


def measured(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of each attribute, then the share of wrong answers, [40]."""
    (out,) = model(x)
    entropy = binary_cross_entropy_with_logits(out, y, reduction="none").mean(0)
    return torch.cat([entropy, ((out > 0) != (y > 0.5)).to(out.dtype).mean(0)])


def images(split: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Inputs, about standardised, and labels [N, 20]."""
    x, *labels = split
    return (x - 0.25) / 0.3, torch.stack(labels, 1)


def block(number: int, size: Size, device: torch.device | str) -> list[dict]:
    """All rules and rates on one draw of the images; a row for each network and measurement."""
    data = glyph_attributes(size.train, size.val, size.test, size=32, seed=number)
    train, val, test = (images(split) for split in (data.train, data.val, data.test))
    generator = torch.Generator().manual_seed(number)
    beside = torch.randint(size.val, (size.train,), generator=generator)  # drawn with replacement
    starts = [size.starts * number + start for start in range(size.starts)]
    members = [(rule, start, rate) for rule in RULES for start in starts for rate in RATES]

    def maker(rule: str) -> Callable[[], tuple[nn.Module, Weighting]]:
        name, options = RULES[rule]
        return lambda: (network(size.width), make_weighting(name, TASKS, **options))

    trained = train_many(
        [maker(rule) for rule, _, _ in members],
        task_losses,
        (*train, *(t[beside] for t in val)),
        [start for _, start, _ in members],
        size.epochs,
        size.batch,
        many_optimizer("adam", torch.tensor([rate for _, _, rate in members], device=device)),
        order_seeds=[start for _, start, _ in members],
        observe=observe,
        schedule="linear",
        metric=measured,
        splits={"val": val, "test": test},
        evaluate_at=range(1, size.epochs + 1),
        device=device,
        progress=False,
    )
    rows = []
    for m, (rule, start, rate) in enumerate(members):
        for e, epoch in enumerate(trained.epochs):
            row = {"block": number, "rule": rule, "start": start, "rate": rate, "epoch": epoch}
            for split, curve in trained.curves.items():
                entropy, error = curve[e, m].cpu().split(TASKS)
                row |= {f"{split} loss": entropy.mean().item()}
                row |= {f"{split} accuracy": 1 - error.mean().item()}
                row |= {f"{split} worst": 1 - error.max().item()}
            rows.append(row)
    return rows


def run(
    device: torch.device | str, seconds: float = 55, folder: Path | None = None, size: Size = FULL
) -> pd.DataFrame:
    """Train as many blocks as there is time for, write results/11_gpu.csv: loss, accuracy and that
    of the worst attribute for each network and epoch.

    Args:
        device: where to train.
        seconds, folder: see `carry_out`.
        size: of everything.
    """
    tune_convolutions()
    pieces = {
        f"block {number}": partial(block, number, size, device) for number in range(size.blocks)
    }
    return carry_out(RECORD, pieces, seconds, folder)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Test accuracy in percent after the last epoch, at the rate with the lowest validation loss of
    each start: mean, and the difference to equal weights, paired, with its standard error."""
    end = table[table.epoch == table.epoch.max()].reset_index(drop=True)
    best = end.loc[end.groupby(["rule", "start"], sort=False)["val loss"].idxmin()]
    wide = 100 * best.pivot(index="start", columns="rule", values="test accuracy")[list(RULES)]
    gain = wide.sub(wide["equal"], axis=0)
    columns = {"accuracy": wide.mean(), "minus equal": gain.mean(), "standard error": gain.sem()}
    return pd.DataFrame(columns)
