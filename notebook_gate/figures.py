"""Figures compared as the eye does: what is drawn, and not how its edges were anti-aliased.

Both pictures are blurred a little (Gaussian, 1 pixel). Then each pixel of the one has to lie,
colour by colour, between the smallest and the largest value that the other has within one pixel
around it. `difference` is by how much the worst pixel fails to, 0..255. So an edge may move by up
to a pixel, but a line cannot be anywhere else, nor have another colour, nor be missing.

Faint things, such as a thin grey line or the edge of a pale band, never differ by much, but they
differ in many places. So the pixels that fail by half the limit are counted as well: half of it is
a little more than what a stored picture may lose to its palette (`tools/pictures.py`).

How it was chosen: a line plot of 512 x 288 pixels, and the same with 1024 x 576 as notebooks show
it, with two curves, a thin grey line, a pale band, points, legend and title, drawn again in some
twenty ways. "most" is `difference`, "many" the number of pixels beyond 12.

    harmless          512 wide    1024 wide |  a change           512 wide    1024 wide
                     most  many  most  many |                    most  many  most  many
    curve, 0.3 pixels   5     0    11     0 |  curve, 2 pixels     63   462   190  8760
    curve, 0.5 pixels   7     0    12     0 |  grey line, 2 pixels 19   594    44  4068
    scatter, 0.3 pixels 12    1    18    25 |  pale band, 5 pixels 24  1547    26 13033
    noise, 0.3 pixels   4     0     4     0 |  a point less       255    97   255   285
    axes, 0.25 pixels  14     4    33    33 |  a letter of a label 68    22   165    58
                                            |  a full stop more    46    21   160   160
                                            |  task 1 for task 2   27     9   139   179
                                            |  curve, 80 % opacity 28   726    46  2148
                                            |  legend missing     137   849   230  2269

The limits of 25 and of 100 pixels lie between the two halves (all axes moved by a quarter of a
pixel lie beyond the first where the picture is large: there is no need to allow for that, as
matplotlib is pinned). What they let pass: the pale band moved by 2 pixels in the small picture.
What they cannot bridge: text drawn by another release of FreeType (matplotlib 3.10 against 3.11
gives 124), or in another font.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

LIMIT = 25.0  # 0..255
FAINT, MANY = 1 / 2, 100  # of the limit; how many pixels may fail by that much
BLUR = 1.0  # pixels
REACH = 3  # side of the neighbourhood: the pixel and one on each side
SIZE_SLACK = 2  # pixels: margins that fit the text may round to another size


def decode(data: str) -> np.ndarray:
    """The picture in an output's base64 text, on white [height, width, 3]; ValueError if none."""
    try:
        picture = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA")
    except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises on garbage
        raise ValueError(f"the picture cannot be read: {error}") from error
    white = Image.new("RGBA", picture.size, "white")
    return np.asarray(Image.alpha_composite(white, picture).convert("RGB"))


def excess(stored: np.ndarray, new: np.ndarray) -> np.ndarray:
    """By how much each pixel fails to lie within what the other picture has around it [h, w]."""
    a, b = (ndimage.gaussian_filter(p.astype(float), (BLUR, BLUR, 0)) for p in (stored, new))
    outside = np.zeros(a.shape)
    for one, other in ((a, b), (b, a)):
        lowest = ndimage.minimum_filter(other, (REACH, REACH, 1))
        highest = ndimage.maximum_filter(other, (REACH, REACH, 1))
        outside = np.maximum(outside, np.maximum(lowest - one, one - highest))
    return outside.max(axis=2)


def best_excess(stored: np.ndarray, new: np.ndarray) -> np.ndarray:
    """`excess` of the common part, at the best alignment if the sizes differ by a pixel or two."""
    height, width = np.minimum(stored.shape, new.shape)[:2]
    slack = np.abs(np.subtract(stored.shape, new.shape))[:2]
    found = []
    for top, left in product(range(slack[0] + 1), range(slack[1] + 1)):
        parts = []
        for p in (stored, new):
            y, x = min(top, p.shape[0] - height), min(left, p.shape[1] - width)
            parts.append(p[y : y + height, x : x + width])
        found.append(excess(*parts))
    return min(found, key=np.max)


def figure_difference(
    stored: str, new: str, limit: float = LIMIT, save_as: Path | None = None
) -> str | None:
    """What differs between two figures, in words; None if they agree.

    Args:
        stored, new: base64 text of the outputs.
        limit: largest difference allowed, 0..255.
        save_as: stem of the files that both pictures, and where they differ (dark), go to.
    """
    if stored == new:
        return None
    try:
        pictures = {"stored": decode(stored), "new": decode(new)}
    except ValueError as error:
        return str(error)
    sizes = [p.shape[1::-1] for p in pictures.values()]
    if np.abs(np.subtract(*sizes)).max() > SIZE_SLACK:
        message = "the figure's size differs: {}x{} → {}x{} pixels".format(*sizes[0], *sizes[1])
    else:
        outside = best_excess(*pictures.values())
        faint = int((outside > FAINT * limit).sum())
        if outside.max() <= limit and faint <= MANY:
            return None
        y, x = np.unravel_index(outside.argmax(), outside.shape)
        message = f"the figure differs by {outside.max():.0f} at x {x}, y {y}; allowed {limit:g}"
        message += f"; {faint} pixels by more than {FAINT * limit:.0f}; allowed {MANY}"
        pictures["difference"] = (255 * (1 - np.clip(outside / limit / 2, 0, 1))).astype(np.uint8)
    return message if save_as is None else f"{message}\n{saved(pictures, save_as)}"


def saved(pictures: Mapping[str, np.ndarray], stem: Path) -> str:
    """Keep the pictures in files; where they are, in words."""
    files = [stem.with_name(f"{stem.name}-{name}.png") for name in pictures]
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        for file, picture in zip(files, pictures.values(), strict=True):
            Image.fromarray(picture).save(file)
    except OSError as error:  # a checkout that cannot be written
        return f"the pictures are not kept: {error}"
    return "see " + ", ".join(map(str, files))
