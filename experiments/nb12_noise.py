"""Notebook 12: where rules on gradients end if one task's gradients are noisy.

Two bowls in P dimensions, L_1 = |x - a|^2 / 2 and L_2 = |x - b|^2 / 2. The Pareto set is the
straight line from a to b. Gradient descent on updates of two tasks; the gradient of the second task
is measured with noise, as on a small batch.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from experiments.nb12_rules import closed_forms, title

DIMENSIONS = 20
RULES = ("equal", "pcgrad", "cagrad", "nash_mtl")


def descend(noise: float, runs: int = 30, steps: int = 1000, lr: float = 0.02) -> pd.DataFrame:
    """Descend from the point above the middle, by four rules.

    Args:
        noise: standard deviation of each entry of the second gradient.
        runs: with noise of their own.
        steps: of gradient descent.
        lr: its rate.

    Returns:
        Columns rule, run, step, `place`: 0 above a, best for task 1, to 1 above b; and `above`,
        the distance from the line.
    """
    dice = np.random.default_rng(0)
    a, b = np.zeros((2, DIMENSIONS))
    a[0], b[0] = -1.0, 1.0
    x = np.zeros((len(RULES), runs, DIMENSIONS))
    x[..., 1] = 1.0
    rows = []
    for step in range(steps + 1):
        if step % 50 == 0:
            above = np.linalg.norm(x[..., 1:], axis=-1)
            for rule, places, heights in zip(RULES, (x[..., 0] + 1) / 2, above, strict=True):
                named = {"rule": title(rule), "run": range(runs), "step": step}
                rows.append(pd.DataFrame({**named, "place": places, "above": heights}))
        error = noise * dice.standard_normal((runs, DIMENSIONS))  # the same for all rules
        gradients = np.stack([x - a, x - b + error], -2)  # [rule, run, task, P]
        found = closed_forms(gradients)
        x = x - lr * np.stack([found[rule][k] for k, rule in enumerate(RULES)])
    return pd.concat(rows, ignore_index=True)


def cosine_with_itself(noise: float) -> float:
    """Of the second gradient on two batches, at the middle of the line, by expectation."""
    return 1.0 / (1.0 + DIMENSIONS * noise**2)
