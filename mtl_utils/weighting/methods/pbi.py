"""PBI: go down along a ray of losses, and stay near it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_utils.weighting.base import register
from mtl_utils.weighting.checks import check_number, check_vector, check_weights
from mtl_utils.weighting.kinds import LossWeighting


@register(
    "pbi",
    title="PBI",
    year=2007,
    reads="losses",
    notebook="10",
    source="IEEE TEVC 11 (2007)",
)
class PBI(LossWeighting):
    """Penalty-based boundary intersection: where a ray meets the Pareto front.

    Formula:
        u  = preference / |preference|
        d1 = (L - ideal)' u                      how far along the ray from `ideal` through u
        d2 = |L - ideal - d1 u|                  how far beside it
        objective  d1 + theta d2,   weights  u + theta (L - ideal - d1 u) / d2

    Losses in proportion to `preference` lie on the ray (d2 = 0; the weights are then u). A weight
    may be negative: the rule then makes a loss worse that is better than the ray asks for, and
    where the ray misses the Pareto front its optimum is not Pareto optimal. No weight is negative
    for theta = 0, which is the weighted sum with weights u.

    Args:
        theta: at least 0, how much a distance beside the ray counts against one along it.
        preference: K numbers of at least 0, not all 0; default all 1.
        ideal: K numbers below any loss that can be reached; default 0.

    Example:
        >>> losses = torch.tensor([1.0, 0.2], requires_grad=True)
        >>> rule = make_weighting("pbi", 2)
        >>> rule.backward(losses)  # the second loss is to rise to the level of the first
        tensor([ 4.2426, -2.8284])
        >>> rule.objective(losses) > rule.objective(torch.tensor([1.0, 1.0]))  # which is dominated
        tensor(True)

    Deviations:
        paper: not read; formula and theta = 5 as TorchJD's documentation gives them. It has a
            population of points, one for each of many preferences; here there is one.
        popular code: TorchJD adds 1e-12 under the root of d2; here the norm of 0 has slope 0.

    Source: Zhang, Li, IEEE Transactions on Evolutionary Computation 11 (2007).
    """

    preference: Tensor
    ideal: Tensor

    def __init__(
        self,
        n_tasks: int,
        theta: float = 5.0,
        preference: Sequence[float] | Tensor | None = None,
        ideal: Sequence[float] | Tensor | None = None,
    ) -> None:
        super().__init__(n_tasks)
        self.theta = check_number("theta", theta, "[0, inf)")
        preference = torch.ones(n_tasks) if preference is None else preference
        preference = check_weights("preference", preference, n_tasks)
        ideal = torch.zeros(n_tasks) if ideal is None else check_vector("ideal", ideal, n_tasks)
        self.register_buffer("preference", preference, persistent=False)
        self.register_buffer("ideal", ideal.clone(), persistent=False)

    def objective(self, losses: Tensor) -> Tensor:
        preference = self.preference.to(losses)
        length = torch.linalg.vector_norm(preference)
        u = preference / torch.where(length > 0, length, 1.0)  # 0: it prefers none of these tasks
        gap = losses - self.ideal.to(losses)
        along = gap @ u
        beside = torch.linalg.vector_norm(gap - along * u)
        return along + self.theta * beside

    def extra_repr(self) -> str:
        return f"n_tasks={self.n_tasks}, theta={self.theta:g}"
