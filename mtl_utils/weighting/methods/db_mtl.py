"""DB-MTL: gradients of log losses, averaged over time, all as long as the longest."""

from __future__ import annotations

import torch
from torch import Tensor

from mtl_utils.weighting.base import register
from mtl_utils.weighting.checks import check_number, refuse_tasks
from mtl_utils.weighting.kinds import CoordinateWeighting


@register(
    "db_mtl",
    title="DB-MTL",
    year=2023,
    reads="gradients",
    notebook="13",
    source="arXiv 2308.12029",
)
class DBMTL(CoordinateWeighting):
    """Dual balancing of losses and gradients.

    Formula:
        h_k = gradient of log(L_k + eps),   L_k + eps above 0
        a_k <- b a_k + (1 - b) h_k with b = beta / step^sigma,   beginning with 0
        d   = sum_k (max_j |a_j| / |a_k|) a_k

    Heads get the gradient of their log loss. With beta > 0 it keeps K gradients of the trunk in
    memory. The weights returned are the coefficients of the present gradients in the update,
    (1 - b) (max_j |a_j| / |a_k|) / (L_k + eps).

    Args:
        beta: in [0, 1), share of the past.
        sigma: at least 0; how fast that share falls.
        eps: at least 0, added to the losses.

    Example:
        >>> rule = make_weighting("db_mtl", 2, beta=0.0, eps=0.0)
        >>> jacobian, losses = torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.tensor([2.0, 1.0])
        >>> rule.merge(jacobian, losses)  # log gradients (1, 0), (0, 3): as long as the longer
        (tensor([3., 3.]), tensor([1.5000, 1.0000]))

    Deviations:
        paper: says nothing of a gradient of zero; here it stays zero.
        popular code: LibMTL, by its authors, has the same defaults (beta 0.9, sigma 0, eps 1e-8).

    Source: Lin, Jiang, Ye, Zhang, Chen, Chen, Liu, Kwok 2023, arXiv 2308.12029, algorithm 1.
    """

    needs_nonnegative = True
    kept = "average"
    steps: Tensor
    average: Tensor

    def __init__(
        self, n_tasks: int, beta: float = 0.9, sigma: float = 0.0, eps: float = 1e-8
    ) -> None:
        super().__init__(n_tasks)
        self.beta = check_number("beta", beta, "[0, 1)")
        self.sigma = check_number("sigma", sigma, "[0, inf)")
        self.eps = check_number("eps", eps, "[0, inf)")
        self.register_buffer("steps", torch.zeros(n_tasks, dtype=torch.int64))
        self.register_buffer("average", torch.zeros(n_tasks, 0))  # [K, P] from the first call on

    def _head_weights(self, losses: Tensor) -> Tensor:
        shifted = losses.detach() + self.eps
        refuse_tasks("losses", shifted, shifted <= 0, "db_mtl takes their logarithm")
        return 1 / shifted

    def merge(self, jacobian: Tensor, losses: Tensor) -> tuple[Tensor, Tensor]:
        log_weights = self._head_weights(losses)
        self.steps = self.steps + 1
        share = self.beta / self.steps.to(jacobian) ** self.sigma
        # K long rows: one new matrix, and the rest in place
        h = ((1 - share) * log_weights.to(jacobian))[:, None] * jacobian
        if self.average.shape[1]:
            h.addcmul_(share[:, None], self.average.to(h))
        if self.beta > 0:
            self.average = h
        norms = torch.linalg.vector_norm(h, dim=1)
        factor = norms.max() / torch.where(norms > 0, norms, 1.0)
        weights = (1 - share) * factor
        return factor @ h, weights.to(losses) * log_weights
