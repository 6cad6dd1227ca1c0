"""Notices what is easily forgotten, and says so once: a learned weight that no optimiser moves, and
other processes or a gradient scaler of which the rule was not told."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor, nn

from mtl_utils.engine.graph import leaves_of
from mtl_utils.engine.processes import how_many

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
        self.counted = False
        self.measured = False

    def count(self, rule: nn.Module, has_group: bool) -> None:
        """To be called after each backward pass.

        Warns:
            UserWarning: once, if there are several processes, of which the rule was not told, and
                its weights are not constants.
        """
        if self.counted:
            return
        self.counted = True
        if how_many() > 1 and not has_group and not (is_constant(rule) and rule.generator is None):
            warnings.warn(
                f"there are {how_many()} processes, and {rule.name} reads the losses of this one "
                "alone; weighting.use(group=torch.distributed.group.WORLD) gives what one process "
                "gives on all rows",
                UserWarning,
                stacklevel=3,
            )

    def measure(self, rule: nn.Module, losses: Tensor) -> None:
        """To be called before each backward pass without a gradient scaler.

        Warns:
            UserWarning: once, if the losses look as if a gradient scaler had multiplied them.
        """
        if self.measured:
            return
        self.measured = True
        factor = getattr(losses.grad_fn, "_saved_other", None)
        if not isinstance(factor, Tensor) or factor.dim() or factor.dtype != torch.float32:
            return
        if factor >= 2 and math.log2(factor).is_integer() and not is_constant(rule):
            warnings.warn(
                f"losses: they look as if a gradient scaler had multiplied them by {factor:g}; "
                f"{rule.name} needs them as they are: backward(losses, ..., scaler=scaler)",
                UserWarning,
                stacklevel=3,
            )

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


def is_constant(rule: nn.Module) -> bool:
    """Whether a rule reads nothing of the batch."""
    card = getattr(rule, "card", None)  # a rule of the user's may have none
    return card is not None and card.reads == "nothing"


def _has_gradient(parameter: Tensor) -> bool:
    return parameter.grad is not None and bool((parameter.grad != 0).any())
