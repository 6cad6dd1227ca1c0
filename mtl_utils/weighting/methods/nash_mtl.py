"""Nash-MTL: the bargaining solution, in which every task gains the same share."""

from __future__ import annotations

import numpy as np

from mtl_utils import solvers
from mtl_utils.solvers import Array
from mtl_utils.weighting.base import register
from mtl_utils.weighting.checks import check_number
from mtl_utils.weighting.kinds import GramianWeighting


@register(
    "nash_mtl",
    title="Nash-MTL",
    year=2022,
    reads="gramian",
    notebook="12",
    source="arXiv 2202.01017",
)
class NashMTL(GramianWeighting):
    """Multi-task learning as a bargaining game.

    Formula:
        alpha_k g_k' d = 1 for all k,   d = sum_k alpha_k g_k,   alpha > 0

    |d| = sqrt(K) whatever the gradients are, so with `max_norm` below that this is normalised
    descent. The scale of a loss does not change d. Where no direction improves every task, or a
    gradient is zero, there is nothing to bargain for: the coefficients are 0.

    Args:
        max_norm: longest d, above 0; infinity for no limit.

    Example:
        >>> rule = make_weighting("nash_mtl", 2, max_norm=float("inf"))
        >>> rule.coefficients(torch.tensor([[4.0, 0.0], [0.0, 1.0]]))
        tensor([0.5000, 1.0000])

    Deviations:
        paper: solves a sequence of convex programs; here one convex function is minimised exactly.
        official code: max_norm is 1, as here. It can keep alpha for several steps, as `every` does.
        popular code: the sequence of programs stops early where the norms lie far apart, and says
            nothing: relative residuals above 5000 were seen in TorchJD with norms 1, 100 and 0.01.

    Source: Navon et al., ICML 2022, arXiv 2202.01017, equation 2.
    """

    def __init__(self, n_tasks: int, max_norm: float = 1.0) -> None:
        super().__init__(n_tasks)
        self.max_norm = check_number("max_norm", max_norm, "(0, inf]")

    def rule(self, gramian: Array) -> Array:
        alpha = solvers.proportional_fairness(gramian)
        return alpha * min(1.0, self.max_norm / np.sqrt(len(gramian)))
