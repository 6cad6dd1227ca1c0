"""Gradients of K losses, found without side effects, and the one backward pass that lands them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mtl_utils.engine import graph as graphs
from mtl_utils.engine import heads, landing, layers, trunk
from mtl_utils.engine.processes import Mean
from mtl_utils.engine.retained import Retained
from mtl_utils.engine.trunk import Block


class TaskGradients:
    """Gradients of K losses; what is not asked for is not computed.

    Ask for `gramian()` or `jacobian` or neither, then `fill()` or `fill_with()` once. Nothing but
    these touches `.grad`.

    Attributes:
        shared: the shared parameters.
        reached: whether any loss reaches each of them.
        live: those that are reached.
        plan: in words, how the work was done so far.
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
        self.losses, self.shared, self.retain_graph = losses, shared, retain_graph
        self.n_tasks, self.present, self.scale, self.reduce = len(losses), present, scale, reduce
        self.head_weights = [1.0] * self.n_tasks if head_weights is None else list(head_weights)
        self.memo = {} if memo is None else memo
        self.method = method
        whole = method in ("loop", "batched")
        self.graph = graphs.read(losses, shared, present, heads=not whole)
        if method == "cut" and not self.graph.stacks:
            raise ValueError("method: 'cut' needs losses from torch.stack([loss_1, ...])")
        self.live = self.graph.live
        live = {id(p) for p in self.live}
        self.reached = [id(p) in live for p in shared]
        self.plan = "each head once" if self.graph.has_heads else "a backward pass for each task"
        self._retained = Retained(self.graph.every, self.memo)
        self._partials: heads.Partials | None = None
        self._blocks: dict[int, Block | None] | None = None  # of each live parameter, by id
        self._others: list[tuple[Tensor, Tensor | None]] = []

    # ---- what a rule asks for ----------------------------------------------------------------

    @property
    def jacobian(self) -> Tensor:
        """[K, P], row k is the gradient of loss k in the shared parameters, flattened and in the
        order of `shared`; zeros where a loss does not reach a parameter. At least float32."""
        blocks = self._all_blocks()
        columns = []
        for p in self.shared:
            block = trunk.dense(blocks.get(id(p)), p, self.n_tasks)
            columns.append(trunk.rows_of(block, self.n_tasks))
        return torch.cat(columns, 1) / self.scale if self.scale != 1 else torch.cat(columns, 1)

    def gramian(self, last_layer: bool = False) -> Tensor:
        """Inner products of the task gradients, [K, K].

        Args:
            last_layer: only those of the last shared layer.
        """
        if last_layer:
            wanted = {id(p) for p in last_layer_of(self.shared)}
            part = [p for p in self.live if id(p) in wanted]
            if not part:
                raise ValueError("shared: no loss reaches the last shared layer")
            self.plan += "; Gramian of the last shared layer"
            if self._has_formulas:
                return self._by_formula(layers.plan(self.graph, part))
            found = dict(zip(map(id, part), self._through_trunk(part, keep=True), strict=True))
            return self._inner_products(part, self._averaged(part, found))
        if self._blocks is None and self._has_formulas:
            plan = layers.plan(self.graph, self.live)
            if plan.saved > plan.update:
                self.plan += "; " + plan.words
                return self._by_formula(plan)
        return self._inner_products(self.shared, self._all_blocks())

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
        total = torch.zeros((), device=self.losses.device)
        for found in self._at_gates().values():
            example = next(g for g in found if g is not None)
            block = torch.stack([torch.zeros_like(example) if g is None else g for g in found])
            rows = trunk.rows_of(block, self.n_tasks) / self.scale
            total = total + rows @ rows.T
        self.plan += "; Gramian of the representation"
        return total if self.reduce is None else self.reduce(total) / self.reduce.size

    # ---- what lands ----------------------------------------------------------------------------

    def fill(self, coefficients: Tensor) -> None:
        """Add sum_k coefficients[k] g_k to `.grad` of the shared parameters, and sum_k
        head_weights[k] dL_k to that of all others."""
        if self._blocks is None:
            factors, weights = coefficients.tolist(), self.head_weights
            if self.scale != 1:
                factors = [self.scale * c for c in factors]
                weights = [self.scale * w for w in weights]
            landing.through_gates(self.graph, factors, weights, self.present, self.retain_graph)
            return
        pairs: list[tuple[Tensor, Tensor | None]] = []
        for p in self.shared:
            block = self._blocks.get(id(p))
            if block is not None:
                pairs.append((p, trunk.combined(block, coefficients)))
        self._land(pairs)

    def fill_with(self, update: Tensor) -> None:
        """Add an update [P], flattened in the order of `shared`, to `.grad` of the shared
        parameters, and their gradients to that of all others."""
        blocks = self._all_blocks()
        sizes = [p.numel() * (2 if p.is_complex() else 1) for p in self.shared]
        pairs: list[tuple[Tensor, Tensor | None]] = []
        for p, part in zip(self.shared, (self.scale * update).split(sizes), strict=True):
            if blocks.get(id(p)) is None:
                continue
            if p.is_complex():
                gradient = torch.view_as_complex(part.view(*p.shape, 2))
            else:
                gradient = part.view_as(p)
            if isinstance(blocks[id(p)], list):
                gradient = gradient.to_sparse(1)
            pairs.append((p, gradient))
        self._land(pairs)

    def _land(self, pairs: list[tuple[Tensor, Tensor | None]]) -> None:
        leaves, gradients = zip(*pairs, *self._others, strict=True)
        landing.onto_leaves(leaves, gradients)

    # ---- how it is found -------------------------------------------------------------------------

    def _at_gates(self, leaves: Sequence[Tensor] = (), keep: bool = True) -> heads.Partials:
        """dL_k at the gates; the gradients of private leaves are kept for landing."""
        if self._partials is None:
            with heads.hooks_off([*self.live, *self.graph.private, *self.graph.below]):
                self._partials, found = heads.at_gates(
                    self.graph, self.head_weights, self.scale, leaves, keep
                )
            self._retained.restore()
            self._others += zip(leaves, found, strict=True)
        return self._partials

    def _all_blocks(self) -> dict[int, Block | None]:
        """K gradients of every shared parameter, and those of all other leaves."""
        if self._blocks is None:
            leaves, below = self.graph.private, self.graph.below
            if not self.graph.starts_at_gates:
                leaves, below = [*leaves, *below], []
            again = bool(self.graph.below) or not self.graph.layered  # the trunk is passed again
            self._at_gates(leaves, keep=self.retain_graph or again)
            found = self._through_trunk([*self.live, *below], keep=self.retain_graph)
            weights = torch.tensor(self.head_weights, dtype=torch.float64)
            for leaf, block in zip(below, found[len(self.live) :], strict=True):
                total = None if block is None else trunk.combined(block, weights)
                self._others.append((leaf, total))
            blocks = dict(zip(map(id, self.live), found[: len(self.live)], strict=True))
            self._blocks = self._averaged(self.shared, blocks)
        return self._blocks

    def _averaged(self, parameters: Sequence[Tensor], blocks: dict) -> dict:
        """The means of blocks over the processes of a group."""
        if self.reduce is None:
            return blocks
        rows = [trunk.dense(blocks.get(id(p)), p, self.n_tasks).flatten(1) for p in parameters]
        parts = self.reduce(torch.cat(rows, 1)).split([row.shape[1] for row in rows], 1)
        return {
            id(p): part.view(self.n_tasks, *p.shape).to(p.dtype)
            for p, part in zip(parameters, parts, strict=True)
        }

    def _by_formula(self, plan: layers.Plan) -> Tensor:
        targets = [*plan.edges, *plan.remaining]
        found = self._through_trunk(targets, keep=True)
        blocks = [
            block if isinstance(block, Tensor) else _zeros(edge, self.n_tasks)
            for edge, block in zip(plan.edges, found, strict=False)
        ]
        total = torch.zeros((), device=self.losses.device)
        if plan.formulas:
            total = plan.gramian(blocks) / self.scale**2
        if plan.remaining:
            rest = dict(zip(map(id, plan.remaining), found[len(blocks) :], strict=True))
            total = total + self._inner_products(plan.remaining, rest)
        return total

    @property
    def _has_formulas(self) -> bool:
        return self.reduce is None and self.method in ("auto", "cut")

    def _inner_products(self, parameters: Sequence[Tensor], blocks: dict) -> Tensor:
        """[K, K]; a parameter's hooks see each gradient, as they do in K passes."""
        size = (self.n_tasks, self.n_tasks)
        total = torch.zeros(size, device=self.losses.device)
        for p in parameters:
            block = blocks.get(id(p))
            if block is None:
                continue
            if p._backward_hooks:
                block = trunk.each_row(block, partial(_hooked, p))
            rows = trunk.rows_of(block, self.n_tasks)
            if self.scale != 1:
                rows = rows / self.scale
            total = total + rows @ rows.T
        return total

    def _through_trunk(self, targets: Sequence[Any], keep: bool) -> list[Block | None]:
        """What the tasks want, taken back from the gates to parameters or edges."""
        partials = self._at_gates()
        kinds = frozenset(type(node).__name__ for node in self.graph.nodes)
        known = self.memo.get(kinds)  # whether a graph of these nodes can be vectorised
        if self.method == "batched":
            known = True
        elif self.method == "loop" or not trunk.vectorises(self.graph, partials):
            known = False
        with heads.hooks_off([*self.live, *self.graph.private, *self.graph.below]):
            if known is not False:
                keep_it = keep or not known  # until it is known, something else may be needed
                try:
                    found = trunk.at_once(self.graph, partials, targets, keep_it)
                except Exception:
                    if known:
                        raise
                    self.memo[kinds] = False
                else:
                    self.memo.setdefault(kinds, True)
                    self._retained.restore()
                    self.plan += "; trunk vectorised"
                    return found
            self.plan += "; trunk once for each task"
            if self.memo.get(kinds) is False:
                self.plan += ", as it cannot be vectorised"
            try:
                return trunk.one_by_one(self.graph, partials, targets, keep)
            except RuntimeError as error:
                if "donated buffer" in str(error):
                    raise ValueError(NEEDS_BUFFERS) from error
                raise
            finally:
                self._retained.restore()


NEEDS_BUFFERS = (
    "losses: a part of the trunk was compiled so that it can be passed back only once, and rules "
    "on gradients pass it once for each task; set torch._functorch.config.donated_buffer = False "
    "before the model is compiled"
)


def last_layer_of(shared: Sequence[Tensor]) -> list[Tensor]:
    """The last tensor with two or more dimensions and what follows it (its bias)."""
    matrices = [i for i, p in enumerate(shared) if p.dim() >= 2]
    return list(shared[matrices[-1] :] if matrices else shared[-1:])


def _hooked(parameter: Tensor, gradient: Tensor) -> Tensor:
    """A gradient after the hooks of its parameter."""
    assert parameter._backward_hooks is not None
    for hook in list(parameter._backward_hooks.values()):
        changed = hook(gradient)
        gradient = gradient if changed is None else changed
    return gradient


def _zeros(edge: Any, n_tasks: int) -> Tensor:
    meta = edge.node._input_metadata[edge.output_nr]
    return torch.zeros(n_tasks, *meta.shape, dtype=meta.dtype, device=meta.device)
