"""Tasks that have no labels in a batch: which they are, and how their losses stay out of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from mtl_utils.engine.graph import NEEDS_STACK, find_stacks


def check_present(present: Tensor | Sequence[bool] | None, n_tasks: int) -> Tensor:
    """Which tasks are present, [K], booleans on the CPU; all of them for None.

    Raises:
        ValueError: anything else than K booleans.
    """
    if present is None:
        return torch.ones(n_tasks, dtype=torch.bool)
    try:
        tasks = torch.as_tensor(present).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"present: expected {n_tasks} booleans, got {present!r}") from error
    if tasks.dtype != torch.bool or tasks.shape != (n_tasks,):
        raise ValueError(
            f"present: expected K = {n_tasks} booleans, got {tasks.dtype} of shape "
            f"{tuple(tasks.shape)}"
        )
    return tasks


@contextmanager
def present_losses(losses: Tensor, present: Tensor) -> Iterator[Tensor]:
    """The losses of the present tasks, [K'], whose backward passes reach no other task.

    A loss taken out of a stack sends zeros back into all the others; and where another is NaN, zero
    times its derivative is NaN as well. So as long as this is open, the stack hands nothing to
    absent tasks. (Only `torch.stack` keeps the losses apart in the graph.)

    Args:
        losses: [K], of `torch.stack`; anything elementwise may have been done to them since.
        present: [K], booleans, of which some are True and some False.

    Raises:
        ValueError: the losses come from something else.
    """
    stacks = find_stacks(losses)
    if stacks is None:
        raise ValueError(NEEDS_STACK)
    here = present.tolist()

    def to_present_tasks(gradients: Sequence[Any], _: Any) -> tuple[Any, ...]:
        return tuple(g if one else None for g, one in zip(gradients, here, strict=True))

    handles = [stack.register_hook(to_present_tasks) for stack in stacks]
    try:
        yield losses[present.to(losses.device)]
    finally:
        for handle in handles:
            handle.remove()
