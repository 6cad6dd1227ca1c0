"""The step costs of `benchmarks/step_cost.py` on a graphics card: fewer models and rounds."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from benchmarks.step_cost import measure, peak_memory
from experiments.gpu.pieces import carry_out

RECORD = "step_cost_cuda"


@dataclass(frozen=True)
class Size:
    """Which models with how many tasks, in the order of their importance; contenders whose names
    begin so (None: all); how often."""

    models: tuple[tuple[str, int], ...]
    only: tuple[str, ...] | None
    rounds: int
    repeats: int


FULL = Size(
    tuple((name, 10) for name in ("resnet18", "transformer", "mmoe", "unet", "bert"))
    + tuple((name, 3) for name in ("resnet18", "transformer", "mmoe", "unet", "bert")),
    None,
    1,
    3,
)
SMALL = Size((("mmoe", 2),), ("ours: mgda", "loop: mgda", "naive"), 1, 1)


def one(name: str, n_tasks: int, size: Size, device: torch.device | str) -> list[dict]:
    """All contenders of one model."""
    kind = torch.device(device).type
    options = Namespace(device=kind, rounds=size.rounds, repeats=size.repeats, only=size.only)
    table = measure(name, n_tasks, options)
    if kind == "cuda":
        peaks = {c: peak_memory(name, n_tasks, c, kind) for c in ("ours: mgda", "naive: mgda")}
        table["peak_mib"] = table.contender.map(peaks)
    return table.to_dict("records")


def run(
    device: torch.device | str, seconds: float = 90, folder: Path | None = None, size: Size = FULL
) -> pd.DataFrame:
    """Time the steps, write results/step_cost_cuda.csv: the columns of step_cost.csv.

    Args:
        device: where to train.
        seconds, folder: see `carry_out`.
        size: of everything.
    """
    pieces = {
        f"{name}, {n_tasks} tasks": partial(one, name, n_tasks, size, device)
        for name, n_tasks in size.models
    }
    return carry_out(RECORD, pieces, seconds, folder)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Ratios to plain training, by contender and model."""
    return table.pivot(index="contender", columns=["model", "tasks"], values="ratio")
