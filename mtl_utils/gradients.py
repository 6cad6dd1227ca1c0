"""Gradients of K task losses in the shared parameters, and their Gramian.

Three ways to the same Jacobian J [K, P], row k = gradient of loss k in the P shared parameters:

    loop     K backward passes through heads and trunk
    batched  one vectorised backward pass (vmap over the K losses)
    forked   the representation is forked once for each head, so that one backward pass gives every
             dL_k/dz (and all head gradients); one vectorised pass takes these through the trunk
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

METHODS = ("auto", "loop", "batched", "forked")


def fork(representation: Tensor, n_tasks: int) -> tuple[Tensor, ...]:
    """K aliases of a representation, one for each head, that autograd can tell apart.

    Args:
        representation: output of the trunk, any shape, attached to the graph.
        n_tasks: K.

    Returns:
        K tensors with the values and the storage of `representation`.
    """
    return tuple(representation.view_as(representation) for _ in range(n_tasks))


def accumulate(parameter: Tensor, gradient: Tensor | None) -> None:
    """Add a gradient to `parameter.grad`, as `Tensor.backward` does."""
    if gradient is None:
        return
    gradient = gradient.detach().to(parameter.dtype)
    if parameter.grad is None:
        parameter.grad = gradient.clone()
    else:
        parameter.grad.add_(gradient)


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


def _leaves(root: torch.autograd.graph.Node | None, stop: set) -> tuple[list[Tensor], set]:
    """Leaf tensors under a graph node, and which of the nodes in `stop` were met on the way."""
    leaves: dict[int, Tensor] = {}
    met, seen, stack = set(), set(), [root]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node in stop:
            met.add(node)
            continue
        if hasattr(node, "variable"):  # AccumulateGrad: the end of the graph
            leaves[id(node.variable)] = node.variable
        stack += [next_node for next_node, _ in node.next_functions]
    return list(leaves.values()), met


@dataclass
class TaskGradients:
    """Gradients of K losses.

    Attributes:
        jacobian: [K, P], row k is the gradient of loss k in the shared parameters, flattened and
            in the order of `shared`; zeros where a loss does not reach a parameter. At least
            float32, as the inner products of half-precision numbers soon overflow.
        shared: the shared parameters.
        reached: whether any loss reaches each of them.
        task_only: every other leaf that the losses reach, with the gradient of the summed losses.
        method: how the Jacobian was found.
    """

    jacobian: Tensor
    shared: list[Tensor]
    reached: list[bool]
    task_only: list[tuple[Tensor, Tensor | None]]
    method: str

    def gramian(self) -> Tensor:
        """Inner products of the task gradients, [K, K]."""
        return self.jacobian @ self.jacobian.T

    def fill(self, coefficients: Tensor) -> None:
        """Add sum_k coefficients[k] g_k to `.grad` of the shared parameters, and their own
        gradients to that of all others."""
        combined = coefficients.to(self.jacobian) @ self.jacobian
        sizes = [p.numel() for p in self.shared]
        for parameter, reached, part in zip(
            self.shared, self.reached, combined.split(sizes), strict=True
        ):
            if reached:
                accumulate(parameter, part.view_as(parameter))
        for parameter, gradient in self.task_only:
            accumulate(parameter, gradient)


def task_gradients(
    losses: Tensor,
    shared: Iterable[Tensor],
    features: Sequence[Tensor] | None = None,
    method: str = "auto",
    retain_graph: bool = False,
) -> TaskGradients:
    """Gradients of K losses in the shared parameters and in all others.

    Args:
        losses: [K], attached to the graph; for "forked" a `torch.stack` of K scalars, which also
            saves "loop" from passing through all K heads K times.
        shared: the shared parameters.
        features: `fork(z, K)`, where head k read features[k] and nothing else of the trunk.
        method: one of `METHODS`; "auto" takes "forked" where there are features, else "loop".
        retain_graph: keep the graph for another backward pass.

    Raises:
        ValueError: unknown method; features missing or of the wrong number; a loss that reaches
            the trunk on another way than through its own feature; no shared parameter is reached.
    """
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    if method == "auto":
        method = "loop" if features is None else "forked"
    shared = check_shared(shared)
    shared_ids = {id(p) for p in shared}
    if method == "forked":
        _check_features(losses, features, shared_ids)
    leaves, _ = _leaves(losses.grad_fn, set())
    leaf_ids = {id(leaf) for leaf in leaves}
    reached = [id(p) in leaf_ids for p in shared]
    if not any(reached):
        raise ValueError("shared: no loss reaches any of these parameters; are they of this model?")
    live = [p for p, r in zip(shared, reached, strict=True) if r]
    others = [leaf for leaf in leaves if id(leaf) not in shared_ids]
    route = {"loop": _loop, "batched": _batched, "forked": _forked}[method]
    rows, other_gradients = route(losses, live, others, features, retain_graph)

    n_tasks = len(losses)
    by_id = dict(zip(map(id, live), rows, strict=True))
    columns = []
    for parameter in shared:
        block = by_id.get(id(parameter))
        if block is None:
            block = parameter.new_zeros(n_tasks, *parameter.shape)
        columns.append(block.detach().reshape(n_tasks, -1))
    rows = torch.cat(columns, 1)
    if rows.dtype in (torch.float16, torch.bfloat16):
        rows = rows.float()
    task_only = list(zip(others, other_gradients, strict=True))
    return TaskGradients(rows, shared, reached, task_only, method)


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


# ---- the three ways: blocks [K, *shape] of the shared parameters, then the others' gradients ----


def _loop(losses, shared, others, features, retain_graph):
    targets = [*shared, *others]
    blocks = [p.new_zeros(len(losses), *p.shape) for p in shared]
    totals: list[Tensor | None] = [None] * len(others)
    one = torch.ones((), dtype=losses.dtype, device=losses.device)
    for k, loss in enumerate(_single_losses(losses)):
        if loss is None:
            continue
        keep = retain_graph or k < len(losses) - 1
        found = torch.autograd.grad(loss, targets, one, retain_graph=keep, allow_unused=True)
        for block, gradient in zip(blocks, found, strict=False):
            if gradient is not None:
                block[k] = gradient.to_dense() if gradient.is_sparse else gradient
        for i, gradient in enumerate(found[len(shared) :]):
            if gradient is not None:
                total = totals[i]
                totals[i] = gradient if total is None else total + gradient
    return blocks, totals


def _single_losses(losses: Tensor) -> Sequence[Tensor | GradientEdge | None]:
    """Where the backward pass of each loss begins; None for a loss that is a constant.

    A loss taken out of the stack sends zeros back through all the others: K passes through K heads
    each, and NaN where a zero meets an infinite derivative. So begin behind the stack.
    """
    stacked = losses.grad_fn
    if stacked is None or type(stacked).__name__ != "StackBackward0":
        return losses.unbind()
    edges = stacked.next_functions
    return [None if node is None else GradientEdge(node, output) for node, output in edges]


def _vectorised(outputs, shared, cotangents, retain_graph):
    """Vector-Jacobian products of all cotangents [K, ...] at once."""
    return torch.autograd.grad(
        outputs,
        shared,
        grad_outputs=cotangents,
        is_grads_batched=True,
        retain_graph=retain_graph,
        materialize_grads=True,
    )


def _batched(losses, shared, others, features, retain_graph):
    blocks = _vectorised(losses, shared, torch.eye(len(losses)).to(losses), True)
    totals = _sum_gradients(losses, others, retain_graph)
    return blocks, totals


def _forked(losses, shared, others, features, retain_graph):
    found = _sum_gradients(losses, [*features, *others], True)
    at_features = [
        torch.zeros_like(feature) if gradient is None else gradient
        for feature, gradient in zip(features, found, strict=False)
    ]
    blocks = _vectorised(features[0], shared, torch.stack(at_features), retain_graph)
    return blocks, list(found[len(features) :])


def _sum_gradients(losses, targets, retain_graph):
    if not targets:
        return []
    return torch.autograd.grad(
        losses, targets, torch.ones_like(losses), retain_graph=retain_graph, allow_unused=True
    )


def _are_fork(features: Sequence[Tensor]) -> bool:
    """Whether these are different views of one tensor that differ in nothing but their node."""
    nodes = [feature.grad_fn for feature in features]
    if any(node is None or type(node).__name__ != "ViewBackward0" for node in nodes):
        return False
    parents = {node.next_functions for node in nodes if node is not None}
    shapes = {feature.shape for feature in features}
    return len(parents) == len(shapes) == 1 and len(set(nodes)) == len(nodes)


def _check_features(losses: Tensor, features: Sequence[Tensor] | None, shared_ids: set) -> None:
    """Make sure that loss k reaches the shared parameters through features[k] alone."""
    if features is None or isinstance(features, Tensor) or len(features) != len(losses):
        given = "none" if features is None else f"{len(features)}"
        raise ValueError(
            f"features: expected {len(losses)} tensors, fork(z, n_tasks={len(losses)}), got {given}"
        )
    stacked = losses.grad_fn
    if stacked is None or type(stacked).__name__ != "StackBackward0":
        raise ValueError(
            "losses: with features they have to come from torch.stack([loss_1, ...]), "
            f"got the result of {type(stacked).__name__}"
        )
    nodes = [feature.grad_fn for feature in features]
    if not _are_fork(features):
        raise ValueError(
            "features: expected K different aliases of one representation, as fork() makes them, "
            "attached to the graph and not changed in place"
        )
    for k, (loss_node, _) in enumerate(stacked.next_functions):
        leaves, met = _leaves(loss_node, set(nodes))
        foreign = [j for j in range(len(nodes)) if j != k and nodes[j] in met]
        if foreign:
            raise ValueError(
                f"features: loss {k} reads features[{foreign[0]}], expected only [{k}]"
            )
        if any(id(leaf) in shared_ids for leaf in leaves):
            raise ValueError(
                f"features: loss {k} reaches the shared parameters without passing features[{k}]"
            )
