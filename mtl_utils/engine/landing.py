"""How gradients get into `.grad`: always by an ordinary backward pass, so that hooks, sparse
gradients and the reducers of several processes find what they know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mtl_utils.engine.graph import NEEDS_STACK, Gate, Graph, find_stacks
from mtl_utils.engine.heads import hooked, hooks_off, of_sum


def backward(
    losses: Tensor,
    weights: Tensor,
    present: Sequence[bool] | None = None,
    retain_graph: bool = False,
    inputs: Sequence[Tensor] | None = None,
) -> None:
    """`losses.backward(weights)`, from which absent tasks stay out whatever they hold.

    Args:
        losses: [K], attached to the graph.
        weights: [K].
        present: [K], which tasks take part; all of them if not given.
        retain_graph: keep the graph for another pass.
        inputs: the leaves that get a gradient; all of them if not given.

    Raises:
        ValueError: a task is absent from losses that do not come from torch.stack.
    """
    handles = []
    if present is not None and not all(present):
        stacks = find_stacks(losses)
        if stacks is None:
            raise ValueError(NEEDS_STACK)

        def keep(gradients: Sequence[Tensor | None], _: Any) -> tuple:
            return tuple(g if p else None for g, p in zip(gradients, present, strict=True))

        handles = [stack.register_hook(keep) for stack in stacks]
    try:
        losses.backward(
            weights.to(losses), retain_graph=retain_graph, inputs=None if inputs is None else inputs
        )
    finally:
        for handle in handles:
            handle.remove()


def through_gates(
    graph: Graph,
    coefficients: Sequence[float],
    factors: Sequence[float],
    present: Sequence[bool] | None,
    retain_graph: bool,
    forget: Callable[[], None],
) -> None:
    """One ordinary backward pass in which each gate scales what its task sends into the trunk.

    Shared parameters get sum_k coefficients[k] g_k, all others sum_k factors[k] dL_k. Others below
    the gates would get the coefficients too; their gradients are found before, and land after.

    Args:
        graph: what the losses reach.
        coefficients: [K].
        factors: [K], above 0.
        present: [K], which tasks take part.
        retain_graph: keep the graph for another pass.
        forget: called after that pass, to take out what it left in activations.
    """
    losses = graph.losses
    plain = torch.tensor(factors, dtype=torch.float64)
    if list(coefficients) == list(factors):
        backward(losses, plain, present, retain_graph)
        return
    start, gates = plain.clone(), []
    for gate in graph.gates:
        if gate.node is not None:
            gates.append(gate)
        elif graph.stacks:  # a loss may have other roots, which are its own
            gates += _at_stacks(graph, gate)
        else:
            start[gate.task] = coefficients[gate.task]

    def scale(gates: list[Gate]) -> Callable:
        ratio = {gate.index: coefficients[gate.task] / factors[gate.task] for gate in gates}

        def hook(gradients: Sequence[Tensor | None], _: Any) -> tuple:
            return tuple(_times(g, ratio.get(i, 1.0)) for i, g in enumerate(gradients))

        return hook

    inputs, below = None, list[Tensor | None]()
    if graph.below:
        with hooks_off(graph.below):
            below = of_sum(graph, factors, graph.below, retain_graph=True)
        forget()
        inputs = [*graph.live, *graph.private]
    with hooked(gates, scale):
        backward(losses, start, present, retain_graph, inputs)
    onto_leaves(graph.below, below)


def _at_stacks(graph: Graph, gate: Gate) -> list[Gate]:
    """A gate in front of a loss, as one behind the stack (or stacks) that the loss was put into."""
    edge = graph.roots[gate.task][gate.index].edge
    root = (edge.node, edge.output_nr)
    return [
        Gate(gate.task, stack, gate.task, root)
        for stack in graph.stacks
        if stack.next_functions[gate.task] == root
    ]


def onto_leaves(leaves: Sequence[Tensor], gradients: list[Tensor | None]) -> None:
    """Add gradients to `.grad` of leaves, in one backward pass that begins in front of them.

    Args:
        leaves: tensors that learn, none of them twice.
        gradients: of the shape of each; None leaves `.grad` as it is. The list is emptied: what
            nobody else holds becomes `.grad` itself and is not copied.
    """
    pairs = [(p, g.to(p.dtype)) for p, g in zip(leaves, gradients, strict=True) if g is not None]
    gradients.clear()
    if pairs:
        reached, found = map(list, zip(*pairs, strict=True))
        pairs.clear()
        with torch.enable_grad():
            root = _Given.apply(found, *reached)
        root.backward()


class _Given(torch.autograd.Function):
    """A number whose gradients in some leaves are given. (Handed to `torch.autograd.backward` as
    those of many roots they would all be copied.)"""

    @staticmethod
    def forward(ctx: Any, gradients: list[Tensor], *leaves: Tensor) -> Tensor:
        ctx.gradients = gradients
        return leaves[0].new_zeros((), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple:  # type: ignore[override]
        found = (None, *ctx.gradients)
        ctx.gradients.clear()
        return found


def _times(gradient: Tensor | None, ratio: float) -> Tensor | None:
    if gradient is None or ratio == 1:
        return gradient
    # not 0 * gradient, which is no number where the gradient is infinite
    return torch.zeros_like(gradient) if ratio == 0 else gradient * ratio
