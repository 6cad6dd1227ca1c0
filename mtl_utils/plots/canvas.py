"""What the drawing verbs have in common: a figure of their own or a panel, legend, labels."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.ticker import Formatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from mtl_utils.plots.style import MARKERS, PALETTE, task_style
from mtl_utils.showing import show

MOST_LINES = 4


@contextmanager
def own_figure(
    title: str, alt: str, panels: int = 1, size: tuple[float, float] | None = None, **options: Any
) -> Iterator[list[Axes]]:
    """Axes of a new figure, which is shown at the end.

    Args:
        title: states the finding.
        alt: what the figure shows, for those who do not see it.
        panels: how many, side by side.
        size: of the figure, inches.
        options: passed on to `plt.subplots`.
    """
    if not alt.strip() or not title.strip():
        name = "title: state the finding" if alt.strip() else "alt: say what the figure shows"
        raise ValueError(f"{name}, in a sentence; of a panel (ax=) show(fig, alt=...) says it")
    size = size or (7.2 if panels == 1 else 9.6, 3.8)
    fig, axes = plt.subplots(1, panels, figsize=size, squeeze=False, **options)
    try:
        yield list(axes[0])
        title = textwrap.fill(title, int(11 * size[0]))  # characters that fit
        fig.suptitle(title, x=0.01, ha="left", fontsize=12)
        legend_below(fig)
        show(fig, alt=alt)
    finally:
        plt.close(fig)


@contextmanager
def panel(
    ax: Axes | None, title: str, alt: str, size: tuple[float, float] | None
) -> Iterator[Axes]:
    """The axes to draw on: `ax`, or those of a new figure, which is shown at the end."""
    if ax is None:
        with own_figure(title, alt, size=size) as (only,):
            yield only
        return
    if alt:
        raise ValueError("alt: a panel (ax=) has none; give it to show(fig, alt=...)")
    yield ax
    ax.set_title(title)
    legend_below(ax.get_figure(root=True))


def legend_below(fig: Figure | None) -> None:
    """One legend for all panels, below them, where it covers nothing."""
    assert fig is not None
    while fig.legends:
        fig.legends[0].remove()
    entries = _entries(fig)
    if len(entries) > 1:
        handles, labels = list(entries.values()), list(entries)
        for columns in (len(labels), min(len(labels), MOST_LINES)):  # one row, if it fits
            legend = fig.legend(
                handles, labels, loc="outside lower center", ncols=columns, fontsize=10
            )
            if columns <= MOST_LINES or legend.get_window_extent().width <= fig.bbox.width:
                return
            legend.remove()


def _entries(fig: Figure) -> dict[str, Any]:
    """What the legend of a figure has to hold: a handle for each label."""
    pairs = [zip(*reversed(ax.get_legend_handles_labels()), strict=True) for ax in fig.axes]
    return {label: handle for pair in pairs for label, handle in pair}


def looks(ax: Axes, levels: Sequence[Any], marker: bool = False) -> dict[Any, dict[str, Any]]:
    """Colour, line style and, if wanted, marker of each line: the same in every panel."""
    fig = ax.get_figure(root=True)
    assert fig is not None
    numbers = {
        label: PALETTE.index(color.upper())
        for label, handle in _entries(fig).items()
        if (color := to_hex(handle.get_color())).upper() in PALETTE
    }
    free = (k for k in range(len(PALETTE)) if k not in numbers.values())
    found = {}
    for level in levels:
        k = numbers[str(level)] if str(level) in numbers else next(free)
        found[level] = task_style(k)
        if marker:
            found[level] |= {"marker": MARKERS[k]}
    return found


def needs(table: pd.DataFrame, **columns: str | None) -> None:
    """Raise ValueError if the table lacks a column; names the argument that asked for it."""
    for argument, column in columns.items():
        if column is not None and column not in table:
            raise ValueError(f"{argument}: there is no column {column!r}; there are {list(table)}")


def levels_of(table: pd.DataFrame, by: str | None) -> list[Any]:
    """The values of a column, in order of appearance; ValueError if a figure cannot show so many.

    Those of a column of categories in the order of the categories.
    """
    if by is None:
        return []
    values = table[by]
    levels = list(values.cat.categories) if hasattr(values, "cat") else list(values.unique())
    if len(levels) > MOST_LINES:
        raise ValueError(
            f"by: {by!r} has {len(levels)} values; a figure shows at most {MOST_LINES} lines: "
            "choose some of them, or draw panels"
        )
    return levels


def log_axis(ax: Axes, which: str) -> None:
    """Make the axis "x" or "y" logarithmic, with numbers that can be read: 0.2, 0.5, 1, 2, 5."""
    axis = ax.xaxis if which == "x" else ax.yaxis
    getattr(ax, f"set_{which}scale")("log")
    low, high = axis.get_view_interval()
    short = math.log10(high / low) < 2.5
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if short else (1,)))
    axis.set_major_formatter(_Numbers())
    axis.set_minor_formatter(NullFormatter())


class _Numbers(Formatter):
    """Numbers of a logarithmic axis in one style: 0.01, 1, 100, or powers of ten for all of them.

    Powers where one number of the axis would be written as 1e-06.
    """

    def __call__(self, value: float, pos: int | None = None) -> str:
        return f"{value:g}"

    def format_ticks(self, values: list[float]) -> list[str]:
        assert self.axis is not None
        low, high = sorted(self.axis.get_view_interval())
        if not any("e" in f"{value:g}" for value in values if low <= value <= high):
            return super().format_ticks(values)
        return [_power(value) for value in values]


def _power(value: float) -> str:
    """As a power of ten: 1e-06 is 10⁻⁶, and 2e-06 is 2·10⁻⁶."""
    digits, exponent = f"{value:.0e}".split("e")
    factor = "" if digits == "1" else rf"{digits}\cdot"
    return rf"${factor}10^{{{int(exponent)}}}$"


def place_labels(
    ax: Axes, points: Sequence[Sequence[float]], texts: Sequence[str], **style: Any
) -> None:
    """Write texts beside points of an axes, where they cover neither lines nor each other.

    A text that finds no free place is left out: the table beside the figure has it.
    """
    fig = ax.get_figure(root=True)
    assert fig is not None
    fig.draw_without_rendering()  # settles limits and layout
    ink, taken = _ink(ax), list[Bbox]()
    for point, text in zip(points, texts, strict=True):
        for distance, angle in product((6, 9), (45, 135, -45, -135, 0, 180, 90, -90)):
            label = beside(ax, point, text, distance, math.radians(angle), **style)
            box = label.get_window_extent().padded(1)
            inside = ((ink > box.min) & (ink < box.max)).all(1)
            if not inside.any() and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            label.remove()


def beside(
    ax: Axes, point: Sequence[float], text: str, distance: float, angle: float, **style: Any
) -> Annotation:
    """A text beside a point, in this direction and at this distance (in points)."""
    x, y = round(math.cos(angle), 6), round(math.sin(angle), 6)
    return ax.annotate(
        text,
        (point[0], point[1]),
        xytext=(distance * x, distance * y),
        textcoords="offset points",
        ha="center" if abs(x) < 0.3 else "left" if x > 0 else "right",
        va="center" if abs(y) < 0.3 else "bottom" if y > 0 else "top",
        **{"fontsize": 9, **style},
    )


def _ink(ax: Axes) -> np.ndarray:
    """Points on all lines of an axes, a few pixels apart, in pixels [N, 2]."""
    pieces = [np.empty((0, 2))]
    for line in ax.lines:
        pieces.append(_along(line))
    for collection in ax.collections:
        offsets = np.asarray(collection.get_offsets())
        pieces.append(ax.transData.transform(offsets[np.isfinite(offsets).all(1)]))
    return np.concatenate(pieces)


def _along(line: Line2D, step: float = 3.0) -> np.ndarray:
    """Points along a line, at most `step` pixels apart [N, 2]."""
    corners = line.get_transform().transform(np.asarray(line.get_xydata(), dtype=float))
    corners = corners[np.isfinite(corners).all(1)]
    if len(corners) < 2 or line.get_linestyle() == "None":
        return corners
    lengths = np.hypot(*np.diff(corners, axis=0).T)
    way = np.concatenate([[0], lengths.cumsum()])
    places = np.arange(0, way[-1], step)
    return np.stack([np.interp(places, way, corners[:, k]) for k in (0, 1)], axis=1)
