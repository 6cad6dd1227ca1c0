"""What each task wants at its gates: the gradients of the losses where they enter the trunk."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from mtl_utils.engine.graph import Gate, Graph

Partials = dict[
    tuple[Any, int], list[Tensor | None]
]  # gate's node and output -> a row for each task


def at_gates(
    graph: Graph,
    head_weights: Sequence[float],
    scale: float,
    leaves: Sequence[Tensor],
    retain_graph: bool,
    together: bool = False,
    copies: bool = False,
) -> tuple[Partials, list[Tensor | None]]:
    """One pass through all heads: they have nothing in common.

    Args:
        graph: what the losses reach.
        head_weights: [K], above 0, of the losses in the gradients of `leaves`.
        scale: factor of all gradients.
        leaves: others than shared ones whose gradients are wanted; where the pass has to go through
            the trunk to reach them, it does.
        retain_graph: keep the heads for another pass.
        together: put what the tasks want at a gate into one tensor, as far as that goes, where
            `stacked` finds it.
        copies: keep copies, where somebody may write into what is passed on.

    Returns:
        scale dL_k at each gate, and scale sum_k head_weights[k] dL_k in each leaf.
    """
    n_tasks = len(graph.roots)
    if not leaves:
        head_weights = [1.0] * n_tasks
    partials: Partials = defaultdict(lambda: [None] * n_tasks)
    room: dict[tuple[Any, int], Tensor] = {}
    below = {id(leaf) for leaf in graph.below}
    goes_on, ends = any(id(leaf) in below for leaf in leaves), set()

    def weighed(found: Tensor, gate: Gate) -> Tensor:
        weight = head_weights[gate.task]
        if copies:
            return found.clone() if weight == 1 else found / weight
        if not together or found.layout != torch.strided:
            return found if weight == 1 else found / weight
        if gate.into not in room:
            room[gate.into] = found.new_empty(n_tasks, *found.shape)
        row = room[gate.into][gate.task]
        if partials[gate.into][gate.task] is not None or row.shape != found.shape:
            return found / weight  # the row is taken
        return torch.div(found, weight, out=row)

    def record(gates: list[Gate]) -> Callable:
        def hook(gradients: Sequence[Tensor | None], _: Any) -> tuple:
            sent = list(gradients)
            for gate in gates:
                found = gradients[gate.index]
                if found is None:
                    continue
                _add(partials[gate.into], gate.task, weighed(found.detach(), gate))
                if gate.into in ends:  # one is enough for hooks; the sum would be for nothing
                    sent[gate.index] = None
                elif not goes_on:
                    ends.add(gate.into)
            return tuple(sent)

        return hook

    for gate in graph.gates:
        if gate.node is None:
            root = graph.roots[gate.task][gate.index]
            _add(partials[gate.into], gate.task, scale * root.gradient)
    inner = [gate for gate in graph.gates if gate.node is not None]
    targets: list[Any] = [GradientEdge(*into) for into in dict.fromkeys(g.into for g in inner)]
    targets += leaves
    if not targets:
        return partials, []
    with hooked(inner, record):
        found = of_sum(graph, [scale * w for w in head_weights], targets, retain_graph)
    return partials, found[len(targets) - len(leaves) :]


def of_sum(
    graph: Graph, weights: Sequence[float], targets: Sequence[Any], retain_graph: bool
) -> list[Tensor | None]:
    """Gradients of sum_k weights[k] L_k in tensors or edges, in one pass."""
    own = [(k, root) for k, roots in enumerate(graph.roots) for root in roots]
    found = torch.autograd.grad(
        [root.edge for _, root in own],
        targets,
        [weights[k] * root.gradient for k, root in own],
        retain_graph=retain_graph,
        allow_unused=True,
    )
    return list(found)


def at_roots(graph: Graph, scale: float) -> Partials:
    """scale dL_k where the backward pass of each task begins: in front of its head."""
    partials: Partials = defaultdict(lambda: [None] * len(graph.roots))
    for k, roots in enumerate(graph.roots):
        for root in roots:
            _add(partials[root.edge.node, root.edge.output_nr], k, scale * root.gradient)
    return partials


@contextmanager
def hooked(gates: Sequence[Gate], make: Callable[[list[Gate]], Callable]) -> Iterator[None]:
    """For a while, a hook behind each node from which gates lead away."""
    by_node: dict[Any, list[Gate]] = {}
    for gate in gates:
        by_node.setdefault(gate.node, []).append(gate)
    handles = [node.register_hook(make(of_node)) for node, of_node in by_node.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def hooks_off(leaves: Sequence[Tensor]) -> Iterator[None]:
    """For a while, without the hooks of these leaves: they belong to the gradient that lands."""
    dicts = [leaf._backward_hooks for leaf in leaves if leaf._backward_hooks]
    kept = [dict(hooks) for hooks in dicts]
    for hooks in dicts:
        hooks.clear()
    try:
        yield
    finally:
        for hooks, saved in zip(dicts, kept, strict=True):
            hooks.update(saved)


def stacked(rows: Sequence[Tensor | None]) -> Tensor | None:
    """What the tasks want at a gate as one tensor, [K, ...]; None where nobody wants anything."""
    example = next((row for row in rows if row is not None), None)
    if example is None:
        return None
    whole = example._base
    if whole is not None and len(whole) == len(rows) and example.shape == whole.shape[1:]:
        places = [None if row is None or row._base is not whole else row.data_ptr() for row in rows]
        if places == [row.data_ptr() for row in whole]:
            return whole
    return torch.stack([torch.zeros_like(example) if row is None else row for row in rows])


def _add(rows: list[Tensor | None], k: int, gradient: Tensor) -> None:
    before = rows[k]
    rows[k] = gradient if before is None else before + gradient
