"""ExcessMTL: weigh a task by what it can still gain, not by its loss."""

from __future__ import annotations

import torch
from torch import Tensor

from mtl_utils.weighting.base import register
from mtl_utils.weighting.checks import check_count, check_number
from mtl_utils.weighting.kinds import CoordinateWeighting, in_pieces


@register(
    "excess_mtl",
    title="ExcessMTL",
    year=2024,
    reads="gradients",
    notebook="12",
    source="ICML 2024",
)
class ExcessMTL(CoordinateWeighting):
    """Robust multi-task learning with excess risks.

    Formula:
        s_k <- s_k + g_k^2   by coordinate,   over all calls
        e_k  = sum of g_k^2 / sqrt(s_k + eps)              estimate of L_k minus its least value
        w_k <- w_k exp(lr e_k / (eps + start_k)),   scaled to keep their sum, at first all 1
        update = sum_k w_k g_k

    A loss that label noise keeps high has nothing left to gain: its gradient, and e_k, get small.
    In the first `warm_up` calls the weights stay as they are; start_k is the mean of e_k in these.
    As e_k is divided by its start, multiplying a loss by a constant leaves the weights (up to eps).
    A weight grows where its e_k / start_k is above the weighted mean of all, and nothing draws it
    back: with lr large, one task gets nearly everything.

    It keeps as many numbers as K gradients of the trunk. Tasks absent from a batch keep their
    weight, the others share out what they have together, scaled to a sum of K' in the update.

    Args:
        lr: above 0, step of the weights' logarithms.
        warm_up: number of calls that give start_k, at least 1.
        eps: at least 0.

    Example:
        >>> rule = make_weighting("excess_mtl", 2, lr=1.0, eps=0.0)
        >>> jacobian = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
        >>> rule.merge(jacobian, torch.ones(2))  # the first call: e = 3 and 1
        (tensor([3., 1.]), tensor([1., 1.]))
        >>> rule.merge(torch.tensor([[3.0, 0.0], [0.0, 0.1]]), torch.ones(2))[1]
        tensor([1.3351, 0.6649])

    Deviations:
        paper: its weights, which sum to 1, act on the heads too; here they sum to K, and a head
            gets the gradient of its own loss. It was read in TorchJD's documentation only, which
            says that start_k is taken over three epochs.
        official code: as LibMTL's, which says that it follows it, has it: weights sum to K, the
            first call is the start, step 0.01, 1e-7 for eps, which it adds under the root only.
        popular code: TorchJD has weights that sum to 1, a step of 1, and without warm-up it takes
            the first e_k undivided for a step.

    Source: He, Zhou, Zhang, Yun, Xu, Zeng, Chilimbi, Zhao, ICML 2024, Robust Multi-Task Learning
    with Excess Risks, equations 6, 7 and 9 as TorchJD counts them.
    """

    kept = "squares"
    steps: Tensor
    start: Tensor
    log_w: Tensor
    squares: Tensor

    def __init__(self, n_tasks: int, lr: float = 0.01, warm_up: int = 1, eps: float = 1e-7) -> None:
        super().__init__(n_tasks)
        self.lr = check_number("lr", lr, "(0, inf)")
        self.warm_up = check_count("warm_up", warm_up)
        self.eps = check_number("eps", eps, "[0, inf)")
        self.register_buffer("steps", torch.zeros(n_tasks, dtype=torch.int64))
        self.register_buffer("start", torch.zeros(n_tasks))
        self.register_buffer("log_w", torch.zeros(n_tasks))
        self.register_buffer("squares", torch.zeros(n_tasks, 0))  # [K, P] from the first call on

    def merge(self, jacobian: Tensor, losses: Tensor) -> tuple[Tensor, Tensor]:
        before = self._kept_as(jacobian)
        squares, excess = torch.empty_like(jacobian), jacobian.new_zeros(self.n_tasks)
        for g, old, total in in_pieces(jacobian, before, squares):
            squared = g.square()
            root = torch.add(old, squared, out=total).add(self.eps).sqrt_()
            excess += squared.div_(torch.where(root > 0, root, 1.0)).sum(1)
        self.squares, excess = squares, excess.to(self.start)
        warming = self.steps < self.warm_up
        self.steps = self.steps + 1
        self.start = torch.where(warming, self.start + excess / self.warm_up, self.start)
        self._learn(torch.where(warming, 0.0, excess / self._safe(self.start + self.eps)))
        weights = self.n_tasks * torch.softmax(self.log_w, 0)
        return weights.to(jacobian) @ jacobian, weights.to(losses)

    def _learn(self, relative: Tensor) -> None:
        """A step of the weights' logarithms, which keeps what these tasks have together."""
        grown = self.log_w + self.lr * relative
        self.log_w = grown + torch.logsumexp(self.log_w, 0) - torch.logsumexp(grown, 0)

    @staticmethod
    def _safe(divisor: Tensor) -> Tensor:
        return torch.where(divisor > 0, divisor, 1.0)
