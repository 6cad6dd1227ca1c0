"""FairGrad: a dial from the plain sum over Nash-MTL to equal progress."""

from __future__ import annotations

from mtl_utils import solvers
from mtl_utils.solvers import Array
from mtl_utils.weighting.base import register
from mtl_utils.weighting.checks import check_number
from mtl_utils.weighting.kinds import GramianWeighting


@register(
    "fairgrad",
    title="FairGrad",
    year=2024,
    reads="gramian",
    notebook="12",
    source="arXiv 2402.15638",
)
class FairGrad(GramianWeighting):
    """Alpha-fair progress.

    Formula:
        G w = w^(-1 / alpha),   w > 0,   d = sum_k w_k g_k

    alpha = 1 is Nash-MTL without its limit on the length, small alpha tends to the plain sum, large
    alpha to equal progress. Where no direction improves every task, the coefficients are 0.

    Args:
        alpha: above 0.

    Example:
        >>> rule = make_weighting("fairgrad", 2)
        >>> rule.coefficients(torch.tensor([[4.0, 0.0], [0.0, 1.0]]))
        tensor([0.5000, 1.0000])

    Deviations:
        official code: nonlinear least squares; here a convex function is minimised exactly.

    Source: Ban, Ji, ICML 2024, arXiv 2402.15638, equation 6.
    """

    def __init__(self, n_tasks: int, alpha: float = 1.0) -> None:
        super().__init__(n_tasks)
        self.alpha = check_number("alpha", alpha, "(0, inf)")

    def rule(self, gramian: Array) -> Array:
        return solvers.proportional_fairness(gramian, self.alpha)
