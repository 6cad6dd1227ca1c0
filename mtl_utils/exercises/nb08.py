"""Exercises of notebook 08."""

import math

import torch
from torch import Tensor

from mtl_utils.exercises import Exercise


def _settled(norms: tuple[float, ...], left: tuple[float, ...], alpha: float) -> list[float]:
    """Formula (5) of the notebook, from norms and shares of the losses that are left."""
    mean = sum(left) / len(left)
    raw = [(v / mean) ** alpha / n for n, v in zip(norms, left, strict=True)]
    return [len(raw) * v / sum(raw) for v in raw]


def _targets(w: Tensor, norms: Tensor, r: Tensor, alpha: float) -> Tensor:
    """In proportion to r^alpha, with the sum of the weighted norms."""
    return r**alpha / (r**alpha).sum() * (w * norms).sum()


def _slopes(w: list[float], n: list[float], left: list[float], alpha: float) -> list[float]:
    """Formula (4): the sign of weighted norm minus target, times the norm."""
    mean = sum(left) / len(left)
    average = sum(a * b for a, b in zip(w, n, strict=True)) / len(w)
    targets = [average * (part / mean) ** alpha for part in left]
    gaps = [a * b - t for a, b, t in zip(w, n, targets, strict=True)]
    return [math.copysign(b, gap) for b, gap in zip(n, gaps, strict=True)]


_W, _NORMS, _R = torch.tensor([[0.5, 1.5], [3.0, 1.0], [0.4, 1.6]], dtype=torch.float64)

EXERCISES = {
    "08.1": Exercise(
        answer=_settled((2.0, 3.0), (0.3, 0.9), 1.0),
        hint="Formula (5): first r from what is left, then the proportions, then the sum.",
        formula="r is 0.3 and 0.9 divided by their mean; the weights are in the proportions r / n "
        "and sum to 2.",
        praise="the task that lags gets twice the weight, though its gradient is the longer one",
        mistakes=(
            (_settled((2.0, 3.0), (0.3, 0.9), 0.0), "That is alpha = 0: equal weighted norms."),
            (_settled((0.5, 1 / 3), (0.3, 0.9), 1.0), "Divide by the norms, do not multiply."),
            ([1 / 3, 2 / 3], "The weights sum to K = 2, not to 1."),
        ),
    ),
    "08.2": Exercise(
        answer=40,
        hint="How far is it, and how far does Adam go in one step at most?",
        formula="The way is 1 - 0.0198, a step covers at most 0.025; steps are whole.",
        praise="and each step is longer than the weight that it should reach",
        mistakes=(
            (39, "After 39 steps it has gone 0.975; the way is 0.9802."),
            ((1 - 0.0198) / 0.025, "Steps are whole: round up."),
            (1, "The weight is lowered by 0.025 a step, not multiplied by it."),
        ),
    ),
    "08.3": Exercise(
        answer=_targets,
        at=tuple((_W, _NORMS, _R, alpha) for alpha in (0.0, 0.5, 1.0, 2.5)),
        hint="L_grad is 0 if each weighted norm meets its target. What do the targets sum to then?",
        formula="The targets have to sum to what the weighted norms sum to: divide r^alpha by its "
        "mean.",
        praise="now the objective is 0 where (5) says, for every alpha",
        mistakes=(
            (
                lambda w, norms, r, alpha: (w * norms).mean() * r**alpha,
                "That is (3) as it stands. Its targets sum to something else, unless alpha is 0 "
                "or 1.",
            ),
            (
                lambda w, norms, r, alpha: r**alpha / (r**alpha).sum() * norms.sum(),
                "The norms that are compared with the targets are the weighted ones, w n.",
            ),
        ),
    ),
    "08.4": Exercise(
        answer=_slopes,
        at=(
            ([1.0, 1.0], [1.0, 4.0], [0.2, 0.6], 1.0),
            ([0.5, 1.5], [3.0, 1.0], [0.9, 0.1], 1.5),
            ([1.0, 0.7, 1.3], [2.0, 1.0, 0.5], [0.3, 0.6, 0.5], 0.0),
        ),
        hint="First r from what is left, (2); then the targets, (3); then signs times norms.",
        formula="r = left / mean(left); t = mean(w n) r^alpha; the slope is sign(w n - t) n.",
        praise="and no gradient was differentiated twice",
        mistakes=(
            (
                lambda w, n, left, alpha: [-v for v in _slopes(w, n, left, alpha)],
                "The other way round: too long a gradient has to give a positive slope.",
            ),
            (
                lambda w, n, left, alpha: [
                    math.copysign(1.0, v) for v in _slopes(w, n, left, alpha)
                ],
                "The sign alone is how Adam's first step moves; the slope has the norm as a "
                "factor.",
            ),
        ),
    ),
    "08.5": Exercise(
        answer=8.0,
        hint="To which two numbers do the parts of the losses go, and what do the targets have in "
        "common?",
        formula="The targets are in the proportion of r^alpha, and the mean in r cancels: "
        "(0.64 / 0.01)^0.5.",
        praise="the task that is mostly noise may pull eight times as hard, though it is finished",
        mistakes=(
            (64.0, "That is the quotient of the parts; alpha = 0.5 takes its root."),
            (0.125, "Upside down: the second over the first."),
            ((64.0) ** 1.5, "That is with alpha = 1.5."),
        ),
    ),
}
