"""Notebook 12: the two toys in the plane, for many points at once.

`experiments/nb12_paths.py` walks them in full length, with gradients written for one point; here
are the losses themselves, gradients for any number of points, and a short walk by closed forms.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from experiments.nb12_paths import FIVE, FLOOR
from experiments.nb12_rules import closed_forms, title
from mtl_utils import records
from mtl_utils.showing import number_text

Array = np.ndarray
STARTS = np.array(FIVE)
X, Y = "$x_1$", "$x_2$"  # columns of paths and fronts


def valley(x: Tensor) -> Tensor:
    """Losses of CAGrad's toy at points x [..., 2], [..., 2] (Liu et al. 2021, public code)."""
    x1, x2 = x[..., 0], x[..., 1]
    c1, c2 = torch.tanh(0.5 * x2).clamp(min=0), torch.tanh(-0.5 * x2).clamp(min=0)
    found = []
    for a, centre in ((0.5 * (-x1 - 7) + x2.tanh(), 7), (0.5 * (3 - x1) - x2.tanh() + 2, -7)):
        bowl = ((x1 - centre) ** 2 + 0.1 * (x2 + 8) ** 2) / 10 - 20
        found.append(c1 * (a.abs().clamp(min=FLOOR).log() + 6) + c2 * bowl)
    return torch.stack(found, -1)


def valley_gradients(x: Array) -> Array:
    """Their gradients at x [..., 2], by hand, [..., task, 2]."""
    x1, x2 = x[..., 0], x[..., 1]
    steep = np.tanh(x2)
    c1, c2 = np.maximum(np.tanh(0.5 * x2), 0), np.maximum(np.tanh(-0.5 * x2), 0)
    slope1 = np.where(x2 >= 0, 0.5 * (1 - c1**2), 0)  # at 0 both count, as in autograd
    slope2 = np.where(x2 <= 0, -0.5 * (1 - c2**2), 0)
    found = []
    for sign, a in ((1, 0.5 * (-x1 - 7) + steep), (-1, 0.5 * (3 - x1) - steep + 2)):
        inside = np.abs(a) >= FLOOR
        pull = c1 * inside / np.where(inside, a, 1)
        log = np.log(np.maximum(np.abs(a), FLOOR)) + 6
        bowl = ((x1 - 7 * sign) ** 2 + 0.1 * (x2 + 8) ** 2) / 10 - 20
        along_1 = -0.5 * pull + 0.2 * c2 * (x1 - 7 * sign)
        along_2 = slope1 * log + sign * pull * (1 - steep**2) + slope2 * bowl + 0.02 * c2 * (x2 + 8)
        found.append(np.stack([along_1, along_2], -1))
    return np.stack(found, -2)


def ravine(x: Tensor) -> Tensor:
    """Losses of PCGrad's toy at points x [..., 2], [..., 2] (Yu et al. 2020)."""
    first = 0.5 * x[..., 0] + x[..., 1].tanh()
    second = 0.5 * x[..., 0] - x[..., 1].tanh() + 2
    heights = torch.tensor([20.0, 25.0], dtype=x.dtype)
    return heights * torch.stack([first, second], -1).abs().clamp(min=FLOOR).log()


def ravine_gradients(x: Array) -> Array:
    """Their gradients at x [..., 2], by hand, [..., task, 2]."""
    steep = np.tanh(x[..., 1])
    a = np.stack([0.5 * x[..., 0] + steep, 0.5 * x[..., 0] - steep + 2], -1)
    pull = np.array([20.0, 25.0]) * (np.abs(a) >= FLOOR) / np.where(a == 0, 1, a)
    return np.stack([0.5 * pull, pull * np.array([1.0, -1.0]) * (1 - steep**2)[..., None]], -1)


def pareto_set(points: int = 29) -> pd.DataFrame:
    """Points of the valley's Pareto set, from x_1 = -7 to 7."""
    rows = [(x1, _below(x1)) for x1 in np.linspace(-7, 7, points)]
    return pd.DataFrame(rows, columns=[X, Y])


def _below(x1: float) -> float:
    """x_2 of the Pareto set at x_1: where the weighted sum that has its minimum there is least."""
    w = torch.tensor([(x1 + 7) / 14, (7 - x1) / 14], dtype=torch.float64)

    def weighted(x2: float) -> float:
        return (w * valley(torch.tensor([x1, x2], dtype=torch.float64))).sum().item()

    options = {"xatol": 1e-9}
    return minimize_scalar(weighted, bounds=(-9, -8), method="bounded", options=options).x


