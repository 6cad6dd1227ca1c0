"""The generated parts of README.md, its tables and the pictures of notebook 00, and the minutes in
docs/teaching.md.

`python tools/readme.py` writes them, `--check` exits with 1 if they are stale.
"""

from __future__ import annotations

import argparse
import base64
import csv
import difflib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for `python tools/readme.py`

from experiments import guide, published  # noqa: E402
from notebook_gate.pictures import pictures  # noqa: E402

PICTURES = {  # and the call in the cell of notebook 00 that draws it
    "docs/method_map.png": "plot_method_map(",
    "docs/guide.png": "plot_guide(",
}


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
        for report in sorted((path.parent / "research").glob(f"{path.name[:2]}_*.ipynb")):
            link += f" · [research](notebooks/research/{report.name})"
        lines.append(f"| {link} | {front['promise']} | {front['time']} s |")
    return "\n".join(lines)


COSTS = {  # what the record calls it; of several ways the fastest counts
    "uncertainty weighting": "ours: uncertainty",
    "GradNorm": "ours: gradnorm",
    "MGDA": "ours: mgda",
    "Nash-MTL": "ours: nash_mtl",
    "UPGrad": "ours: upgrad",
    'MGDA, `gramian="representation"`': "ours: mgda on representation",
    "MGDA, `every=10`": "ours: mgda every 10",
    "a backward pass for each task, MGDA": "naive: mgda",
    "TorchJD, MGDA": "torchjd: MGDA",
    "TorchJD, UPGrad": "torchjd: UPGrad",
}


def costs() -> str:
    """The table of step costs, as multiples of plain training, in Markdown."""
    with (ROOT / "results" / "step_cost.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == "mlp"]
    tasks = sorted({int(row["tasks"]) for row in rows})
    lines = ["| one step / a plain step | " + " | ".join(f"K = {k}" for k in tasks) + " |"]
    lines.append("|---|" + "---|" * len(tasks))
    for title, name in COSTS.items():
        cells = []
        for k in tasks:
            mine = [r for r in rows if int(r["tasks"]) == k]
            ways = [
                r for r in mine if r["contender"] == name or r["contender"].startswith(f"{name},")
            ]
            cells.append(f"{min(float(r['ratio']) for r in ways):.1f}")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


PARTS = {
    "notebooks": table,
    "guide": guide.markdown,
    "published": published.markdown,
    "costs": costs,
}


def with_parts(readme: str) -> str:
    """The README's text with each table put between its marks."""
    for name, make in PARTS.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        if readme.count(begin) != 1 or readme.count(end) != 1:
            raise ValueError(f"README.md: expected one {begin} and one {end}")
        before, rest = readme.split(begin)
        readme = f"{before}{begin}\n{make()}\n{end}{rest.split(end)[1]}"
    return readme


def with_minutes(plan: str) -> str:
    """The text of docs/teaching.md with the minutes of the lessons that a row of a table links."""

    def row(found: re.Match[str]) -> str:
        names = re.findall(r"notebooks/(\w+\.ipynb)", found[1])
        times = [front_matter(ROOT / "notebooks" / name)["time"] for name in names]
        return f"{found[1]}| {' + '.join(time.split(' min')[0] for time in times)} |"

    return re.sub(r"(\|[^|\n]*/notebooks/[^|\n]*)\| [\d +]+ \|", row, plan)


def picture(call: str) -> bytes:
    """What a cell of notebook 00 with this call has drawn, PNG."""
    notebook = nbformat.read(ROOT / "notebooks" / "00_start_here.ipynb", as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code" and call in cell.source:
            for output in cell.outputs:
                if found := pictures(output.get("data", {})):
                    return base64.b64decode(found[0])
    raise ValueError(f"00_start_here.ipynb: no cell with {call}...) holds a picture")


def main(argv: Sequence[str] | None = None) -> int | str:
    """The exit status, or the message of a failure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if stale")
    arguments = parser.parse_args(argv)
    makers = {"README.md": with_parts, "docs/teaching.md": with_minutes}
    old = {name: (ROOT / name).read_text(encoding="utf-8") for name in makers}
    try:
        new = {name: make(old[name]) for name, make in makers.items()}
        drawn = {name: picture(call) for name, call in PICTURES.items()}
    except ValueError as error:
        return f"tools/readme.py: {error}"
    if not arguments.check:
        for name, text in new.items():
            (ROOT / name).write_text(text, encoding="utf-8", newline="\n")
        for name, data in drawn.items():
            (ROOT / name).parent.mkdir(exist_ok=True)
            (ROOT / name).write_bytes(data)
        return 0
    stale = False
    for name, text in new.items():
        if text != old[name]:
            stale = True
            before, after = old[name].splitlines(), text.splitlines()
            print(f"{name} is stale, run: make readme")
            print(*difflib.unified_diff(before, after, lineterm="", n=0), sep="\n")
    for name, data in drawn.items():
        if not (ROOT / name).exists() or (ROOT / name).read_bytes() != data:
            stale = True
            print(f"{name} is stale, run: make readme")
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
