"""The generated parts of README.md: the table of notebooks, and the picture of notebook 00.

`python tools/readme.py` writes them, `--check` exits with 1 if they are stale.
"""

from __future__ import annotations

import argparse
import base64
import difflib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- notebooks:begin -->", "<!-- notebooks:end -->"
PICTURE = "docs/method_map.png"
PICTURE_CALL = "plot_method_map("  # the cell of notebook 00 that draws it


def front_matter(path: Path) -> dict[str, str]:
    """Title, promise and time, from a notebook's first cell; ValueError names what is wrong."""
    cells = nbformat.read(path, as_version=4).cells
    text = cells[0].source if cells and cells[0].cell_type == "markdown" else ""
    patterns = {
        "title": r"\A# (\d\d · .+)$",
        "promise": r"^\*\*Promise\.\*\* (.+)$",
        "time": r"^\| Time \| (\d+ min) to read, (\d+) s to run .*\|$",
    }
    found = {}
    for key, pattern in patterns.items():
        match = re.search(pattern, text, re.MULTILINE)
        if match is None:
            raise ValueError(f"{path.name}: the first cell has no {key} of the form {pattern}")
        found[key] = " + ".join(match.groups())
    number = found["title"][:2]
    if number != path.name[:2]:
        raise ValueError(f"{path.name}: the title says notebook {number}")
    return found


def table() -> str:
    """The table of notebooks, in Markdown."""
    lines = ["| notebook | what you learn | to read + to run |", "|---|---|---|"]
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        front = front_matter(path)
        link = f"[{front['title']}](notebooks/{path.name})"
        lines.append(f"| {link} | {front['promise']} | {front['time']} s |")
    return "\n".join(lines)


def with_table(readme: str) -> str:
    """The README's text with the table put between its marks."""
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        raise ValueError(f"README.md: expected one {BEGIN} and one {END}")
    before, rest = readme.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def picture() -> bytes:
    """The map of methods as notebook 00 stores it, PNG."""
    notebook = nbformat.read(ROOT / "notebooks" / "00_start_here.ipynb", as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code" and PICTURE_CALL in cell.source:
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    return base64.b64decode(output["data"]["image/png"])
    raise ValueError(f"00_start_here.ipynb: no cell with {PICTURE_CALL}...) holds a picture")


def main(argv: Sequence[str] | None = None) -> int | str:
    """The exit status, or the message of a failure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if stale")
    arguments = parser.parse_args(argv)
    path, picture_path = ROOT / "README.md", ROOT / PICTURE
    old = path.read_text(encoding="utf-8")
    try:
        new = with_table(old)
    except ValueError as error:
        return f"tools/readme.py: {error}"
    if not arguments.check:
        path.write_text(new, encoding="utf-8", newline="\n")
        picture_path.parent.mkdir(exist_ok=True)
        picture_path.write_bytes(picture())
        return 0
    stale = False
    if new != old:
        stale = True
        lines = difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=0)
        print("README.md is stale, run: make readme", *lines, sep="\n")
    if not picture_path.exists() or picture_path.read_bytes() != picture():
        stale = True
        print(f"{PICTURE} is stale, run: make readme")
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
