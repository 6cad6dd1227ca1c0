"""Inner products of the task gradients of one layer, without the gradients.

The graph of autograd knows for each layer its inputs a [R, in] (R rows: samples, or samples times
positions) and takes back the gradients d_k [R, out] of its outputs for each loss k. Then

    linear, convolution  <g_k, g_l> = sum of (a a') * (d_k d_l')      weight
                         <g_k, g_l> = (sum over rows d_k)' (... d_l)  bias
    embedding            the same with (a a')_rs = 1 where rows r and s read the same word

A weight that is used several times has the rows of all its uses. Where R is large, K gradients of
`in` times `out` numbers are cheaper; the choice is made by counting multiplications. Layers without
a formula give their gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge
from torch.nn import functional


@dataclass
class Use:
    """One use of one parameter: the node that reads it, the role that it has there, and whether it
    is transposed first, as the weight of a linear layer is."""

    node: Any
    role: str  # "weight", "bias", "embedding" or "other"
    transposed: bool = False


@dataclass
class Formula:
    """A parameter whose inner products come from a formula.

    Attributes:
        kind: "weight", "bias" or "embedding".
        parameter: what it is for.
        nodes: that use it.
        inputs: rows that the nodes read, [R, in] in all, or the words of an embedding.
        transposed: as in `Use`.
        bias: of the same nodes, whose inner products are included, or None.
    """

    kind: str
    parameter: Tensor
    nodes: list
    inputs: Tensor | None = None
    transposed: bool = False
    bias: Tensor | None = None


class Plan:
    """How the inner products of each shared parameter are found.

    Attributes:
        edges: outputs of the layers with a formula, whose gradients are needed.
        remaining: parameters whose own gradients are needed.
        words: how, in words.
    """

    def __init__(self, formulas: list[Formula], remaining: list[Tensor]) -> None:
        self.formulas, self.remaining = formulas, remaining
        self.nodes = list(dict.fromkeys(node for f in formulas for node in f.nodes))
        self.edges = [GradientEdge(node, 0) for node in self.nodes]
        counted = sum(f.kind != "bias" for f in formulas)
        self.words = f"Gramian of {counted} layers by formula, of {len(remaining)} tensors "
        self.words += "by their gradients"
        self.blocks: Sequence[Tensor] = ()

    def gramian(self, blocks: Sequence[Tensor]) -> Tensor:
        """Inner products of the task gradients, [K, K].

        Args:
            blocks: for each of `edges` and then of `remaining` the gradients of all K losses,
                [K, *shape].
        """
        self.blocks = blocks
        parts = [_inner_products(formula, self._rows(formula)) for formula in self.formulas]
        for gradient in blocks[len(self.nodes) :]:
            rows = _single(gradient.reshape(len(gradient), -1))
            parts.append(rows @ rows.T)
        return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]

    def update(self, coefficients: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Each parameter with sum_k coefficients[k] g_k, from what `gramian` was given."""
        combined = {}
        for node, block in zip(self.nodes, self.blocks, strict=False):
            rows = _single(block.reshape(len(block), -1))
            together = (coefficients.to(rows) @ rows).view(1, *block.shape[1:])
            combined[node] = _rows_of_outputs(node, together)[0]
        found: list[tuple[Tensor, Tensor]] = []
        for formula in self.formulas:
            d = _join([combined[node] for node in formula.nodes], 0)
            found.append((formula.parameter, _gradient(formula, d)))
            if formula.bias is not None:
                found.append((formula.bias, d.sum(0)))
        for parameter, block in zip(self.remaining, self.blocks[len(self.nodes) :], strict=True):
            rows = _single(block.reshape(len(block), -1))
            found.append((parameter, (coefficients.to(rows) @ rows).view_as(parameter)))
        return found

    def _rows(self, formula: Formula) -> Tensor:
        """Output gradients of all uses, [K, R, out]."""
        at = dict(zip(self.nodes, self.blocks, strict=False))
        return _single(_join([_rows_of_outputs(node, at[node]) for node in formula.nodes], 1))


