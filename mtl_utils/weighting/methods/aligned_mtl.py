"""Aligned-MTL: make the gradients orthogonal and equally long, then add them."""

from __future__ import annotations

import numpy as np

from mtl_utils.solvers import Array
from mtl_utils.weighting.base import register
from mtl_utils.weighting.checks import check_choice, check_number
from mtl_utils.weighting.kinds import GramianWeighting


@register(
    "aligned_mtl",
    title="Aligned-MTL",
    year=2023,
    reads="gramian",
    notebook="12",
    source="arXiv 2305.19000",
)
class AlignedMTL(GramianWeighting):
    """Aligned-MTL.

    Formula:
        G = V diag(lambda) V',   alpha = sqrt(lambda_min) V diag(lambda^-1/2) V' 1

    The aligned gradients have condition number 1. Eigenvalues below `tolerance` times the largest
    count as zero and are left out; as lambda_min sets the length, and near-duplicates make it tiny,
    this tolerance can decide the result.

    Args:
        scale: "min" (of the paper), "median" or "rmse" of the eigenvalues instead of lambda_min.
        tolerance: relative, in [0, 1); by default that of public code (K x 1.2e-7).

    Example:
        >>> make_weighting("aligned_mtl", 2).coefficients(torch.tensor([[4.0, 0.0], [0.0, 1.0]]))
        tensor([0.5000, 1.0000])

    Deviations:
        paper: none known. All tasks are preferred alike.
        official code: calls torch.symeig, which torch no longer has.
        popular code: TorchJD takes the mean of the aligned gradients, 1 / K as long; its "rmse" is
            the mean of the eigenvalues, as here.

    Source: Senushkin, Patakin, Kuznetsov, Konushin, CVPR 2023, arXiv 2305.19000, algorithm 1.
    """

    def __init__(
        self,
        n_tasks: int,
        scale: str = "min",
        tolerance: float | None = None,
    ) -> None:
        super().__init__(n_tasks)
        self.scale = check_choice("scale", scale, ("min", "median", "rmse"))
        if tolerance is not None:
            check_number("tolerance", tolerance, "[0, 1)")
        self._tolerance = tolerance

    @property
    def tolerance(self) -> float:
        """Relative size below which an eigenvalue counts as zero."""
        if self._tolerance is None:
            return self.n_tasks * float(np.finfo(np.float32).eps)
        return self._tolerance

    def rule(self, gramian: Array) -> Array:
        values, vectors = np.linalg.eigh(gramian)
        keep = values > max(self.tolerance * values[-1], 0.0)
        if not keep.any():  # all gradients are zero
            return np.ones(len(gramian))
        values, vectors = values[keep], vectors[:, keep]
        lengths = {"min": values[0], "median": np.median(values), "rmse": values.mean()}
        return np.sqrt(float(lengths[self.scale])) * (vectors / np.sqrt(values)) @ vectors.sum(0)
