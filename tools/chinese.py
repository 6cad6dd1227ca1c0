"""The Chinese pages of the lessons, docs/zh: are they complete, and of today's English?

A page has the front matter of its lesson, its summary and its terms. It ends with a fingerprint of
the English that it was made from.

python -m tools.chinese       names the pages whose lesson is another one now
python -m tools.chinese 08    records that the page of 08 was looked at again, and is right
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import nbformat

ROOT = Path(__file__).resolve().parents[1]
LESSONS = ROOT / "notebooks"
PAGES = ROOT / "docs" / "zh"
STAMP = re.compile(r"^<!-- English: (\w+) -->$", re.MULTILINE)
ROW = re.compile(r"^\| (.+) \|$", re.MULTILINE)


class Parts(NamedTuple):
    """What the page of a lesson has to have as many of as the lesson."""

    abilities: list[str]  # you will be able to ...
    points: list[str]  # of the summary
    box: list[str]  # use it when, do not use it when, it costs


def page_of(lesson: Path) -> Path:
    """Where the Chinese page of a lesson is, or has to be."""
    return PAGES / f"{lesson.stem}.md"


def texts(lesson: Path) -> list[str]:
    """The text cells of a lesson."""
    cells = nbformat.read(lesson, as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "markdown"]


def section(text: str, heading: str) -> str:
    """What stands under a heading of the second level; ValueError if there is none."""
    found = re.search(rf"^## {heading}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise ValueError(f"no heading {heading!r}")
    return found[1].strip()


def rows(text: str) -> list[list[str]]:
    """The rows of all tables, cell by cell, without what stands above their lines."""
    body = re.sub(r"^\|.*\|\n\|[-|]+\|$", "", text, flags=re.MULTILINE)
    return [row.split(" | ") for row in ROW.findall(body)]


def points(summary: str) -> list[str]:
    """Bullets, and rows of a table that is not the box."""
    plain = [row[0] for row in rows(summary) if not row[0].startswith("**")]
    return re.findall(r"^- (.+)$", summary, re.MULTILINE) + plain


def box(summary: str) -> list[str]:
    """The rows whose first cell is in bold."""
    return [row[1] for row in rows(summary) if row[0].startswith("**")]


def english(lesson: Path) -> Parts:
    """The parts of a lesson."""
    cells = texts(lesson)
    front = {row[0]: row[1] for row in rows(cells[0])}
    summary = section("\n\n".join(cells), "Summary")
    return Parts(front["You will be able to"].split(" · "), points(summary), box(summary))


def chinese(page: str) -> Parts:
    """The parts of a page."""
    summary = section(page, "小结")
    abilities = re.findall(r"^- (.+)$", section(page, "学完之后，你能够"), re.MULTILINE)
    return Parts(abilities, points(summary), box(summary))


def fingerprint(lesson: Path) -> str:
    """Twelve digits that change with title, promise, abilities, needs or summary of a lesson."""
    cells = texts(lesson)
    kept = [line for line in cells[0].splitlines() if not re.match(r"\| (Time|Hardware) ", line)]
    words = " ".join([*kept, section("\n\n".join(cells), "Summary")]).split()
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:12]


def is_current(lesson: Path) -> bool:
    """Whether the page was made from the lesson as it is."""
    return STAMP.findall(page_of(lesson).read_text(encoding="utf-8")) == [fingerprint(lesson)]


def record(lesson: Path) -> None:
    """Write today's fingerprint into the page, in place of the one that it has."""
    page = page_of(lesson)
    text = STAMP.sub("", page.read_text(encoding="utf-8")).rstrip()
    page.write_text(f"{text}\n\n<!-- English: {fingerprint(lesson)} -->\n", encoding="utf-8")


def advice(lesson: Path) -> str:
    """What to do about a page that is not current."""
    number = lesson.name[:2]
    return (
        f"title, promise or summary of lesson {number} changed: look at docs/zh/{lesson.stem}.md "
        f"again, then record that you did: python -m tools.chinese {number}"
    )


def main(numbers: Sequence[str]) -> int:
    lessons = {path.name[:2]: path for path in sorted(LESSONS.glob("*.ipynb"))}
    if unknown := set(numbers) - set(lessons):
        print(f"lessons: expected two digits of {', '.join(lessons)}, got {sorted(unknown)}")
        return 2
    for number in numbers:
        record(lessons[number])
    stale = [path for path in lessons.values() if page_of(path).exists() and not is_current(path)]
    for path in stale:
        print(advice(path))
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
