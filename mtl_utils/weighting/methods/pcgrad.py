"""PCGrad: each gradient loses its component against every other one that it conflicts with."""

from __future__ import annotations

import numpy as np
import torch

from mtl_utils import solvers
from mtl_utils.solvers import Array
from mtl_utils.weighting.base import register
from mtl_utils.weighting.checks import check_generator
from mtl_utils.weighting.kinds import GramianWeighting


@register(
    "pcgrad",
    title="PCGrad",
    year=2020,
    reads="gramian",
    notebook="12",
    source="arXiv 2001.06782",
)
class PCGrad(GramianWeighting):
    """Projecting conflicting gradients.

    Formula:
        for each task i, for each other task j in random order: if h_i' g_j < 0 then
            h_i <- h_i - (h_i' g_j / |g_j|^2) g_j          beginning with h_i = g_i
        update = sum_i h_i

    With more than two tasks the result depends on the order and may still conflict. A gradient of
    zero conflicts with none.

    Args:
        generator: a `torch.Generator` on the CPU for the order; by default one of its own.

    Example:
        >>> make_weighting("pcgrad", 2).coefficients(torch.tensor([[4.0, -1.0], [-1.0, 1.0]]))
        tensor([1.2500, 2.0000])

    Deviations:
        paper: none known.
        popular code: some ports take the mean of the h_i, 1 / K as long.

    Source: Yu, Kumar, Gupta, Levine, Hausman, Finn, NeurIPS 2020, arXiv 2001.06782, algorithm 1.
    """

    def __init__(self, n_tasks: int, generator: torch.Generator | None = None) -> None:
        super().__init__(n_tasks)
        self.generator = check_generator(generator)

    def rule(self, gramian: Array) -> Array:
        assert self.generator is not None
        norms, cosine = solvers.cosines(gramian)
        h = np.eye(len(gramian))  # row i: h_i / norms[i] in unit gradients
        tasks = np.arange(len(gramian))
        for j in orders(len(gramian), self.generator).T:  # task i meets task j[i]
            against = (h * cosine[j]).sum(1)
            h[tasks, j] -= np.minimum(against, 0.0)
        # h_i = norms[i] sum_j h_ij g_j / norms[j]
        return norms @ h / np.where(norms > 0, norms, 1.0) + (norms == 0)


def orders(n_tasks: int, generator: torch.Generator) -> Array:
    """For each task the other tasks in random order, [K, K - 1]."""
    keys = torch.rand(n_tasks, n_tasks, generator=generator, dtype=torch.float64)
    return keys.fill_diagonal_(2.0).argsort(1)[:, :-1].numpy()
