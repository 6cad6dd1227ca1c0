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
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge
from torch.nn import functional

from mtl_utils.engine.graph import LEAF, Graph
from mtl_utils.engine.rows import at_least_single


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


IN_TWO_DIRECTIONS = ("padding", "stride", "dilation")


class Plan:
    """How the inner products of each shared parameter are found.

    Attributes:
        edges: outputs of the layers with a formula, whose gradients are needed.
        remaining: parameters whose own gradients are needed.
        saved: multiplications that the formulas save.
        update: multiplications of the additional pass that the update needs without the gradients.
        words: how, in words.
    """

    def __init__(
        self, formulas: list[Formula], remaining: list[Tensor], saved: float, update: float
    ) -> None:
        self.formulas, self.remaining = formulas, remaining
        self.saved, self.update = saved, update
        self.nodes = list(dict.fromkeys(node for f in formulas for node in f.nodes))
        self.edges = [GradientEdge(node, 0) for node in self.nodes]
        counted = sum(f.kind != "bias" for f in formulas)
        self.words = f"Gramian of {counted} layers by formula, of {len(remaining)} tensors "
        self.words += "by their gradients"

    def gramian(self, blocks: Sequence[Tensor]) -> Tensor:
        """Inner products of the task gradients of the layers with a formula, [K, K].

        Args:
            blocks: for each of `edges` the gradients of all K losses, [K, *shape].
        """
        at = dict(zip(self.nodes, blocks, strict=True))
        parts = []
        for formula in self.formulas:
            rows = [_rows_of_outputs(node, at[node]) for node in formula.nodes]
            parts.append(_inner_products(formula, at_least_single(_join(rows, 1))))
        return torch.stack(parts).sum(0)


def plan(graph: Graph, parameters: Sequence[Tensor]) -> Plan:
    """Choose for each shared parameter how its inner products are found.

    A parameter has a formula if all its uses are known ones in the common part, it is real and has
    no hook, and the formula needs fewer multiplications.

    Args:
        graph: what the losses reach.
        parameters: of `graph.live`.
    """
    n_tasks = len(graph.roots)
    uses = _uses(graph)
    formulas: list[Formula] = []
    done: set[int] = set()
    saved = update = 0.0
    for parameter in parameters:
        found = uses.get(id(parameter), [])
        kinds = {(use.role, use.transposed) for use in found}
        if len(kinds) != 1 or found[0].role not in ("weight", "embedding"):
            continue
        nodes = [use.node for use in found]
        gain = _saved(nodes, parameter, n_tasks)
        if gain > 0:
            kind, transposed = found[0].role, found[0].transposed
            inputs = _join([_rows_of_inputs(node) for node in nodes], 0).detach()
            bias = _bias_of(nodes, uses, parameters) if kind == "weight" else None
            formulas.append(Formula(kind, parameter, nodes, inputs, transposed, bias))
            done |= {id(parameter), id(bias)}
            saved += gain
        if found[0].role == "weight":  # one more pass: gradients of its inputs and of itself
            update += 2 * sum(_count_rows(node) for node in nodes) * parameter.numel()
    has_formula = {node for formula in formulas for node in formula.nodes}
    remaining = []
    for parameter in parameters:
        if id(parameter) in done:
            continue
        found = uses.get(id(parameter), [])
        nodes = [use.node for use in found]
        if found and {use.role for use in found} == {"bias"} and has_formula.issuperset(nodes):
            formulas.append(Formula("bias", parameter, nodes))
        else:
            remaining.append(parameter)
    return Plan(formulas, remaining, saved, update)


def _uses(graph: Graph) -> dict[int, list[Use]]:
    """Where each shared parameter is used in the common part, by its id; nothing for those that
    heads read too, that have hooks, or that are not plain real tensors."""
    wanted = {id(p) for p in graph.live if _is_plain(p)} - graph.direct
    entered = {gate.into[0] for gate in graph.gates}
    parents: dict = {}
    leaves = {}
    for node in graph.nodes:
        for index, (child, _) in enumerate(node.next_functions):
            if child is not None:
                parents.setdefault(child, []).append((node, index))
        if isinstance(node, LEAF) and id(node.variable) in wanted:
            leaves[id(node.variable)] = node
    uses: dict[int, list[Use]] = {}
    for key, leaf in leaves.items():
        found = []
        for node, index in parents.get(leaf, []):
            is_transpose = type(node).__name__ == "TBackward0" and node not in entered
            if is_transpose:  # it is the transpose that a linear layer multiplies
                found += [Use(n, _role(n, i), True) for n, i in parents.get(node, [])]
            else:
                found.append(Use(node, _role(node, index)))
        uses[key] = found
    return uses


