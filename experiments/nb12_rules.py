"""Notebook 12: the rules on gradients behind one call, and their closed forms for two tasks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch

from mtl_utils import make_weighting
from mtl_utils.weighting.base import weighting_class
from mtl_utils.weighting.kinds import CoordinateWeighting, GramianWeighting

Array = np.ndarray

# The rules of the gallery: name of `make_weighting` and options. A rule more is a line more.
RULES: dict[str, dict[str, Any]] = {
    "mgda": {},
    "pcgrad": {},
    "gradvac": {},
    "cagrad": {},
    "dualproj": {},
    "upgrad": {},
    "imtl_g": {},
    "config": {},
    "nash_mtl": {},
    "fairgrad": {"alpha": 2.0},
    "aligned_mtl": {},
    "graddrop": {},
}
WITH_DICE = ("pcgrad", "gradvac", "graddrop")  # they draw: orders, or coordinates
TARGET = 0.2  # cosine that GradVac aims at here; in a training it follows what it saw


def title(name: str) -> str:
    """The rule's name as papers write it; "equal" is the mean gradient."""
    return "mean" if name == "equal" else weighting_class(name).card.title


def unit(v: Array) -> Array:
    """Vectors [..., P] of length 1; 0 stays 0."""
    return v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-300)


def cosines(J: Array, d: Array) -> Array:
    """Of an update d [P] with each task gradient, [K]."""
    return unit(J) @ unit(d)


def update(
    name: str, J: Array, seed: int = 0, before: Array | None = None, **options: Any
) -> Array:
    """The update d, [P], that a rule of `mtl_utils` makes of the gradients J, [K, P].

    Args:
        name: "equal" (the mean gradient), or one of `RULES`.
        J: a gradient a row.
        seed: of the rules that draw.
        before: gradients of a step before, for rules that remember.
        options: of the rule, in place of those in `RULES`.
    """
    if name == "equal":
        return J.mean(0)
    options = RULES.get(name, {}) | options
    dice = torch.Generator()
    if name in WITH_DICE:
        options["generator"] = dice
    rule = make_weighting(name, len(J), **options)
    if name == "gradvac":
        rule.average.fill_(TARGET)  # type: ignore[operator, union-attr]
    d = np.zeros(J.shape[1])
    for now in [J] if before is None else [before, J]:
        dice.manual_seed(seed)
        d = _one_step(rule, now)
    return d


def _one_step(rule: Any, J: Array) -> Array:
    if isinstance(rule, CoordinateWeighting):
        return rule.merge(torch.tensor(J), torch.ones(len(J)))[0].numpy()
    assert isinstance(rule, GramianWeighting)
    return rule.coefficients(torch.tensor(J @ J.T)).numpy() @ J


def arrows(J: Array, name: str | None = None, length: float = 2.5, **options: Any) -> pd.DataFrame:
    """Task gradients in the plane, and the direction of one update, for `arrow_plot`.

    Args:
        J: [K, 2].
        name: of the rule; without it the gradients alone.
        length: of the arrow for the update, whose own length is a matter of convention.
        options: of the rule.
    """
    rows = [(*g, f"$g_{k}$", "gradient") for k, g in enumerate(J, 1)]
    if name is not None:
        rows.append((*(length * unit(update(name, J, **options))), "$d$", "update"))
    return pd.DataFrame(rows, columns=["$x_1$", "$x_2$", "name", "kind"])


def closed_forms(g: Array, c: float = 0.4) -> dict[str, Array]:
    """The updates of nine rules for two tasks, each [..., P], for many pairs at once.

    Args:
        g: gradients, [..., 2, P].
        c: of CAGrad.
    """

    def dot(a: Array, b: Array) -> Array:
        return (a * b).sum(-1, keepdims=True)

    g1, g2 = g[..., 0, :], g[..., 1, :]
    u1, u2 = unit(g1), unit(g2)
    g12, n1, n2 = dot(g1, g2), dot(g1, u1), dot(g2, u2)
    mean, s = (g1 + g2) / 2, u1 + u2
    bisector = s / np.maximum(np.sqrt(dot(s, s)), 1e-12)  # 0 where they are opposite
    share = np.clip((n2**2 - g12) / np.maximum(dot(g1 - g2, g1 - g2), 1e-300), 0, 1)
    surgery = 2 * mean - np.minimum(dot(u1, g2), 0) * u1 - np.minimum(dot(g1, u2), 0) * u2
    # the mean harms one of two tasks at most, so that one projection is enough
    harmless = mean - np.minimum(dot(mean, u1), 0) * u1 - np.minimum(dot(mean, u2), 0) * u2
    return {
        "equal": mean,
        "mgda": share * g1 + (1 - share) * g2,
        "pcgrad": surgery,
        "upgrad": surgery / 2,
        "dualproj": harmless,
        "cagrad": _cagrad(g1, g2, c),
        "nash_mtl": bisector,  # length limited to 1
        "imtl_g": (n2 * g1 + n1 * g2) / np.maximum(n1 + n2, 1e-300),
        "config": (dot(g1, bisector) + dot(g2, bisector)) * bisector,
    }


def _cagrad(g1: Array, g2: Array, c: float) -> Array:
    """The best point of the ball for one task, or the one where both tasks gain the same."""

    def dot(a: Array, b: Array) -> Array:
        return (a * b).sum(-1, keepdims=True)

    mean, e = (g1 + g2) / 2, unit(g1 - g2)
    radius, middle = c * np.sqrt(dot(mean, mean)), mean - dot(mean, e) * e
    up = np.sqrt(np.maximum(radius**2 - dot(mean, e) ** 2, 0))
    balanced = middle + up * middle / np.maximum(np.sqrt(dot(middle, middle)), 1e-300)
    for_1, for_2 = mean + radius * unit(g1), mean + radius * unit(g2)
    ball = np.where(dot(g1 - g2, for_2) >= 0, for_2, balanced)
    return np.where(dot(g2 - g1, for_1) >= 0, for_1, ball)
