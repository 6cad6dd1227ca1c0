"""Adam for the few rules that learn their weights by themselves, beside the user's optimiser."""

from __future__ import annotations

import math

import torch
from torch import Tensor

BETAS = (0.9, 0.999)
EPS = 1e-8


def adam(
    gradient: Tensor, first: Tensor, second: Tensor, steps: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of Adam, before its learning rate.

    Args:
        gradient: of this step, [K].
        first, second: moments before this step, [K]; zeros at first.
        steps: number of this step for each task, from 1, [K].

    Returns:
        what to subtract, times the learning rate; both moments after this step.

    Source: Kingma, Ba, ICLR 2015, arXiv 1412.6980, algorithm 1, with its settings.
    """
    first = BETAS[0] * first + (1 - BETAS[0]) * gradient
    second = BETAS[1] * second + (1 - BETAS[1]) * gradient**2
    mean = first / _begun(BETAS[0], steps, first)
    square = second / _begun(BETAS[1], steps, second)
    return mean / (square.sqrt() + EPS), first, second


def _begun(beta: float, steps: Tensor, like: Tensor) -> Tensor:
    """1 - beta^steps, to the last digit: what a moment that began with 0 has seen, in [0, 1]."""
    return -torch.expm1(steps.to(like) * math.log(beta))
