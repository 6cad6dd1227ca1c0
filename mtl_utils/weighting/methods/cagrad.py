"""CAGrad: the direction near the mean gradient that helps the worst-off task most."""

from __future__ import annotations

from mtl_utils import solvers
from mtl_utils.solvers import Array
from mtl_utils.weighting.base import register
from mtl_utils.weighting.checks import check_number
from mtl_utils.weighting.kinds import GramianWeighting


@register(
    "cagrad",
    title="CAGrad",
    year=2021,
    reads="gramian",
    notebook="12",
    source="arXiv 2110.14048",
)
class CAGrad(GramianWeighting):
    """Conflict-averse gradient descent.

    Formula:
        d = argmax min_k g_k' d   subject to   |d - g_0| <= c |g_0|,   g_0 = mean of the gradients

    c = 0 is the mean; for c < 1 the mean loss still converges; a large c tends to MGDA's direction.
    Where the gradients are Pareto stationary, d = g_0.

    Args:
        c: at least 0.

    Example:
        >>> make_weighting("cagrad", 2, c=0.5).coefficients(torch.eye(2))
        tensor([0.7500, 0.7500])

    Deviations:
        paper: none known; c is 0.4 on its scenes, as here, and 0.5 on its toy.
        official code: divides d by 1 + c^2 (images) or by 1 + c (toy), and solves by a general
            optimiser; here d has the paper's length, and the solution is exact.
        popular code: the code of Nash-MTL and of FAMO multiplies by K.

    Source: Liu, Liu, Jin, Stone, Liu, NeurIPS 2021, arXiv 2110.14048, algorithm 1.
    """

    def __init__(self, n_tasks: int, c: float = 0.4) -> None:
        super().__init__(n_tasks)
        self.c = check_number("c", c, "[0, inf)")

    def rule(self, gramian: Array) -> Array:
        return solvers.trust_ball(gramian, self.c)
