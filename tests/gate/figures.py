"""Figures compared as the eye does: blurred a little, then by the largest local difference.

Both pictures are blurred (Gaussian, 1.5 pixels) and the largest difference of any pixel and colour
channel is taken, 0..255. Measured on a line plot with legend and title at 80 dpi: a curve moved by
0.3 pixels gives 14, by 1.6 pixels 57; a line's colour changed to a near one 27 to 36; one letter of
the title 76; the legend gone 98. The limit of 20 lets anti-aliasing pass and catches all of those.
A mean over the picture (matplotlib's RMS) does not: the lost letter gives 2.1, the harmless 0.3
pixels 3.3.
"""

from __future__ import annotations

import base64
import binascii
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, UnidentifiedImageError

LIMIT = 20.0
BLUR = 1.5  # pixels
SIZE_SLACK = 2  # pixels; the margins move when a tick label gets a digit more


def decode(data: str) -> Image.Image:
    """The picture in an output's base64 text; ValueError if it is none."""
    try:
        picture = Image.open(io.BytesIO(base64.b64decode(data)))
        background = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(background, picture.convert("RGBA")).convert("RGB")
    except (binascii.Error, UnidentifiedImageError, OSError, ValueError) as error:
        raise ValueError(f"the picture cannot be read: {error}") from error


def largest_difference(stored: Image.Image, new: Image.Image) -> float:
    """Largest local difference, 0..255; infinite if the sizes differ by more than the slack."""
    if any(abs(a - b) > SIZE_SLACK for a, b in zip(stored.size, new.size, strict=True)):
        return float("inf")
    box = (0, 0, min(stored.width, new.width), min(stored.height, new.height))
    blurred = [
        np.asarray(picture.crop(box).filter(ImageFilter.GaussianBlur(BLUR)), dtype=float)
        for picture in (stored, new)
    ]
    return float(np.abs(blurred[0] - blurred[1]).max())


def figure_difference(
    stored: str, new: str, limit: float = LIMIT, save_as: Path | None = None
) -> str | None:
    """What differs between two PNG outputs, in words; None if they agree.

    Args:
        stored, new: base64 text of the outputs.
        limit: largest local difference allowed, 0..255.
        save_as: stem of the files that both pictures are written to if they differ.
    """
    try:
        pictures = decode(stored), decode(new)
    except ValueError as error:
        return str(error)
    difference = largest_difference(*pictures)
    if difference <= limit:
        return None
    message = f"the figure differs: largest local difference {difference:.0f}, allowed {limit:.0f}"
    if np.isinf(difference):
        message = f"the figure's size differs: {pictures[0].size} → {pictures[1].size}"
    if save_as is not None:
        save_as.parent.mkdir(parents=True, exist_ok=True)
        for name, picture in zip(("stored", "new"), pictures, strict=True):
            picture.save(save_as.with_name(f"{save_as.name}-{name}.png"))
        message += f"; see {save_as}-stored.png and {save_as.name}-new.png"
    return message
