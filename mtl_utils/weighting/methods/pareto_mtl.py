"""Pareto MTL: towards one chosen part of the Pareto front."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from mtl_utils import solvers
from mtl_utils.solvers import Array
from mtl_utils.weighting.base import register
from mtl_utils.weighting.kinds import GramianWeighting


@register(
    "pareto_mtl",
    title="Pareto MTL",
    year=2019,
    reads="gramian",
    notebook="10",
    source="NeurIPS 2019",
)
class ParetoMTL(GramianWeighting):
    """Pareto MTL.

    Formula:
        G_j = (u_j - u_index)' L <= 0   for all j

    Preference vectors u_1 ... u_M divide the losses, at least 0, into cones; the run for cone
    `index` keeps its losses where u_index' L is largest. First, while a constraint is violated: the
    shortest vector in the hull of the gradients of the violated ones; from the first call that
    finds none: the shortest vector in the hull of all task gradients and those of the violated
    constraints.

    The coefficients may be negative. Draw M runs, one for each vector, for a set of trade-offs.
    Where tasks are absent from a batch, the vectors are those of the others, scaled to length 1.

    Args:
        preferences: [M, K], at least 0, rows not zero; they are scaled to length 1.
        index: row of `preferences` that this run is for.

    Example:
        >>> rule = make_weighting("pareto_mtl", 2, preferences=[[1.0, 0.0], [0.0, 1.0]], index=0)
        >>> rule.towards(np.eye(2), np.array([1.0, 3.0]))  # outside: L_1 down, L_0 up
        array([-1.,  1.])
        >>> rule.towards(np.eye(2), np.array([3.0, 1.0]))  # inside: as MGDA
        array([0.5, 0.5])

    Deviations:
        paper: constraints count from G_j > -epsilon on (equation 11); as in its official code,
            epsilon is 0 here.
        official code: for its networks it gives the first phase at most two epochs and scales the
            coefficients to sum to K in size; here the phase ends when the cone is reached, and
            nothing is scaled.

    Source: Lin, Zhen, Li, Zhang, Kwong, NeurIPS 2019, arXiv 1912.12854, equations 9 to 18.
    """

    needs_nonnegative = True
    task_dims: ClassVar = {"preferences": (1,)}
    preferences: Tensor
    inside: Tensor

    def __init__(self, n_tasks: int, preferences: Any, index: int) -> None:
        super().__init__(n_tasks)
        u = torch.as_tensor(preferences, dtype=torch.float64).numpy(force=True).copy()
        if u.ndim != 2 or u.shape[1] != n_tasks or not np.isfinite(u).all() or u.min() < 0:
            raise ValueError(
                f"preferences: expected [M, {n_tasks}] finite numbers of at least 0, "
                f"got {u.tolist()}"
            )
        length = np.linalg.norm(u, axis=1, keepdims=True)
        if length.min() == 0:
            raise ValueError("preferences: expected no row of zeros")
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(u):
            raise ValueError(
                f"index: expected a row of preferences, 0 to {len(u) - 1}, got {index!r}"
            )
        self.index = index
        unit = torch.as_tensor(u / length).to(torch.get_default_dtype())
        self.register_buffer("preferences", unit, persistent=False)
        self.register_buffer("inside", torch.tensor(False))  # whether the cone was reached

    def _combine(self, gramian: Tensor, losses: Tensor) -> Tensor:
        array = solvers.check_gramian(gramian.detach().cpu().double().numpy())
        values = losses.detach().cpu().double().numpy()
        return torch.as_tensor(self.towards(array, values)).to(gramian)

    def towards(self, gramian: Array, losses: Array) -> Array:
        """alpha, [K], from a Gramian [K, K] and losses [K]; remembers if the cone was reached."""
        u = self.preferences.cpu().double().numpy()
        length = np.linalg.norm(u, axis=1, keepdims=True)
        u = u / np.where(length > 0, length, 1.0)  # 0 where a vector prefers none of these tasks
        constraints = np.delete(u, self.index, 0) - u[self.index]
        if length[self.index] == 0:
            constraints = constraints[:0]
        active = constraints[constraints @ losses > 0]
        self.inside = self.inside | (len(active) == 0)
        rows = np.vstack([np.eye(self.n_tasks), active]) if self.inside else active
        product = rows @ gramian @ rows.T
        np.fill_diagonal(product, product.diagonal().clip(0))  # but for rounding they are squares
        return solvers.min_norm_point(0.5 * (product + product.T)) @ rows

    def take(self, part: Self, tasks: Tensor) -> None:
        inside = self.inside
        super().take(part, tasks)
        self.inside = inside  # only a step with all tasks shows whether the cone is reached

    def coefficients(self, gramian: Tensor) -> Tensor:
        raise NotImplementedError("coefficients: pareto_mtl needs the losses too; see towards()")
