"""IMTL-L: learned weights that bring all weighted losses to 1."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mtl_utils.weighting.base import register
from mtl_utils.weighting.kinds import LossWeighting


@register(
    "imtl_l",
    title="IMTL-L",
    year=2021,
    reads="losses",
    notebook="13",
    source="ICLR 2021",
)
class ImtlL(LossWeighting):
    """IMTL-L, the loss balance of impartial multi-task learning.

    Formula:
        sum_k exp(s_k) L_k - s_k,   L_k at least 0

    weights = exp(s), positive. At the optimum exp(s_k) L_k = 1 for every task. This is twice
    `uncertainty` (regression form) with s = -log_vars; so it lags as that does, and is scale
    invariant at the optimum only. A loss that stays at 0 makes its weight grow without end.

    Attributes:
        log_weights: parameter s, [K], starts at 0. Give it to the optimiser, without weight decay.

    Example:
        >>> losses = torch.tensor([0.5, 4.0], requires_grad=True)
        >>> weighting = make_weighting("imtl_l", 2)
        >>> weighting.backward(losses)
        tensor([1., 1.])
        >>> weighting.log_weights.grad  # exp(s) L - 1
        tensor([-0.5000,  3.0000])

    Deviations:
        paper: pairs it with IMTL-G on the gradients; here each of them is a rule of its own.

    Source: Liu et al., ICLR 2021, "Towards Impartial Multi-Task Learning".
    """

    needs_nonnegative = True

    def __init__(self, n_tasks: int) -> None:
        super().__init__(n_tasks)
        self.log_weights = nn.Parameter(torch.zeros(n_tasks))

    def objective(self, losses: Tensor) -> Tensor:
        return (torch.exp(self.log_weights) * losses - self.log_weights).sum()
