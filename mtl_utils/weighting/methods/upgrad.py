"""UPGrad: the mean of the gradients, each projected onto what harms no task."""

from __future__ import annotations

import numpy as np

from mtl_utils import solvers
from mtl_utils.solvers import Array
from mtl_utils.weighting.base import register
from mtl_utils.weighting.kinds import GramianWeighting


@register(
    "upgrad",
    title="UPGrad",
    year=2024,
    reads="gramian",
    notebook="12",
    source="arXiv 2406.16232",
)
class UPGrad(GramianWeighting):
    """Unconflicting projection of gradients.

    Formula:
        d = mean_k p_k,   p_k = closest vector to g_k with g_j' p_k >= 0 for all j

    d conflicts with no task, and is linear in the length of each gradient. For two tasks it is half
    of PCGrad's.

    Example:
        >>> make_weighting("upgrad", 2).coefficients(torch.tensor([[4.0, -1.0], [-1.0, 1.0]]))
        tensor([0.6250, 1.0000])

    Deviations:
        paper: none known; the projections are exact.
        popular code: TorchJD, by its authors, adds 1e-4 of the trace to the Gramian's diagonal:
            with norms 100 times apart its update was up to 61 % off.

    Source: Quinton, Rey 2024, arXiv 2406.16232, section 3.
    """

    def rule(self, gramian: Array) -> Array:
        return solvers.dual_cone(gramian, np.eye(len(gramian))).mean(0)
