"""Gradients of K task losses in the shared parameters, and their Gramian, as cheaply as autograd
allows. The face of `mtl_utils.engine`, which does the work:

    graph           what the losses reach; the gates, where each task enters what is shared
    heads           one pass through all heads gives each task's gradients at its gates
    trunk           from there on, all tasks at once (vectorised) or one by one
    layers          inner products of task gradients from inputs and output gradients of layers
    landing         one ordinary backward pass puts the result into `.grad`

The Gramian J J' needs no J. For a linear layer with inputs a [R, in] and output gradients d_k
[R, out] of loss k,

    <g_k, g_l> = sum of (a a' + 1 1') * (d_k d_l')        (1 1' is the bias)

so only the d_k travel back through the trunk, where that saves multiplications.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from mtl_utils.engine.graph import LEAF, find_stacks
from mtl_utils.engine.task_gradients import TaskGradients

METHODS = ("auto", "loop", "batched", "cut", "forked")


def fork(representation: Tensor | Sequence[Tensor], n_tasks: int) -> tuple:
    """K aliases of a representation, one for each head, that autograd can tell apart.

    The engine finds by itself what a head reads. With aliases, `features=` checks that head k reads
    its own alone.

    Args:
        representation: output of the trunk, any shape, attached to the graph; or several of them.
        n_tasks: K.

    Returns:
        K tensors with the values and the storage of `representation`, or K tuples of them.
    """
    if isinstance(representation, Tensor):
        return tuple(representation.view_as(representation) for _ in range(n_tasks))
    return tuple(zip(*(fork(part, n_tasks) for part in representation), strict=True))


def check_shared(shared: Iterable[Tensor]) -> list[Tensor]:
    """The shared parameters that learn, as a list.

    Raises:
        ValueError: no parameters, something else than leaf tensors, or all of them frozen.
    """
    if isinstance(shared, Tensor):
        shared = [shared]
    if not isinstance(shared, Iterable):
        raise ValueError(
            "shared: expected parameters, e.g. model.trunk.parameters(), "
            f"got {type(shared).__name__}"
        )
    parameters = list(shared)
    if not parameters:
        raise ValueError(
            "shared: expected at least one parameter, got none "
            "(a generator such as model.parameters() is empty the second time)"
        )
    for parameter in parameters:
        if not isinstance(parameter, Tensor) or not parameter.is_leaf:
            raise ValueError(
                f"shared: expected parameters (leaf tensors), got {type(parameter).__name__}"
                f"{' that is not a leaf' if isinstance(parameter, Tensor) else ''}"
            )
    unique = {id(p): p for p in parameters if p.requires_grad}
    if not unique:
        raise ValueError("shared: expected parameters that learn, got only frozen ones")
    return list(unique.values())


def task_gradients(
    losses: Tensor,
    shared: Iterable[Tensor],
    features: Sequence | None = None,
    method: str = "auto",
    retain_graph: bool = False,
    head_weights: Tensor | Sequence[float] | None = None,
    **options: Any,
) -> TaskGradients:
    """Gradients of K losses in the shared parameters and in all others.

    Args:
        losses: [K], attached to the graph. From `torch.stack([...])`, also with something done to
            each entry since (`/ 4`), each loss is taken back through its own head alone.
        shared: the shared parameters.
        features: `fork(z, K)`, where head k read features[k] and nothing else of the trunk. Only
            checked.
        method: one of `METHODS`. "auto" passes all heads once, and the trunk for all tasks at once
            where that is possible and faster; "loop" makes K plain passes; "batched" one vectorised
            pass through heads and trunk; "cut" and "forked" are as "auto", but refuse losses
            without heads of their own, or without features.
        retain_graph: keep the graph for another backward pass.
        head_weights: [K] above 0, factor of each loss in the gradients of all parameters that are
            not shared; 1 if not given.
        options: `present`, `scale`, `reduce` and `memo` of `engine.TaskGradients`.

    Raises:
        ValueError: unknown method; features missing or of the wrong number; a loss that reaches
            the trunk on another way than through its own feature; no shared parameter is reached;
            a part of the graph is hidden by reentrant checkpointing.
    """
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    parameters = check_shared(shared)
    if features is not None or method == "forked":
        check_features(losses, features, parameters)
    weights = None
    if head_weights is not None:
        weights = torch.as_tensor(head_weights).tolist()
        if not min(weights) > 0:
            raise ValueError(f"head_weights: expected numbers above 0, got {weights}")
    method = "cut" if method == "forked" else method
    return TaskGradients(losses, parameters, method, retain_graph, weights, **options)


def jacobian(
    losses: Tensor,
    shared: Iterable[Tensor],
    features: Sequence[Tensor] | None = None,
    method: str = "auto",
) -> Tensor:
    """Jacobian of the losses in the shared parameters, [K, P]; the graph is kept.

    Arguments and errors as in `task_gradients`.
    """
    return task_gradients(losses, shared, features, method, retain_graph=True).jacobian


def gramian(
    losses: Tensor,
    shared: Iterable[Tensor],
    features: Sequence[Tensor] | None = None,
    method: str = "auto",
) -> Tensor:
    """Gramian of the task gradients in the shared parameters, [K, K]; the graph is kept.

    Arguments and errors as in `task_gradients`.
    """
    return task_gradients(losses, shared, features, method, retain_graph=True).gramian()


# ---- features, where the user hands them over ---------------------------------------------------


def check_features(
    losses: Tensor, features: Sequence | None, shared: Sequence[Tensor] = ()
) -> None:
    """Make sure that loss k reaches the shared parameters through features[k] alone.

    Raises:
        ValueError: it does not, or the features are no fork.
    """
    shared_ids = {id(p) for p in shared}
    n_tasks = len(losses)
    if features is None or isinstance(features, Tensor) or len(features) != n_tasks:
        given = "none" if features is None else f"{len(features)}"
        raise ValueError(
            f"features: expected {n_tasks} tensors, fork(z, n_tasks={n_tasks}), got {given}"
        )
    rows = [[row] if isinstance(row, Tensor) else list(row) for row in features]
    stacks = find_stacks(losses)
    if stacks is None:
        raise ValueError(
            "losses: with features they have to come from torch.stack([loss_1, ...]), "
            f"got the result of {type(losses.grad_fn).__name__}"
        )
    if not all(map(_are_fork, zip(*rows, strict=True))):
        raise ValueError(
            "features: expected K different aliases of one representation, as fork() makes them, "
            "attached to the graph and not changed in place"
        )
    owner = {feature.grad_fn: k for k, row in enumerate(rows) for feature in row}
    for k in range(n_tasks):
        leaves, met = _reached([stack.next_functions[k][0] for stack in stacks], owner)
        foreign = sorted({owner[node] for node in met} - {k})
        if foreign:
            raise ValueError(
                f"features: loss {k} reads features[{foreign[0]}], expected only [{k}]"
            )
        if shared_ids & leaves:
            raise ValueError(
                f"features: loss {k} reaches the shared parameters without passing features[{k}]"
            )


def _are_fork(features: Sequence[Tensor]) -> bool:
    """Whether these are different views of one tensor that differ in nothing but their node."""
    nodes = [feature.grad_fn for feature in features]
    if any(node is None or type(node).__name__ != "ViewBackward0" for node in nodes):
        return False
    parents = {node.next_functions for node in nodes if node is not None}
    shapes = {feature.shape for feature in features}
    return len(parents) == len(shapes) == 1 and len(set(nodes)) == len(nodes)


def _reached(roots: Iterable[Any], stop: Container) -> tuple[set[int], set]:
    """Ids of the leaves under graph nodes, and which of the nodes in `stop` were met on the way."""
    leaves, met, seen, to_visit = set(), set(), set(), list(roots)
    while to_visit:
        node = to_visit.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node in stop:
            met.add(node)
            continue
        if isinstance(node, LEAF):
            leaves.add(id(node.variable))
        to_visit += [child for child, _ in node.next_functions]
    return leaves, met
