"""Notebook 10: the published problem on which the lesson and the report look at Pareto MTL.

Lin, Zhen, Li, Zhang, Kwong, NeurIPS 2019, equation 19: two losses of 20 parameters whose front is
known. Runs are plain gradient descent with exact gradients, from starts uniform in (-1/2, 1/2), as
in the authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Wedge
from scipy.optimize import brentq

from mtl_utils import make_weighting
from mtl_utils.plots.canvas import legend_below
from mtl_utils.plots.fronts import FRONT
from mtl_utils.plots.style import PALETTE
from mtl_utils.solvers import min_norm_point

N = 20  # parameters
CENTRE = np.ones(N) / math.sqrt(N)
Run = tuple[np.ndarray, int]  # the losses along it, [steps + 1, 2], and its steps in phase 1
Coefficients = Callable[[np.ndarray, np.ndarray], np.ndarray]  # of J [K, P] and L [K]; returns [K]


def losses(theta: np.ndarray) -> np.ndarray:
    """Both losses [..., 2] of parameters [..., 20]."""
    away = np.stack([theta - CENTRE, theta + CENTRE], -2)
    return 1 - np.exp(-(away**2).sum(-1))


def task_gradients(theta: np.ndarray) -> np.ndarray:
    """Their gradients, [2, 20]."""
    away = np.stack([theta - CENTRE, theta + CENTRE])
    return 2 * away * np.exp(-(away**2).sum(1, keepdims=True))


def front(s: np.ndarray | float) -> np.ndarray:
    """Losses [..., 2] at the places s of the front, -1 <= s <= 1."""
    s = np.asarray(s)
    return np.stack([1 - np.exp(-((s - 1) ** 2)), 1 - np.exp(-((s + 1) ** 2))], -1)


def at_angle(degrees: float) -> float:
    """The place s where the front has this angle, between 0 and 90 degrees."""
    return float(brentq(lambda s: angles(front(s)) - degrees, -1, 1))


def angles(points: np.ndarray) -> np.ndarray:
    """Of pairs of losses [..., 2], in degrees [...]; 0 where loss 2 is 0."""
    return np.degrees(np.arctan2(points[..., 1], points[..., 0]))


def preferences(count: int) -> np.ndarray:
    """Vectors of length 1, spread evenly from (1, 0) to (0, 1), [count, 2]."""
    angle = np.linspace(0, math.pi / 2, count)
    return np.stack([np.cos(angle), np.sin(angle)], 1)


# ---- runs ------------------------------------------------------------------------------------


def starts(seed: int) -> np.ndarray:
    """Ten of them, [10, 20]; every method gets the same."""
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (10, N))


def descend(
    start: np.ndarray, coefficients: Coefficients, steps: int = 100, rate: float = 1.0
) -> np.ndarray:
    """Losses along a run whose update is the sum of coefficients times task gradients.

    Args:
        start: parameters, [20].
        coefficients: function of the task gradients [2, 20] and the losses [2]; returns [2].
        steps, rate: of the descent.

    Returns:
        the path, [steps + 1, 2].
    """
    theta, path = start, [losses(start)]
    for _ in range(steps):
        J = task_gradients(theta)
        theta = theta - rate * coefficients(J, path[-1]) @ J
        path.append(losses(theta))
    return np.array(path)


def fixed_runs(seed: int) -> list[Run]:
    """Ten fixed weights, in equal steps from (1, 0) to (0, 1)."""
    shares = np.arange(10) / 9
    return [
        (descend(start, lambda J, L, a=a: np.array([1 - a, a])), 0)
        for start, a in zip(starts(seed), shares, strict=True)
    ]


def mgda_runs(seed: int) -> list[Run]:
    """MGDA from the ten starts."""
    return [(descend(start, lambda J, L: min_norm_point(J @ J.T)), 0) for start in starts(seed)]


def pareto_run(
    start: np.ndarray,
    index: int,
    count: int = 10,
    *,
    unit: Sequence[float] | np.ndarray = (1.0, 1.0),
    norm: bool = False,
    limit: int | None = None,
    steps: int = 100,
    rate: float = 1.0,
) -> Run:
    """A run of Pareto MTL for one of `count` vectors.

    Args:
        start: parameters, [20].
        index: of the vector.
        count: of vectors.
        unit: the rule sees the losses and their gradients multiplied by this.
        norm: divide the gradients that the rule sees by their norms; the losses stay.
        limit: phase 2 begins after so many steps in any case.
        steps, rate: of the descent.

    Returns:
        the losses along it, in original units, [steps + 1, 2]; the number of steps in phase 1.
    """
    rule = make_weighting("pareto_mtl", 2, preferences=preferences(count), index=index)
    factors = np.asarray(unit, dtype=float)
    turning = 0

    def coefficients(J: np.ndarray, L: np.ndarray) -> np.ndarray:
        nonlocal turning
        scale = 1 / np.linalg.norm(J, axis=1) if norm else factors
        if turning == limit:
            rule.inside.fill_(True)
        alpha = rule.towards((scale[:, None] * J) @ (scale[:, None] * J).T, factors * L)
        turning += not rule.inside
        return alpha * scale

    return descend(start, coefficients, steps, rate), turning


def pareto_runs(seed: int, **options: object) -> list[Run]:
    """Ten runs from the ten starts, one for each of ten vectors; options as of `pareto_run`."""
    return [pareto_run(start, k, **options) for k, start in enumerate(starts(seed))]


def in_large_unit(seed: int, factor: float, norm: bool = False) -> list[Run]:
    """Ten runs with loss 1 multiplied by a factor; the rate is that much smaller, as gradients are
    that much longer, and the steps are three times as many."""
    unit = (factor, 1.0)
    return pareto_runs(seed, unit=unit, norm=norm, steps=300, rate=1 / factor)


def divided_by_start(seed: int) -> list[Run]:
    """Ten runs with each loss divided by its value at the start: a factor drops out."""
    return [pareto_run(s, k, unit=1 / losses(s)) for k, s in enumerate(starts(seed))]


def ends_of(way: Callable[[int], list[Run]], seeds: Sequence[int]) -> np.ndarray:
    """Where the ten runs of each seed end, [seeds, 10, 2]."""
    return np.array([[path[-1] for path, _ in way(seed)] for seed in seeds])


def tables(runs: Sequence[Run]) -> pd.DataFrame:
    """Runs below each other, with the columns L1, L2 and run."""
    paths = [path for path, _ in runs]
    parts = [pd.DataFrame(path, columns=["L1", "L2"]).assign(run=k) for k, path in enumerate(paths)]
    return pd.concat(parts, ignore_index=True)


def front_table() -> pd.DataFrame:
    """The front as `path_plot` wants it."""
    return pd.DataFrame(front(np.linspace(-1, 1, 201)), columns=["L1", "L2"])


# ---- drawing ---------------------------------------------------------------------------------


def draw_cones(ax: Axes, count: int = 10, chosen: int | None = None, factor: float = 1.0) -> None:
    """The front, and the borders of the cones.

    Args:
        ax: a panel; it gets the limits of the problem.
        count: of vectors.
        chosen: a cone to be filled.
        factor: the cones are those of (factor * L1, L2); the axes stay in original units.
    """
    ax.plot(*front_table().to_numpy().T, label="Pareto front", **FRONT)
    half = math.pi / 4 / (count - 1)
    borders = np.linspace(0, math.pi / 2, count)[:-1] + half
    turned = np.arctan2(factor * np.sin(borders), np.cos(borders))
    for angle in turned:
        far = 2 * np.array([math.cos(angle), math.sin(angle)])
        ax.plot(*zip((0, 0), far, strict=True), color="0.6", linewidth=0.7, linestyle="-", zorder=0)
    if chosen is not None:
        ends = np.degrees([0, *turned, math.pi / 2])[chosen : chosen + 2]
        ax.add_patch(Wedge((0, 0), 2, *ends, color=PALETTE[4], alpha=0.3, linewidth=0, zorder=-1))
    ax.set(xlabel="L1", ylabel="L2", xlim=(0, 1.03), ylim=(0, 1.03), aspect="equal")


def draw_runs(ax: Axes, runs: Sequence[Run]) -> None:
    """Runs from ring to star, dashed in phase 1 and solid in phase 2."""
    looks = {"phase 1": (PALETTE[1], "--"), "phase 2": (PALETTE[0], "-")}
    for path, turning in runs:
        parts = path[: turning + 1], path[turning:]
        for part, (color, line) in zip(parts, looks.values(), strict=True):
            ax.plot(*part.T, color=color, linestyle=line, linewidth=1.4)
        ends = {"color": "black", "zorder": 4, "linestyle": "none"}
        ax.plot(*path[0], "o", markersize=4, markerfacecolor="white", **ends)
        ax.plot(*path[-1], "*", markersize=12, markeredgecolor="white", **ends)
    for name, (color, line) in looks.items():
        ax.plot([], [], color=color, linestyle=line, label=name)
    legend_below(ax.get_figure(root=True))


# ---- batches ---------------------------------------------------------------------------------


def batch_runs(seed: int, size: int, steps: int = 200, rate: float = 0.05) -> dict[str, object]:
    """Five vectors on two linear regressions with the same parameters, trained on batches.

    Args:
        seed: of data, start and batches.
        size: of the batches; 2000 are all rows.
        steps, rate: of the descent.

    Returns:
        `points`, the losses on all rows at the end [5, 2]; `other answers`, the share of steps in
        which the batch and all rows disagree on whether the run is inside its cone; `outside`, how
        many runs end more than a degree outside theirs.
    """
    draw = np.random.default_rng(seed)
    count, vectors = 2000, preferences(5)
    x = draw.normal(size=(count, 5))
    y = x @ np.eye(2, 5).T + 0.3 * draw.normal(size=(count, 2))
    begin, found, other = 0.5 * draw.normal(size=5), [], []
    for k in range(5):
        rule = make_weighting("pareto_mtl", 2, preferences=vectors, index=k)
        theta = begin.copy()
        for _ in range(steps):
            rows = draw.integers(0, count, size) if size < count else slice(None)
            rest = (x @ theta)[:, None] - y  # [rows, 2]
            full, batch = (rest**2).mean(0), (rest[rows] ** 2).mean(0)
            J = 2 * rest[rows].T @ x[rows] / len(x[rows])
            other.append(((vectors @ full).argmax() == k) != ((vectors @ batch).argmax() == k))
            theta = theta - rate * rule.towards(J @ J.T, batch) @ J
        found.append((((x @ theta)[:, None] - y) ** 2).mean(0))
    points = np.array(found)
    away = np.abs(angles(points) - 22.5 * np.arange(5))
    outside = int((away > 11.25 + 1).sum())  # half a cone, and a degree
    return {"points": points, "other answers": float(np.mean(other)), "outside": outside}
