"""MGDA: the shortest combination of the gradients, which harms no task."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from mtl_utils import solvers
from mtl_utils.solvers import Array
from mtl_utils.weighting.base import register
from mtl_utils.weighting.checks import check_choice
from mtl_utils.weighting.kinds import GramianWeighting


@register(
    "mgda",
    title="MGDA",
    year=2018,
    reads="gramian",
    notebook="09",
    source="arXiv 1810.04650",
)
class MGDA(GramianWeighting):
    """Multiple-gradient descent: the shortest vector in the convex hull of the gradients.

    Formula:
        alpha = argmin |sum_k alpha_k g_k|^2   subject to   alpha >= 0, sum alpha = 1

    The update d improves every task, g_k' d >= |d|^2, and vanishes where no direction improves all
    (Pareto stationary), also where one gradient alone is zero. It follows the smallest gradient:
    multiplying a loss by a constant changes its direction. With `gramian="representation"` this is
    MGDA-UB.

    Args:
        normalise: what the gradients are divided by before their shortest combination is sought:
            "none", "norm" (their norms: the scale of a loss no longer matters), "loss" or "loss+"
            (loss times norm). The update is made of the divided gradients.

    Example:
        >>> make_weighting("mgda", 2).coefficients(torch.tensor([[4.0, 0.0], [0.0, 1.0]]))
        tensor([0.2000, 0.8000])

    Deviations:
        paper: Frank-Wolfe for more than two tasks; here the minimum is exact.
        official code: divides the gradients for finding alpha only, so that its update may harm a
            task; its line search stops at 0.001 and 0.999. It runs another solver than the paper's,
            whose limit of 250 rounds is never reached.
        popular code: the code of Nash-MTL multiplies alpha by K. TorchJD's Frank-Wolfe stops after
            100 rounds, with errors around 0.001.

    Source: Désidéri, Comptes Rendus Mathématique 350 (2012); Sener, Koltun, NeurIPS 2018, arXiv
    1810.04650, equation 3 (MGDA-UB: equation 5). The kinds of normalisation are those of its
    official code.
    """

    def __init__(self, n_tasks: int, normalise: str = "none") -> None:
        super().__init__(n_tasks)
        self.normalise = check_choice("normalise", normalise, ("none", "norm", "loss", "loss+"))
        self.needs_nonnegative = normalise.startswith("loss")
        self._values: Array | None = None

    def _combine(self, gramian: Tensor, losses: Tensor) -> Tensor:
        self._values = losses.detach().cpu().double().numpy()
        return self.coefficients(gramian)

    def rule(self, gramian: Array) -> Array:
        divisor = np.ones(len(gramian))
        if self.normalise.startswith("loss"):
            if self._values is None:
                raise ValueError(f"normalise: {self.normalise!r} needs losses; call backward()")
            divisor = divisor * self._values
        if self.normalise in ("norm", "loss+"):
            divisor = divisor * np.sqrt(gramian.diagonal())
        divisor = np.where(divisor > 0, divisor, 1.0)  # a gradient of zero stays one
        return solvers.min_norm_point(gramian / divisor / divisor[:, None]) / divisor
