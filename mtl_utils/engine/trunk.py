"""From the gates back through what tasks have in common: K gradients of each parameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from mtl_utils.engine.graph import Graph
from mtl_utils.engine.heads import Partials
from mtl_utils.engine.rows import Block

SLOW_IN_ONE_PASS = {"ConvolutionBackward0", "EmbeddingBagBackward0"}


def vectorises(graph: Graph, partials: Partials) -> bool:
    """Whether taking all tasks back at once is likely to be possible, and faster."""
    if any(g is not None and g.layout != torch.strided for rows in partials.values() for g in rows):
        return False
    for node in graph.nodes:
        kind = type(node).__name__
        if kind in SLOW_IN_ONE_PASS or "Sparse" in kind:
            return False
        if kind == "EmbeddingBackward0" and node._saved_sparse:
            return False
    return True


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
        example = next((g for g in found if g is not None), None)
        if example is not None:
            edges.append(GradientEdge(*into))
            rows.append(torch.stack([torch.zeros_like(example) if g is None else g for g in found]))
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
    graph: Graph, partials: Partials, targets: Sequence[Any], retain_graph: bool
) -> list[Block | None]:
    """A pass for each task, through what this task reaches."""
    n_tasks = len(graph.roots)
    blocks: list[Block | None] = [None] * len(targets)
    for k in range(n_tasks):
        own = [(into, rows[k]) for into, rows in partials.items() if rows[k] is not None]
        if not own:
            continue
        found = torch.autograd.grad(
            [GradientEdge(*into) for into, _ in own],
            targets,
            [gradient for _, gradient in own],
            retain_graph=retain_graph or k < n_tasks - 1,
            allow_unused=True,
        )
        for i, gradient in enumerate(found):
            if gradient is not None:
                blocks[i] = _put(blocks[i], k, gradient, n_tasks)
    return blocks


def _put(block: Block | None, k: int, gradient: Tensor, n_tasks: int) -> Block:
    """Write row k."""
    if block is None:
        if gradient.layout != torch.strided:
            rows: list[Tensor | None] = [None] * n_tasks
            block = rows
        else:
            block = gradient.new_zeros(n_tasks, *gradient.shape)
    if isinstance(block, list):
        block[k] = gradient if gradient.is_sparse else gradient.to_sparse(1)
        return block
    if gradient.layout != torch.strided:
        gradient = gradient.to_dense()
    block[k] = gradient
    return block
