"""K gradients of each of some parameters: their inner products, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

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
        number counts as two real ones, half precision becomes single. A parameter's hooks see each
        gradient, as they do in K passes."""
        pairs = zip(self.parameters, self._seen(), strict=True)
        rows = [real(dense(block, p, self.n_tasks)) for p, block in pairs]
        jacobian = _neighbours(rows)
        if jacobian is None:
            jacobian = torch.cat(rows, 1)
        parts = jacobian.split([part.shape[1] for part in rows], 1)
        for i, (p, part) in enumerate(zip(self.parameters, parts, strict=True)):
            block = self.blocks[i]  # as a view from now on: nothing is kept twice
            if isinstance(block, Tensor) and block.dtype == part.dtype and not p._backward_hooks:
                self.blocks[i] = part.view(self.n_tasks, *p.shape)
        return jacobian

    def gramian(self) -> Tensor:
        """Inner products of the K gradients, [K, K]. A parameter's hooks see each gradient, as they
        do in K passes."""
        total = torch.zeros(self.n_tasks, self.n_tasks, device=self.parameters[0].device)
        for block in self._seen():
            if block is not None:
                rows = real(block)
                total = total + rows @ rows.T
        return total

    def _seen(self) -> Iterator[Block | None]:
        """The blocks after the hooks of their parameters."""
        for p, block in zip(self.parameters, self.blocks, strict=True):
            if block is not None and p._backward_hooks:
                block = _each_row(dense(block, p, self.n_tasks), list(p._backward_hooks.values()))
            yield block

    def combined(self, coefficients: Tensor) -> list[Tensor | None]:
        """sum_k coefficients[k] g_k for each parameter."""
        return [None if block is None else combined(block, coefficients) for block in self.blocks]

    def parted(self, update: Tensor) -> list[Tensor | None]:
        """An update [P], as long as the rows of `jacobian`, in the shape of each parameter; sparse
        where the gradients are, None where there are none."""
        sizes = [p.numel() * (2 if p.is_complex() else 1) for p in self.parameters]
        found: list[Tensor | None] = []
        parts = update.split(sizes)
        for p, block, part in zip(self.parameters, self.blocks, parts, strict=True):
            if block is None:
                found.append(None)
                continue
            part = torch.view_as_complex(part.view(*p.shape, 2)) if p.is_complex() else part
            part = part.reshape(p.shape)
            found.append(part.to_sparse(1) if _is_sparse(block) else part)
        return found

    def changed(self, change: Callable[[Tensor], Tensor]) -> Rows:
        """The rows after a function of the whole Jacobian, such as the mean over processes."""
        pairs = zip(self.parameters, self.blocks, strict=True)
        flat = [dense(block, p, self.n_tasks).flatten(1) for p, block in pairs]
        parts = change(torch.cat(flat, 1)).split([rows.shape[1] for rows in flat], 1)
        blocks = [
            part.view(self.n_tasks, *p.shape).to(p.dtype)
            for p, part in zip(self.parameters, parts, strict=True)
        ]
        return Rows(self.parameters, blocks, self.n_tasks)


def refuse_sparse(parameters: Sequence[Tensor]) -> None:
    """Parameters that are sparse themselves (their gradients may be) are refused.

    Raises:
        ValueError: one is.
    """
    for parameter in parameters:
        if parameter.layout != torch.strided:
            raise ValueError(
                f"shared: expected dense parameters, got one of layout {parameter.layout}; keep it "
                "out of shared, and it gets the gradient of its own losses"
            )


def real(block: Block) -> Tensor:
    """Rows of real numbers whose inner products are those of the K gradients, [K, numbers].

    A complex number counts as two real ones. A list of gradients is written as rows of the entries
    that any of them holds.
    """
    if isinstance(block, list):
        block = _packed(block) if _is_sparse(block) else _stacked(block)
    if block.is_complex():
        block = torch.view_as_real(block.resolve_conj())
    return at_least_single(block.reshape(len(block), -1))


def at_least_single(rows: Tensor) -> Tensor:
    """Half-precision numbers in float32: their inner products soon overflow."""
    return rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows


def dense(block: Block | None, parameter: Tensor, n_tasks: int) -> Tensor:
    """A block as [K, *shape of the parameter]; zeros for None."""
    if block is None:
        return parameter.new_zeros(n_tasks, *parameter.shape)
    if isinstance(block, list):
        zero = torch.zeros_like(parameter)
        return torch.stack([zero if g is None else g.to_dense() for g in block])
    return block.detach()


def combined(block: Block, coefficients: Tensor) -> Tensor:
    """sum_k coefficients[k] times row k, of the shape of one row."""
    if isinstance(block, list):
        each = zip(coefficients.tolist(), block, strict=True)
        parts = [g if c == 1 else c * g for c, g in each if g is not None]
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


def _neighbours(parts: Sequence[Tensor]) -> Tensor | None:
    """Columns [K, n_i] as the one matrix in which they lie side by side, None where they do not."""
    first = parts[0]
    start, place = first.storage_offset(), first.untyped_storage().data_ptr()
    for part in parts:
        same = part.dtype == first.dtype and part.untyped_storage().data_ptr() == place
        if not same or part.storage_offset() != start or part.stride() != (first.stride(0), 1):
            return None
        start += part.shape[1]
    width = start - first.storage_offset()
    if width > first.stride(0):
        return None
    return first.as_strided((len(first), width), first.stride(), first.storage_offset())


def _is_sparse(block: Block) -> bool:
    return isinstance(block, list) and any(g is not None and g.is_sparse for g in block)


def _stacked(gradients: list[Tensor | None]) -> Tensor:
    zero = torch.zeros_like(next(g for g in gradients if g is not None))
    return torch.stack([zero if g is None else g for g in gradients])


def _packed(gradients: list[Tensor | None]) -> Tensor:
    """Sparse gradients [words, width] without the words that none of them holds, [K, n, width]."""
    found = [
        (k, (g if g.is_sparse else g.to_sparse(1)).coalesce())
        for k, g in enumerate(gradients)
        if g is not None
    ]
    places, place_of = torch.cat([g.indices() for _, g in found], 1).unique(
        dim=1, return_inverse=True
    )
    example = found[0][1].values()
    packed = example.new_zeros(len(gradients), places.shape[1], *example.shape[1:])
    parts = place_of.split([g.indices().shape[1] for _, g in found])
    for (k, gradient), part in zip(found, parts, strict=True):
        packed[k, part] = gradient.values()
    return packed


def _each_row(block: Tensor, hooks: Sequence[Callable]) -> Tensor:
    """K gradients after the hooks of their parameter."""
    rows = []
    for gradient in block.clone():  # a hook may write into what it gets
        for hook in hooks:
            if getattr(hook, "__module__", "") == "torch.autograd.graph":
                continue  # of several parameters: it counts what lands
            changed = hook(gradient)
            gradient = gradient if changed is None else changed
        rows.append(gradient)
    return torch.stack(rows)
