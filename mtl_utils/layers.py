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

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge
from torch.nn import functional


@dataclass
class Use:
    """One use of one parameter: the node that reads it and the role that it has there."""

    node: torch.autograd.graph.Node
    role: str  # "weight", "bias", "embedding" or "other"


@dataclass
class Formula:
    """A parameter whose inner products come from a formula.

    Attributes:
        kind: "weight", "bias" or "embedding".
        nodes: that use it.
        with_bias: the bias of the same nodes is included.
    """

    kind: str
    nodes: list
    with_bias: bool = False


@dataclass
class Plan:
    """What has to travel back through the trunk, and what is made of it.

    Attributes:
        formulas: parameters with a formula.
        remaining: parameters whose gradients are needed.
    """

    formulas: list[Formula]
    remaining: list[Tensor]
    layers: int

    @property
    def edges(self) -> list[GradientEdge]:
        """Outputs of the layers with a formula, each once."""
        return [GradientEdge(node, 0) for node in self._nodes()]

    def _nodes(self) -> list:
        return list(dict.fromkeys(node for f in self.formulas for node in f.nodes))

    def gramian(self, blocks: Sequence[Tensor]) -> tuple[Tensor, str]:
        """[K, K], and in words how.

        Args:
            blocks: for each of `edges` and then of `remaining` the gradients of all K losses,
                [K, *shape].
        """
        nodes = self._nodes()
        at = dict(zip(nodes, blocks, strict=False))
        total: Tensor | None = None
        for formula in self.formulas:
            d = torch.cat([_rows_of_outputs(node, at[node]) for node in formula.nodes], 1)
            part = _inner_products(formula, d)
            total = part if total is None else total + part
        for gradient in blocks[len(nodes) :]:
            rows = _single(gradient.reshape(len(gradient), -1))
            part = rows @ rows.T
            total = part if total is None else total + part
        assert total is not None
        counted = sum(f.kind != "bias" for f in self.formulas)
        words = f"Gramian of {counted} layers by formula, of {len(self.remaining)} tensors "
        return total, words + "by their gradients"


def plan(edge: GradientEdge, shared: Sequence[Tensor], n_tasks: int) -> Plan:
    """Choose for each shared parameter how its inner products are found.

    Args:
        edge: where the trunk ends.
        shared: parameters, all reached from the edge.
        n_tasks: K.
    """
    uses = _uses(edge.node, shared)
    formulas, remaining, done = [], [], set()
    for parameter in shared:
        found = uses.get(id(parameter), [])
        nodes, roles = [use.node for use in found], {use.role for use in found}
        if roles in ({"weight"}, {"embedding"}) and _is_cheaper(nodes, parameter, n_tasks):
            bias = _bias_of(nodes, uses, shared) if roles == {"weight"} else None
            formulas.append(Formula(roles.pop(), nodes, bias is not None))
            if bias is not None:
                done.add(id(bias))
    has_formula = {node for formula in formulas for node in formula.nodes}
    for parameter in shared:
        if id(parameter) in done:
            continue
        found = uses.get(id(parameter), [])
        nodes, roles = [use.node for use in found], {use.role for use in found}
        if roles in ({"weight"}, {"embedding"}) and has_formula.issuperset(nodes):
            continue
        if roles == {"bias"} and has_formula.issuperset(nodes):
            formulas.append(Formula("bias", nodes))
        else:
            remaining.append(parameter)
    return Plan(formulas, remaining, len(has_formula))


def vectorises(edge: GradientEdge) -> bool:
    """Whether taking all losses back at once is faster: not through convolutions."""
    return not any(type(node).__name__ == "ConvolutionBackward0" for node in _nodes(edge.node))


def _nodes(root: torch.autograd.graph.Node) -> list:
    seen, stack = {root: None}, [root]
    while stack:
        for child, _ in stack.pop().next_functions:
            if child is not None and child not in seen:
                seen[child] = None
                stack.append(child)
    return list(seen)


