"""Verbs that return axes, for the notebooks that are not rewritten yet; they go with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from mtl_utils.plots.style import task_style


def plot_history(
    history: pd.DataFrame,
    y: str | Sequence[str] = ("loss", "weight"),
    x: str = "epoch",
    log: bool = False,
) -> tuple[plt.Figure, np.ndarray]:
    """Quantities of a training history over time, a panel each, a line a task.

    Args:
        history: what `mtl_utils.training.train` returns: a row for each epoch and task.
        y: columns to draw, such as "loss", "weight".
        x: column of the horizontal axis.
        log: logarithmic vertical axes.

    Returns:
        figure, axes [number of panels].
    """
    columns = [y] if isinstance(y, str) else list(y)
    missing = [c for c in (*columns, x, "task") if c not in history]
    if missing:
        name = "x" if missing[0] == x else "history" if missing[0] == "task" else "y"
        raise ValueError(f"{name}: there is no column {missing[0]!r}; there are {list(history)}")
    width = max(6.4, 4.4 * len(columns))
    fig, axes = plt.subplots(1, len(columns), figsize=(width, 3.4), squeeze=False)
    for ax, column in zip(axes[0], columns, strict=True):
        for k, (task, rows) in enumerate(history.groupby("task", sort=False, observed=True)):
            ax.plot(rows[x], rows[column], label=str(task), **task_style(k))
        ax.set(xlabel=x, ylabel=column)
        if log:
            ax.set_yscale("log")
    axes[0, 0].legend(title="task")
    return fig, axes[0]


def plot_trade_off(
    ax: Axes,
    points: pd.DataFrame,
    x: str,
    y: str,
    label: str | None = None,
    annotate: str | None = None,
    **style: Any,
) -> None:
    """A trade-off curve: one point a setting, joined in the order of the rows.

    Args:
        ax: axes to draw on.
        points: a row for each setting.
        x, y: columns of the two tasks' metrics.
        label: legend entry.
        annotate: column whose values are written beside the points.
        style: passed on to `Axes.plot`.
    """
    ax.plot(points[x], points[y], marker="o", label=label, **style)
    if annotate is not None:
        for _, row in points.iterrows():
            ax.annotate(
                f"{row[annotate]:g}", (row[x], row[y]), xytext=(5, 5), textcoords="offset points"
            )
    ax.set(xlabel=x, ylabel=y)
