"""Soft optimal uncertainty weighting: a softmax of the inverse losses."""

from __future__ import annotations

import torch
from torch import Tensor

from mtl_utils.weighting.base import register
from mtl_utils.weighting.checks import check_number
from mtl_utils.weighting.kinds import LossWeighting


@register(
    "uncertainty_soft",
    title="UW-SO",
    year=2024,
    reads="losses",
    notebook="03",
    source="arXiv 2408.07985",
)
class SoftUncertainty(LossWeighting):
    """Soft optimal uncertainty weighting (UW-SO).

    Formula:
        weights = K softmax((1 / L) / temperature),   L_k at least 0

    The weights are constants in the backward pass. Uncertainty weighting at its optimum has weights
    proportional to 1 / L; the softmax bounds them: they are at least 0 and sum to K. They depend on
    the units of the losses, and so does the temperature, which has to be tuned. A task whose loss
    is 0 takes the whole weight, shared with others at 0.

    Args:
        temperature: above 0, in units of 1 / loss; large ones give equal weights.

    Example:
        >>> losses = torch.tensor([0.5, 1.0], requires_grad=True)
        >>> make_weighting("uncertainty_soft", 2).backward(losses)  # 2 softmax(2, 1)
        tensor([1.4621, 0.5379])

    Deviations:
        paper: its weights sum to 1; these sum to K, so that the step is as long as that of `equal`.

    Source: Kirchdorfer et al., GCPR 2024, arXiv 2408.07985.
    """

    needs_nonnegative = True

    def __init__(self, n_tasks: int, temperature: float = 1.0) -> None:
        super().__init__(n_tasks)
        self.temperature = check_number("temperature", temperature, "(0, inf]")

    def objective(self, losses: Tensor) -> Tensor:
        inverse = 1 / losses.detach().clamp_min(torch.finfo(losses.dtype).tiny)
        # softmax is the same after a shift; this one keeps inverse / temperature from overflowing
        weights = torch.softmax((inverse - inverse.max()) / self.temperature, 0)
        return self.n_tasks * (weights * losses).sum()

    def extra_repr(self) -> str:
        return f"n_tasks={self.n_tasks}, temperature={self.temperature:g}"
