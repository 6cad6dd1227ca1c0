"""The course's figures: one style, colour-blind safe, one colour for one task everywhere."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from mtl_utils import home  # noqa: F401  has to come before matplotlib

# isort: split
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from cycler import cycler
from matplotlib.axes import Axes

# Okabe and Ito's colour-blind safe palette, darkest first; a line style goes with each colour so
# that a figure can be read in grey.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#F0E442")
STYLES = ("-", "--", "-.", ":", "-", "--", "-.", ":")


def set_style() -> None:
    """Style of every figure of the course."""
    sns.set_theme(context="notebook", style="ticks", palette=PALETTE)
    plt.rcParams.update(
        {
            "axes.prop_cycle": cycler(color=PALETTE) + cycler(linestyle=STYLES),
            "font.sans-serif": ["DejaVu Sans"],  # ships with matplotlib: the same on every system
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlelocation": "left",
            "axes.titlesize": 12,
            "axes.labelsize": 11,
            "legend.frameon": False,
            "figure.figsize": (6.4, 3.6),
            "figure.dpi": 80,
            "savefig.dpi": 80,
            "figure.constrained_layout.use": True,
        }
    )


def task_color(k: int) -> str:
    """Colour of task k (0, 1, ...), the same in every notebook."""
    return PALETTE[k % len(PALETTE)]


def task_style(k: int) -> dict:
    """Colour and line style of task k as keyword arguments of `Axes.plot`."""
    return {"color": task_color(k), "linestyle": STYLES[k % len(STYLES)]}


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


def plot_method_map(
    methods: pd.DataFrame, reads: dict[str, str], available: Sequence[str]
) -> tuple[plt.Figure, Axes]:
    """The methods of the course as boxes, in a column for what they read.

    Args:
        methods: what `mtl_utils.catalogue.methods_table` returns.
        reads: the columns and what each means, `mtl_utils.catalogue.READS`.
        available: names of the methods drawn filled.

    Returns:
        figure, axes.
    """
    fig, ax = plt.subplots(figsize=(9.6, 5.8))
    for column, (key, meaning) in enumerate(reads.items()):
        color = PALETTE[column]
        ax.text(column, 0.55, key, ha="center", weight="bold", color=color, fontsize=12)
        ax.text(column, 0.15, textwrap.fill(meaning, 20), ha="center", va="top", fontsize=8.5)
        rows = methods[methods["reads"] == key].sort_values("year", kind="stable")
        for row, method in enumerate(rows.itertuples()):
            filled = method.name in available
            ax.text(
                column,
                -1.5 - 0.78 * row,
                f"{method.title.split(' (')[0]} · {method.notebook}",
                ha="center",
                va="center",
                fontsize=8.5,
                color="white" if filled else "black",
                bbox={
                    "boxstyle": "round,pad=0.35",
                    "edgecolor": color,
                    "facecolor": color if filled else "white",
                },
            )
    arrow = {"arrowstyle": "->", "color": "0.3"}
    ax.annotate("", xy=(len(reads) - 0.5, 1.15), xytext=(-0.5, 1.15), arrowprops=arrow)
    ax.text((len(reads) - 1) / 2, 1.3, "reads more, costs more", ha="center", fontsize=9)
    longest = methods["reads"].value_counts().max()
    ax.set(xlim=(-0.6, len(reads) - 0.4), ylim=(-1.6 - 0.78 * longest, 1.8))
    ax.set_title("What a weighting method reads decides what it costs")
    ax.axis("off")
    return fig, ax
