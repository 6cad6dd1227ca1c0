"""Notebook 08: two small toys on which GradNorm's parts can be seen.

What a comparison is based on is `nb08_gradnorm`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pandas as pd
import torch

from experiments.nb08_gradnorm import INPUTS, OUTPUTS, STUDY
from experiments.protocol import Study, _standardised
from mtl_utils import make_weighting
from mtl_utils.datasets import MultiTaskData

# ---- two regressions, one large and easy, one small and hard ---------------------------------

SCALE, STEEP = (10.0, 1.0), (0.3, 2.0)
ROWS = {"train": 3000, "val": 500, "test": 2000}


def easy_and_hard(seed: int) -> MultiTaskData:
    """y_k = scale_k tanh(steep_k B_k x) with random matrices B_k = 2 C + 0.7 E_k.

    C is common to both tasks, E_k is the task's own; the inputs have a length near 1. A steep tanh
    is nearly a step and hard to learn.
    """
    own = torch.Generator().manual_seed(seed)
    common = torch.randn(INPUTS, OUTPUTS, generator=own)
    each = torch.randn(2, INPUTS, OUTPUTS, generator=own)
    splits = {}
    for split, n in ROWS.items():
        x = torch.randn(n, INPUTS, generator=own) / math.sqrt(INPUTS)
        targets = [
            scale * torch.tanh(steep * x @ b)
            for scale, steep, b in zip(SCALE, STEEP, 2 * common + 0.7 * each, strict=True)
        ]
        splits[split] = (x, *targets)
    names = ("large and easy", "small and hard")
    return MultiTaskData("easy and hard", names, splits["train"], splits["val"], splits["test"])


SMALL = replace(STUDY, data={"easy and hard": easy_and_hard}, batch_size=100)


def standardised(study: Study) -> Study:
    """The study with every target in units of its spread on the training rows."""
    return replace(study, data={name: partial(_scaled, draw) for name, draw in study.data.items()})


def _scaled(draw: Callable[[int], MultiTaskData], seed: int) -> MultiTaskData:
    return _standardised(draw(seed))


# ---- two parameters --------------------------------------------------------------------------


def two_ways(alpha: float | None, steps: int = 300, rate: float = 0.01) -> pd.DataFrame:
    """L_k = theta_k^2 / 2 from theta = (1, 3), one parameter a task: nothing is shared.

    Args:
        alpha: of GradNorm; None for equal weights.
        steps: of plain gradient descent.
        rate: its learning rate, and that of GradNorm's weights.

    Returns:
        a row for each step and task: `left` of the loss, `weight`, and `pull`, the length of the
        weighted gradient.
    """
    theta = torch.tensor([1.0, 3.0], requires_grad=True)
    options = {} if alpha is None else {"alpha": alpha, "lr": rate}
    rule = make_weighting("equal" if alpha is None else "gradnorm", 2, **options)
    start = theta.detach().square() / 2
    rows = []
    for step in range(1, steps + 1):
        losses = theta.square() / 2
        theta.grad = None
        weights = rule.backward(losses, shared=[theta])
        left, pull = losses.detach() / start, (weights * theta).detach().abs()
        for k in range(2):
            row = {"step": step, "task": f"task {k + 1}", "left": left[k].item()}
            rows.append(row | {"weight": weights[k].item(), "pull": pull[k].item()})
        theta.data -= rate * theta.grad
    return pd.DataFrame(rows)
