"""Random weights, new in each step: a method that claims to help has to beat them."""

from __future__ import annotations

import torch
from torch import Tensor

from mtl_utils.weighting.base import register
from mtl_utils.weighting.checks import check_generator
from mtl_utils.weighting.kinds import ConstantWeighting


@register(
    "random",
    title="Random weights (RLW)",
    year=2022,
    reads="nothing",
    notebook="13",
    source="arXiv 2111.10603",
)
class RandomWeights(ConstantWeighting):
    """Random loss weighting.

    Formula:
        weights = K softmax(z),  z ~ N(0, I) anew in each step

    The weights are positive, sum to K and have the mean 1: the gradient is that of `equal` with
    noise added.

    Args:
        generator: a `torch.Generator` on the CPU. Without one, a generator of its own is seeded
            from torch's global one, so that `torch.manual_seed` governs it.

    Example:
        >>> losses = torch.tensor([0.5, 4.0], requires_grad=True)
        >>> weights = make_weighting("random", 2).backward(losses)
        >>> round(weights.sum().item(), 6)
        2.0

    Deviations:
        paper: its weights sum to 1; these sum to K, so that the step is as long as that of `equal`.
            It also tries other laws (uniform, Dirichlet, Bernoulli); this is the first of them.
        popular code: that of Kurin et al. sums to K as well.

    Source: Lin, Ye, Zhang, Tsang, TMLR 2022, arXiv 2111.10603.
    """

    def __init__(self, n_tasks: int, generator: torch.Generator | None = None) -> None:
        super().__init__(n_tasks)
        self.generator = check_generator(generator)

    def weights_now(self) -> Tensor:
        z = torch.randn(self.n_tasks, generator=self.generator, dtype=torch.float64)
        return self.n_tasks * torch.softmax(z, 0)
