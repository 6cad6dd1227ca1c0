"""Figures compared as the eye does: what is drawn, and not how its edges were anti-aliased.

Both pictures are blurred a little (Gaussian, 1 pixel). Then each pixel of the one has to lie,
colour by colour, between the smallest and the largest value that the other has within one pixel
around it. `difference` is by how much the worst pixel fails to, 0..255. So an edge may move by up
to a pixel, but a line cannot be anywhere else, nor have another colour, nor be missing.

How it was chosen: a line plot of 512 x 288 pixels with two curves, a thin grey line, points,
legend and title, drawn again in 16 ways. RMS is matplotlib's measure over the whole picture,
"blur" the largest difference of any pixel after a Gaussian blur of 1.5 pixels.

    harmless                         RMS  blur  here |  a change              RMS  blur  here
    a curve moved by 0.3 pixels      3.0    12     7 |  grey line, 3 pixels   2.9    19    31
    a curve moved by 0.5 pixels      4.8    20    10 |  curve, 2 pixels        15    75    72
    a curve moved by 1 pixel         9.1    43    19 |  a point less          1.4    93   132
    all axes moved by 0.25 pixels     14    41    17 |  a letter of the title 1.4    61    71
    all axes moved by 0.5 pixels      19    43    22 |  a letter of a label   1.3    34    46
                                                     |  a full stop more      0.8    35    63
                                                     |  curve at 80 % opacity 2.7    21    30
                                                     |  colour of a curve     9.2    72   105
                                                     |  legend missing        7.0   102   137

Only the last column has a gap between the two halves; the limit of 25 lies in it. What it lets
pass: the thin grey line moved by 2 pixels (24). What it cannot bridge: text drawn by another
release of FreeType (matplotlib 3.10 against 3.11 gives 124), or in another font.
"""

from __future__ import annotations

import base64
import io
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

LIMIT = 25.0  # 0..255
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
        if outside.max() <= limit:
            return None
        y, x = np.unravel_index(outside.argmax(), outside.shape)
        message = f"the figure differs by {outside.max():.0f} at x {x}, y {y}; allowed {limit:g}"
        pictures["difference"] = (255 * (1 - np.clip(outside / limit / 2, 0, 1))).astype(np.uint8)
    if save_as is not None:
        save_as.parent.mkdir(parents=True, exist_ok=True)
        files = [save_as.with_name(f"{save_as.name}-{name}.png") for name in pictures]
        for file, picture in zip(files, pictures.values(), strict=True):
            Image.fromarray(picture).save(file)
        message += "\nsee " + ", ".join(map(str, files))
    return message
