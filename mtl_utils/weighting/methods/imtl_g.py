"""IMTL-G: the combination whose projections on all task gradients are equally long."""

from __future__ import annotations

import numpy as np

from mtl_utils import solvers
from mtl_utils.solvers import Array
from mtl_utils.weighting.base import register
from mtl_utils.weighting.kinds import GramianWeighting


@register(
    "imtl_g",
    title="IMTL-G",
    year=2021,
    reads="gramian",
    notebook="12",
    source="ICLR 2021",
)
class IMTLG(GramianWeighting):
    """IMTL-G, the gradient balance of impartial multi-task learning.

    Formula:
        g_k' d / |g_k| equal for all k,   d = sum_k alpha_k g_k,   sum alpha = 1

    alpha is proportional to pinv(G) n with the norms n, and may be negative: d may conflict. The
    scale of a loss does not change the direction. A zero gradient gets coefficient 0.

    Example:
        >>> make_weighting("imtl_g", 2).coefficients(torch.tensor([[4.0, 0.0], [0.0, 1.0]]))
        tensor([0.3333, 0.6667])

    Deviations:
        paper: inverts a matrix of differences of gradients; the pseudo-inverse of the Gramian gives
            the same where there is one, and a result where there is none.
        official code: adds 1e-8 to the diagonal where that matrix is singular; a gradient of zero
            makes it NaN.

    Source: Liu et al., ICLR 2021, "Towards impartial multi-task learning", equation 6.
    """

    def rule(self, gramian: Array) -> Array:
        norms, cosine = solvers.cosines(gramian)
        alpha = solvers.equal_projections(norms, cosine) / np.where(norms > 0, norms, 1.0)
        total = alpha.sum()
        if abs(total) <= 1e-12 * max(np.abs(alpha).sum(), 1e-300):  # no equal projection at all
            return np.zeros_like(alpha)
        return alpha / total