def plan(edge: GradientEdge, shared: Sequence[Tensor], n_tasks: int) -> Plan:
    """Choose for each shared parameter how its inner products are found.

    Args:
        edge: where the trunk ends.
        shared: parameters, all reached from the edge.
        n_tasks: K.
    """
    uses = _uses(edge.node, shared)
    formulas: list[Formula] = []
    done: set[int] = set()
    for parameter in shared:
        found = uses.get(id(parameter), [])
        kinds = {(use.role, use.transposed) for use in found}
        if len(kinds) != 1 or found[0].role not in ("weight", "embedding"):
            continue
        nodes = [use.node for use in found]
        if _is_cheaper(nodes, parameter, n_tasks):
            kind, transposed = found[0].role, found[0].transposed
            inputs = _join([_rows_of_inputs(node) for node in nodes], 0).detach()
            bias = _bias_of(nodes, uses, shared) if kind == "weight" else None
            formulas.append(Formula(kind, parameter, nodes, inputs, transposed, bias))
            done |= {id(parameter), id(bias)}
    has_formula = {node for formula in formulas for node in formula.nodes}
    remaining = []
    for parameter in shared:
        if id(parameter) in done:
            continue
        found = uses.get(id(parameter), [])
        nodes = [use.node for use in found]
        if {use.role for use in found} == {"bias"} and has_formula.issuperset(nodes):
            formulas.append(Formula("bias", parameter, nodes))
        else:
            remaining.append(parameter)
    return Plan(formulas, remaining)


def vectorises(edge: GradientEdge) -> bool:
    """Whether taking all losses back at once is faster: not through convolutions."""
    return not any(type(node).__name__ == "ConvolutionBackward0" for node in _nodes(edge.node))


def _nodes(root: Any) -> list:
    seen, stack = {root: None}, [root]
    while stack:
        for child, _ in stack.pop().next_functions:
            if child is not None and child not in seen:
                seen[child] = None
                stack.append(child)
    return list(seen)


def _uses(root: Any, shared: Sequence[Tensor]) -> dict[int, list[Use]]:
    """Where each shared parameter is used in the trunk, by its id."""
    wanted = {id(p) for p in shared}
    parents: dict = {}
    leaves = {}
    for node in _nodes(root):
        for index, (child, _) in enumerate(node.next_functions):
            if child is not None:
                parents.setdefault(child, []).append((node, index))
        if hasattr(node, "variable") and id(node.variable) in wanted:
            leaves[id(node.variable)] = node
    uses: dict[int, list[Use]] = {}
    for key, leaf in leaves.items():
        found = []
        for node, index in parents.get(leaf, []):
            if type(node).__name__ == "TBackward0":  # the transpose that a linear layer multiplies
                found += [Use(n, _role(n, i), True) for n, i in parents.get(node, [])]
            else:
                found.append(Use(node, _role(node, index)))
        uses[key] = found
    return uses


def _role(node: Any, index: int) -> str:
    """What input `index` of a node is to it."""
    kind = type(node).__name__
    if kind == "AddmmBackward0" and node._saved_alpha == node._saved_beta == 1:
        shape = _input_shape(node, 0)
        return "weight" if index == 2 else "bias" if index == 0 and shape == 1 else "other"
    if kind == "MmBackward0" and index == 1:
        return "weight"
    if kind == "EmbeddingBackward0" and not node._saved_scale_grad_by_freq:
        return "embedding"
    if kind == "ConvolutionBackward0":
        plain = node._saved_groups == 1 and not node._saved_transposed
        if plain and len(node._saved_input.shape) == 4:
            return {1: "weight", 2: "bias"}.get(index, "other")
    return "other"


def _input_shape(node: Any, index: int) -> int:
    """Dimensions of the leaf behind an input, 0 if it is none."""
    child = node.next_functions[index][0]
    variable = getattr(child, "variable", None)
    return 0 if variable is None else variable.dim()


def _out_shape(node: Any) -> torch.Size:
    return torch.Size(node._input_metadata[0].shape)


def _count_rows(node: Any) -> int:
    shape = _out_shape(node)
    channels = shape[1] if type(node).__name__ == "ConvolutionBackward0" else shape[-1]
    return shape.numel() // max(channels, 1)


