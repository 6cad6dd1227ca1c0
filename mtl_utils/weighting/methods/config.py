"""ConFIG: the direction at equal angles to all gradients."""

from __future__ import annotations

import numpy as np

from mtl_utils import solvers
from mtl_utils.solvers import Array
from mtl_utils.weighting.base import register
from mtl_utils.weighting.kinds import GramianWeighting


@register(
    "config",
    title="ConFIG",
    year=2024,
    reads="gramian",
    notebook="12",
    source="arXiv 2408.11104",
)
class ConFIG(GramianWeighting):
    """Conflict-free inverse gradients.

    Formula:
        u = unit vector with the same cosine to each g_k,   d = (sum_k g_k' u) u

    The scale of a loss changes the length of d, not its direction. Zero gradients are left out.

    Example:
        >>> make_weighting("config", 2).coefficients(torch.tensor([[4.0, 0.0], [0.0, 1.0]]))
        tensor([0.7500, 1.5000])

    Deviations:
        paper: pseudo-inverse of the unit gradients; here of their cosines, with the same result.
        official code: also has a version with momentum, which is not here.

    Source: Liu, Chu, Thuerey, ICLR 2025, arXiv 2408.11104, equations 2 and 3.
    """

    def rule(self, gramian: Array) -> Array:
        norms, cosine = solvers.cosines(gramian)
        beta = solvers.equal_projections(norms, cosine)
        length = np.sqrt(max(float(beta @ cosine @ beta), 0.0))
        if length <= 1e-12:
            return np.zeros_like(beta)
        beta = beta / length
        return beta / np.where(norms > 0, norms, 1.0) * (norms @ cosine @ beta)
