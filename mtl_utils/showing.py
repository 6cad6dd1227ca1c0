"""What a notebook shows: tables and figures as HTML, each with a text that says the same.

Readers see the HTML, in JupyterLab and on the site; terminals and screen readers get the text; the
notebook gate compares both.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Number
from typing import Any

import numpy as np
import pandas as pd

from mtl_utils.extras import extra

SHARPNESS = 2  # stored pixels for each pixel on the page, for screens of high resolution


class Shown:
    """HTML with a text of its own, as Jupyter's display expects it."""

    def __init__(self, page: str, text: str) -> None:
        self.page, self.text = page, text

    def __repr__(self) -> str:
        return self.text

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/html": self.page, "text/plain": self.text}


_kept: list[Shown] | None = None  # what is shown within `kept()`


@contextmanager
def kept() -> Iterator[list[Shown]]:
    """Hand over what is shown in here instead of showing it; figures keep the size they ask for.

    >>> with kept() as shown:
    ...     show([{"step": 1}])
    >>> shown
    [step
       1]
    """
    global _kept
    before, _kept = _kept, []
    try:
        yield _kept
    finally:
        _kept = before


def display(page: str, text: str) -> None:
    """Show HTML in a notebook, and its text in a terminal."""
    with extra("notebooks"):
        from IPython.display import display as show_in_jupyter

    if _kept is None:
        show_in_jupyter(Shown(page, text))
    else:
        _kept.append(Shown(page, text))


def show(what: Any, *, alt: str = "", caption: str = "", digits: int = 3) -> None:
    """Show a table or a figure.

    A table has no index, unless the index has a name. Its floats show `digits` significant digits
    and at least one decimal, so that the gate compares them with the digits that are there.

    Args:
        what: a DataFrame or a list of dicts, a row each, with units in the column heads; or a
            matplotlib figure, which is closed afterwards.
        alt: of a figure: what it shows, for those who do not see it. Needed.
        caption: of a table.
        digits: significant digits of floats, at least 1.

    Raises:
        ValueError: a figure without `alt`, a table with one, or an empty table.
        TypeError: `what` is none of these.

    >>> show([{"rule": "equal", "loss (m²)": 1 / 3}, {"rule": "mgda", "loss (m²)": 20.0}])
     rule loss (m²)
    equal     0.333
     mgda      20.0
    """
    if isinstance(what, list | tuple):
        what = pd.DataFrame(what, dtype=object)  # 3 beside a gap stays 3
    if isinstance(what, pd.DataFrame):
        if alt:
            raise ValueError("alt: belongs to a figure; give a table a caption")
        display(*_table(what, caption, digits))
    elif hasattr(what, "savefig"):
        if not alt.strip():
            raise ValueError("alt: say in a sentence what the figure shows")
        display(*_figure(what, alt))
    else:
        raise TypeError(f"what: expected a table or a figure, got {type(what).__name__}")


# ---- tables ----------------------------------------------------------------------------------


def number_text(value: float, digits: int = 3) -> str:
    """A float with significant digits, and at least one decimal: only integers have none.

    >>> [number_text(v) for v in (0.0123456, 12.3456, 1234.56, 1.5e-7, 0.0)]
    ['0.0123', '12.3', '1234.6', '1.50e-07', '0.00']
    """
    if not np.isfinite(value):
        return str(float(value))
    if value == 0:
        return f"{0:.{max(digits - 1, 1)}f}"
    rounded = float(f"{value:.{digits - 1}e}")  # 0.9996 has the exponent of 1.00
    exponent = int(np.floor(np.log10(abs(rounded))))
    if not -4 <= exponent < 7:
        return f"{value:.{max(digits - 1, 1)}e}"
    return f"{value:.{max(digits - 1 - exponent, 1)}f}"


def _plain(value: Any) -> Any:
    """A scalar of NumPy or torch as Python's own."""
    return value.item() if hasattr(value, "item") and value.ndim == 0 else value


def _cell(value: Any, digits: int) -> str:
    if value is None:
        return ""
    return number_text(value, digits) if isinstance(value, float) else str(value)


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(v, Number) and not isinstance(v, bool) for v in values if v is not None)


def _heading(name: Any) -> str:
    """A column's name; of several levels those that are not empty."""
    parts = name if isinstance(name, tuple) else (name,)
    return ", ".join(str(part) for part in parts if str(part))


def _table(frame: pd.DataFrame, caption: str, digits: int) -> tuple[str, str]:
    """HTML and text of a table."""
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    if frame.empty:
        raise ValueError(f"what: the table is empty, shape {frame.shape}")
    heads = [_heading(name) for name in frame.columns]
    columns = [[_plain(value) for value in column] for _, column in frame.items()]
    texts = [[_cell(value, digits) for value in column] for column in columns]
    sides = ["right" if _are_numbers(column) else "left" for column in columns]

    def row(tag: str, cells: Sequence[str]) -> str:
        return "".join(
            f'<{tag} style="text-align: {side}">{html.escape(cell, quote=False)}</{tag}>'
            for cell, side in zip(cells, sides, strict=True)
        )

    rows = list(zip(*texts, strict=True))
    body = "\n".join(f"<tr>{row('td', cells)}</tr>" for cells in rows)
    top = f"<caption>{html.escape(caption, quote=False)}</caption>\n" if caption else ""
    page = f"<table>\n{top}<thead><tr>{row('th', heads)}</tr></thead>\n"
    page += f"<tbody>\n{body}\n</tbody>\n</table>"
    plain = pd.DataFrame(rows, columns=heads).to_string(index=False)
    return page, f"{caption}\n{plain}" if caption else plain


# ---- figures ---------------------------------------------------------------------------------


def _figure(fig: Any, alt: str) -> tuple[str, str]:
    """HTML and text of a figure; the text ends with what is drawn, in numbers."""
    import matplotlib.pyplot as plt

    from mtl_utils.drawn import drawn

    buffer = io.BytesIO()
    # Cut to what is drawn, figures of one size come out in several: a widget would jump.
    cut = "tight" if _kept is None else None
    sharp = SHARPNESS * fig.get_dpi()
    fig.savefig(buffer, format="png", dpi=sharp, bbox_inches=cut, metadata={"Software": None})
    plt.close(fig)
    data = buffer.getvalue()
    width, height = (int.from_bytes(data[at : at + 4], "big") // SHARPNESS for at in (16, 20))
    page = f'<img alt="{html.escape(alt)}" width="{width}" style="max-width: 100%" '
    if _kept is not None:  # room for the picture before it is there
        page = page.replace('style="', f'height="{height}" style="height: auto; ')
    page += f'src="data:image/png;base64,{base64.b64encode(data).decode()}">'
    return page, "\n".join([f"Figure: {alt}", *drawn(fig)])
