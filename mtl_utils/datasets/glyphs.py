"""Attributes of rendered glyphs: 20 yes-or-no questions about one character on a small image."""

from __future__ import annotations

import string
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample

from mtl_utils.datasets.base import MultiTaskData, as_float, check_count
from mtl_utils.extras import extra

CHARACTERS = string.ascii_letters + string.digits
CANVAS = 80  # pixels of a rendered glyph, before it is placed in an image
EM = 48  # font size on the canvas
DETAIL = 2  # images are sampled at this multiple of their size, then averaged down

# The text fonts among those that matplotlib ships: file -> styles, out of `FONT_TASKS`.
FONT_TASKS = ("bold", "slanted", "serif", "monospaced")
FONTS = {
    "DejaVuSans": "",
    "DejaVuSans-Bold": "bold",
    "DejaVuSans-Oblique": "slanted",
    "DejaVuSans-BoldOblique": "bold slanted",
    "DejaVuSansMono": "monospaced",
    "DejaVuSansMono-Bold": "monospaced bold",
    "DejaVuSansMono-Oblique": "monospaced slanted",
    "DejaVuSansMono-BoldOblique": "monospaced bold slanted",
    "DejaVuSerif": "serif",
    "DejaVuSerif-Bold": "serif bold",
    "DejaVuSerif-Italic": "serif slanted",
    "DejaVuSerif-BoldItalic": "serif bold slanted",
    "STIXGeneral": "serif",
    "STIXGeneralBol": "serif bold",
    "STIXGeneralItalic": "serif slanted",
    "STIXGeneralBolIta": "serif bold slanted",
    "cmr10": "serif",
    "cmb10": "serif bold",
    "cmti10": "serif slanted",
    "cmss10": "",
    "cmtt10": "serif monospaced",
}

# Of the character, by its name ...
CHARACTER_TASKS = {
    "vowel": "aeiouAEIOU",
    "upper case": string.ascii_uppercase,
    "digit": string.digits,
    "dotted": "ij",
    "ascender": "bdfhklt",
    "mirror left-right": "AHIMOTUVWXYilovwx08",
    "mirror up-down": "BCDEHIKOXclox038",
    "straight": "AEFHIKLMNTVWXYZiklvwxz147",
}
# ... by its ink, which differs between fonts (g has one hole or two, J reaches below the line) ...
INK_TASKS = ("hole", "two holes", "descender")
# ... and of the way it is shown.
VIEW_TASKS = ("rotated", "small", "inverted", "noisy", "left")

TASKS = (*CHARACTER_TASKS, *INK_TASKS, *FONT_TASKS, *VIEW_TASKS)


@cache
def _glyphs() -> tuple[Tensor, Tensor]:
    """Every character in every font: canvases [1302, 1, CANVAS, CANVAS] in [0, 1], centred, and
    the attributes that belong to the glyph, [1302, 15]."""
    with extra("notebooks"):
        import matplotlib
        from PIL import Image, ImageDraw, ImageFont
        from scipy.ndimage import label

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    canvases, attributes = [], []
    for file, styles in FONTS.items():
        font = ImageFont.truetype(folder / f"{file}.ttf", EM)
        for character in CHARACTERS:
            left, top, right, bottom = font.getbbox(character, anchor="ls")  # the line is at 0
            canvas = Image.new("L", (CANVAS, CANVAS))
            corner = ((CANVAS - right - left) / 2, (CANVAS - bottom - top) / 2)
            ImageDraw.Draw(canvas).text(corner, character, fill=255, font=font, anchor="ls")
            pixels = np.asarray(canvas)
            # regions without ink: the first surrounds the glyph, then come holes and single pixels
            areas = np.bincount(label(pixels < 128)[0].ravel())[2:]
            holes = (areas > 10).sum()
            canvases.append(pixels)
            attributes.append(
                [character in members for members in CHARACTER_TASKS.values()]
                + [holes >= 1, holes >= 2, bottom > EM / 8]
                + [style in styles.split() for style in FONT_TASKS]
            )
    return torch.from_numpy(np.stack(canvases))[:, None].float() / 255, torch.tensor(attributes)


