"""Text that holds numbers, compared: words exactly, numbers to the digits that are shown."""

from __future__ import annotations

import math
import re
from typing import Any

# A number that stands alone: not part of a name (x2), a version (1.2.3) or a unit (12px).
NUMBER = re.compile(
    r"(?<![\w.])[-+]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?(?![\w]|\.\d)"
    r"|(?<![\w.])[-+]?(?:nan|inf)(?!\w)"
)


def unit_of_last_digit(token: str) -> float | None:
    """How much one unit of the last shown digit is worth; None for an integer."""
    match = re.fullmatch(r"[-+]?\d*(?:\.(\d*))?(?:[eE]([-+]?\d+))?", token.replace(",", ""))
    if match is None:  # nan, inf
        return 0.0
    decimals, exponent = match.groups()
    if decimals is None and exponent is None:
        return None
    return 10.0 ** (int(exponent or 0) - len(decimals or ""))


def numbers_agree(stored: str, new: str, rtol: float = 0.0, atol: float = 0.0) -> bool:
    """Whether two shown numbers agree: to one unit of the last shown digit, integers exactly, or
    within atol + rtol * |stored| where a cell says so."""
    if stored == new:
        return True
    a, b = float(stored.replace(",", "")), float(new.replace(",", ""))
    if not (math.isfinite(a) and math.isfinite(b)):
        return (math.isnan(a) and math.isnan(b)) or a == b
    if rtol or atol:  # a cell's own tolerance replaces the default one: it may be tighter
        return abs(a - b) <= atol + rtol * abs(a)
    units = unit_of_last_digit(stored), unit_of_last_digit(new)
    if units[0] is None or units[1] is None:
        return a == b
    return abs(a - b) <= max(units) * (1 + 1e-6)


def text_difference(stored: str, new: str, rtol: float = 0.0, atol: float = 0.0) -> str | None:
    """What differs between two texts, in words; None if they agree."""
    if stored == new:
        return None
    words = [re.sub(r"\s+", " ", NUMBER.sub("#", text)).strip() for text in (stored, new)]
    if words[0] != words[1]:
        return f"the words differ:\n--- stored\n{stored}\n--- new\n{new}"
    pairs = zip(NUMBER.findall(stored), NUMBER.findall(new), strict=True)
    wrong = [(a, b) for a, b in pairs if not numbers_agree(a, b, rtol, atol)]
    if not wrong:
        return None
    listed = ", ".join(f"{a} → {b}" for a, b in wrong[:10])
    more = f" and {len(wrong) - 10} more" if len(wrong) > 10 else ""
    return f"numbers differ (stored → new): {listed}{more}"


def data_difference(stored: Any, new: Any, rtol: float = 0.0, atol: float = 0.0) -> str | None:
    """What differs between two JSON values, in words; None if they agree."""
    if isinstance(stored, str) and isinstance(new, str):
        return text_difference(stored, new, rtol, atol)
    if isinstance(stored, dict) and isinstance(new, dict):
        if stored.keys() != new.keys():
            return f"the keys differ: {sorted(stored)} → {sorted(new)}"
        pairs = [(stored[key], new[key]) for key in stored]
    elif isinstance(stored, list) and isinstance(new, list):
        if len(stored) != len(new):
            return f"the lengths differ: {len(stored)} → {len(new)}"
        pairs = list(zip(stored, new, strict=True))
    elif isinstance(stored, float) and isinstance(new, float):
        close = math.isclose(stored, new, rel_tol=rtol or 1e-9, abs_tol=atol or 1e-12)
        return None if close else f"numbers differ: {stored} → {new}"
    else:
        return None if stored == new else f"the values differ: {stored!r} → {new!r}"
    for a, b in pairs:
        if (difference := data_difference(a, b, rtol, atol)) is not None:
            return difference
    return None