def walk(
    slopes: Callable[[Array], Array],
    starts: Array,
    steps: int,
    keep: int,
    rate: float = 1e-3,
    c: float = 0.4,
) -> Array:
    """Positions [time, rule, start, 2] every `keep` steps of Adam, by the closed forms of nine
    rules, in their order.

    Args:
        slopes: gives gradients [..., task, 2] at points [..., 2].
        starts: points [start, 2].
        steps: of Adam.
        keep: one position in so many steps is kept.
        rate: of Adam.
        c: of CAGrad.
    """
    x = np.repeat(starts[None], len(closed_forms(slopes(starts))), 0)
    first, second, kept = np.zeros_like(x), np.zeros_like(x), []
    for step in range(1, steps + 1):
        d = np.stack([found[k] for k, found in enumerate(closed_forms(slopes(x), c).values())])
        first, second = 0.9 * first + 0.1 * d, 0.999 * second + 0.001 * d**2
        x = x - rate * first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        if step % keep == 0:
            kept.append(x)
    return np.stack(kept)


def steps_to_the_set(rate: float, steps: int, runs: int = 10, c: float = 0.5) -> pd.DataFrame:
    """How many steps of Adam each of nine rules takes from the valley's two upper starts to below
    x_2 = -8, beside the Pareto set.

    The paths in the valley are chaotic, so each start is displaced at random, by about 0.01.

    Args:
        rate: of Adam.
        steps: of Adam, the most that are tried.
        runs: for each start.
        c: of CAGrad.

    Returns:
        Columns rule, start (1 or 3), run and steps: infinite where it has not arrived.
    """
    upper = STARTS[[0, 2]] + 0.01 * np.random.default_rng(0).standard_normal((runs, 2, 2))
    x2 = walk(valley_gradients, upper.reshape(-1, 2), steps, keep=20, rate=rate, c=c)[..., 1]
    first = np.where((x2 < -8).any(0), 20.0 * ((x2 < -8).argmax(0) + 1), np.inf)
    names = [title(name) for name in closed_forms(valley_gradients(upper))]
    keys = pd.MultiIndex.from_product([names, range(runs), (1, 3)], names=["rule", "run", "start"])
    return pd.Series(first.ravel(), keys, name="steps").reset_index()


def recorded(setting: str, *rules: str, record: str = "12_toy") -> pd.DataFrame:
    """Paths from a record: columns rule, start (from 1), step, and the two coordinates."""
    rows = records.read(record).query("setting == @setting").drop(columns="setting")
    rows = rows.rename(columns={"x1": X, "x2": Y}).assign(start=rows["start"] + 1)
    names = list(rules or rows["rule"].unique())
    rows = rows[rows["rule"].isin(names)]
    order = rows["rule"].map(names.index)
    return rows.assign(order=order).sort_values(["order", "start", "step"]).drop(columns="order")


def positions(paths: pd.DataFrame) -> Array:
    """The same as an array [time, rule, start, 2]."""
    shape = [paths["rule"].nunique(), paths["start"].nunique(), -1, 2]
    return paths[[X, Y]].to_numpy().reshape(shape).transpose(2, 0, 1, 3)


def ends(paths: pd.DataFrame) -> pd.DataFrame:
    """The last point of each path."""
    return paths.groupby(["rule", "start"], sort=False).tail(1)


def label(rule: str) -> str:
    """A record's name of a rule as the papers write it: "cagrad, c 0.5" is "CAGrad, c 0.5"."""
    name, *rest = rule.split(",")
    return ",".join([title(name), *rest])


def place_texts(points: pd.DataFrame) -> list[str]:
    """Coordinates as text, to three digits; the records have four decimals."""
    rounded = points[[X, Y]].round(3).to_numpy() + 0.0  # no -0
    return [f"({number_text(a)}, {number_text(b)})" for a, b in rounded]


def places(paths: pd.DataFrame) -> pd.DataFrame:
    """Where each path ends, as text: a row a rule, a column a start."""
    last = ends(paths)
    table = last.assign(text=place_texts(last)).pivot(index="rule", columns="start", values="text")
    return table.loc[last["rule"].unique()].rename(index=label, columns="start {}".format)


def arrived(paths: pd.DataFrame, front: pd.DataFrame, scale: tuple[float, float]) -> pd.Series:
    """For each row: does its path end where no loss (times `scale`) is more than 0.5 above that of
    the Pareto set at the same x_1?"""
    last = ends(paths)
    here = last[[X, Y]].to_numpy()
    x1 = np.clip(here[:, 0], -7, 7)
    there = np.stack([x1, np.interp(x1, front[X], front[Y])], -1)
    above = (valley(torch.tensor(here)) - valley(torch.tensor(there))).numpy() * np.array(scale)
    found = last[["rule", "start"]].assign(arrived=above.max(-1) < 0.5)
    return paths.merge(found, on=["rule", "start"], how="left")["arrived"].set_axis(paths.index)
