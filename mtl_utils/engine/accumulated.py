"""Several micro-batches as one batch: their task gradients are kept until the last one came."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_utils.engine import graph as graphs
from mtl_utils.engine import heads, landing
from mtl_utils.engine.processes import Mean
from mtl_utils.engine.rows import Rows
from mtl_utils.engine.task_gradients import last_layer_of
from mtl_utils.engine.watched import Watched


class Accumulated:
    """Means over micro-batches of the losses and of the K gradients of every leaf.

    What a rule asks for and what lands are as those of `TaskGradients`. In memory are K gradients
    of what all tasks share and one of each head.

    Args:
        shared: the shared parameters; none for rules that do not need them.
        n_tasks: K.
        scale: what lands is multiplied by it.
        reduce: the mean over several processes.

    Attributes:
        calls: how many micro-batches came.
        counts: in how many of them each task was present, [K].
        head_weights: [K], of the losses in the gradients of all other parameters.
        share: [K], a further factor of all gradients.
        losses: their mean for each task that was present in any, [K].
    """

    def __init__(
        self, shared: list[Tensor], n_tasks: int, scale: float = 1.0, reduce: Mean | None = None
    ) -> None:
        self.shared, self.n_tasks, self.scale, self.reduce = shared, n_tasks, scale, reduce
        self.head_weights: Sequence[float] = [1.0] * n_tasks
        self.share: Sequence[float] = [1.0] * n_tasks
        self.calls = 0
        self.counts = [0] * n_tasks
        self._sums = torch.zeros(n_tasks, dtype=torch.float64)
        self._rows: dict[int, list[Tensor | None]] = {}
        self._leaves: dict[int, Tensor] = {}

    def add(self, losses: Tensor, present: Sequence[bool]) -> None:
        """A micro-batch: K plain passes."""
        graph = graphs.read(losses, None, present)
        leaves = graph.leaves
        watched = Watched(graph.every, {})
        last = max((k for k, roots in enumerate(graph.roots) if roots), default=0)
        with heads.hooks_off(leaves):
            for k, roots in enumerate(graph.roots):
                if not roots:
                    continue
                found = torch.autograd.grad(
                    [root.edge for root in roots],
                    leaves,
                    [self.scale * root.gradient for root in roots],
                    retain_graph=k < last,
                    allow_unused=True,
                )
                for leaf, gradient in zip(leaves, found, strict=True):
                    self._add(leaf, k, gradient)
        watched.restore()
        values = losses.detach().double().cpu()
        for k in range(self.n_tasks):
            if present[k]:
                self.counts[k] += 1
                self._sums[k] += values[k]
        self.calls += 1

    def _add(self, leaf: Tensor, k: int, gradient: Tensor | None) -> None:
        if gradient is None:
            return
        self._leaves[id(leaf)] = leaf
        rows = self._rows.setdefault(id(leaf), [None] * self.n_tasks)
        before = rows[k]
        rows[k] = gradient if before is None else before + gradient

    @property
    def losses(self) -> Tensor:
        """Mean loss of each task over the micro-batches where it was present, [K]."""
        counts = torch.tensor(self.counts, dtype=torch.float64)
        return self._sums / counts.clamp_min(1)

    def _of(self, parameters: Sequence[Tensor]) -> Rows:
        """Mean gradients over the micro-batches (and processes)."""
        blocks = []
        for p in parameters:
            rows = self._rows.get(id(p))
            if rows is not None:
                rows = [
                    None if g is None else g / n for g, n in zip(rows, self.counts, strict=True)
                ]
            blocks.append(rows)
        return Rows(parameters, blocks, self.n_tasks)

    def _of_shared(self, parameters: Sequence[Tensor]) -> Rows:
        rows = self._of(parameters)
        return rows.changed(self.reduce) if self.reduce is not None and parameters else rows

    @property
    def fills_all_shared(self) -> bool:
        """As of `TaskGradients`."""
        return self.reduce is not None

    # ---- what a rule asks for ----------------------------------------------------------------

    @property
    def plan(self) -> str:
        """In words, how the work was done."""
        return f"a backward pass for each task in each of {self.calls} micro-batches"

    @property
    def jacobian(self) -> Tensor:
        """As of `TaskGradients`."""
        return self._of_shared(self.shared).jacobian() / self.scale

    def gramian(self, last_layer: bool = False) -> Tensor:
        """As of `TaskGradients`."""
        parameters = last_layer_of(self.shared) if last_layer else self.shared
        return self._of_shared(parameters).gramian() / self.scale**2

    def representation_gramian(self) -> Tensor:
        """Refused: micro-batches have a representation each.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "gramian: 'representation' does not go with accumulate; use 'exact' or 'last_layer'"
        )

    # ---- what lands ----------------------------------------------------------------------------

    def fill(self, coefficients: Tensor) -> None:
        """As of `TaskGradients`."""
        self._land(self._of_shared(self.shared).combined(coefficients))

    def fill_with(self, update: Tensor) -> None:
        """As of `TaskGradients`."""
        gradients = self._of_shared(self.shared).parted(self.scale * update)
        with heads.hooks_off(self.shared):
            self._land(gradients)

    def _land(self, gradients: list[Tensor | None]) -> None:
        own = {id(p) for p in self.shared}
        others = [leaf for key, leaf in self._leaves.items() if key not in own]
        weights = torch.tensor(self.head_weights, dtype=torch.float64)
        landing.onto_leaves(
            [*self.shared, *others], [*gradients, *self._of(others).combined(weights)]
        )
