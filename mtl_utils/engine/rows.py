"""K gradients of each of some parameters: their inner products, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

# K gradients of one parameter: [K, *shape], or, where they are sparse or one task's alone, a list
Block = Tensor | list[Tensor | None]


class Rows:
    """The Jacobian of K losses in some parameters, parameter by parameter.

    Args:
        parameters: tensors that learn.
        blocks: of each parameter its K gradients, None where there are none.
        n_tasks: K.
    """

    def __init__(
        self, parameters: Sequence[Tensor], blocks: Sequence[Block | None], n_tasks: int
    ) -> None:
        self.parameters, self.blocks, self.n_tasks = list(parameters), list(blocks), n_tasks

    def jacobian(self) -> Tensor:
        """[K, P], in the order of the parameters, zeros where there is no gradient. A complex
        number counts as two real ones, half precision becomes single."""
        pairs = zip(self.parameters, self.blocks, strict=True)
        return torch.cat([real(dense(block, p, self.n_tasks)) for p, block in pairs], 1)

    def gramian(self) -> Tensor:
        """Inner products of the K gradients, [K, K]. A parameter's hooks see each gradient, as they
        do in K passes."""
        total = torch.zeros(self.n_tasks, self.n_tasks, device=self.parameters[0].device)
        for p, block in zip(self.parameters, self.blocks, strict=True):
            if block is None:
                continue
            if p._backward_hooks:
                block = _each_row(dense(block, p, self.n_tasks), list(p._backward_hooks.values()))
            rows = real(block)
            total = total + rows @ rows.T
        return total

    def combined(block: Block, coefficients: Tensor) -> Tensor:
    """sum_k coefficients[k] times row k, of the shape of one row."""
    if isinstance(block, list):
        parts = [c * g for c, g in zip(coefficients.tolist(), block, strict=True) if g is not None]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total.coalesce() if total.is_sparse else total
    shape = block.shape[1:]
    if block.is_complex():
        pairs = torch.view_as_real(block.resolve_conj()).reshape(len(block), -1)
        return torch.view_as_complex((coefficients.to(pairs) @ pairs).view(*shape, 2))
    rows = at_least_single(block.reshape(len(block), -1))
    return (coefficients.to(rows) @ rows).view(shape)
