"""Text that holds numbers, compared: words exactly, numbers to the digits that are shown.

The rule for two numbers, stored and new:

* Integers are equal, whatever the tolerance: a count or a label is never "almost" right.
* Of two decimal numbers the one with more decimals gives the unit: 0.123 and 0.124 agree, and so
  do 0.5 and 0.5001, but not 0.5 and 0.5999. Python prints as many digits as it needs, so that a
  number with few digits is often an exact one.
* But a unit is never worth more than 1 % of the number: 0.3 and 0.4 differ, and so do 0.012 and
  0.013. So a result that another machine may round differently has to show three digits.
* Differences below 1e-9 of the number, or below 1e-12, are rounding noise: 2.2e-16 and 0.0 agree.
* A cell's own tolerance takes the place of the last two rules; it may be wider or tighter.
"""

from __future__ import annotations

import math
import re
from typing import Any

NOISE_RTOL, NOISE_ATOL = 1e-9, 1e-12
UNIT_RTOL = 0.01  # of the number: the most that a unit of its last digit is worth

# A number that stands alone: not a part of a name (x2), of a version (1.2.3) or of a word (3rd).
# A letter may follow decimals (1.5x, 0.25s).
NUMBER = re.compile(
    r"(?<![\w.])[-+−]?"
    r"(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?(?!\w|\.\d)"
    r"|(?<![\w.])[-+−]?\d+\.\d+(?=[A-Za-zµ])"
    r"|(?<![\w.])[-+−]?(?:nan|inf)(?!\w)"
)

INTERVAL = re.compile(r"[-+−]?[\d.]+ \[[-+−]?[\d.]+, [-+−]?[\d.]+\]")


def value(token: str) -> float:
    """The number that a piece of text shows."""
    return float(token.replace(",", "").replace("−", "-"))


def unit_of_last_digit(token: str) -> float | None:
    """What one unit of the last decimal is worth; None without decimals (3, 2., 1e-05, nan)."""
    match = re.search(r"\.(\d+)(?:[eE]([-+]?\d+))?$", token)
    if match is None:
        return None
    decimals, exponent = match.groups()
    return 10.0 ** (int(exponent or 0) - len(decimals))


def is_integer(token: str) -> bool:
    """Whether the text shows a whole number, without point or exponent."""
    return re.fullmatch(r"[-+−]?[\d,]+", token) is not None


def digits_shown(token: str) -> int:
    """How many significant digits a number shows: 3 of 0.0120, 2 of 1.0e-05."""
    mantissa = re.sub(r"[eE].*", "", token)
    return len(re.sub(r"\D", "", mantissa).lstrip("0"))


def short_decimals(text: str, code: str = "") -> list[str]:
    """The decimals in a text that show fewer than three significant digits.

    Zeros are left out, and so are intervals, whose digits follow from their width ("+0.012 [-0.003,
    +0.027]"), and numbers that stand in the code: a setting is as exact as it is written.
    """
    settings = {abs(value(token)) for token in NUMBER.findall(code)}
    return [
        token
        for token in NUMBER.findall(INTERVAL.sub("", text))
        if unit_of_last_digit(token) is not None
        and digits_shown(token) < 3
        and abs(value(token)) not in {0.0, *settings}
    ]


def numbers_agree(
    stored: str, new: str, rtol: float | None = None, atol: float | None = None
) -> bool:
    """Whether two shown numbers agree, by the rule at the head of this file.

    Args:
        stored, new: the numbers as they are shown.
        rtol, atol: a cell's own tolerance, |new - stored| <= atol + rtol * |stored|.
    """
    a, b = value(stored), value(new)
    if a == b or (math.isnan(a) and math.isnan(b)):
        return True
    if not (math.isfinite(a) and math.isfinite(b)) or (is_integer(stored) and is_integer(new)):
        return False
    if rtol is not None or atol is not None:
        return abs(a - b) <= (atol or 0.0) + (rtol or 0.0) * abs(a)
    units = [unit for unit in map(unit_of_last_digit, (stored, new)) if unit is not None]
    shown = min(units, default=0.0)
    if shown > UNIT_RTOL * max(abs(a), abs(b)):
        shown = 0.0
    shown *= 1 + 1e-6  # 0.124 - 0.123 is a little more than 0.001
    return abs(a - b) <= max(shown, NOISE_RTOL * abs(a), NOISE_ATOL)


def words(text: str) -> str:
    """The text with its numbers taken out, and with the blanks that pad them to columns."""
    text = re.sub(r"[ \t]+", " ", NUMBER.sub(" \0 ", text))
    return re.sub(r" ?\n ?", "\n", text).strip(" ")


def text_difference(
    stored: str, new: str, rtol: float | None = None, atol: float | None = None
) -> str | None:
    """What differs between two texts, in words; None if they agree."""
    if stored == new:
        return None
    if words(stored) != words(new):
        return f"the words differ:\n--- stored\n{stored}\n--- new\n{new}"
    before, after = NUMBER.findall(stored), NUMBER.findall(new)
    if before == after:  # only blanks differ, and no number explains them
        return f"the blanks differ:\n--- stored\n{stored}\n--- new\n{new}"
    wrong = [
        f"{a} → {b}"
        for a, b in zip(before, after, strict=True)
        if not numbers_agree(a, b, rtol, atol)
    ]
    if not wrong:
        return None
    more = f" and {len(wrong) - 10} more" if len(wrong) > 10 else ""
    return f"numbers differ (stored → new): {', '.join(wrong[:10])}{more}"


def data_difference(
    stored: Any, new: Any, rtol: float | None = None, atol: float | None = None
) -> str | None:
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
        if rtol is None and atol is None:  # all digits are there: only noise may differ
            rtol, atol = NOISE_RTOL, NOISE_ATOL
        close = numbers_agree(repr(stored), repr(new), rtol, atol)
        return None if close else f"numbers differ (stored → new): {stored} → {new}"
    else:
        same = stored == new and isinstance(stored, bool) == isinstance(new, bool)
        return None if same else f"the values differ: {stored!r} → {new!r}"
    for a, b in pairs:
        if (difference := data_difference(a, b, rtol, atol)) is not None:
            return difference
    return None
