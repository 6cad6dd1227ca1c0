"""Gradients of K losses, found without side effects, and the one backward pass that lands them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mtl_utils.engine import graph as graphs
from mtl_utils.engine import heads, landing, layers
from mtl_utils.engine.passes import Passes, naming_parts_for_one_pass
from mtl_utils.engine.processes import Mean
from mtl_utils.engine.rows import Rows, real, refuse_sparse


class TaskGradients:
    """Gradients of K losses; what is not asked for is not computed.

    Ask for `gramian()` or `jacobian` or neither, then `fill()` or `fill_with()` once. Nothing but
    these touches `.grad`.

    Args:
        losses: [K], attached to the graph.
        shared: the shared parameters.
        method: see `mtl_utils.gradients.task_gradients`.
        retain_graph: keep the graph for another backward pass.
        head_weights: [K], above 0, of the losses in the gradients of all other parameters.
        present: [K], which losses count; the others may be no numbers.
        scale: what lands is multiplied by it, and what is asked for is not.
        reduce: the mean over several processes; everything asked for is then the same on all.
        memo: a dictionary that is kept from call to call.

    Attributes:
        shared: the shared parameters.
        reached: whether any loss reaches each of them.
    """

    def __init__(
        self,
        losses: Tensor,
        shared: list[Tensor],
        method: str = "auto",
        retain_graph: bool = False,
        head_weights: Sequence[float] | None = None,
        present: Sequence[bool] | None = None,
        scale: float = 1.0,
        reduce: Mean | None = None,
        memo: dict | None = None,
    ) -> None:
        refuse_sparse(shared)
        self.losses, self.shared, self.retain_graph = losses, shared, retain_graph
        self.n_tasks, self.present, self.scale, self.reduce = len(losses), present, scale, reduce
        self.head_weights = [1.0] * self.n_tasks if head_weights is None else list(head_weights)
        whole = method in ("loop", "batched")
        self.graph = graphs.read(losses, shared, present, heads=not whole)
        if not self.graph.live and reduce is None:
            message = "no loss reaches any of these parameters; are they of this model?"
            raise ValueError(f"shared: {message}")
        if method == "cut" and not self.graph.stacks:
            raise ValueError("method: 'cut' needs losses from torch.stack([loss_1, ...])")
        live = {id(p) for p in self.graph.live}
        self.reached = [id(p) in live for p in shared]
        memo = {} if memo is None else memo
        self.passes = Passes(self.graph, self.head_weights, scale, method, memo)
        self._has_formulas = reduce is None and not whole and not self.passes.user_code
        self._words: list[str] = []
        self._rows: Rows | None = None  # of the shared parameters, scaled
        self._others: list[tuple[Tensor, Tensor | None]] = []

    @property
    def plan(self) -> str:
        """In words, how the work was done so far."""
        first = "each head once" if self.graph.has_heads else "a backward pass for each task"
        return "; ".join(filter(None, [first, *self._words, self.passes.words]))

    @property
    def fills_all_shared(self) -> bool:
        """Whether `fill` reaches all shared parameters, also those that no loss of this process
        reaches."""
        return self.reduce is not None and self._rows is not None

    # ---- what a rule asks for ----------------------------------------------------------------

    @property
    def jacobian(self) -> Tensor:
        """[K, P], row k is the gradient of loss k in the shared parameters, flattened and in the
        order of `shared`; zeros where a loss does not reach a parameter. At least float32."""
        jacobian = self._all_rows().jacobian()
        return jacobian if self.scale == 1 else jacobian / self.scale

    def gramian(self, last_layer: bool = False) -> Tensor:
        """Inner products of the task gradients, [K, K].

        Args:
            last_layer: only those of the last shared layer.
        """
        if last_layer:
            self._words.append("Gramian of the last shared layer")
            return self._gramian_of(last_layer_of(self.shared))
        if self._rows is None and self._has_formulas:
            plan = self._planned(self.graph.live)
            if plan.saved > plan.update:
                self._words.append(plan.words)
                return self._by_formula(plan)
        return self._all_rows().gramian() / self.scale**2

    def representation_gramian(self) -> Tensor:
        """Inner products of the gradients dL_k/dz of what the heads read of the trunk, [K, K].

        Raises:
            ValueError: the heads read shared parameters themselves, or there are none.
        """
        if not self.graph.has_heads or self.graph.direct:
            raise ValueError(
                "gramian: 'representation' needs losses from torch.stack([...]) whose heads read "
                "the shared parameters through a representation"
            )
        self._words.append("Gramian of the representation")
        total = torch.zeros(self.n_tasks, self.n_tasks, device=self.losses.device)
        for found in self.passes.at_gates()[0].values():
            rows = real(found) / self.scale
            total = total + rows @ rows.T
        return total if self.reduce is None else self.reduce(total) / self.reduce.size

    # ---- what lands ----------------------------------------------------------------------------

    def fill(self, coefficients: Tensor) -> None:
        """Add sum_k coefficients[k] g_k to `.grad` of the shared parameters, and sum_k
        head_weights[k] dL_k to that of all others."""
        if self._rows is not None:
            self._land(self._rows.combined(coefficients))
            return
        scaled = [self.scale * c for c in coefficients.tolist()]
        weights = [self.scale * w for w in self.head_weights]
        with naming_parts_for_one_pass():
            landing.through_gates(
                self.graph, scaled, weights, self.present, self.retain_graph, self.passes.forget
            )

    def fill_with(self, update: Tensor) -> None:
        """Add an update [P], flattened in the order of `shared`, to `.grad` of the shared
        parameters, and their gradients to that of all others. The hooks of shared parameters have
        seen each row of `jacobian`, and do not see the update."""
        update = update if self.scale == 1 else self.scale * update
        gradients = self._all_rows().parted(update)
        with heads.hooks_off(self.shared):
            self._land(gradients)

    def _land(self, gradients: list[Tensor | None]) -> None:
        leaves = [*self.shared, *(leaf for leaf, _ in self._others)]
        gradients += [gradient for _, gradient in self._others]
        self._others = []  # what nobody else holds is not copied
        landing.onto_leaves(leaves, gradients)

    # ---- how it is found -------------------------------------------------------------------------

    def _all_rows(self) -> Rows:
        """K gradients of every shared parameter; those of all other leaves are kept too."""
        if self._rows is not None:
            return self._rows
        graph, keep = self.graph, self.retain_graph
        if self.passes.are_plain:
            below = [*graph.private, *graph.below]
            blocks = self.passes.from_losses(graph.live, below, keep)
        else:
            leaves, below = graph.private, graph.below
            if not graph.starts_at_gates:
                leaves, below = [*leaves, *below], []
            again = bool(graph.below) or not graph.layered  # the trunk is passed again
            _, found = self.passes.at_gates(leaves, keep or again)
            self._others += zip(leaves, found, strict=True)
            blocks = self.passes.through_trunk([*graph.live, *below], keep)
        weights = torch.tensor(self.head_weights, dtype=torch.float64)
        totals = Rows(below, blocks[len(graph.live) :], self.n_tasks).combined(weights)
        self._others += zip(below, totals, strict=True)
        by_id = dict(zip(map(id, graph.live), blocks, strict=False))
        rows = Rows(self.shared, [by_id.get(id(p)) for p in self.shared], self.n_tasks)
        self._rows = rows if self.reduce is None else rows.changed(self.reduce)
        return self._rows

    def _gramian_of(self, parameters: Sequence[Tensor]) -> Tensor:
        """Inner products of the gradients of a part of the shared parameters."""
        wanted = {id(p) for p in parameters}
        live = [p for p in self.graph.live if id(p) in wanted]
        if not live and self.reduce is None:
            raise ValueError("shared: no loss reaches the last shared layer")
        if self._has_formulas:
            return self._by_formula(self._planned(live))
        blocks = self.passes.through_trunk(live, keep=True)
        by_id = dict(zip(map(id, live), blocks, strict=True))
        rows = Rows(parameters, [by_id.get(id(p)) for p in parameters], self.n_tasks)
        rows = rows if self.reduce is None else rows.changed(self.reduce)
        return rows.gramian() / self.scale**2

    def _planned(self, parameters: list[Tensor]) -> layers.Plan:
        with naming_parts_for_one_pass():  # it looks at what the forward pass saved
            return layers.plan(self.graph, parameters)

    def _by_formula(self, plan: layers.Plan) -> Tensor:
        found = self.passes.through_trunk([*plan.edges, *plan.remaining], keep=True)
        blocks = [
            block if isinstance(block, Tensor) else _zeros(edge, self.n_tasks)
            for edge, block in zip(plan.edges, found, strict=False)
        ]
        total = torch.zeros(self.n_tasks, self.n_tasks, device=self.losses.device)
        if plan.formulas:
            total = total + plan.gramian(blocks)
        if plan.remaining:
            total = total + Rows(plan.remaining, found[len(blocks) :], self.n_tasks).gramian()
        return total / self.scale**2


def last_layer_of(shared: Sequence[Tensor]) -> list[Tensor]:
    """The last tensor with two or more dimensions and what follows it (its bias)."""
    matrices = [i for i, p in enumerate(shared) if p.dim() >= 2]
    return list(shared[matrices[-1] :] if matrices else shared[-1:])


def _zeros(edge: Any, n_tasks: int) -> Tensor:
    meta = edge.node._input_metadata[edge.output_nr]
    return torch.zeros(n_tasks, *meta.shape, dtype=meta.dtype, device=meta.device)
