"""From the gates back through what tasks have in common: K gradients of each parameter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from mtl_utils.engine.graph import LEAF, Graph
from mtl_utils.engine.heads import Partials, stacked
from mtl_utils.engine.rows import Block

SLOW_IN_ONE_PASS = {"ConvolutionBackward0", "EmbeddingBagBackward0"}
LARGE = 40_000  # numbers; measured on CPUs with 2 MiB of cache each, see benchmarks/step_cost.py


def vectorises(graph: Graph) -> bool:
    """Whether taking all tasks back at once is likely to be possible, and faster."""
    for node in graph.nodes:
        kind = type(node).__name__
        if kind in SLOW_IN_ONE_PASS or "Sparse" in kind:
            return False
        if kind == "EmbeddingBackward0" and node._saved_sparse:
            return False
    return _is_small(graph)


def is_dense(partials: Partials) -> bool:
    """Whether what the tasks want at the gates can be put together."""
    return all(g is None or g.layout == torch.strided for rows in partials.values() for g in rows)


def _is_small(graph: Graph) -> bool:
    """Whether K gradients of a typical activation stay near the processor.

    One pass instead of K saves calls, and reads each weight once instead of K times; but K times as
    many numbers pass from node to node, and large ones fall out of the cache on the way. On a GPU
    calls are what counts.
    """
    if graph.losses.device.type != "cpu":
        return True
    nodes = [node for node in graph.nodes if not isinstance(node, LEAF) and node._input_metadata]
    if not nodes:
        return True
    if any(node._input_metadata[0].is_nested_tensor for node in nodes):
        return False
    activations = sum(math.prod(node._input_metadata[0].shape) for node in nodes)
    weights = sum(parameter.numel() for parameter in graph.live)
    saved = 1 - 1 / len(graph.roots)
    return activations < saved * (LARGE * len(nodes) + weights)


def at_once(graph: Graph, partials: Partials, targets: Sequence[Any], retain_graph: bool) -> list:
    """All tasks in one vectorised pass.

    Args:
        partials: what each task wants at the gates.
        targets: tensors or edges whose gradients are wanted.

    Returns:
        A block for each target, None where nothing arrives.
    """
    edges, rows = [], []
    for into, found in partials.items():
        together = stacked(found)
        if together is not None:
            edges.append(GradientEdge(*into))
            rows.append(together)
    if not edges:
        return [None] * len(targets)
    return list(
        torch.autograd.grad(
            edges,
            targets,
            rows,
            is_grads_batched=True,
            retain_graph=retain_graph,
            allow_unused=True,
        )
    )


def one_by_one(
    graph: Graph,
    partials: Partials,
    targets: Sequence[Any],
    retain_graph: bool,
    beside: Sequence[Tensor] = (),
) -> list[Block | None]:
    """A pass for each task, through what this task reaches.

    Gradients of parameters go side by side into one matrix as soon as they are found, while they
    are near the processor; the blocks are views of it.

    Args:
        partials: where the passes begin, and what each task wants there.
        targets: tensors or edges whose gradients are wanted.
        beside: leaves of which most belong to one task; their blocks come last and are lists.
    """
    n_tasks, wanted = len(graph.roots), [*targets, *beside]
    rows: list[list[Tensor | None]] = [[None] * n_tasks for _ in wanted]
    matrix = _Matrix.of(targets, n_tasks)
    for k in range(n_tasks):
        own = [(into, found[k]) for into, found in partials.items() if found[k] is not None]
        gradients: Sequence[Tensor | None] = [None] * len(wanted)
        if own:
            gradients = torch.autograd.grad(
                [GradientEdge(*into) for into, _ in own],
                wanted,
                [gradient for _, gradient in own],
                retain_graph=retain_graph or k < n_tasks - 1,
                allow_unused=True,
            )
        first = 0
        if matrix is not None:
            if matrix.takes(k, gradients[: len(targets)]):
                first = len(targets)
            else:  # row by row from here on
                rows[: len(targets)] = matrix.rows()
                matrix = None
        for of_target, gradient in zip(rows[first:], gradients[first:], strict=True):
            of_target[k] = gradient
    lists = [own if any(g is not None for g in own) else None for own in rows[len(targets) :]]
    if matrix is not None:
        return [*matrix.blocks(), *lists]
    del rows[len(targets) :]
    return [*(_block(rows.pop(0)) for _ in targets), *lists]


class _Matrix:
    """K gradients of some parameters side by side, [K, P]."""

    def __init__(self, targets: Sequence[Tensor], n_tasks: int) -> None:
        self.targets, self.sizes = targets, [target.numel() for target in targets]
        self.matrix = targets[0].new_empty(n_tasks, sum(self.sizes))
        self.there = [[False] * n_tasks for _ in targets]

    @classmethod
    def of(cls, targets: Sequence[Any], n_tasks: int) -> _Matrix | None:
        """None unless all targets are parameters of one real type."""
        first = next(iter(targets), None)  # a process may reach none
        if first is None or not all(isinstance(t, Tensor) and _fits(t, first) for t in targets):
            return None
        return cls(targets, n_tasks)

    def takes(self, k: int, gradients: Sequence[Tensor | None]) -> bool:
        """Copy the gradients of task k, if all of them fit."""
        if not all(g is None or _fits(g, self.matrix) for g in gradients):
            return False
        row, pairs = self.matrix[k], zip(gradients, self.sizes, strict=True)
        torch.cat([row.new_zeros(n) if g is None else g.reshape(-1) for g, n in pairs], out=row)
        for of_target, gradient in zip(self.there, gradients, strict=True):
            of_target[k] = gradient is not None
        return True

    def blocks(self) -> list[Tensor | None]:
        """[K, *shape] of each parameter, None where there are no gradients."""
        parts = zip(self.targets, self.matrix.split(self.sizes, 1), self.there, strict=True)
        n_tasks = len(self.matrix)
        return [p.view(n_tasks, *t.shape) if any(there) else None for t, p, there in parts]

    def rows(self) -> list[list[Tensor | None]]:
        """Of each parameter its K gradients so far."""
        parts = zip(self.targets, self.matrix.split(self.sizes, 1), self.there, strict=True)
        return [
            [g.view(t.shape) if is_there else None for g, is_there in zip(part, there, strict=True)]
            for t, part, there in parts
        ]


def _fits(tensor: Tensor, other: Tensor) -> bool:
    same = tensor.dtype == other.dtype and tensor.device == other.device
    return same and tensor.layout == torch.strided and not tensor.is_complex()


def _block(rows: list[Tensor | None]) -> Block | None:
    """K gradients of one target."""
    found = [gradient for gradient in rows if gradient is not None]
    if not found:
        return None
    if all(gradient.is_sparse for gradient in found):
        return rows
    zero = torch.zeros_like(found[0].to_dense())
    return torch.stack([zero if g is None else g.to_dense() for g in rows])
