"""GradDrop: in each coordinate, keep the gradients of one sign only, chosen by chance."""

from __future__ import annotations

import torch
from torch import Tensor

from mtl_utils.weighting.base import register
from mtl_utils.weighting.checks import check_generator, check_number
from mtl_utils.weighting.kinds import CoordinateWeighting, in_pieces


@register(
    "graddrop",
    title="GradDrop",
    year=2020,
    reads="gradients",
    notebook="12",
    source="arXiv 2010.06808",
)
class GradDrop(CoordinateWeighting):
    """Gradient sign dropout.

    Formula:
        purity P = (1 + sum_k g_k / sum_k |g_k|) / 2 in [0, 1],   U uniform in (0, 1)
        positive parts are kept where P > U, negative ones elsewhere;  d = sum of what is kept

    Reads coordinates, not only inner products. The weights returned are the share of each task's
    squared gradient that was kept.

    Args:
        leak: in [0, 1], share of what would be dropped that passes nevertheless.
        generator: a `torch.Generator` on the CPU; by default one of its own.

    Example:
        >>> rule = make_weighting("graddrop", 2)
        >>> update, share = rule.merge(torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.ones(2))
        >>> update, share  # one sign: nothing to drop
        (tensor([4., 2.]), tensor([1., 1.]))

    Deviations:
        paper: works on the activations of a layer, times the sign of the input and summed over the
            batch; here on the shared parameters.
        popular code: that of Kurin et al. scales the result to the length of the plain sum.

    Source: Chen et al., NeurIPS 2020, arXiv 2010.06808, algorithm 1.
    """

    def __init__(
        self, n_tasks: int, leak: float = 0.0, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(n_tasks)
        self.leak = check_number("leak", leak, "[0, 1]")
        self.generator = check_generator(generator)

    def merge(self, jacobian: Tensor, losses: Tensor) -> tuple[Tensor, Tensor]:
        n_coordinates = jacobian.shape[1]
        u = torch.rand(n_coordinates, generator=self.generator, dtype=torch.float64).to(jacobian)
        update = jacobian.new_empty(n_coordinates)
        kept_square, square = jacobian.new_zeros(2, len(jacobian))
        for g, draw, d in in_pieces(jacobian, u, update):
            positive = g.clamp_min(0)
            total = g.sum(0)
            size = 2 * positive.sum(0) - total  # sum_k |g_k|
            kept = torch.where(total + size > 2 * draw * size, positive, g - positive)  # P > U
            d.copy_(torch.lerp(kept.sum(0), total, self.leak))
            kept_square += kept.square().sum(1)
            square += g.square().sum(1)
        share = torch.lerp(kept_square, square, self.leak)
        return update, share / torch.where(square > 0, square, 1.0)
