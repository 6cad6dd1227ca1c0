"""SDMGrad: between MGDA and the mean gradient, with weights from batches of their own."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mtl_utils import solvers
from mtl_utils.solvers import Array
from mtl_utils.weighting.base import register
from mtl_utils.weighting.checks import check_count, check_number
from mtl_utils.weighting.kinds import BatchesWeighting
from mtl_utils.weighting.shares import closed, opened


@register(
    "sdmgrad",
    title="SDMGrad",
    year=2023,
    reads="gramian",
    notebook="09",
    source="arXiv 2305.18409",
)
class SDMGrad(BatchesWeighting):
    """Stochastic direction-oriented multi-objective gradient descent.

    Formula:
        A = J1 J2' / scale^2,   scale = mean_k sqrt(max((J1 J2')_kk, 0))
        shares = argmin over the simplex of |sum_k shares_k g_k + lam g_0|^2 / 2,   g_0 = mean_k g_k
        approached by `rounds` projected steps of lr along  A (shares + lam / K), with momentum
        update = (sum_k shares_k g3_k + lam mean_k g3_k) / (1 + lam)

    J1, J2 and the gradients g3_k of the update come from three independent batches: three calls of
    `backward` are a step, see `BatchesWeighting`. So neither does noise meet itself in A, nor are
    the weights chosen by the noise of the gradients that they multiply. The shares go on from those
    of the last step. lam = 0 is MGDA; as lam grows, the update becomes the mean gradient.

    Args:
        lam: at least 0, pull towards the mean gradient.
        lr: above 0, rate of the steps on the shares.
        momentum: in [0, 1), of these steps; it begins anew each time.
        rounds: how many of them, at least 1.

    Example:
        >>> rule = make_weighting("sdmgrad", 2, lam=0.0)
        >>> rule.coefficients(torch.tensor([[2.0, 1.0], [1.0, 3.0]]))  # as MGDA
        tensor([0.6667, 0.3333])

    Deviations:
        paper: not read; formula as TorchJD's documentation and LibMTL's code state it. It allows
            for another direction than the mean gradient.
        official code: not checked but for a version for reinforcement learning, which takes one
            batch for all three, and lr 10. TorchJD says that lam is 0.6 in its class and 0.3 in its
            experiments.
        popular code: lr is 5 in LibMTL and 10 in TorchJD, with 20 rounds as here. That is longer
            than the curvature of the problem allows: the shares jump between corners, and with 20
            tasks |d|^2 ended at 5 times its least value, in the median of 20 sets of gradients. At
            0.5 it ended there. Both libraries add 1e-8 to scale^2; here it is 1 where it would be
            0. TorchJD leaves the update to the user.

    Source: Xiao, Ban, Ji, NeurIPS 2023, arXiv 2305.18409.
    """

    batches = accumulate = 3
    update_from = 2
    shares: Tensor

    def __init__(
        self,
        n_tasks: int,
        lam: float = 0.3,
        lr: float = 0.5,
        momentum: float = 0.5,
        rounds: int = 20,
    ) -> None:
        super().__init__(n_tasks)
        self.lam = check_number("lam", lam, "[0, inf)")
        self.lr = check_number("lr", lr, "(0, inf)")
        self.momentum = check_number("momentum", momentum, "[0, 1)")
        self.rounds = check_count("rounds", rounds)
        self.register_buffer("shares", torch.full((n_tasks,), 1 / n_tasks))

    def rule(self, product: Array) -> Array:
        scale = np.sqrt(product.diagonal().clip(0)).mean()
        matrix = product / (scale**2 if scale > 0 else 1.0)
        mean = np.full(len(product), 1 / len(product))
        shares, velocity = opened(self.shares), np.zeros(len(product))
        for _ in range(self.rounds):
            velocity = self.momentum * velocity + matrix @ (shares + self.lam * mean)
            shares = solvers.onto_simplex(shares - self.lr * velocity)
        self.shares = closed(shares, self.shares)
        return (shares + self.lam * mean) / (1 + self.lam)
