"""Plain sum of the losses: the baseline that costs nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from mtl_utils.weighting.base import register
from mtl_utils.weighting.kinds import ConstantWeighting


@register(
    "equal",
    title="Equal weights",
    year=1997,
    reads="nothing",
    notebook="02",
    source="Caruana 1997",
)
class Equal(ConstantWeighting):
    """Plain sum of the losses (unitary scalarisation).

    Formula:
        weights[k] = 1

    Example:
        >>> losses = torch.tensor([0.5, 4.0], requires_grad=True)
        >>> make_weighting("equal", 2).backward(losses)
        tensor([1., 1.])

    Deviations:
        popular code: some libraries take the mean of the losses, 1 / K as large.

    Source: Caruana, Machine Learning 28 (1997); Kurin et al., NeurIPS 2022, arXiv 2201.04122, show
    how strong this baseline is.
    """

    def weights_now(self) -> Tensor:
        return torch.ones(self.n_tasks)
