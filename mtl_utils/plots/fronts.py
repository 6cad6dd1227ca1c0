"""Two tasks in the plane: gradients as arrows, paths of training, trade-off curves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from mtl_utils.plots.canvas import beside, levels_of, looks, needs, panel, place_labels
from mtl_utils.plots.style import readable, task_color

FRONT: dict[str, Any] = {"color": "0.8", "linewidth": 6, "linestyle": "-", "zorder": 0}


def arrow_plot(
    arrows: pd.DataFrame,
    x: str = "x",
    y: str = "y",
    name: str = "name",
    kind: str | None = None,
    *,
    shade: bool = False,
    title: str = "",
    alt: str = "",
    ax: Axes | None = None,
    size: tuple[float, float] | None = None,
) -> None:
    """Task gradients, and updates made of them, as arrows from the origin, each with its name.

    Args:
        arrows: a row for each arrow.
        x, y: columns of its tip; they label the axes.
        name: column of what is written at the tip.
        kind: column that tells task gradients (thin, in the colours of the tasks) from updates
            (thick, black): where it holds "update". Left out, all are gradients.
        shade: the directions that conflict with no gradient.
        title: states the finding.
        alt: what the figure shows, in a sentence.
        ax: draw into this panel of a larger figure; without alt.
        size: of the figure, inches.

    Raises:
        ValueError: a column that is not there, no title or alt.
    """
    needs(arrows, x=x, y=y, name=name, kind=kind)
    tips = arrows[[x, y]].to_numpy(dtype=float)
    limits = np.array([np.minimum(tips.min(0), 0), np.maximum(tips.max(0), 0)])
    limits += np.ptp(limits, axis=0).max() * np.array([[-0.22, -0.16], [0.22, 0.16]])
    wide, high = np.ptp(limits, axis=0)
    with panel(ax, title, alt, size or (6.0, 1.4 + 5.2 * min(high / wide, 1))) as ax:
        ax.axhline(0, color="0.85", linewidth=1, linestyle="-", zorder=0)
        ax.axvline(0, color="0.85", linewidth=1, linestyle="-", zorder=0)
        if shade:
            gradients = tips if kind is None else tips[arrows[kind] != "update"]
            sector = 2 * np.abs(limits).max() * _harmless(gradients)
            ax.fill(*np.vstack([[0, 0], sector]).T, color="0.93", linewidth=0, zorder=-1)
        task = 0
        for row, tip in zip(arrows.to_dict("records"), tips, strict=True):
            update = kind is not None and row[kind] == "update"
            color = "black" if update else task_color(task)
            task += not update
            ax.annotate(
                "",
                xy=tip,
                xytext=(0, 0),
                arrowprops={
                    "arrowstyle": "-|>",
                    "color": color,
                    "linewidth": 3 if update else 2,
                    "shrinkA": 0,
                    "shrinkB": 0,
                    "mutation_scale": 16,
                },
            )
            angle = float(np.arctan2(tip[1], tip[0]))
            beside(ax, tip, str(row[name]), 4, angle, fontsize=11, color=readable(color))
        ax.set(xlim=limits[:, 0], ylim=limits[:, 1])
        ax.set(xlabel=x, ylabel=y, aspect="equal")
        fig = ax.get_figure(root=True)
        if fig is not None:
            fig.set_layout_engine("compressed")  # no gaps beside axes of a fixed shape


def _harmless(gradients: np.ndarray) -> np.ndarray:
    """Unit vectors along the arc of directions that conflict with no gradient, [N, 2]; N = 0 if
    there is none."""
    angles = np.radians(np.arange(-180, 180, 0.25))
    around = np.stack([np.cos(angles), np.sin(angles)], 1)
    fine = (around @ gradients.T > -1e-9).all(1)
    begin = int(np.argmax(fine & ~np.roll(fine, 1)))  # after a direction that conflicts
    return np.roll(around, -begin, 0)[np.roll(fine, -begin)]


def path_plot(
    paths: pd.DataFrame,
    x: str,
    y: str,
    by: str | None = None,
    run: str | None = None,
    *,
    front: pd.DataFrame | None = None,
    ground: Callable[[np.ndarray], np.ndarray] | None = None,
    title: str = "",
    alt: str = "",
    ax: Axes | None = None,
    size: tuple[float, float] | None = None,
) -> None:
    """Paths of training in the plane of two parameters or two losses, from ring to star.

    Args:
        paths: a row for each step of each run, in the order of the steps.
        x, y: columns of the axes.
        by: column with a colour and line style for each of its values, at most four.
        run: column that tells the runs of one value of `by` apart.
        front: points of the Pareto front, in order, with the columns x and y; drawn as a broad
            grey line.
        ground: heights [N] of points [N, 2], such as the mean loss; the lower, the darker.
        title: states the finding.
        alt: what the figure shows, in a sentence.
        ax: draw into this panel of a larger figure; without alt.
        size: of the figure, inches.

    Raises:
        ValueError: a column that is not there, more than four values of `by`, no title or alt.
    """
    needs(paths, x=x, y=y, by=by, run=run)
    levels = levels_of(paths, by) or [None]
    with panel(ax, title, alt, size or (6.4, 4.4)) as ax:
        if front is not None:
            needs(front, x=x, y=y)
            ax.plot(front[x], front[y], label="Pareto front", **FRONT)
        for level, style in looks(ax, levels).items():
            rows = paths if by is None else paths[paths[by] == level]
            runs = [rows] if run is None else [part for _, part in rows.groupby(run, sort=False)]
            for part in runs:
                ax.plot(part[x], part[y], linewidth=1.5, **style)
                _ends(ax, part[[x, y]].to_numpy(), style["color"])
            if by is not None:
                ax.plot([], [], label=str(level), **style)
        ax.set(xlabel=x, ylabel=y)
        if ground is not None:
            _shade_ground(ax, ground)


def _shade_ground(ax: Axes, ground: Callable[[np.ndarray], np.ndarray], points: int = 150) -> None:
    """Seven shades of the heights within the limits of the axes, as much of each."""
    limits = ax.get_xlim(), ax.get_ylim()
    x, y = np.meshgrid(*(np.linspace(*ends, points) for ends in limits))
    heights = ground(np.stack([x.ravel(), y.ravel()], 1)).reshape(x.shape)
    levels = np.unique(np.quantile(heights, np.linspace(0, 1, 8)))
    shades = sns.light_palette("0.68", len(levels) - 1, reverse=True)
    ax.contourf(x, y, heights, levels=levels, colors=shades, zorder=-2)
    ax.set(xlim=limits[0], ylim=limits[1])


def _ends(ax: Axes, path: np.ndarray, color: str) -> None:
    """A ring where a path begins, a star where it ends."""
    style: dict[str, Any] = {"color": color, "linestyle": "none", "zorder": 4}
    ax.plot(*path[0], "o", markerfacecolor="white", **style)
    ax.plot(*path[-1], "*", markersize=13, markeredgecolor="white", **style)


def trade_off_plot(
    points: pd.DataFrame,
    x: str,
    y: str,
    by: str | None = None,
    label: str | None = None,
    *,
    better: str = "less",
    title: str = "",
    alt: str = "",
    ax: Axes | None = None,
    size: tuple[float, float] | None = None,
) -> None:
    """Trade-off curves of two tasks, with the front that all their points make together.

    The points of a curve are joined in the order of the rows. A point is filled if no other point
    is at least as good for both tasks and better for one; the region that the front dominates is
    shaded.

    Args:
        points: a row for each setting (its mean over seeds).
        x, y: columns of the two tasks' metrics; they label the axes.
        by: column with a curve for each of its values, at most four; one of a single point has no
            line.
        label: column of what is written beside the points, where there is room.
        better: which metrics are better, "less" or "more".
        title: states the finding.
        alt: what the figure shows, in a sentence.
        ax: draw into this panel of a larger figure; without alt.
        size: of the figure, inches.

    Raises:
        ValueError: a column that is not there, more than four curves, no title or alt.
    """
    needs(points, x=x, y=y, by=by, label=label)
    if better not in ("less", "more"):
        raise ValueError(f'better: expected "less" or "more", got {better!r}')
    sign = 1 if better == "less" else -1
    best = on_front(sign * points[[x, y]].to_numpy(dtype=float))
    levels = levels_of(points, by) or [None]
    with panel(ax, title, alt, size or (6.4, 4.4)) as ax:
        for level, style in looks(ax, levels, marker=True).items():
            mine = np.full(len(points), True) if by is None else (points[by] == level).to_numpy()
            _curve(ax, points.loc[mine, [x, y]].to_numpy(), best[mine], style)
            if by is not None:
                hollow = {} if best[mine].any() else {"markerfacecolor": "white"}
                alone = {"linestyle": "none"} if mine.sum() == 1 else {}
                ax.plot([], [], label=str(level), **style | hollow | alone)
        _shade(ax, points.loc[best, [x, y]].to_numpy(dtype=float), sign)
        ax.set(xlabel=f"{x} ({better} is better)", ylabel=f"{y} ({better} is better)")
        if label is not None:
            texts = [f"{v:g}" if isinstance(v, float) else str(v) for v in points[label]]
            place_labels(ax, points[[x, y]].to_numpy(), texts)


def _curve(ax: Axes, points: np.ndarray, best: np.ndarray, style: dict[str, Any]) -> None:
    """Points joined by a line: those on the front filled, the others hollow."""
    ax.plot(*points.T, color=style["color"], linestyle=style["linestyle"])
    marks: dict[str, Any] = {**style, "linestyle": "none", "zorder": 3}
    ax.plot(*points[best].T, markersize=8, **marks)
    ax.plot(*points[~best].T, markersize=6, markerfacecolor="white", **marks)


def on_front(losses: np.ndarray) -> np.ndarray:
    """Which points [N, 2] no other point dominates; less is better [N]."""
    no_worse = (losses[:, None] <= losses[None]).all(2)  # [i, j]: i is no worse than j
    better = (losses[:, None] < losses[None]).any(2)
    return np.logical_not((no_worse & better).any(0))


def _shade(ax: Axes, front: np.ndarray, sign: int) -> None:
    """The region that a front dominates, up to the edge of the axes."""
    ax.margins(0.08)
    limits = np.array([ax.get_xlim(), ax.get_ylim()])
    far = limits.max(1) if sign > 0 else limits.min(1)
    front = front[np.lexsort((sign * front[:, 1], sign * front[:, 0]))]
    steps = [(front[0, 0], far[1])]
    for (x, y), (after, _) in zip(front, [*front[1:], (far[0], None)], strict=True):
        steps += [(x, y), (after, y)]
    steps.append((far[0], far[1]))
    ax.fill(*np.array(steps).T, color="0.93", linewidth=0, zorder=-1)
    ax.set(xlim=limits[0], ylim=limits[1])
