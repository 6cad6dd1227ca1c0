"""Quantities over time, or over a setting: lines with a band over seeds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mtl_utils.intervals import interval
from mtl_utils.plots.canvas import levels_of, log_axis, looks, needs, own_figure, panel
from mtl_utils.plots.style import task_color

FEW = 5  # values on a logarithmic axis: each has its tick
DASHES = {"-": "", "--": (3.7, 1.6), "-.": (6.4, 1.6, 1, 1.6), ":": (1, 1.65)}  # as matplotlib's


def band_plot(
    table: pd.DataFrame,
    x: str,
    y: str,
    by: str | None = None,
    *,
    title: str = "",
    alt: str = "",
    log: str = "",
    ax: Axes | None = None,
    size: tuple[float, float] | None = None,
) -> None:
    """Means over seeds as lines, with the 95 % interval of the mean as a band.

    Args:
        table: a row for each seed and each x, in any order; of a single seed there is no band.
        x, y: columns of the axes, named as these are to be labelled.
        by: column with a line for each of its values, at most four.
        title: states the finding.
        alt: what the figure shows, in a sentence.
        log: which axes are logarithmic: "", "x", "y" or "xy".
        ax: draw into this panel of a larger figure; without alt.
        size: of the figure, inches.

    Raises:
        ValueError: a column that is not there, more than four lines, no title or alt.
    """
    needs(table, x=x, y=y, by=by)
    levels = levels_of(table, by)
    with panel(ax, title, alt, size) as ax:
        styles = looks(ax, levels)
        sns.lineplot(
            table,
            x=x,
            y=y,
            hue=by,
            hue_order=levels or None,
            style=by,
            style_order=levels or None,
            palette={level: style["color"] for level, style in styles.items()} or None,
            dashes={level: DASHES[style["linestyle"]] for level, style in styles.items()} or True,
            color=None if levels else task_color(0),
            errorbar=_ends,
            err_kws={"alpha": 0.15, "linewidth": 0},
            legend=False,
            ax=ax,
        )
        for level, style in styles.items():
            ax.plot([], [], label=str(level), **style)  # for the legend
        if "x" not in log and pd.api.types.is_integer_dtype(table[x]):
            ax.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5], integer=True))
        for axis in log:
            log_axis(ax, axis)
        if "x" in log and table[x].nunique() <= FEW:
            ax.set_xticks(sorted(table[x].unique()))


def _ends(values: pd.Series) -> tuple[float, float]:
    """The ends of the band."""
    return interval(values)[1:] if len(values) > 1 else (np.nan, np.nan)


def weights_plot(
    history: pd.DataFrame,
    x: str = "epoch",
    loss: str = "loss",
    weight: str = "weight",
    by: str = "task",
    *,
    title: str,
    alt: str,
    log: str = "y",
    size: tuple[float, float] | None = None,
) -> None:
    """Losses over time, and beside them the weights that they were given; a line a task.

    Args:
        history: a row for each x, task and seed, such as `mtl_utils.training.train` returns.
        x, loss, weight, by: its columns.
        title: states the finding.
        alt: what the figure shows, in a sentence.
        log: which axes of the losses are logarithmic: "", "x", "y" or "xy".
        size: of the figure, inches.

    Raises:
        ValueError: a column that is not there, more than four tasks, no title or alt.
    """
    needs(history, x=x, loss=loss, weight=weight, by=by)
    levels_of(history, by)
    with own_figure(title, alt, panels=2, size=size) as (left, right):
        band_plot(history, x, loss, by, log=log, ax=left)
        band_plot(history, x, weight, by, log=log.replace("y", ""), ax=right)
        right.set_ylim(bottom=min(0.0, right.get_ylim()[0]))
