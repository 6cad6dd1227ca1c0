"""Constant weights, chosen beforehand: what every other method has to beat once they are tuned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from mtl_utils.weighting.base import register
from mtl_utils.weighting.checks import check_weights
from mtl_utils.weighting.kinds import ConstantWeighting


@register(
    "fixed",
    title="Fixed weights",
    year=1997,
    reads="nothing",
    notebook="02",
    source="linear scalarisation",
)
class Fixed(ConstantWeighting):
    """Constant weights (linear scalarisation).

    Formula:
        sum_k weights[k] L_k

    Args:
        weights: K finite numbers of at least 0, not all 0; used as given, not normalised.

    Example:
        >>> losses = torch.tensor([0.5, 4.0], requires_grad=True)
        >>> make_weighting("fixed", 2, weights=[1.0, 0.25]).backward(losses)
        tensor([1.0000, 0.2500])

    Deviations:
        none: there is nothing to agree on but the normalisation, and here there is none.

    Source: Xin et al., NeurIPS 2022, and Kurin et al., NeurIPS 2022, arXiv 2201.04122, on how far
    tuned constants go.
    """

    constant: Tensor

    def __init__(self, n_tasks: int, weights: Sequence[float] | Tensor) -> None:
        super().__init__(n_tasks)
        constant = check_weights("weights", weights, n_tasks)
        self.register_buffer("constant", constant, persistent=False)

    @property
    def options(self) -> dict[str, Any]:
        return {"weights": self.constant}  # `weights` are those of the last step

    def weights_now(self) -> Tensor:
        return self.constant
