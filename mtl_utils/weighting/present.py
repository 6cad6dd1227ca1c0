"""Tasks that have no labels in a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


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
