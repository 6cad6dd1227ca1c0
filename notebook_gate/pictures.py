"""The pictures in a notebook's outputs, which stand alone (image/png) or within HTML."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageChops

ALONE = ("image/png", "image/jpeg")
UNSEEN = 12  # of 255: how much a pixel of a stored figure may differ from the drawn one

TAG = re.compile(r"<img\b[^>]*>")
SOURCE = re.compile(r'(?<=src="data:image/png;base64,)[A-Za-z0-9+/=\s]+(?=")')
ALT = re.compile(r'\balt="([^"]*)"')


def pictures(data: Mapping[str, Any]) -> list[str]:
    """The pictures of an output's data, in base64."""
    alone = [data[mime] for mime in ALONE if mime in data]
    return alone + SOURCE.findall(data.get("text/html", ""))


def without_pictures(page: str) -> str:
    """HTML with nothing in place of its pictures."""
    return SOURCE.sub("", page)


def alt_texts(data: Mapping[str, Any]) -> list[str]:
    """What each picture of an output's data says to those who do not see it; "" if nothing.

    Of one that stands alone always "": JupyterLab's page drops its metadata.
    """
    texts = ["" for mime in ALONE if mime in data]
    for tag in TAG.findall(data.get("text/html", "")):
        found = ALT.search(tag)
        texts.append(html.unescape(found.group(1)).strip() if found else "")
    return texts


def lean_png(data: str) -> str:
    """A picture in base64 without the text that names its maker, and in few bytes.

    On white and with a palette of 256 colours, where no pixel changes by more than the eye sees;
    the gate allows for much more.
    """
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    opaque = Image.alpha_composite(
        Image.new("RGBA", picture.size, "white"), picture.convert("RGBA")
    ).convert("RGB")
    palette = opaque.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    change = np.asarray(ImageChops.difference(palette.convert("RGB"), opaque)).max()
    lean = palette if change <= UNSEEN else picture
    buffer = io.BytesIO()
    lean.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def make_lean(data: dict[str, Any]) -> None:
    """Make the pictures of an output's data small, in place."""
    if "image/png" in data:
        data["image/png"] = lean_png(data["image/png"])
    if "text/html" in data:
        data["text/html"] = SOURCE.sub(lambda found: lean_png(found.group()), data["text/html"])
