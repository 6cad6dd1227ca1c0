"""Notebook 12: what a rule does to random gradients, and on the way to a limit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from experiments.nb12_rules import RULES, cosines, title, unit, update

Array = np.ndarray
Rule = Callable[..., Array]  # as `update`, without the name
ORDER = [2, 0, 3, 1]
HUNDRED = np.array([[100.0], [1.0], [1.0], [1.0]])
MORE = np.array([[3.0], [0.5], [2.0], [0.1]])


def close(a: Array, b: Array) -> bool:
    """Equal within a millionth of the largest entry."""
    return bool(np.abs(a - b).max() <= 1e-6 * max(np.abs(a).max(), np.abs(b).max()))


def harms_none(f: Rule, J: Array) -> bool:
    """J d >= 0."""
    return bool(cosines(J, f(J)).min() > -1e-9)


def lowers_the_mean(f: Rule, J: Array) -> bool:
    """The mean gradient times d is not negative."""
    return bool(J.mean(0) @ unit(f(J)) > -1e-9)


def scale_free(f: Rule, J: Array) -> bool:
    """The direction stays if the first loss is multiplied by 100."""
    return close(unit(f(HUNDRED * J)), unit(f(J)))


def linear(f: Rule, J: Array) -> bool:
    """d is linear in the length of each gradient."""
    return close(f(J) + f(MORE * J), f((1 + MORE) * J))


def any_order(f: Rule, J: Array) -> bool:
    """Tasks may be renumbered."""
    return close(f(J[ORDER]), f(J))


def no_dice(f: Rule, J: Array) -> bool:
    """Another seed, the same update."""
    return close(f(J, seed=1), f(J))


def no_memory(f: Rule, J: Array) -> bool:
    """Earlier calls do not matter."""
    return close(f(J, before=J[::-1] + 1), f(J))


def turns(f: Rule, J: Array) -> bool:
    """Turning the axes of the parameter space turns d: inner products suffice."""
    return close(f(J @ TURN), f(J) @ TURN)


def mean_in_peace(f: Rule, J: Array) -> bool:
    """Along the mean where no two gradients conflict."""
    return close(unit(f(J)), unit(J.mean(0)))


TURN = np.linalg.qr(np.random.default_rng(1).standard_normal((6, 6)))[0]
PROPERTIES = {
    "harms none": harms_none,
    "lowers the mean": lowers_the_mean,
    "scale-free": scale_free,
    "linear": linear,
    "any order": any_order,
    "no dice": no_dice,
    "no memory": no_memory,
    "Gramian": turns,
    "mean in peace": mean_in_peace,
}


def random_gradients(n: int, seed: int = 2) -> Array:
    """n Jacobians of four Gaussian gradients in six dimensions, [n, 4, 6]."""
    return np.random.default_rng(seed).standard_normal((n, 4, 6))


def peaceful_gradients(n: int, seed: int = 3) -> list[Array]:
    """n of them with a common part, and without any conflict."""
    dice = np.random.default_rng(seed)
    found: list[Array] = []
    while len(found) < n:
        J = dice.standard_normal((4, 6)) + 3 * unit(dice.standard_normal(6))
        if (J @ J.T > 0).all():
            found.append(J)
    return found


def shares(n: int = 100, first: int = 300) -> pd.DataFrame:
    """For what share of random Jacobians a property holds: a row a rule, a column a property.

    Args:
        n: Jacobians for each property.
        first: for the first one, harms none.
    """
    jacobians, peaceful = random_gradients(max(n, first)), peaceful_gradients(n)
    table = {}
    for name in ["equal", *RULES]:
        f = partial(update, name)
        given = {"harms none": jacobians[:first], "mean in peace": peaceful}
        table[title(name)] = {
            column: float(np.mean([test(f, J) for J in given.get(column, jacobians[:n])]))
            for column, test in PROPERTIES.items()
        }
    found = pd.DataFrame(table).T
    return found.sort_values(["harms none", "scale-free"], ascending=False, kind="stable")


# ---- on the way to a limit -------------------------------------------------------------------

FACTORS = tuple(10.0**-k for k in range(10))
Named = dict[str, tuple[str, dict[str, Any]]]  # text in a table -> name and options of a rule
EVERY_RULE: Named = {title(name): (name, {}) for name in ["equal", *RULES]}


def fading_task(
    n: int = 10, factors: tuple[float, ...] = FACTORS, rules: Named = EVERY_RULE
) -> pd.DataFrame:
    """Updates while the first of four gradients is scaled down: a task that comes to its end.

    Args:
        n: sets of random gradients.
        factors: of the first gradient.
        rules: which, with what options.

    Returns:
        Columns rule, factor, set, length (of d over that at factor 1), cosine (of d with g_1) and
        turn (degrees between d and the direction at factor 1).
    """
    rows = []
    for k, J in enumerate(random_gradients(n, seed=4)):
        for text, (name, options) in rules.items():
            before = update(name, J, **options)
            for factor in factors:
                d = update(name, J * np.array([[factor], [1.0], [1.0], [1.0]]), **options)
                rows.append((text, factor, k, *_compared(d, before), cosines(J, d)[0]))
    return pd.DataFrame(rows, columns=["rule", "factor", "set", "length", "turn", "cosine"])


def near_stationary(
    n: int = 10,
    factors: tuple[float, ...] = FACTORS,
    rules: Named = EVERY_RULE,
    tasks: int = 4,
) -> pd.DataFrame:
    """Updates while two to four gradients come closer and closer to a Pareto-stationary point.

    There a mixture of the gradients with positive weights is 0. The last gradient is minus a
    mixture of the others, plus `factor` times a random direction.

    Args:
        n: sets of random gradients.
        factors: the distances.
        rules: which, with what options.
        tasks: how many, 2 to 4.

    Returns:
        Columns rule, factor (the distance), set and length (of d over that at factor 1).
    """
    dice = np.random.default_rng(5)
    rows = []
    for k, J in enumerate(random_gradients(n, seed=6)):
        others, away = J[: tasks - 1], J[3]
        last = -(np.abs(dice.standard_normal(tasks - 1)) + 0.2) @ others
        for text, (name, options) in rules.items():
            before = update(name, np.vstack([others, last + away]), **options)
            for factor in factors:
                d = update(name, np.vstack([others, last + factor * away]), **options)
                rows.append((text, factor, k, _compared(d, before)[0]))
    return pd.DataFrame(rows, columns=["rule", "factor", "set", "length"])


def _compared(d: Array, before: Array) -> tuple[float, float]:
    """Length of d over that of `before`, and the angle between them in degrees."""
    cosine = np.clip(unit(d) @ unit(before), -1, 1)
    return float(np.linalg.norm(d) / np.linalg.norm(before)), float(np.degrees(np.arccos(cosine)))