def _is_plain(parameter: Tensor) -> bool:
    known = type(parameter) in (Tensor, nn.Parameter)
    return known and parameter.is_floating_point() and not parameter._backward_hooks


def _role(node: Any, index: int) -> str:
    """What input `index` of a node is to it."""
    kind = type(node).__name__
    if kind == "AddmmBackward0" and node._saved_alpha == node._saved_beta == 1:
        if not _is_strided(node._saved_mat1):
            return "other"
        is_bias = index == 0 and _leaf_shape(node, 0) == _out_shape(node)[-1:]
        return "weight" if index == 2 else "bias" if is_bias else "other"
    if kind == "MmBackward0" and index == 1 and _is_strided(node._saved_self):
        return "weight"
    if kind == "EmbeddingBackward0" and not node._saved_scale_grad_by_freq:
        return "embedding"
    if kind == "ConvolutionBackward0":
        plain = node._saved_groups == 1 and not node._saved_transposed
        plain &= {len(getattr(node, f"_saved_{name}")) for name in IN_TWO_DIRECTIONS} == {2}
        if plain and _is_strided(node._saved_input) and node._saved_input.dim() == 4:
            return {1: "weight", 2: "bias"}.get(index, "other")
    return "other"


def _is_strided(saved: Tensor | None) -> bool:
    """Whether an input was saved (not where its weight is frozen), as a plain tensor."""
    return saved is not None and saved.layout == torch.strided


def _leaf_shape(node: Any, index: int) -> torch.Size | None:
    """Shape of the leaf behind an input, None if it is none."""
    child = node.next_functions[index][0]
    return child.variable.shape if isinstance(child, LEAF) else None


def _out_shape(node: Any) -> torch.Size:
    return torch.Size(node._input_metadata[0].shape)


def _count_rows(node: Any) -> int:
    shape = _out_shape(node)
    channels = shape[1] if type(node).__name__ == "ConvolutionBackward0" else shape[-1]
    return shape.numel() // max(channels, 1)


def _saved(nodes: list, parameter: Tensor, n_tasks: int) -> float:
    """Multiplications that a formula saves over the gradients of the parameter."""
    rows = sum(_count_rows(node) for node in nodes)
    shape = _out_shape(nodes[0])
    is_convolution = type(nodes[0]).__name__ == "ConvolutionBackward0"
    out = shape[1] if is_convolution else shape[-1]
    if type(nodes[0]).__name__ == "EmbeddingBackward0":
        by_formula = n_tasks * rows * out + n_tasks**2 * rows * out
        return (n_tasks + n_tasks**2) * parameter.numel() - by_formula
    fan_in = parameter.numel() // out
    by_formula = rows**2 * (fan_in + n_tasks * out) + n_tasks**2 * rows * out
    return n_tasks * rows * fan_in * out + n_tasks**2 * fan_in * out - by_formula


def _bias_of(nodes: list, uses: dict[int, list[Use]], shared: Sequence[Tensor]) -> Tensor | None:
    """The bias that these nodes add and no other, if it is shared."""
    for parameter in shared:
        found = uses.get(id(parameter), [])
        if {u.role for u in found} == {"bias"} and {u.node for u in found} == set(nodes):
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
        words, place = formula.inputs.unique(return_inverse=True)
        sums = d.new_zeros(len(d), len(words), d.shape[2])
        sums.index_add_(1, place, d * _learns(formula)[:, None].to(d))
        return sums.flatten(1) @ sums.flatten(1).T
    a = at_least_single(formula.inputs)
    products = a @ a.T
    if formula.bias is not None:
        products += 1
    return torch.matmul(products, d).flatten(1) @ d.flatten(1).T


def _learns(formula: Formula) -> Tensor:
    """Whether each word learns where it stands: padding does not, [R]."""
    parts = [node._saved_indices.flatten() != node._saved_padding_idx for node in formula.nodes]
    return _join(parts, 0)


def _join(tensors: list[Tensor], dim: int) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim)
