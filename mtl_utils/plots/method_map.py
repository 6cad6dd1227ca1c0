"""The map of methods: what each reads decides what it costs."""

from __future__ import annotations

import textwrap

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from mtl_utils.plots.style import PALETTE, readable, tint


def plot_method_map(methods: pd.DataFrame, reads: dict[str, str]) -> tuple[plt.Figure, Axes]:
    """The methods of the course as boxes, in a column for what they read, with their notebook.

    Args:
        methods: what `mtl_utils.catalogue.methods_table` returns.
        reads: the columns and what each means, `mtl_utils.catalogue.READS`.

    Returns:
        figure, axes.
    """
    depth = 2.9 + 0.78 * methods["reads"].value_counts().max()  # of the longest column
    fig, ax = plt.subplots(figsize=(9.6, 0.47 * depth))
    for column, (key, meaning) in enumerate(reads.items()):
        color = PALETTE[column]
        dark = readable(color)
        ax.text(column, 0.55, key, ha="center", weight="bold", color=dark, fontsize=12)
        ax.text(column, 0.15, textwrap.fill(meaning, 20), ha="center", va="top", fontsize=8.5)
        rows = methods[methods["reads"] == key].sort_values("year", kind="stable")
        for row, method in enumerate(rows.itertuples()):
            ax.text(
                column,
                -1.5 - 0.78 * row,
                f"{method.title.split(' (')[0]} · {method.notebook}",
                ha="center",
                va="center",
                fontsize=8.5,
                color="black",
                bbox={
                    "boxstyle": "round,pad=0.35",
                    "edgecolor": dark,
                    "facecolor": tint(color),
                },
            )
    arrow = {"arrowstyle": "->", "color": "0.3"}
    ax.annotate("", xy=(len(reads) - 0.5, 1.15), xytext=(-0.5, 1.15), arrowprops=arrow)
    ax.text((len(reads) - 1) / 2, 1.3, "reads more, costs more", ha="center", fontsize=9)
    ax.set(xlim=(-0.6, len(reads) - 0.4), ylim=(1.8 - depth, 1.8))
    ax.set_title("What a weighting method reads decides what it costs")
    ax.axis("off")
    return fig, ax
