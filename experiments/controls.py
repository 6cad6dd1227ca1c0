"""Wrappers around a rule: what is left of it when one of its side effects is taken away."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtl_utils.weighting import Weighting


class Wrapper(nn.Module):
    """A rule around a rule: it observes and learns as that one does.

    Args:
        rule: any weighting.
    """

    def __init__(self, rule: Weighting) -> None:
        super().__init__()
        self.rule = rule
        self.name = f"{type(self).__name__} of {rule.name}"
        self.n_tasks, self.observes = rule.n_tasks, rule.observes
        self.needs_shared, self.needs_nonnegative = rule.needs_shared, rule.needs_nonnegative

    def observe(self, **quantities: Any) -> None:
        self.rule.observe(**quantities)

    def backward(
        self,
        losses: Tensor,
        shared: Iterable[Tensor] | None = None,
        features: Sequence[Tensor] | None = None,
    ) -> Tensor:
        raise NotImplementedError

    def _fill_fresh(
        self, losses: Tensor, shared: list[Tensor], features: Sequence[Tensor] | None
    ) -> tuple[Tensor, list[Tensor | None]]:
        """The rule's weights; `.grad` of `shared` holds its update alone, what was there before is
        returned."""
        before = [p.grad for p in shared]
        for p in shared:
            p.grad = None
        return self.rule.backward(losses, shared, features), before


class SumToK(Wrapper):
    """The rule's weights scaled so that their absolute values sum to K.

    What a rule gains by weights that grow or shrink together is a learning rate; this takes it
    away. A rule on gradients has its update of the trunk scaled; its heads stay as they are.

    >>> from mtl_utils import make_weighting
    >>> rule = SumToK(make_weighting("log", n_tasks=2))
    >>> rule.backward(torch.tensor([0.5, 1.5], requires_grad=True))
    tensor([1.5000, 0.5000])
    """

    def backward(
        self,
        losses: Tensor,
        shared: Iterable[Tensor] | None = None,
        features: Sequence[Tensor] | None = None,
    ) -> Tensor:
        if not self.needs_shared:
            leaf = losses.detach().clone().requires_grad_()
            weights = self.rescale(self.rule.backward(leaf))
            losses.backward(weights)
            return weights
        trunk = list(shared or [])
        weights, before = self._fill_fresh(losses, trunk, features)
        scaled = self.rescale(weights)
        factor = scaled.abs().sum() / weights.abs().sum()
        for p, old in zip(trunk, before, strict=True):
            if p.grad is not None:
                p.grad = factor * p.grad if old is None else old + factor * p.grad
        return scaled

    def rescale(self, weights: Tensor) -> Tensor:
        """Weights [..., K] whose absolute values sum to K."""
        return self.n_tasks * weights / weights.abs().sum(-1, keepdim=True)


class AveragedTrunk(Wrapper):
    """The rule's update of the trunk, averaged over steps: a <- beta a + (1 - beta) update.

    The part of DB-MTL that has nothing to do with logarithms.

    Args:
        rule: any weighting.
        beta: share of the past, in [0, 1).
    """

    def __init__(self, rule: Weighting, beta: float) -> None:
        super().__init__(rule)
        self.beta, self.needs_shared = beta, True
        self.average: list[Tensor] | None = None

    def backward(
        self,
        losses: Tensor,
        shared: Iterable[Tensor] | None = None,
        features: Sequence[Tensor] | None = None,
    ) -> Tensor:
        trunk = list(shared or [])
        weights, before = self._fill_fresh(losses, trunk, features)
        new = [torch.zeros_like(p) if p.grad is None else p.grad for p in trunk]
        old = self.average or [torch.zeros_like(p) for p in trunk]
        self.average = [self.beta * a + (1 - self.beta) * g for a, g in zip(old, new, strict=True)]
        for p, average, earlier in zip(trunk, self.average, before, strict=True):
            p.grad = average.clone() if earlier is None else earlier + average
        return weights
