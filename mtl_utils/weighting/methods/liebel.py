"""Uncertainty weighting with a regulariser that keeps the objective above 0."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mtl_utils.weighting.base import register
from mtl_utils.weighting.kinds import LossWeighting


@register(
    "liebel",
    title="Liebel and Koerner",
    year=2018,
    reads="losses",
    notebook="03",
    source="arXiv 1805.06334",
)
class Liebel(LossWeighting):
    """Uncertainty weighting with another regulariser.

    Formula:
        sum_k L_k / (2 c_k^2) + log(1 + c_k^2),   L_k at least 0, c_k not 0

    Weights 1 / (2 c^2). The objective stays at or above 0, but a task's share weights[k] * L_k at
    the optimum is no longer 1/2 for every task: it goes to 0 for small losses and to 1 for large
    ones. Optimum: c^2 = (L + sqrt(L^2 + 8 L)) / 4.

    Attributes:
        c: parameter, [K], starts at 1; its sign does not matter. Give it to the optimiser, without
            weight decay.

    Example:
        >>> losses = torch.tensor([0.5, 4.0], requires_grad=True)
        >>> make_weighting("liebel", 2).backward(losses)
        tensor([0.5000, 0.5000])

    Deviations:
        popular code: "AutomaticWeightedLoss", often linked as the code of Kendall et al., is this
            method. It divides by c^2 unguarded; here a weight that is not finite is refused.

    Source: Liebel, Koerner, 2018, arXiv 1805.06334.
    """

    needs_nonnegative = True

    def __init__(self, n_tasks: int) -> None:
        super().__init__(n_tasks)
        self.c = nn.Parameter(torch.ones(n_tasks))

    def objective(self, losses: Tensor) -> Tensor:
        c2 = self.c**2
        return (losses / (2 * c2) + torch.log1p(c2)).sum()
