"""Dual-cone projection: the mean gradient, projected onto what harms no task."""

from __future__ import annotations

import numpy as np

from mtl_utils import solvers
from mtl_utils.solvers import Array
from mtl_utils.weighting.base import register
from mtl_utils.weighting.kinds import GramianWeighting


@register(
    "dualproj",
    title="Dual-cone projection",
    year=2017,
    reads="gramian",
    notebook="12",
    source="arXiv 1706.08840",
)
class DualProj(GramianWeighting):
    """Dual-cone projection.

    Formula:
        d = closest vector to g_0 = mean_k g_k with g_j' d >= 0 for all j

    Unlike UPGrad it projects once, so a long gradient may silence a short one that it conflicts
    with: d is then at right angles to the short one.

    Example:
        >>> make_weighting("dualproj", 2).coefficients(torch.tensor([[4.0, -1.0], [-1.0, 0.5]]))
        tensor([0.5000, 1.0000])

    Deviations:
        paper: projects the gradient of a new task so that it harms no remembered one; here, as in
            the comparison with UPGrad, the mean of all tasks, so that it harms none of them.

    Source: Lopez-Paz, Ranzato, NeurIPS 2017, arXiv 1706.08840, equation 11; compared with UPGrad in
    Quinton, Rey 2024, arXiv 2406.16232.
    """

    def rule(self, gramian: Array) -> Array:
        return solvers.dual_cone(gramian, np.full(len(gramian), 1.0 / len(gramian)))
