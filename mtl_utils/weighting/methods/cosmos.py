"""COSMOS: a weighted sum that also wants the losses in proportion to its weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_utils.weighting.base import register
from mtl_utils.weighting.checks import check_number, check_weights, refuse_tasks
from mtl_utils.weighting.kinds import LossWeighting


@register(
    "cosmos",
    title="COSMOS",
    year=2021,
    reads="losses",
    notebook="10",
    source="arXiv 2103.13392",
)
class Cosmos(LossWeighting):
    """The scalarisation of COSMOS, for one preference.

    Formula:
        objective  sum_k r_k L_k - lam cos(r, L),   r = preference
        cos(r, L) = sum_k r_k L_k / (|r| |L|)

    The second term draws the vector of losses towards the direction of r. As lam grows, the weights
    of the losses that are small beside it become negative: these losses are made worse, and the
    optimum need not be Pareto optimal. lam = 0 is the weighted sum. Losses of 0 for all tasks have
    no direction and are refused.

    Args:
        lam: at least 0, in units of the losses.
        preference: K numbers of at least 0, not all 0; default all 1.

    Example:
        >>> losses = torch.tensor([1.0, 0.2], requires_grad=True)
        >>> rule = make_weighting("cosmos", 2, lam=8.0)
        >>> rule.backward(losses)  # the second loss is to rise
        tensor([ 1.8534, -3.2669])
        >>> rule.objective(losses) > rule.objective(torch.tensor([1.0, 1.0]))  # which is dominated
        tensor(True)

    Deviations:
        paper: draws r from a Dirichlet distribution in every step and hands it to the network as a
            further input, so that one network holds the whole front; here r is fixed. lam is
            between 0.01 and 8 there, by data set; 1 is ours.
        popular code: none known in TorchJD, whose COSMOS is this objective.

    Source: Ruchte, Grabocka, ICDM 2021, arXiv 2103.13392.
    """

    preference: Tensor

    def __init__(
        self,
        n_tasks: int,
        lam: float = 1.0,
        preference: Sequence[float] | Tensor | None = None,
    ) -> None:
        super().__init__(n_tasks)
        self.lam = check_number("lam", lam, "[0, inf)")
        preference = torch.ones(n_tasks) if preference is None else preference
        preference = check_weights("preference", preference, n_tasks)
        self.register_buffer("preference", preference, persistent=False)

    def objective(self, losses: Tensor) -> Tensor:
        values = losses.detach()
        reason = "cosmos needs a loss that is not 0"
        refuse_tasks("losses", values, ~values.any().expand_as(values), reason)
        r = self.preference.to(losses)
        weighted = r @ losses
        length = torch.linalg.vector_norm(r) * torch.linalg.vector_norm(losses)
        length = torch.where(length > 0, length, 1.0)  # 0: it prefers none of these tasks
        return weighted - self.lam * weighted / length

    def extra_repr(self) -> str:
        return f"n_tasks={self.n_tasks}, lam={self.lam:g}"
