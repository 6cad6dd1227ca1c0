"""PCD: follow the main task, as closely as a share of progress for each other one allows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mtl_utils import solvers
from mtl_utils.solvers import Array
from mtl_utils.weighting.base import register
from mtl_utils.weighting.checks import check_number
from mtl_utils.weighting.kinds import GramianWeighting


@register(
    "pcd",
    title="PCD",
    year=2026,
    reads="gramian",
    notebook="12",
    source="arXiv 2606.29521",
)
class PCD(GramianWeighting):
    """Priority-constrained descent: one main task, the first, and others that only constrain it.

    Formula:
        h_k = g_k / sqrt(v_k + eps),   v_k: mean of |g_k|^2 over the calls, share 1 - beta the last
        d   = argmin |d - h_1|^2 / 2   subject to   h_j' d >= tau |h_j|^2   for all j > 1
        update = |g_1| d / |d|

    v is the exponential average divided by 1 - beta^calls, as in Adam. A task's scale does not
    matter (up to eps), the order does: where the first task is absent from a batch, the first that
    is present takes its place. No step is made where the main gradient, or d, is 0. Where no d
    fulfils all constraints (two opposite gradients among the others), they are dropped: the update
    is g_1.

    Args:
        tau: in [0, 1], the share of the progress of a step along h_j that task j is to have.
        beta: in [0, 1), share of the past in the average of the squared norms.
        eps: at least 0, in units of squared gradient norms.

    Example:
        >>> rule = make_weighting("pcd", 2, tau=0.5)
        >>> alpha = rule.coefficients(torch.eye(2))  # at right angles: d = h_1 + h_2 / 2
        >>> alpha / alpha[0]
        tensor([1.0000, 0.5000])

    Deviations:
        paper: not read; formula as its official code and documentation state it. It says nothing of
            absent tasks.
        official code: tries all sets of active constraints, at most 2^(K-1); here its dual is
            solved by an active-set method. It takes a tau for each task too.
        popular code: TorchJD solves the same problem by another active-set method.

    Source: Varam, AlHajri, TMLR 2026, arXiv 2606.29521, definitions 4.1 and 4.5, algorithm 1.
    """

    v: Tensor
    calls_seen: Tensor

    def __init__(
        self, n_tasks: int, tau: float = 0.02, beta: float = 0.999, eps: float = 1e-8
    ) -> None:
        super().__init__(n_tasks)
        self.tau = check_number("tau", tau, "[0, 1]")
        self.beta = check_number("beta", beta, "[0, 1)")
        self.eps = check_number("eps", eps, "[0, inf)")
        self.register_buffer("v", torch.zeros(n_tasks))
        self.register_buffer("calls_seen", torch.zeros(n_tasks, dtype=torch.int64))

    def rule(self, gramian: Array) -> Array:
        scale = self._scale(gramian.diagonal())
        alpha = np.zeros(len(gramian))
        if gramian[0, 0] == 0:
            return alpha
        scaled = gramian * scale * scale[:, None]
        weights = solvers.share_of_progress(scaled, self.tau)
        length = weights @ scaled @ weights
        size = (np.abs(weights) @ np.sqrt(scaled.diagonal())) ** 2
        if length > solvers.ROUNDING * size:
            alpha = weights * scale * np.sqrt(gramian[0, 0] / length)
        return alpha

    def _scale(self, squares: Array) -> Array:
        """1 / sqrt(v + eps), [K], with this call's squared norms in the average."""
        now = torch.as_tensor(squares.copy()).to(self.v)
        self.calls_seen = self.calls_seen + 1
        self.v = self.beta * self.v + (1 - self.beta) * now
        mean = self.v / (1 - self.beta ** self.calls_seen.to(self.v))
        root = np.sqrt(mean.double().cpu().numpy() + self.eps)
        return np.where(root > 0, 1 / np.where(root > 0, root, 1.0), 0.0)

    def extra_repr(self) -> str:
        return f"n_tasks={self.n_tasks}, tau={self.tau:g}, beta={self.beta:g}"
