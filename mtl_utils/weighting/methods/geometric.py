"""Geometric mean of the losses: the direction of `log`, with steps that shrink as losses do."""

from __future__ import annotations

from torch import Tensor

from mtl_utils.weighting.base import register
from mtl_utils.weighting.checks import EPS_HINT, check_number, log_of
from mtl_utils.weighting.kinds import LossWeighting


@register(
    "geometric",
    title="Geometric mean (GLS)",
    year=2019,
    reads="losses",
    notebook="13",
    source="CVPR workshops 2019",
)
class GeometricMean(LossWeighting):
    """Geometric mean of the losses (geometric loss strategy, GLS).

    Formula:
        M = (prod_k (L_k + eps))^(1/K),   L_k + eps above 0

    weights[k] = M / (K (L_k + eps)): the direction of `log`, with a length that shrinks with the
    losses. Positive; one task has weight 1. With eps = 0, multiplying a loss by c multiplies the
    gradient by c^(1/K).

    Args:
        eps: at least 0, in units of the losses, as for `log`.

    Example:
        >>> losses = torch.tensor([0.5, 8.0], requires_grad=True)
        >>> make_weighting("geometric", 2).backward(losses)  # M = 2
        tensor([2.0000, 0.1250])

    Deviations:
        paper: multiplies the losses; the product of many over- or underflows, so this goes by
            logarithms.
        popular code: LibMTL multiplies too, and what it logs as weights is L_k / (K prod L), not
            M / (K L_k).

    Source: Chennupati, Sistu, Yogamani, Rawashdeh, CVPR workshops 2019.
    """

    def __init__(self, n_tasks: int, eps: float = 0.0) -> None:
        super().__init__(n_tasks)
        self.eps = check_number("eps", eps, "[0, inf)")

    def objective(self, losses: Tensor) -> Tensor:
        return log_of("losses", losses + self.eps, "geometric", EPS_HINT).mean().exp()
