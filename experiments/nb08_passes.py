"""Notebook 08: how often do gradients pass through the layers of a trunk in a step of GradNorm?"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from experiments.nb08_gradnorm import STUDY, shared, two_tasks


def passes(kind: str) -> dict[str, int]:
    """Gradients that pass through the first and the last layer of the trunk in a step, two tasks.

    Args:
        kind: "plain" (no norms), norms of the "last shared layer" or of "all shared layers", or
            "double backward" (norms of the last shared layer, differentiated a second time).

    Raises:
        ValueError: another kind.
    """
    data = two_tasks(0)
    model = shared(data, 20)
    counts = {"first": 0, "last": 0}
    _count(model.trunk[0], counts, "first")
    _count(model.trunk[2], counts, "last")
    losses = STUDY.losses(model, *(tensor[:50] for tensor in data.train))
    if kind == "last shared layer":
        _norms(losses, model.trunk[2])
    elif kind == "all shared layers":
        _norms(losses, model.trunk)
    elif kind == "double backward":
        weights = torch.ones(2, requires_grad=True)
        norms = _norms(weights * losses, model.trunk[2], create_graph=True)
        (norms - norms.mean().detach()).abs().sum().backward(retain_graph=True)
    elif kind != "plain":
        raise ValueError(f"kind: expected one of those of the docstring, got {kind!r}")
    losses.sum().backward()
    return counts


def _count(layer: nn.Module, counts: dict[str, int], name: str) -> None:
    """Count the gradients that reach the outputs of a layer."""

    def reached(gradient: Tensor) -> None:
        counts[name] += 1

    def listen(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        output.register_hook(reached)

    layer.register_forward_hook(listen)


def _norms(losses: Tensor, layer: nn.Module, create_graph: bool = False) -> Tensor:
    """Norm of each loss's gradient in a layer, [K]."""
    own = list(layer.parameters())
    norms = []
    for loss in losses:
        parts = torch.autograd.grad(loss, own, retain_graph=True, create_graph=create_graph)
        norms.append(torch.cat([part.flatten() for part in parts]).norm())
    return torch.stack(norms)