def glyph_attributes(
    n_train: int = 8_000,
    n_val: int = 2_000,
    n_test: int = 2_000,
    size: int = 32,
    seed: int = 0,
) -> MultiTaskData:
    """Letters and digits in 21 fonts, turned, scaled, moved, inverted and made noisy by chance.

    20 binary attributes of graded difficulty and frequency (2 to 60 %): of the character (vowel,
    upper case, ...), of its ink in this font (holes, descender), of the font (bold, ...) and of the
    view (rotated by more than 10 degrees, small, inverted, noisy, left of the middle).

    The 1302 pairs of font and character are split 70 / 10 / 20 before they are drawn from, the same
    way for every seed, so that no pair appears in two splits; each character and each font does.

    Args:
        n_train, n_val, n_test: number of images in each split.
        size: of the images in pixels, 16 or more; below 32 thin strokes fade.
        seed: of the draw.

    Returns:
        inputs [N, 1, size, size] in [0, 1]; 20 targets [N], 0. or 1. `info["pairs"]` holds for each
        split the number 62 * font + character of each image, [N]; `info["fonts"]` and
        `info["characters"]` their names.

    Source: fonts that matplotlib ships: DejaVu, STIX, Computer Modern, under their free licences.
    """
    counts = {"train": n_train, "val": n_val, "test": n_test}
    for split, count in counts.items():
        check_count(f"n_{split}", count)
    check_count("size", size, least=16)
    canvases, attributes = _glyphs()
    order = np.random.default_rng(0).permutation(len(canvases))
    first, second = round(0.7 * len(order)), round(0.8 * len(order))
    pools = {"train": order[:first], "val": order[first:second], "test": order[second:]}
    rng = np.random.default_rng(seed)
    splits, pairs = {}, {}
    for split, count in counts.items():
        pair = torch.from_numpy(rng.choice(pools[split], count))
        images, view = _show(canvases, pair, size, rng)
        targets = torch.cat([attributes[pair], view], 1)
        splits[split] = (as_float(images), *as_float(targets).T.contiguous())
        pairs[split] = pair
    return MultiTaskData(
        "glyph attributes",
        TASKS,
        **splits,
        source="21 fonts of matplotlib (DejaVu, STIX, Computer Modern)",
        info={"pairs": pairs, "fonts": tuple(FONTS), "characters": CHARACTERS},
    )


def _show(canvases: Tensor, pair: Tensor, size: int, rng) -> tuple[Tensor, Tensor]:
    """Images of the glyphs `pair` [N] in a random view, [N, 1, size, size], and the attributes of
    the view, [N, 5]."""
    n = len(pair)
    angle = rng.normal(0, 8, n)
    small = rng.random(n) < 0.25
    em = np.where(small, rng.uniform(0.42, 0.55, n), rng.uniform(0.62, 0.8, n))
    left = rng.random(n) < 0.3
    right_by = np.where(left, rng.uniform(-0.2, -0.08, n), rng.uniform(-0.05, 0.12, n))
    down_by = rng.uniform(-0.08, 0.08, n)
    ink = rng.uniform(0.6, 1, (n, 1, 1, 1))
    noisy = rng.random(n) < 0.15
    noise = rng.standard_normal((n, 1, size, size), np.float32)
    noise *= np.where(noisy, 0.18, 0.05)[:, None, None, None]
    inverted = rng.random(n) < 0.1

    matrices = _placing(em, angle, right_by, down_by)
    # in double precision, rounded: the same images whatever the processor's kernels are
    images = torch.empty(n, 1, size, size, dtype=torch.float64)
    for rows in torch.arange(n).split(256):  # small pieces stay in the processor's cache
        images[rows] = _place(canvases[pair[rows]], matrices[rows], size).round(decimals=6)
    images = images * torch.from_numpy(ink) + torch.from_numpy(noise)
    images = torch.where(torch.from_numpy(inverted)[:, None, None, None], 1 - images, images)
    view = np.stack([np.abs(angle) > 10, small, inverted, noisy, left], 1)
    return images.clamp(0, 1), torch.from_numpy(view)


def _placing(em, angle, right_by, down_by) -> Tensor:
    """Where on the canvas to look for each point of the image: affine maps [N, 2, 3] between their
    coordinates, which go from -1 to 1. Lengths are parts of the image, angles are in degrees."""
    scale = (EM / CANVAS) / em
    cos, sin = scale * np.cos(np.radians(angle)), scale * np.sin(np.radians(angle))
    x, y = 2 * right_by, 2 * down_by
    maps = np.stack([cos, -sin, -cos * x + sin * y, sin, cos, -sin * x - cos * y], 1)
    return torch.from_numpy(maps.reshape(-1, 2, 3))


def _place(canvases: Tensor, maps: Tensor, size: int) -> Tensor:
    """Canvases [N, 1, CANVAS, CANVAS] seen through affine maps [N, 2, 3]: [N, 1, size, size]."""
    grid = affine_grid(maps, [len(maps), 1, DETAIL * size, DETAIL * size], align_corners=False)
    seen = grid_sample(canvases.to(grid.dtype), grid, align_corners=False)
    return avg_pool2d(seen, DETAIL)
