"""Several micro-batches as one batch: their task gradients are kept until the last one came."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_utils.engine import graph as graphs
from mtl_utils.engine import heads, landing
from mtl_utils.engine.passes import several_passes
from mtl_utils.engine.processes import Mean
from mtl_utils.engine.rows import Block, Rows, refuse_sparse
from mtl_utils.engine.task_gradients import last_layer_of
from mtl_utils.engine.watched import Watched


class Accumulated:
    """Means over micro-batches of the losses and of the K gradients of every leaf.

    What a rule asks for and what lands are as those of `TaskGradients`. In memory are K gradients
    of what all tasks share and one of each head, for each of the B independent batches that the
    micro-batches make up: the first of them the first batch, and so on.

    Args:
        shared: the shared parameters; none for rules that do not need them.
        n_tasks: K.
        scale: what lands is multiplied by it.
        reduce: the mean over several processes.
        batches: B.
        calls_each: how many micro-batches make a batch, where B is above 1.
        memo: as of `TaskGradients`.

    Attributes:
        calls: how many micro-batches came.
        counts: in how many of each batch each task was present, [B, K].
        totals: what sums of gradients are divided by, [B, K]: `counts`, or, with several
            processes, their mean over these.
        head_weights: [K], of the losses in the gradients of all other parameters.
        losses: their mean for each task that was present in any, [K].
    """

    def __init__(
        self,
        shared: list[Tensor],
        n_tasks: int,
        scale: float = 1.0,
        reduce: Mean | None = None,
        batches: int = 1,
        calls_each: int = 1,
        memo: dict | None = None,
    ) -> None:
        refuse_sparse(shared)
        self.shared, self.n_tasks, self.scale, self.reduce = shared, n_tasks, scale, reduce
        self.batches, self.calls_each = batches, calls_each
        self._memo = {} if memo is None else memo
        self.head_weights: Sequence[float] = [1.0] * n_tasks
        self.calls = 0
        self.counts = torch.zeros(batches, n_tasks, dtype=torch.float64)
        self.totals = self.counts
        self._sums = torch.zeros(n_tasks, dtype=torch.float64)
        self._rows: list[dict[int, list[Tensor | None]]] = [{} for _ in range(batches)]
        self._leaves: dict[int, Tensor] = {}

    def __setstate__(self, state: dict) -> None:
        """A copy, or what was loaded: the leaves are others then, and so are their identities."""
        self.__dict__.update(state)
        new = {key: id(leaf) for key, leaf in self._leaves.items()}
        self._leaves = {new[key]: leaf for key, leaf in self._leaves.items()}
        self._rows = [{new[key]: rows for key, rows in of.items()} for of in self._rows]

    def add(self, losses: Tensor, present: Sequence[bool], retain_graph: bool = False) -> None:
        """A micro-batch: K plain passes. Where one fails, it is as if nothing had been added."""
        batch = self.calls // self.calls_each if self.batches > 1 else 0
        passes = self._passes(losses, present, retain_graph) if any(present) else []
        for k, found in passes:
            for leaf, gradient in found:
                self._add(leaf, batch, k, gradient)
        values = losses.detach().double().cpu()
        for k in range(self.n_tasks):
            if present[k]:
                self.counts[batch, k] += 1
                self._sums[k] += values[k]
        self.calls += 1

    def _passes(
        self, losses: Tensor, present: Sequence[bool], retain_graph: bool
    ) -> list[tuple[int, list[tuple[Tensor, Tensor | None]]]]:
        """Of each task that is present its number, and each leaf with its gradient."""
        graph = graphs.read(losses, None, present)
        leaves = graph.leaves
        passes: list[tuple[int, list[tuple[Tensor, Tensor | None]]]] = []
        watched = Watched(graph.every, self._memo)
        last = max((k for k, roots in enumerate(graph.roots) if roots), default=0)
        with heads.hooks_off(leaves), several_passes():
            for k, roots in enumerate(graph.roots):
                if not roots:
                    continue
                found = torch.autograd.grad(
                    [root.edge for root in roots],
                    leaves,
                    [self.scale * root.gradient for root in roots],
                    retain_graph=retain_graph or k < last,
                    allow_unused=True,
                )
                passes.append((k, list(zip(leaves, found, strict=True))))
        watched.restore()
        return passes

    def _add(self, leaf: Tensor, batch: int, k: int, gradient: Tensor | None) -> None:
        if gradient is None:
            return
        self._leaves[id(leaf)] = leaf
        rows = self._rows[batch].setdefault(id(leaf), [None] * self.n_tasks)
        rows[k] = _plus(rows[k], gradient)

    def keep(self, tasks: Tensor) -> None:
        """Forget the gradients of all other tasks.

        Args:
            tasks: [K], booleans.
        """
        for rows_of in self._rows:
            for key, rows in rows_of.items():
                rows_of[key] = [g if tasks[k] else None for k, g in enumerate(rows)]

    @property
    def losses(self) -> Tensor:
        """Mean loss of each task over the micro-batches where it was present, [K]."""
        return self._sums / self.counts.sum(0).clamp_min(1)

    def _of(self, parameters: Sequence[Tensor], batch: int | None = None) -> Rows:
        """Mean gradients over the micro-batches (and processes), of one batch or of all."""
        chosen = self._rows if batch is None else [self._rows[batch]]
        totals = (self.totals.sum(0) if batch is None else self.totals[batch]).tolist()
        blocks: list[Block | None] = []
        for p in parameters:
            sums: list[Tensor | None] = [None] * self.n_tasks
            for rows_of in chosen:
                for k, gradient in enumerate(rows_of.get(id(p), [])):
                    sums[k] = sums[k] if gradient is None else _plus(sums[k], gradient)
            means = [None if g is None else g / n for g, n in zip(sums, totals, strict=True)]
            blocks.append(means if any(g is not None for g in means) else None)
        return Rows(parameters, blocks, self.n_tasks)

    def _of_shared(self, parameters: Sequence[Tensor], batch: int | None = None) -> Rows:
        rows = self._of(parameters, batch)
        return rows.changed(self.reduce) if self.reduce is not None and parameters else rows

    @property
    def reached(self) -> set[int]:
        """Identities of the leaves that have a gradient."""
        pairs = [pair for rows_of in self._rows for pair in rows_of.items()]
        return {leaf for leaf, rows in pairs if any(g is not None for g in rows)}

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

    def product(self) -> Tensor:
        """J_1 J_2', the inner products of the gradients in the first batch with those in the
        second, [K, K]: where these are independent, its expectation is the Gramian of the expected
        gradients. That of one batch has the noise's own squares in it."""
        first, second = (self._of_shared(self.shared, b).jacobian() for b in (0, 1))
        return first @ second.T / self.scale**2

    def representation_gramian(self) -> Tensor:
        """Refused: micro-batches have a representation each.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "gramian: 'representation' does not go with accumulate; use 'exact' or 'last_layer'"
        )

    # ---- what lands ----------------------------------------------------------------------------

    def fill(self, coefficients: Tensor, batch: int | None = None) -> None:
        """As of `TaskGradients`; the shared parameters get what one batch says, or the mean."""
        self._land(self._of_shared(self.shared, batch).combined(coefficients))

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


def _plus(sum_: Tensor | None, gradient: Tensor) -> Tensor:
    return gradient if sum_ is None else sum_ + gradient
