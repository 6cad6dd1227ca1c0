"""MoDo: MGDA's weights by one projected step at a time, each from two independent batches."""

from __future__ import annotations

import torch
from torch import Tensor

from mtl_utils import solvers
from mtl_utils.solvers import Array
from mtl_utils.weighting.base import register
from mtl_utils.weighting.checks import check_number
from mtl_utils.weighting.kinds import BatchesWeighting
from mtl_utils.weighting.shares import closed, opened


@register(
    "modo",
    title="MoDo",
    year=2023,
    reads="gramian",
    notebook="09",
    source="NeurIPS 2023",
)
class MoDo(BatchesWeighting):
    """Multi-objective gradient with double sampling.

    Formula:
        shares <- onto the simplex:  shares - gamma (J1 J2' + rho I) shares,   beginning with 1 / K
        update  = sum_k shares_k (g1_k + g2_k) / 2

    J1 and J2 hold the task gradients in two independent batches, rows g1_k and g2_k. In one batch
    the noise would meet itself, J J' = (true Gramian) + (covariance of the noise), so that the
    weights avoid the noisy tasks; the expectation of J1 J2' is the true Gramian.

    Two calls of `backward` are a step, see `BatchesWeighting`; with `use(accumulate=4)` four are,
    and the first two make the first batch. A step on the shares is as long as the gradients
    squared: rescale the losses or choose gamma accordingly.

    Args:
        gamma: above 0, step of the shares, in units of one over a squared gradient.
        rho: at least 0, draws the shares towards 1 / K; in units of a squared gradient.

    Example:
        >>> rule = make_weighting("modo", 2, rho=0.0)
        >>> trunk = torch.ones(2, requires_grad=True)
        >>> rule.backward(torch.stack([2 * trunk[0], trunk[1]]), shared=[trunk])  # first batch
        tensor([0., 0.])
        >>> rule.backward(torch.stack([2 * trunk[0], trunk[1]]), shared=[trunk])  # second
        tensor([0.4250, 0.5750])

    Deviations:
        paper: not read; the formula is that of its authors' code.
        official code: its form for two batches, as here; it also has one in which a third batch
            gives the update. One of its versions takes the sum of both gradients, twice as long.
        popular code: TorchJD has the same step and the same gamma and rho, 0.1, and leaves the
            update to the user. LibMTL takes the update from a third batch, as TorchJD says.

    Source: Chen, Fernando, Ying, Chen, NeurIPS 2023, Three-Way Trade-Off in
    Multi-Objective Learning: Optimization, Generalization and Conflict-Avoidance.
    """

    shares: Tensor

    def __init__(self, n_tasks: int, gamma: float = 0.1, rho: float = 0.1) -> None:
        super().__init__(n_tasks)
        self.gamma = check_number("gamma", gamma, "(0, inf)")
        self.rho = check_number("rho", rho, "[0, inf)")
        self.register_buffer("shares", torch.full((n_tasks,), 1 / n_tasks))

    def rule(self, product: Array) -> Array:
        shares = opened(self.shares)
        slope = product @ shares + self.rho * shares
        found = solvers.onto_simplex(shares - self.gamma * slope)
        self.shares = closed(found, self.shares)
        return found
