"""The decision guide: on the left what you know, on the right what to try first."""

from __future__ import annotations

import textwrap
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from mtl_utils.plots.style import PALETTE, readable, tint

LINE, GAP = 0.2, 0.16  # inches: a line of text, between boxes
CHARACTERS = {"know": 30, "first": 37, "both": 70}  # that fit into a line of a box


def plot_guide(guide: pd.DataFrame) -> tuple[plt.Figure, Axes]:
    """A box for what you know, an arrow, a box for what to try; the first row is for everybody.

    The figure is narrow, so that it can be read on a small screen.

    Args:
        guide: columns "what you know", "try first" and "measured in", in this order of rows.

    Returns:
        figure, axes.
    """
    texts = [_texts(row, first=place == 0) for place, row in enumerate(guide.itertuples(False))]
    heights = [LINE * max(t.count("\n") + 1 for t in text) + 0.16 for text in texts]
    total = sum(heights) + GAP * len(heights) + 0.35
    fig = plt.figure(figsize=(6.0, total), layout="none")
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, 6.0), ylim=(-total, 0))
    ax.axis("off")
    ax.text(0, -0.12, "What you know, and what to try first", fontsize=12, va="center")
    top = -0.35
    for place, (text, height) in enumerate(zip(texts, heights, strict=True)):
        if place == 0:
            _box(ax, (0.05, top - height, 5.9, height), text[0], PALETTE[2], bold=True)
        else:
            _box(ax, (0.05, top - height, 2.55, height), text[0], PALETTE[0])
            _box(ax, (2.85, top - height, 3.1, height), text[1], PALETTE[1])
            middle = top - height / 2
            arrow = {"arrowstyle": "->", "color": "0.3"}
            ax.annotate("", xy=(2.85, middle), xytext=(2.6, middle), arrowprops=arrow)
        top -= height + GAP
    return fig, ax


def _texts(row: Any, first: bool) -> tuple[str, ...]:
    """The texts of a row's boxes, in lines that fit; the notebooks stand behind what to try."""
    know, action, measured = row[0], row[1], f"[{row[-1]}]"
    if first:
        return (textwrap.fill(f"{know}: {action} {measured}", CHARACTERS["both"]),)
    wrapped = textwrap.fill(f"{action} {measured}", CHARACTERS["first"])
    return textwrap.fill(know, CHARACTERS["know"]), wrapped


def _box(
    ax: Axes, place: tuple[float, float, float, float], text: str, color: str, bold: bool = False
) -> None:
    """A rectangle (left, bottom, width, height) with a text in it."""
    left, bottom, width, height = place
    dark = readable(color)
    ax.add_patch(
        plt.Rectangle((left, bottom), width, height, facecolor=tint(color), edgecolor=dark)
    )
    ax.text(
        left + 0.1,
        bottom + height / 2,
        text,
        va="center",
        fontsize=9,
        linespacing=1.25,
        weight="bold" if bold else "normal",
    )
