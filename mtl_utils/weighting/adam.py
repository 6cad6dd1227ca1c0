"""Adam for the few rules that learn their weights by themselves, beside the user's optimiser."""

from __future__ import annotations

from torch import Tensor

BETAS = (0.9, 0.999)
EPS = 1e-8


def adam(
    gradient: Tensor, first: Tensor, second: Tensor, steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of Adam, before its learning rate.

    Args:
        gradient: of this step, [K].
        first, second: moments before this step, [K]; zeros at first.
        steps: number of this step, from 1.

    Returns:
        what to subtract, times the learning rate; both moments after this step.

    Source: Kingma, Ba, ICLR 2015, arXiv 1412.6980, algorithm 1, with its settings.
    """
    first = BETAS[0] * first + (1 - BETAS[0]) * gradient
    second = BETAS[1] * second + (1 - BETAS[1]) * gradient**2
    mean = first / (1 - BETAS[0] ** steps)
    square = second / (1 - BETAS[1] ** steps)
    return mean / (square.sqrt() + EPS), first, second
