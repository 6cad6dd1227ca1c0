"""Notices a learned weight that no optimiser moves, and says so once."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from mtl_utils.engine.graph import leaves_of

STEPS = 10


class Watch:
    """Compares a rule's own parameters with what they were, until each of them has moved.

    A step counts if the model moved and the parameter, which had a gradient, did not. So micro-
    batches that are gathered into one step count once, and a rule that is only asked for weights
    never does.
    """

    def __init__(self) -> None:
        self.start: dict[str, Tensor] | None = None
        self.version = -1
        self.steps = 0

    def look(self, rule: nn.Module, losses: Tensor) -> None:
        """To be called after each backward pass.

        Warns:
            UserWarning: once, after `STEPS` steps.
        """
        if self.start == {}:  # nothing is left to watch
            return
        learned = {name: p for name, p in rule.named_parameters() if p.requires_grad}
        if self.start is None:
            self.start = {name: p.detach().clone() for name, p in learned.items()}
        self.start = {
            name: before
            for name, before in self.start.items()
            if name in learned and torch.equal(before.to(learned[name]), learned[name])
        }
        if not self.start:
            return
        version = sum(leaf._version for leaf in leaves_of(losses))
        self.steps += self.version not in (-1, version)
        self.version = version
        still = [name for name in self.start if _has_gradient(learned[name])]
        if self.steps >= STEPS and still:
            self.start = {}
            warnings.warn(
                f"{', '.join(still)} of this weighting got gradients and never changed in {STEPS} "
                "steps of the model; hand them to the optimiser: "
                "optimizer = Adam([*model.parameters(), *weighting.parameters()]). "
                "(Weights that shall not learn: weighting.requires_grad_(False).)",
                UserWarning,
                stacklevel=3,
            )


def _has_gradient(parameter: Tensor) -> bool:
    return parameter.grad is not None and bool((parameter.grad != 0).any())
