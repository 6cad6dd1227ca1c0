"""Methods beside each other: over seeds, over data sets, by their properties."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_hex
from matplotlib.ticker import MaxNLocator

from mtl_utils.intervals import interval
from mtl_utils.plots.canvas import needs, own_figure, panel
from mtl_utils.plots.style import PALETTE, tint

ROW = 0.36  # inches, height of a row of dots
YES, NO, UNKNOWN = "✓", "✗", "–"
# What filled and hollow marks of `forest_plot` are.
SINGLE = ("the 95 % interval leaves 0 out", "0 lies within")
DECIDED = ("decided after Holm's correction", "not decided")
CHARACTERS = 12  # of the head of a column, in an inch


def dots_plot(
    table: pd.DataFrame,
    value: str,
    group: str,
    *,
    title: str = "",
    alt: str = "",
    better: str = "",
    ax: Axes | None = None,
    size: tuple[float, float] | None = None,
) -> None:
    """A dot for each seed, and the mean with its 95 % interval; a row a group.

    Args:
        table: a row for each seed and group.
        value, group: its columns. Groups stand in the order of the table.
        title: states the finding.
        alt: what the figure shows, in a sentence.
        better: which values are better, "less" or "more"; said beside the axis.
        ax: draw into this panel of a larger figure; without alt.
        size: of the figure, inches.

    Raises:
        ValueError: a column that is not there, no title or alt, another word for `better`.
    """
    needs(table, value=value, group=group)
    names = list(table[group].unique())
    with panel(ax, title, alt, size or (7.2, 1.4 + ROW * len(names))) as ax:
        for row, name in enumerate(names):
            values = table.loc[table[group] == name, value].sort_values()
            spread = 0.05 * (np.arange(len(values)) % 5 - 2)  # so that equal values stay apart
            seeds: dict[str, Any] = {"color": "0.55", "markersize": 4, "linestyle": "none"}
            ax.plot(values, row - 0.12 + spread, "o", **seeds)
            _mean_and_line(ax, interval(values), row + 0.2, PALETTE[0])
        ax.set_yticks(range(len(names)), [str(name) for name in names])
        ax.set_ylim(len(names) - 0.5, -0.5)
        ax.set(ylabel="", xlabel=f"{value}{_arrow(better)}")


def forest_plot(
    differences: pd.DataFrame,
    value: str = "difference",
    method: str = "method",
    data: str = "data",
    *,
    title: str,
    alt: str,
    better: str,
    decided: str = "",
    ends: tuple[str, str] | None = None,
    size: tuple[float, float] | None = None,
) -> None:
    """Differences to a baseline with their 95 % intervals: a row a method, a panel a data set.

    Methods are sorted by their mean over the data sets, each in units of the data set's largest
    mean difference, the best on top; a column of categories keeps its order. A filled mark is a
    difference whose interval leaves 0 out; or, with `decided`, one that is decided: many intervals
    beside each other leave 0 out by luck here and there.

    Args:
        differences: a row for each method, data set and seed: the method minus the baseline.
        value, method, data: its columns; `value` labels the axis.
        title: states the finding.
        alt: what the figure shows, in a sentence.
        better: which differences are better, "less" or "more".
        decided: column that says whether a difference is told from 0 after Holm's correction for
            the number of comparisons, the same in all of its rows.
        ends: columns of the two ends of each interval, for a table that has a row for each method
            and data set, and intervals that do not follow from seeds.
        size: of the figure, inches.

    Raises:
        ValueError: a column that is not there, more than four data sets, no title or alt; with
            `ends`, a method with several rows in a data set.
    """
    columns = dict(zip(("low", "high"), ends or (None, None), strict=True))
    needs(differences, value=value, method=method, data=data, decided=decided or None, **columns)
    if ends and differences.duplicated([method, data]).any():
        raise ValueError("ends: expected a row for each method and data set, got several")
    sets = list(differences[data].unique())
    if len(sets) > 4:
        raise ValueError(f"data: {len(sets)} data sets; a figure shows at most 4 panels")
    names = _best_first(differences, value, method, data, better)
    size = size or (9.6, 1.6 + ROW * len(names))
    with own_figure(title, alt, panels=len(sets), size=size, sharey=True) as axes:
        for ax, name in zip(axes, sets, strict=True):
            here = differences[differences[data] == name]
            ax.axvline(0, color="0.3", linewidth=1, linestyle="-")
            for row, rule in enumerate(names):
                mine = here[here[method] == rule]
                if len(mine):
                    mean, low, high = (
                        mine[[value, *ends]].iloc[0] if ends else interval(mine[value])
                    )
                    told = mine[decided].all() if decided else not low <= 0 <= high
                    _mean_and_line(ax, (mean, low, high), row, PALETTE[0], hollow=not told)
            ax.set(title=str(name), xlabel=f"{value}{_arrow(better)}")
            nbins = 5 if len(sets) < 4 else 3  # narrow panels: labels would touch
            ax.xaxis.set_major_locator(MaxNLocator(nbins=nbins, min_n_ticks=3))
        mark: dict[str, Any] = {"color": PALETTE[0], "linestyle": "none", "markersize": 7}
        filled, hollow = DECIDED if decided else SINGLE
        axes[0].plot([], [], "o", label=filled, **mark)
        axes[0].plot([], [], "o", label=hollow, markerfacecolor="white", **mark)
        axes[0].set_yticks(range(len(names)), names)
        axes[0].set_ylim(len(names) - 0.5, -0.5)


def _best_first(
    differences: pd.DataFrame, value: str, method: str, data: str, better: str
) -> list[Any]:
    """The methods, the best on top, or in the order of their categories."""
    if hasattr(differences[method], "cat"):
        return list(differences[method].cat.categories)
    means = differences.pivot_table(value, method, data, aggfunc="mean", sort=False)
    order = (means / means.abs().max()).mean(axis=1).sort_values(ascending=better == "less")
    return list(order.index)


def _mean_and_line(
    ax: Axes, found: tuple[float, float, float], row: float, color: str, hollow: bool = False
) -> None:
    """Mark of a mean, hollow if asked for, and line of its interval: mean, low, high."""
    mean, low, high = found
    ax.plot([low, high], [row, row], color=color, linewidth=2, linestyle="-", zorder=3)
    ax.plot(
        mean,
        row,
        "o",
        color=color,
        markersize=7,
        zorder=4,
        markerfacecolor="white" if hollow else color,
    )


def _arrow(better: str) -> str:
    """The line under an axis's label that says which side is better."""
    if better not in ("", "less", "more"):
        raise ValueError(f'better: expected "less" or "more", got {better!r}')
    return {"": "", "less": "\n← better", "more": "\nbetter →"}[better]


