"""Notebook 15 at 128 x 128 pixels, with a U-Net of 32 to 128 channels, in mixed precision.

Equal weights, uncertainty weighting and each task alone; depth in metres, and in centimetres for
the first two. Forward passes run in bfloat16 (`torch.autocast`), losses, weights and Adam in
float32; one training runs in float32 throughout, to show what the difference is. bfloat16 has the
range of float32, so that no gradient scaler is needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from experiments.gpu.pieces import Piece, carry_out, wait
from experiments.nb14_sets import CHANNELS, rooms_losses
from experiments.nb15_rooms import FORMS, errors
from experiments.nb15_sweep import miou
from mtl_utils import make_weighting
from mtl_utils.datasets import MultiTaskData, rooms
from mtl_utils.models import HardSharing, UNet

RECORD = "15_gpu"
RATE, OWN_RATE = 0.002, 0.02
Outputs = Callable[[Tensor], Sequence[Tensor]]


@dataclass(frozen=True)
class Size:
    """Of images, network and training."""

    pixels: int
    images: tuple[int, int, int]
    width: int
    batch: int
    epochs: int
    seeds: int


FULL = Size(128, (800, 8, 200), 32, 16, 12, 2)
SMALL = Size(16, (8, 4, 4), 4, 4, 1, 1)


@cache
def draw(size: Size, seed: int) -> MultiTaskData:
    """Rooms, depth in metres."""
    return rooms(*size.images, size=size.pixels, seed=seed)


def outputs_of(model: nn.Module, precision: str) -> Outputs:
    """The model's outputs in float32; what leads to them in the precision that is asked for."""

    def outputs(x: Tensor) -> list[Tensor]:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            found = model(x)
        return [out.float() for out in found]

    return outputs


def network(width: int) -> HardSharing:
    """A U-Net with a 1 x 1 convolution for each task."""
    return HardSharing(UNet(width), [nn.Conv2d(width, n, 1) for n in CHANNELS])


def train(
    rule: str, unit: str, precision: str, seed: int, size: Size, device: torch.device | str
) -> list[dict]:
    """Train one network, with a rule for three tasks or for one task alone; a row."""
    data = draw(size, seed)
    x, classes, depth, normals = (t.to(device) for t in data.train)
    scale = 100.0 if unit == "centimetres" else 1.0
    alone = data.tasks.index(rule) if rule in data.tasks else None
    torch.manual_seed(seed)
    model = network(size.width).to(device, memory_format=torch.channels_last)
    outputs = outputs_of(model, precision)
    options = {"forms": FORMS} if rule == "uncertainty" else {}
    name, n_tasks = ("equal", 1) if alone is not None else (rule, 3)
    weighting = make_weighting(name, n_tasks, **options).to(device)
    groups: list[dict] = [{"params": list(model.parameters())}]
    groups += [{"params": list(weighting.parameters()), "lr": OWN_RATE}]
    optimizer = torch.optim.Adam([g for g in groups if g["params"]], lr=RATE)
    generator = torch.Generator().manual_seed(seed)
    begin, steps = time.perf_counter(), 0
    for _ in range(size.epochs):
        for rows in torch.randperm(len(x), generator=generator).to(device).split(size.batch):
            batch = x[rows].contiguous(memory_format=torch.channels_last)
            targets = classes[rows], scale * depth[rows], normals[rows]
            found = rooms_losses(outputs, batch, *targets)  # type: ignore[arg-type]
            optimizer.zero_grad()
            weighting.backward(found if alone is None else found[alone : alone + 1])
            optimizer.step()
            steps += 1
    wait(device)
    ms = 1e3 * (time.perf_counter() - begin) / steps
    named = {"rule": rule, "unit": unit, "precision": precision, "seed": seed}
    row = named | held_out_errors(outputs, data, scale, device) | {"ms a step": ms}
    for k, sigma in enumerate(getattr(weighting, "sigma", ())):
        row[f"sigma {data.tasks[k]}"] = sigma.item()
    return [row]


@torch.no_grad()
def held_out_errors(
    outputs: Outputs, data: MultiTaskData, scale: float, device: torch.device | str
) -> dict[str, float]:
    """Wrong pixels, mean absolute error of the depth in metres, mean angle, and mean IoU; means
    over parts of 50 test images."""
    parts = zip(*(t.to(device).split(50) for t in data.test), strict=True)
    found, counts, iou = [], [], []
    for x, classes, depth, normals in parts:
        found.append(errors(outputs, x, classes, scale * depth, normals))  # type: ignore[arg-type]
        iou.append(miou(outputs, x, classes))  # type: ignore[arg-type]
        counts.append(float(len(x)))
    share = torch.tensor(counts, device=device) / sum(counts)
    wrong, metres, degrees = (share @ torch.stack(found)).tolist()
    mean_iou = (share @ torch.stack(iou)).item()
    return {"wrong": wrong, "metres": metres / scale, "degrees": degrees, "miou": mean_iou}


def run(
    device: torch.device | str, seconds: float = 45, folder: Path | None = None, size: Size = FULL
) -> pd.DataFrame:
    """Train all, write results/15_gpu.csv: a row for each training.

    Args:
        device: where to train.
        seconds, folder: see `carry_out`.
        size: of everything.
    """
    half = "bfloat16"
    wanted = [("uncertainty", "metres", half), ("equal", "metres", half)]
    wanted += [(rule, "centimetres", half) for rule in ("uncertainty", "equal")]
    wanted += [("equal", "metres", "float32")]
    wanted += [(task, "metres", half) for task in ("class", "depth", "normals")]
    pieces: dict[str, Piece] = {}
    for seed in range(size.seeds):
        for rule, unit, precision in wanted:
            name = f"{rule}, {unit}, {precision}, seed {seed}"
            pieces[name] = partial(train, rule, unit, precision, seed, size, device)
    return carry_out(RECORD, pieces, seconds, folder)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Means over the seeds, by rule, unit and precision; of a task alone its own error counts."""
    keys = ["rule", "unit", "precision"]
    return table.drop(columns="seed").groupby(keys, sort=False).mean()
