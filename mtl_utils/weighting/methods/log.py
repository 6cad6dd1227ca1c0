"""Sum of the logarithms of the losses: no unit, no parameter."""

from __future__ import annotations

from torch import Tensor

from mtl_utils.weighting.base import register
from mtl_utils.weighting.checks import EPS_HINT, check_number, log_of
from mtl_utils.weighting.kinds import LossWeighting


@register(
    "log",
    title="Sum of logs (SI)",
    year=2022,
    reads="losses",
    notebook="13",
    source="arXiv 2202.01017",
)
class LogSum(LossWeighting):
    """Sum of logarithms, called scale-invariant (SI) in benchmarks.

    Formula:
        sum_k log(L_k + eps),   L_k + eps above 0

    weights[k] = 1 / (L_k + eps), positive. With eps = 0 the gradient does not change when a loss is
    multiplied by a constant. With one task the step is gradient / loss, not the plain gradient.

    log, geometric, imtl_l and uncertainty at their optimum, and famo with equal logits all step in
    the one direction sum_k g_k / L_k; they differ in length, in lag and in what they add to it.

    Args:
        eps: at least 0, in units of the losses. A small one allows a loss of 0, with the large
            weight 1 / eps.

    Example:
        >>> losses = torch.tensor([0.5, 4.0], requires_grad=True)
        >>> make_weighting("log", 2).backward(losses)
        tensor([2.0000, 0.2500])

    Deviations:
        paper: has no eps, which is 0 here unless you ask for it.

    Source: the baseline "SI" of Navon et al., ICML 2022, arXiv 2202.01017.
    """

    def __init__(self, n_tasks: int, eps: float = 0.0) -> None:
        super().__init__(n_tasks)
        self.eps = check_number("eps", eps, "[0, inf)")

    def objective(self, losses: Tensor) -> Tensor:
        return log_of("losses", losses + self.eps, "log", EPS_HINT).sum()