def matrix_plot(
    table: pd.DataFrame,
    *,
    title: str,
    alt: str,
    form: str = "{:.2f}",
    size: tuple[float, float] | None = None,
) -> None:
    """Rows by columns, such as rules by properties; each cell says its value, and is tinted by it.

    Args:
        table: truths (`None` if unknown), drawn as ✓, ✗ and –; or numbers from 0 to 1. The index
            and the columns label the sides.
        title: states the finding.
        alt: what the figure shows, in a sentence.
        form: how numbers are written.
        size: of the figure, inches.

    Raises:
        ValueError: an empty table, numbers outside [0, 1], no title or alt.
    """
    if table.empty:
        raise ValueError(f"table: there is nothing to draw, shape {table.shape}")
    values = table.map(lambda v: 0.5 if v is None or v != v else float(v)).to_numpy(dtype=float)
    if values.min() < 0 or values.max() > 1:
        raise ValueError("table: expected truths or numbers from 0 to 1")
    marks = table.map(lambda v: _mark(v, form)).to_numpy()
    size = size or (2.6 + 0.95 * table.shape[1], 1.6 + ROW * table.shape[0])
    with own_figure(title, alt, size=size) as (ax,):
        sns.heatmap(
            pd.DataFrame(values, table.index, table.columns),
            vmin=0,
            vmax=1,
            cmap=_tints(),
            annot=marks,
            fmt="",
            annot_kws={"fontsize": 13, "color": "black"},
            cbar=False,
            linewidths=2,
            linecolor="white",
            ax=ax,
        )
        ax.set(xlabel=table.columns.name or "", ylabel=table.index.name or "")
        ax.xaxis.tick_top()
        ax.tick_params(length=0, rotation=0)
        width = max(8, int(CHARACTERS * (size[0] - 2.6) / table.shape[1]))
        heads = [textwrap.fill(str(column), width) for column in table.columns]
        ax.set_xticks(ax.get_xticks(), heads)


def _mark(value: Any, form: str) -> str:
    if value is None or value != value:
        return UNKNOWN
    return (NO, YES)[bool(value)] if isinstance(value, bool | np.bool_) else form.format(value)


def _tints() -> ListedColormap:
    """From pale orange (0) over grey to pale blue (1): black can be read on all of them."""
    no, yes = tint(PALETTE[1], 0.3), tint(PALETTE[0], 0.3)
    return ListedColormap([to_hex(c) for c in sns.blend_palette([no, "0.95", yes], 65)])
