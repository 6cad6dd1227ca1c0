"""What a figure draws, in numbers: the text behind each picture.

A picture is compared as the eye does, which does not see a curve that moved by a hair, or two names
that changed places in a legend. So the text of each figure also holds the legend with its colours,
and up to five points of everything that is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mtl_utils.extras import extra

with extra("notebooks"):
    from matplotlib.collections import Collection, PathCollection, QuadMesh
    from matplotlib.colors import to_hex
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from matplotlib.legend import Legend
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch, Rectangle
    from matplotlib.text import Annotation, Text

POINTS = 5  # shown of each artist


def drawn(fig: Figure) -> list[str]:
    """Lines of text: titles, labels, legends, and points of all that is drawn.

    >>> import matplotlib.pyplot as plt
    >>> fig, ax = plt.subplots()
    >>> _ = ax.plot([0, 1, 2], [0, 1, 4], label="square")
    >>> _ = ax.set(xlabel="x", ylabel="y")
    >>> drawn(fig)
    ['axes: x | y', 'square #1f77b4 -: (0, 0) (1, 1) (2, 4)']
    """
    lines = [fig.get_suptitle()] if fig.get_suptitle() else []
    for common in fig.legends:
        lines += _legend(common)
    for ax in fig.axes:
        names = (ax.get_title("left"), ax.get_title(), ax.get_xlabel(), ax.get_ylabel())
        lines.append("axes: " + " | ".join(name for name in names if name))
        for artist in [*ax.lines, *ax.collections, *ax.patches, *ax.images, *ax.texts]:
            if artist.get_visible():
                lines += _artist(artist)
        legend = ax.get_legend()
        lines += _legend(legend) if legend is not None else []
    return [line.replace("\n", " ") for line in lines]


def _legend(legend: Legend) -> list[str]:
    entries = zip(legend.get_texts(), legend.legend_handles, strict=True)
    return ["legend: " + "; ".join(f"{text.get_text()} {_look(h)}" for text, h in entries)]


def _artist(artist: Any) -> Iterator[str]:
    label = str(artist.get_label())
    name = "" if label.startswith("_") else f"{label} "
    if isinstance(artist, Annotation) and artist.arrow_patch is not None:
        arrow = _numbers(np.array([artist.xyann, artist.xy], dtype=float))
        yield f"arrow {artist.get_text()}: {arrow}"
    elif isinstance(artist, Text):
        yield f"text: {artist.get_text()}"
    elif isinstance(artist, AxesImage | QuadMesh):
        yield f"{name}image: {_numbers(np.ravel(np.asarray(artist.get_array())))}"
    elif len(points := _points(artist)):
        yield f"{name}{_look(artist)}: {_numbers(points)}"


def _points(artist: Any) -> np.ndarray:
    """What an artist draws, [N, 2] in units of its axes."""
    if isinstance(artist, Line2D):
        return np.asarray(artist.get_xydata(), dtype=float)
    if isinstance(artist, PathCollection):  # a scatter
        return np.asarray(artist.get_offsets())
    if isinstance(artist, Collection):  # bands, bars of errors
        paths = [np.asarray(path.vertices) for path in artist.get_paths()]
        return np.concatenate(paths) if paths else np.empty((0, 2))
    if isinstance(artist, Rectangle):  # a bar
        return np.array([artist.get_xy(), np.add(artist.get_xy(), _size(artist))])
    return np.asarray(artist.get_path().vertices if isinstance(artist, Patch) else [])


def _size(bar: Rectangle) -> tuple[float, float]:
    return bar.get_width(), bar.get_height()


def _look(artist: Any) -> str:
    """Colours and line style: what tells one curve from another."""
    if isinstance(artist, Line2D):
        marker = "" if artist.get_marker() in (None, "None", "none", "") else artist.get_marker()
        style = str(artist.get_linestyle()).replace("None", "")
        return " ".join(filter(None, [to_hex(artist.get_color()), style, str(marker)]))
    colors = artist.get_facecolor()
    if len(colors) == 0:
        colors = artist.get_edgecolor()
    chosen = [to_hex(c) for c in np.atleast_2d(colors)]
    return " ".join(chosen[k] for k in _picked(len(chosen)))


def _picked(n: int) -> list[int]:
    """Up to POINTS places among n, evenly spread."""
    return sorted({round(k) for k in np.linspace(0, n - 1, POINTS)}) if n else []


def _numbers(values: np.ndarray) -> str:
    """Some of the points, or of the values, to a thousandth of what they span."""
    columns = values.reshape(len(values), -1).T
    texts = [[_number(v, _decimals(column)) for v in column] for column in columns]
    points = [", ".join(texts[c][k] for c in range(len(columns))) for k in _picked(len(values))]
    return " ".join(f"({point})" for point in points) if values.ndim > 1 else " ".join(points)


def _decimals(column: np.ndarray) -> int:
    """Decimals that resolve a thousandth of a column's span, but no more than six digits."""
    finite = column[np.isfinite(column)]
    if not len(finite) or not finite.any():
        return 1
    largest = np.floor(np.log10(np.abs(finite).max()))
    span = np.floor(np.log10(np.ptp(finite))) if np.ptp(finite) > 0 else largest
    return max(int(min(3 - span, 5 - largest)), 1)


def _number(value: float, decimals: int) -> str:
    return str(int(value)) if float(value).is_integer() else f"{value:.{decimals}f}"
