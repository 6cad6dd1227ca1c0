"""Means over seeds with their confidence intervals, as numbers and as text."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from mtl_utils.extras import extra


def interval(values: Iterable[float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean and its confidence interval from Student's t, for results over seeds.

    The interval holds the true mean in `level` of all repetitions of the experiment, if the values
    are independent and roughly normal. Of paired results hand over the differences.

    Args:
        values: at least two numbers, e.g. one for each seed.
        level: coverage, in (0, 1).

    Returns:
        mean, lower end, upper end.

    Raises:
        ValueError: fewer than two values, or a level outside (0, 1).

    >>> [round(v, 2) for v in interval([1.0, 2.0, 3.0, 4.0, 5.0])]
    [3.0, 1.04, 4.96]
    """
    with extra("notebooks"):
        from scipy import stats

    values = np.asarray(list(values), dtype=float)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"values: expected at least two numbers, got shape {values.shape}")
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number in (0, 1), got {level!r}")
    spread = values.std(ddof=1) / math.sqrt(len(values))
    half = float(stats.t.ppf(0.5 + level / 2, len(values) - 1) * spread)
    mean = float(values.mean())
    return mean, mean - half, mean + half


def interval_text(
    values: Iterable[float], decimals: int = 3, level: float = 0.95, sign: bool = True
) -> str:
    """Mean and confidence interval of `values` as the course writes them.

    Args:
        values, level: as for `interval`.
        decimals: shown of each of the three numbers.
        sign: write a plus before positive numbers, as suits a difference.

    >>> interval_text([0.01, 0.02, 0.03])
    '+0.020 [-0.005, +0.045]'
    >>> interval_text([10, 20, 30], decimals=1, sign=False)
    '20.0 [-4.8, 44.8]'
    """
    form = f"{'+' if sign else ''}.{decimals}f"
    mean, low, high = interval(values, level)
    return f"{mean:{form}} [{low:{form}}, {high:{form}}]"
