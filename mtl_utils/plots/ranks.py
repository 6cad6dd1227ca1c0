"""Mean ranks of many methods, and which of them are not told apart."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from mtl_utils.plots.canvas import own_figure
from mtl_utils.plots.style import PALETTE

ROW, BAR = 0.3, 0.22  # inches: height of a row, from bar to bar


def ranks_plot(
    ranks: pd.Series,
    critical: float,
    bars: Sequence[tuple[str, str]],
    *,
    title: str,
    alt: str,
    size: tuple[float, float] | None = None,
) -> None:
    """A critical-difference diagram, lying on its side: a row a method, the best on top.

    A dot is a mean rank. An upright bar on the right joins methods that are not told apart. The
    length of the line below is the critical difference.

    Args:
        ranks: mean rank by method, 1 is best.
        critical: by how much two mean ranks have to differ.
        bars: first and last method of each group that is not told apart.
        title: states the finding.
        alt: what the figure shows, in a sentence.
        size: of the figure, inches.

    Raises:
        ValueError: a bar of a method that has no rank, no title or alt.

    Source: Demsar, Journal of Machine Learning Research 7, 2006, figure 1.
    """
    ranks = ranks.sort_values()
    place = {name: row for row, name in enumerate(ranks.index)}
    if unknown := {name for bar in bars for name in bar} - set(place):
        raise ValueError(f"bars: no rank is given for {', '.join(sorted(unknown))}")
    size = size or (6.4, 1.9 + ROW * len(ranks))
    with own_figure(title, alt, size=size) as (ax,):
        ax.plot(ranks, range(len(ranks)), "o", color=PALETTE[0], markersize=6, linestyle="none")
        right = len(ranks) + BAR
        for number, (first, last) in enumerate(bars):
            at, ends = right + BAR * number, [place[first] - 0.2, place[last] + 0.2]
            ax.plot([at, at], ends, color="0.2", linewidth=3, linestyle="-")
        below = len(ranks) + 0.1
        ax.plot([1, 1 + critical], [below, below], color=PALETTE[1], linewidth=2, linestyle="-")
        text = {"ha": "left", "va": "center", "fontsize": 9}
        ax.text(1.15 + critical, below, f"critical difference {critical:.2f}", text)
        ax.set_yticks(range(len(ranks)), [str(name) for name in ranks.index])
        ax.set(xlim=(0.8, right + BAR * len(bars)), ylim=(below + 0.5, -0.5))
        ax.set_xticks(range(1, len(ranks) + 1, max(1, len(ranks) // 10)))
        ax.set(xlabel="mean rank\n← better", ylabel="")
