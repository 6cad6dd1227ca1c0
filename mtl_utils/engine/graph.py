"""The autograd graph of K losses: what belongs to one task alone, what tasks have in common.

A node that one loss alone reaches is private to its task: a head. A node that several losses reach
is common: the trunk, however many tensors of it the heads read. Where an edge leads from a private
node into the common part, towards a shared parameter, stands a gate:

    loss k ──> private nodes of task k ──gate──> common nodes ──> shared parameters

Everything that task k sends into the shared parameters passes its own gates. So the gradients at
the gates say what each task wants, and scaling them there by a coefficient scales nothing else. A
loss whose own node is common has its gate in front of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import GradientEdge, get_gradient_edge

LEAF = torch._C._functions.AccumulateGrad  # type: ignore[attr-defined]

# What may stand between torch.stack([...]) and the losses: each entry depends on its own alone.
ELEMENTWISE = {
    f"{name}Backward"
    for name in (
        "Mul Div Add Sub Rsub Neg Abs Pow Exp Expm1 Log Log1P Log2 Log10 Sqrt Rsqrt Reciprocal "
        "Clamp ClampMin ClampMax Relu Softplus Tanh Sigmoid Where MaskedFill Clone ToCopy Alias "
        "NanToNum Minimum Maximum"
    ).split()
}


@dataclass(eq=False)
class Gate:
    """A place where the losses of one task enter the common part.

    Attributes:
        task: k.
        node: the private node from which the edge leads, None for a loss that is common itself.
        index: of the edge among `node.next_functions`, or of the root of a task.
        into: the common node (or leaf of a shared parameter) and which of its outputs' gradients.
    """

    task: int
    node: Any
    index: int
    into: tuple[Any, int]


@dataclass
class Root:
    """Where the backward pass of one task begins: an edge and the gradient of the loss there."""

    edge: GradientEdge
    gradient: Tensor


@dataclass
class Graph:
    """What the losses reach.

    Attributes:
        losses: [K].
        roots: for each task, where its backward pass begins; none for a loss that is a constant.
        gates: all of them.
        live: the shared parameters that some loss reaches, in the order given.
        private: other leaves that are reached beside the gates.
        below: other leaves that are reached through gates (they may be reached beside them too).
        direct: ids of shared parameters that private nodes read.
        nodes: the common nodes behind gates.
        every: all nodes.
        stacks: the nodes of torch.stack behind which the roots stand, if they do.
        layered: no gate leads into what lies behind another: gates can be reached without passing
            common nodes.
    """

    losses: Tensor
    roots: list[list[Root]]
    gates: list[Gate] = field(default_factory=list)
    live: list[Tensor] = field(default_factory=list)
    private: list[Tensor] = field(default_factory=list)
    below: list[Tensor] = field(default_factory=list)
    direct: set[int] = field(default_factory=set)
    nodes: set = field(default_factory=set)
    every: list = field(default_factory=list)
    stacks: list = field(default_factory=list)
    layered: bool = True

    @property
    def leaves(self) -> list[Tensor]:
        """All leaves that learn."""
        return [node.variable for node in self.every if _learns(node)]

    @property
    def has_own_functions(self) -> bool:
        """Whether there are custom functions: Python code, which may write into what it gets, or
        keep it."""
        return any(isinstance(node, BackwardCFunction) for node in self.every)

    @property
    def has_heads(self) -> bool:
        """Whether any task has nodes of its own in front of the common part."""
        return any(gate.node is not None for gate in self.gates)

    @property
    def starts_at_gates(self) -> bool:
        """Whether every pass begins at a gate, so that what lies behind gates is all there is."""
        return not self.has_heads and len(self.gates) == sum(map(len, self.roots))


def read(
    losses: Tensor,
    shared: Sequence[Tensor] | None,
    present: Sequence[bool] | None = None,
    heads: bool = True,
) -> Graph:
    """Find roots, gates and leaves.

    Args:
        losses: [K], attached to a graph.
        shared: the shared parameters; None looks for roots and leaves alone.
        present: [K], which losses count; the others count as constants.
        heads: False takes every node for common: the gates stand in front of the losses, and each
            task is a pass of its own through everything.

    Raises:
        ValueError: a part of the graph is hidden by reentrant checkpointing; a task is absent from
            losses that do not come from torch.stack.
    """
    stacks = find_stacks(losses)
    roots = _own_roots(losses) if stacks is None else _roots_behind(stacks, losses)
    if present is not None and not all(present):
        if stacks is None:
            raise ValueError(NEEDS_STACK)
        roots = [own if there else [] for own, there in zip(roots, present, strict=True)]
    graph = Graph(losses, roots, stacks=stacks or [])
    starts = [{root.edge.node for root in roots} for roots in graph.roots]
    children = _parents_first(node for nodes in starts for node in nodes)
    order = list(children)
    graph.every = order
    reentrant = "CheckpointFunctionBackward"
    if any(type(node).__name__ == reentrant for node in order):
        raise ValueError(
            "losses: reentrant checkpointing hides a part of the graph; use "
            "torch.utils.checkpoint.checkpoint(..., use_reentrant=False)"
        )
    if shared is None:
        return graph
    wanted = {id(p) for p in shared}
    reached_by = dict.fromkeys(order, 0)  # bit k: loss k reaches the node
    for k, nodes in enumerate(starts):
        for node in nodes:
            reached_by[node] |= 1 << k
    for node in order:
        mask = reached_by[node]
        for child, _ in children[node]:
            if child is not None:
                reached_by[child] |= mask
    leads = {node for node in order if isinstance(node, LEAF) and id(node.variable) in wanted}
    shared_leaves = set(leads)
    for node in reversed(order):  # to a shared parameter
        for child, _ in children[node]:
            if child in leads:
                leads.add(node)
                break
    each_is_common = not heads or len(starts) == 1
    common = {n for n in leads if each_is_common or reached_by[n] & (reached_by[n] - 1)}
    for k, own in enumerate(graph.roots):
        for i, root in enumerate(own):
            node = root.edge.node
            if node in common or node in shared_leaves:
                graph.gates.append(Gate(k, None, i, (node, root.edge.output_nr)))
    for node in order:
        if node in common or node not in leads:
            continue
        for index, (child, number) in enumerate(children[node]):
            if child in shared_leaves:
                graph.direct.add(id(child.variable))
            if child in shared_leaves or child in common:
                task = reached_by[node].bit_length() - 1
                graph.gates.append(Gate(task, node, index, (child, number)))
    _sort_leaves(graph, shared, wanted, children)
    return graph


def leaves_of(losses: Tensor, present: Sequence[bool] | None = None) -> list[Tensor]:
    """The leaves that the losses reach, also after the graph was freed.

    Args:
        losses: [K], attached to a graph.
        present: [K], which losses count, if these come from torch.stack.
    """
    starts: list[Any] = [get_gradient_edge(losses).node]
    stacks = find_stacks(losses)
    if present is not None and stacks is not None:
        pairs = [(stack.next_functions, k) for stack in stacks for k in range(len(losses))]
        starts = [inputs[k][0] for inputs, k in pairs if present[k]]
    order = _parents_first(node for node in starts if node is not None)
    return [node.variable for node in order if _learns(node)]


def _learns(node: Any) -> bool:
    """Whether a node is a leaf that gets a gradient: it may have been frozen since."""
    return isinstance(node, LEAF) and node.variable.requires_grad


def _sort_leaves(
    graph: Graph, shared: Sequence[Tensor], wanted: set[int], children: dict[Any, tuple]
) -> None:
    """Fill `live`, `private`, `below`, `nodes` and `layered`."""
    entered = {gate.into[0] for gate in graph.gates}
    behind: set[Any] = set()
    for node in graph.every:  # parents first
        if node in entered or node in behind:
            behind.update(child for child, _ in children[node] if child is not None)
    graph.nodes = entered | behind
    graph.layered = entered.isdisjoint(behind)
    reached = set()
    for node in graph.every:
        if not _learns(node):
            continue
        reached.add(id(node.variable))
        if id(node.variable) not in wanted:
            part = graph.below if node in graph.nodes else graph.private
            part.append(node.variable)
    graph.live = [p for p in shared if id(p) in reached]


def _parents_first(roots: Iterable[Any]) -> dict[Any, tuple]:
    """All nodes under the roots in topological order, and what each has below it."""
    done: list = []
    below: dict[Any, tuple] = {}
    finished = set()
    stack = list(dict.fromkeys(roots))
    while stack:
        node = stack[-1]
        if node not in below:
            below[node] = node.next_functions  # asked for once: it makes new objects
            stack += [c for c, _ in below[node] if c is not None and c not in below]
            continue
        stack.pop()
        if node not in finished:
            finished.add(node)
            done.append(node)
    return {node: below[node] for node in reversed(done)}


# ---- where each task begins ------------------------------------------------------------------

NEEDS_STACK = (
    "losses: with absent tasks they have to come from torch.stack([loss_1, ...]), so that what an "
    "absent task holds stays out of the backward pass"
)


def _own_roots(losses: Tensor) -> list[list[Root]]:
    """Each loss as an entry of the vector of losses."""
    edge = get_gradient_edge(losses)
    return [[Root(edge, row)] for row in torch.eye(len(losses)).to(losses)]


def _roots_behind(stacks: list, losses: Tensor) -> list[list[Root]]:
    """Each loss behind the stack, where it is alone.

    A loss taken out of the stack sends zeros back through all the others: K passes through K heads
    each, and NaN where a zero meets an infinite derivative.
    """
    ones = torch.ones_like(losses)
    factors: Sequence[Tensor] = [_seen_by_hooks(losses, ones)]
    if stacks != [losses.grad_fn]:  # something elementwise was done to the stack
        edges = [GradientEdge(stack, 0) for stack in stacks]
        factors = torch.autograd.grad([losses], edges, [ones], retain_graph=True)
    roots: list[list[Root]] = [[] for _ in losses]
    for stack, factor in zip(stacks, factors, strict=True):
        for k, (node, number) in enumerate(stack.next_functions):
            if node is not None:
                shape = tuple(node._input_metadata[number].shape)
                roots[k].append(Root(GradientEdge(node, number), factor[k].reshape(shape)))
    return roots


def _seen_by_hooks(losses: Tensor, gradient: Tensor) -> Tensor:
    """A gradient of the vector of losses after the hooks of that vector."""
    for hook in (losses._backward_hooks or {}).values():
        changed = hook(gradient)
        gradient = gradient if changed is None else changed
    return gradient


def find_stacks(losses: Tensor) -> list | None:
    """The nodes of torch.stack (or torch.cat) from which the losses come, entry by entry.

    Returns:
        None where the losses come from something else.
    """
    stacks: list = []
    to_visit: list[Any] = [losses.grad_fn]
    seen = set()
    while to_visit:
        node = to_visit.pop()
        if node in seen:
            continue
        seen.add(node)
        if _is_stack(node, len(losses)):
            stacks.append(node)
            continue
        if type(node).__name__.rstrip("0123456789") not in ELEMENTWISE:
            return None
        for child, number in node.next_functions:
            if child is not None:
                if tuple(child._input_metadata[number].shape) != tuple(losses.shape):
                    return None
                to_visit.append(child)
    return stacks


def _is_stack(node: Any, n_tasks: int) -> bool:
    """Whether a node puts n_tasks single numbers together, one behind the other."""
    inputs = node.next_functions if node is not None else ()
    if type(node).__name__ == "StackBackward0":
        return len(inputs) == n_tasks
    if type(node).__name__ == "CatBackward0":
        return len(inputs) == n_tasks and all(
            child is not None and tuple(child._input_metadata[number].shape) == (1,)
            for child, number in inputs
        )
    return False
