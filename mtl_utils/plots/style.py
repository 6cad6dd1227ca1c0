"""One style for every figure: colour-blind safe, one colour for one task everywhere."""

from __future__ import annotations

from mtl_utils import home  # noqa: F401  has to come before matplotlib

# isort: split
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from cycler import cycler
from matplotlib.colors import to_hex, to_rgb

# Okabe and Ito's colour-blind safe palette, darkest first; a line style goes with each colour so
# that a figure can be read in grey.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#F0E442")
STYLES = ("-", "--", "-.", ":", "-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
CONTRAST = 4.5  # of text to its background, at least: WCAG 2.2, level AA


def set_style() -> None:
    """Style of every figure of the course."""
    sns.set_theme(context="notebook", style="ticks", palette=PALETTE)
    plt.rcParams.update(
        {
            "axes.prop_cycle": cycler(color=PALETTE) + cycler(linestyle=STYLES),
            "font.sans-serif": ["DejaVu Sans"],  # ships with matplotlib: the same on every system
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlelocation": "left",
            "axes.titlesize": 12,
            "axes.labelsize": 11,
            "legend.frameon": False,
            "figure.figsize": (6.4, 3.6),
            "figure.dpi": 80,  # on the page; `show` stores twice as many
            "savefig.dpi": 160,
            "figure.constrained_layout.use": True,
        }
    )


def task_color(k: int) -> str:
    """Colour of task k (0, 1, ...), the same in every notebook."""
    return PALETTE[k % len(PALETTE)]


def task_style(k: int) -> dict:
    """Colour and line style of task k as keyword arguments of `Axes.plot`."""
    return {"color": task_color(k), "linestyle": STYLES[k % len(STYLES)]}


def contrast(one: str, other: str) -> float:
    """Contrast of two colours, 1 (none) to 21 (black on white), by the formula of WCAG 2.2.

    >>> round(contrast("black", "white")), round(contrast("white", "#56B4E9"), 1)
    (21, 2.3)
    """
    darker, lighter = sorted(_luminance(color) for color in (one, other))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(color: str) -> float:
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def readable(color: str, background: str = "white") -> str:
    """The colour, or a darker shade of it in which text can be read on a light background.

    >>> readable("#56B4E9") != "#56B4E9" and contrast(readable("#56B4E9"), "white") >= 4.5
    True
    """
    for shade in np.linspace(1, 0, 41):
        darker = _blend(color, "black", shade)
        if contrast(darker, background) >= CONTRAST:
            return darker
    raise ValueError(f"background: too dark for any shade of {color}, got {background}")


def tint(color: str, share: float = 0.2) -> str:
    """A pale tint of a colour: `share` of it in white."""
    return _blend(color, "white", share)


def _blend(color: str, other: str, share: float) -> str:
    """`share` of the one colour, the rest of the other."""
    red, green, blue = share * np.array(to_rgb(color)) + (1 - share) * np.array(to_rgb(other))
    return to_hex((red, green, blue))