def _uses(root: torch.autograd.graph.Node, shared: Sequence[Tensor]) -> dict[int, list[Use]]:
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
                found += [Use(n, _role(n, i)) for n, i in parents.get(node, [])]
            else:
                found.append(Use(node, _role(node, index)))
        uses[key] = found
    return uses


def _role(node: torch.autograd.graph.Node, index: int) -> str:
    """What input `index` of a node is to it."""
    kind = type(node).__name__
    if kind == "AddmmBackward0" and node._saved_alpha == node._saved_beta == 1:  # type: ignore
        shape = _input_shape(node, 0)
        return "weight" if index == 2 else "bias" if index == 0 and shape == 1 else "other"
    if kind == "MmBackward0" and index == 1:
        return "weight"
    if kind == "EmbeddingBackward0" and not node._saved_scale_grad_by_freq:  # type: ignore
        return "embedding"
    if kind == "ConvolutionBackward0":
        plain = node._saved_groups == 1 and not node._saved_transposed  # type: ignore
        if plain and len(node._saved_input.shape) == 4:  # type: ignore
            return {1: "weight", 2: "bias"}.get(index, "other")
    return "other"


def _input_shape(node: torch.autograd.graph.Node, index: int) -> int:
    """Dimensions of the leaf behind an input, 0 if it is none."""
    child = node.next_functions[index][0]
    variable = getattr(child, "variable", None)
    return 0 if variable is None else variable.dim()


def _out_shape(node: torch.autograd.graph.Node) -> torch.Size:
    return torch.Size(node._input_metadata[0].shape)  # type: ignore[attr-defined]


def _count_rows(node: torch.autograd.graph.Node) -> int:
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


def _rows_of_inputs(node: torch.autograd.graph.Node) -> Tensor:
    """a, [R, in]."""
    kind = type(node).__name__
    if kind == "ConvolutionBackward0":
        weight = node._saved_weight  # type: ignore[attr-defined]
        patches = functional.unfold(
            node._saved_input,  # type: ignore[attr-defined]
            tuple(weight.shape[2:]),
            dilation=tuple(node._saved_dilation),  # type: ignore[attr-defined]
            padding=tuple(node._saved_padding),  # type: ignore[attr-defined]
            stride=tuple(node._saved_stride),  # type: ignore[attr-defined]
        )
        return patches.transpose(1, 2).flatten(0, 1)
    return node._saved_mat1 if kind == "AddmmBackward0" else node._saved_self  # type: ignore


def _rows_of_outputs(node: torch.autograd.graph.Node, d: Tensor) -> Tensor:
    """d, [K, R, out]."""
    if type(node).__name__ == "ConvolutionBackward0":
        return d.flatten(3).transpose(2, 3).flatten(1, 2)  # [K, B, out, ...] -> [K, R, out]
    return d.reshape(len(d), -1, d.shape[-1])


def _inner_products(formula: Formula, d: Tensor) -> Tensor:
    """[K, K], from output gradients d [K, R, out]."""
    d = _single(d)
    if formula.kind == "bias":
        sums = d.sum(1)
        return sums @ sums.T
    if formula.kind == "embedding":
        words = torch.cat([node._saved_indices.flatten() for node in formula.nodes])
        padding = formula.nodes[0]._saved_padding_idx
        _, place = words.unique(return_inverse=True)
        sums = d.new_zeros(len(d), int(place.max()) + 1, d.shape[2])
        sums.index_add_(1, place, d * (words != padding)[:, None].to(d))
        return sums.flatten(1) @ sums.flatten(1).T
    a = _single(torch.cat([_rows_of_inputs(node) for node in formula.nodes])).detach()
    products = a @ a.T
    if formula.with_bias:
        products += 1
    return torch.matmul(products, d).flatten(1) @ d.flatten(1).T


def _single(rows: Tensor) -> Tensor:
    """Half-precision numbers in float32: their inner products soon overflow."""
    return rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows
