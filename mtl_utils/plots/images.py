"""Targets in every pixel, drawn as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from torch import Tensor

from mtl_utils.plots.canvas import own_figure
from mtl_utils.plots.style import PALETTE

HEADS = ("image", "class", "depth", "normals")
Room = tuple[Tensor | None, Tensor, Tensor, Tensor]


def dense_plot(
    rows: Mapping[str, Room],
    classes: Sequence[str],
    *,
    title: str,
    alt: str,
    unit: str = "m",
    size: tuple[float, float] | None = None,
) -> None:
    """Image, classes, depth and normals of a room: a row for the truth, a row for each guess.

    All rows share the scale of the depth, dark is near. A normal's colour is its direction: red
    to the right, green up, blue away from the viewer.

    Args:
        rows: label -> (image [3, H, W] in [0, 1], or None; classes [H, W]; depth [1, H, W];
            normals [3, H, W]).
        classes: their names, at most eight.
        title: states the finding.
        alt: what the figure shows, in a sentence.
        unit: of the depth.
        size: of the figure, inches.

    Raises:
        ValueError: nothing to draw, more than eight classes, no title or alt.
    """
    if not rows:
        raise ValueError("rows: there is nothing to draw")
    if len(classes) > len(PALETTE):
        raise ValueError(f"classes: {len(classes)} of them; there are {len(PALETTE)} colours")
    depths = np.stack([room[2].numpy()[0] for room in rows.values()])
    scale: dict[str, Any] = {"vmin": depths.min(), "vmax": depths.max(), "cmap": "viridis"}
    colours = np.array([to_rgb(PALETTE[k]) for k in range(len(classes))])
    size = size or (8.4, 0.9 + 1.95 * len(rows))
    with own_figure(title, alt, size=size) as (whole,):
        fig = whole.get_figure(root=True)
        assert fig is not None
        whole.remove()
        axes = fig.subplots(len(rows), len(HEADS), squeeze=False)
        for line, (label, (image, labels, depth, normals)) in zip(axes, rows.items(), strict=True):
            if image is not None:
                line[0].imshow(_last(image))
            line[1].imshow(colours[labels.numpy()])
            drawn = line[2].imshow(depth.numpy()[0], **scale)
            line[3].imshow(np.clip((_last(normals) + 1) / 2, 0, 1))
            line[0].set_ylabel(label)
        for head, ax in zip(HEADS, axes[0], strict=True):
            ax.set_title(head)
        for ax in axes.flat:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        fig.colorbar(drawn, ax=axes[:, 2], label=unit, shrink=0.8)
        for k, name in enumerate(classes):  # for the legend
            axes[0, 1].scatter([], [], marker="s", color=PALETTE[k], label=name)


def _last(picture: Tensor) -> np.ndarray:
    """[3, H, W] as [H, W, 3]."""
    return picture.numpy().transpose(1, 2, 0)
