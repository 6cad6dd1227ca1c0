"""Claims: what the text says, asserted by a cell.

A claim in the flow prints a line. The other claims of a section go together into one cell, whose
output is a line with the list behind it:

    with checks("the optimum"):
        claim("(2) is a minimum", second_derivative > 0)
        claim("autograd agrees", by_hand, by_autograd)

shows `✓ 2 checks, the optimum: (2) is a minimum; autograd agrees`.
"""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from mtl_utils.showing import display

CHECK_MARK = "✓ "  # begins the line of each claim that holds
SUMMARY = 100  # characters of the line that stands for a block of claims

_gathered: list[tuple[str, str]] | None = None  # of the `checks` block that is open


def claim(text: str, got: Any, want: Any = True, rtol: float = 1e-9, atol: float = 0.0) -> None:
    """Assert what the text claims, and print one line that says so.

    Within `with checks(...)` the line joins the list of the block instead.

    Args:
        text: the claim, in words.
        got: what was computed: a bool, number, string, or array of any kind.
        want: what it should be; left out, `got` has to be true.
        rtol, atol: allowed difference |got - want| <= atol + rtol * |want|, in every entry.

    Raises:
        AssertionError: the claim does not hold; the message shows both sides.

    >>> claim("two and two", 2 + 2, 4)
    ✓ two and two
    """
    exact = isinstance(want, bool | str) or want is None
    sides = _exact(text, got, want) if exact else _close(text, got, want, rtol, atol)
    if _gathered is None:
        print(f"{CHECK_MARK}{text}{sides}")
    else:
        _gathered.append((text, sides))


@contextmanager
def checks(about: str = "") -> Iterator[None]:
    """Gather the claims made within, and show them as one line with the list behind it.

    Args:
        about: what the claims are about, in a few words.

    Raises:
        AssertionError: a claim does not hold, at once; or there is none.
        RuntimeError: within another such block.
    """
    global _gathered
    if _gathered is not None:
        raise RuntimeError(f"checks({about!r}): another block of claims is still open")
    claims: list[tuple[str, str]] = []
    _gathered = claims
    try:
        yield
    finally:
        _gathered = None
    if not claims:
        raise AssertionError(f"checks({about!r}): there is no claim in it")
    count = f"{len(claims)} check{'s' if len(claims) > 1 else ''}{', ' * bool(about)}{about}"
    names = textwrap.shorten("; ".join(text for text, _ in claims), SUMMARY, placeholder=" …")
    points = "".join(f"<li>{_escaped(text + sides)}</li>" for text, sides in claims)
    summary = f"<summary>{CHECK_MARK}{_escaped(f'{count}: {names}')}</summary>"
    text = "\n".join([count, *(CHECK_MARK + text + sides for text, sides in claims)])
    display(f"<details>{summary}<ul>{points}</ul></details>", text)


def _escaped(text: str) -> str:
    return html.escape(text, quote=False)


def as_array(value: Any) -> np.ndarray:
    """Numbers of any kind (tensor, sympy, list of tensors, ...) as a NumPy array."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().double().numpy()
    if isinstance(value, list | tuple):
        return np.array([as_array(v) for v in value], dtype=float)
    return np.asarray(value, dtype=float)


def _exact(text: str, got: Any, want: Any) -> str:
    """Compare truths and words; adds nothing to the claim's line."""
    if getattr(got, "ndim", None) == 0:  # a NumPy or torch scalar
        got = got.item()
    if getattr(got, "ndim", 0) > 0:
        raise TypeError(f"claim {text!r}: expected one value, got an array; use .all() or .any()")
    if got != want:
        raise AssertionError(f"{text}: got {got!r}, expected {want!r}")
    return ""


def _close(text: str, got: Any, want: Any, rtol: float, atol: float) -> str:
    """Compare numbers; adds both to the claim's line where the tolerance is wide."""
    left, right = as_array(got), as_array(want)
    if left.shape != right.shape and right.ndim > 0:
        raise AssertionError(f"{text}: shapes {left.shape} and {right.shape} differ")
    if left.size == 0:
        raise AssertionError(f"{text}: there is nothing to compare, shape {left.shape}")
    if not np.isclose(left, right, rtol=rtol, atol=atol).all():
        difference = np.max(np.abs(left - right))
        raise AssertionError(
            f"{text}: got {got}, expected {want} (largest difference {difference:.3g}, "
            f"rtol {rtol:g}, atol {atol:g})"
        )
    approximate = rtol > 1e-6 or atol > 1e-6
    if approximate and left.ndim == 0 and right.ndim == 0 and abs(left) > atol:
        return f": {float(left):.4g} against {float(right):.4g}"
    return ""