def _is_cheaper(nodes: list, parameter: Tensor, n_tasks: int) -> bool:
    """Whether a formula needs fewer multiplications than the gradients of the parameter."""
    rows = sum(_count_rows(node) for node in nodes)
    shape = _out_shape(nodes[0])
    is_convolution = type(nodes[0]).__name__ == "ConvolutionBackward0"
    out = shape[1] if is_convolution else shape[-1]
    fan_in = parameter.numel() // out
    if type(nodes[0]).__name__ == "EmbeddingBackward0":
        by_formula = n_tasks * rows * out + n_tasks**2 * rows * out
        by_gradients = (n_tasks + n_tasks**2) * parameter.numel()
        return by_formula < by_gradients
    by_formula = rows**2 * (fan_in + n_tasks * out) + n_tasks**2 * rows * out
    by_gradients = n_tasks * rows * fan_in * out + n_tasks**2 * fan_in * out
    return by_formula < by_gradients


def _bias_of(nodes: list, uses: dict[int, list[Use]], shared: Sequence[Tensor]) -> Tensor | None:
    """The bias that these nodes add and no other, if it is shared."""
    for parameter in shared:
        found = uses.get(id(parameter), [])
        if {u.role for u in found} == {"bias"} and len(found) == len(nodes):
            if {u.node for u in found} == set(nodes):
                return parameter
    return None


def _rows_of_inputs(node: Any) -> Tensor:
    """a, [R, in]; for an embedding its words, [R]."""
    kind = type(node).__name__
    if kind == "ConvolutionBackward0":
        patches = functional.unfold(
            node._saved_input,
            tuple(node._saved_weight.shape[2:]),
            dilation=tuple(node._saved_dilation),
            padding=tuple(node._saved_padding),
            stride=tuple(node._saved_stride),
        )
        return patches.transpose(1, 2).flatten(0, 1)
    if kind == "EmbeddingBackward0":
        return node._saved_indices.flatten()
    return node._saved_mat1 if kind == "AddmmBackward0" else node._saved_self


def _rows_of_outputs(node: Any, d: Tensor) -> Tensor:
    """d, [K, R, out]."""
    if type(node).__name__ == "ConvolutionBackward0":
        return d.flatten(3).transpose(2, 3).flatten(1, 2)  # [K, B, out, ...] -> [K, R, out]
    return d.reshape(len(d), -1, d.shape[-1])


def _inner_products(formula: Formula, d: Tensor) -> Tensor:
    """[K, K], from output gradients d [K, R, out]."""
    if formula.kind == "bias":
        sums = d.sum(1)
        return sums @ sums.T
    assert formula.inputs is not None
    if formula.kind == "embedding":
        words = formula.inputs
        _, place = words.unique(return_inverse=True)
        sums = d.new_zeros(len(d), int(place.max()) + 1, d.shape[2])
        sums.index_add_(1, place, d * _counts(formula)[:, None].to(d))
        return sums.flatten(1) @ sums.flatten(1).T
    a = _single(formula.inputs)
    products = a @ a.T
    if formula.bias is not None:
        products += 1
    return torch.matmul(products, d).flatten(1) @ d.flatten(1).T


def _gradient(formula: Formula, d: Tensor) -> Tensor:
    """Gradient of the parameter from output gradients [R, out]."""
    if formula.kind == "bias":
        return d.sum(0)
    assert formula.inputs is not None
    if formula.kind == "embedding":
        rows = d * _counts(formula)[:, None].to(d)
        shape = formula.parameter.shape
        if formula.nodes[0]._saved_sparse:
            return torch.sparse_coo_tensor(formula.inputs[None], rows, shape)
        return d.new_zeros(shape).index_add_(0, formula.inputs, rows)
    a = _single(formula.inputs)
    if type(formula.nodes[0]).__name__ == "ConvolutionBackward0":
        return (d.T @ a).view_as(formula.parameter)
    return d.T @ a if formula.transposed else a.T @ d


def _counts(formula: Formula) -> Tensor:
    """Whether each word learns: padding does not, [R]."""
    assert formula.inputs is not None
    return formula.inputs != formula.nodes[0]._saved_padding_idx


def _join(tensors: list[Tensor], dim: int) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim)


def _single(rows: Tensor) -> Tensor:
    """Half-precision numbers in float32: their inner products soon overflow."""
    return rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows
