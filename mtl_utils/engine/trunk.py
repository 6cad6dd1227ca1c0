"""From the gates back through what tasks have in common: K gradients of each parameter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from mtl_utils.engine.graph import Graph
from mtl_utils.engine.heads import Partials

# K gradients of one target: [K, *shape], or, where they are sparse, a list of K
Block = Tensor | list[Tensor | None]

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


# ---- what is done with blocks ------------------------------------------------------------------


def at_least_single(rows: Tensor) -> Tensor:
    """Half-precision numbers in float32: their inner products soon overflow."""
    return rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows


def rows_of(block: Block, n_tasks: int) -> Tensor:
    """Rows of real numbers whose inner products are those of the K gradients, [K, numbers].

    A complex number counts as two real ones. Sparse gradients are written as rows of the entries
    that any of them holds.

    Args:
        block: K gradients.
    """
    if isinstance(block, list):
        block = _packed(block)
    if block.is_complex():
        block = torch.view_as_real(block.resolve_conj())
    return at_least_single(block.reshape(n_tasks, -1))


def dense(block: Block | None, parameter: Tensor, n_tasks: int) -> Tensor:
    """A block as [K, *shape of the parameter]; zeros for None."""
    if isinstance(block, list):
        zero = torch.zeros_like(parameter)
        block = torch.stack([zero if g is None else g.to_dense() for g in block])
    return parameter.new_zeros(n_tasks, *parameter.shape) if block is None else block.detach()


def _packed(gradients: list[Tensor | None]) -> Tensor:
    """Sparse gradients [words, width] without the words that none of them holds, [K, n, width]."""
    found = [(k, g.coalesce()) for k, g in enumerate(gradients) if g is not None]
    places, place_of = torch.cat([g.indices() for _, g in found], 1).unique(
        dim=1, return_inverse=True
    )
    example = found[0][1].values()
    packed = example.new_zeros(len(gradients), places.shape[1], *example.shape[1:])
    parts = place_of.split([g.indices().shape[1] for _, g in found])
    for (k, gradient), part in zip(found, parts, strict=True):
        packed[k, part] = gradient.values()
    return packed


def combined(block: Block, coefficients: Tensor) -> Tensor:
    """sum_k coefficients[k] times row k, of the shape of one row."""
    if isinstance(block, list):
        parts = [c * g for c, g in zip(coefficients.tolist(), block, strict=True) if g is not None]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total.coalesce()
    shape = block.shape[1:]
    if block.is_complex():
        flat = torch.view_as_real(block.resolve_conj()).reshape(len(block), -1)
        real = (coefficients.to(flat) @ flat).view(*shape, 2)
        return torch.view_as_complex(real)
    rows = at_least_single(block.reshape(len(block), -1))
    return (coefficients.to(rows) @ rows).view(shape)


def each_row(block: Block, change: Callable[[Tensor], Tensor]) -> Block:
    """A block whose rows went through a function."""
    if isinstance(block, list):
        return [None if g is None else change(g) for g in block]
    return torch.stack([change(row) for row in block])
