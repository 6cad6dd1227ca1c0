"""Small networks, losses and metrics that several studies share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from mtl_utils.datasets import MultiTaskData
from mtl_utils.models import HardSharing, mlp


def n_inputs(data: MultiTaskData) -> int:
    """Width of the input rows."""
    return data.train[0].shape[1]


def shared_mlp(data: MultiTaskData, width: int) -> HardSharing:
    """A hidden layer that all tasks share, and a linear head for each regression."""
    heads = [nn.Linear(width, 1) for _ in data.tasks]
    return HardSharing(mlp(n_inputs(data), width, last=True), heads)


def single_mlp(data: MultiTaskData, width: int, task: int) -> nn.Sequential:
    """The same for one regression."""
    return mlp(n_inputs(data), width, 1)


def squared_errors(model: nn.Module, x: Tensor, *targets: Tensor) -> Tensor:
    """Mean squared error of each task, [K]."""
    return torch.stack([mse_loss(out, y) for out, y in zip(model(x), targets, strict=True)])


def unexplained(model: nn.Module, x: Tensor, *targets: Tensor) -> Tensor:
    """Share of each target's variance that is not explained, [K]."""
    variances = torch.stack([y.var(0).mean() for y in targets])
    return squared_errors(model, x, *targets) / variances


def cross_entropies(model: nn.Module, x: Tensor, *classes: Tensor) -> Tensor:
    """Cross-entropy of each task, [K]."""
    return torch.stack([cross_entropy(out, c) for out, c in zip(model(x), classes, strict=True)])


def wrong(model: nn.Module, x: Tensor, *classes: Tensor) -> Tensor:
    """Share of wrong classes of each task, [K]."""
    pairs = zip(model(x), classes, strict=True)
    return torch.stack([(out.argmax(-1) != c).to(out.dtype).mean() for out, c in pairs])
