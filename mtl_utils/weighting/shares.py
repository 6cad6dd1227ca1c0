"""Shares of the tasks in an update, which sum to 1 over all tasks and are learned from step to
step; in a step where tasks are absent, the others share out what they have together."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mtl_utils.solvers import Array


def opened(shares: Tensor) -> Array:
    """The shares of the tasks of a step, [K'], scaled to sum to 1; equal ones if all are 0."""
    array = shares.detach().double().cpu().numpy()
    total = array.sum()
    return array / total if total > 0 else np.full(len(array), 1 / len(array))


def closed(found: Array, shares: Tensor) -> Tensor:
    """New shares, [K'], that sum to 1, scaled to what these tasks had together before."""
    return torch.as_tensor(found).to(shares) * shares.sum()
