"""Copies of the notebooks for Google Colab: python -m tools.colab OWNER/NAME

Writes build/colab: each notebook with a badge that opens it there, and with a first cell that
fetches this version of the course and installs what Colab lacks; anywhere else that cell does
nothing. Links lead to the other copies, and to the files of the repository on GitHub. The folder is
to be pushed as the branch `colab` of OWNER/NAME, as the workflow `colab` does for each release: so
the notebooks themselves stay as they are for everybody else, and name no address.
"""

from __future__ import annotations

import copy
import posixpath
import re
import shutil
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

import mtl_utils
from notebook_gate import execute
from tools.notebooks import find, read

ROOT = Path(__file__).resolve().parents[1]
COLAB = ROOT / "build" / "colab"
BRANCH = "colab"
TAG = f"v{mtl_utils.__version__}"
BADGE = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({address})"
FIRST = """\
#@title On Colab this fetches the course, {tag}, and installs what is missing; elsewhere, nothing
import os
import sys

if "google.colab" in sys.modules and not os.path.exists("{up}/mtl_utils"):
    !test -d course || git -c advice.detachedHead=0 clone -q --depth 1 -b {tag} {address} course
    %pip install --quiet -e "course[notebooks]"
    %cd -q course/{folder}
    sys.path.insert(0, os.path.abspath("{up}"))"""
LINK = re.compile(r"\]\((?!https?:|#|attachment:)([^)\s]+)\)")  # to a file of the repository
README = """\
# The notebooks of {tag}, for Google Colab

Written by `make colab` from {address}; change nothing here.

| notebook | |
|---|---|
{rows}
"""


def on_colab(path: Path, repository: str) -> str:
    """Where Colab opens the copy of a notebook."""
    name = path.relative_to(ROOT).as_posix()  # where the button of the site looks for it, too
    return f"https://colab.research.google.com/github/{repository}/blob/{BRANCH}/{name}"


def first_cell(path: Path, address: str) -> NotebookNode:
    """The cell that installs the course on Colab, folded.

    Args:
        path: of the notebook.
        address: what `git clone` fetches.
    """
    folder = path.parent.relative_to(ROOT).as_posix()
    up = posixpath.relpath(".", folder)
    source = FIRST.format(tag=TAG, address=address, folder=folder, up=up)
    cell = nbformat.v4.new_code_cell(source, id="colab")
    cell.metadata = nbformat.from_dict(
        {"cellView": "form", "jupyter": {"source_hidden": True}, "tags": ["hide-input"]}
    )
    return cell


def led_elsewhere(source: str, path: Path, repository: str) -> str:
    """A text whose relative links lead to the other copies, and to GitHub."""

    def away(link: re.Match) -> str:
        name, mark, heading = link[1].partition("#")
        target = (path.parent / name).resolve()
        if target.suffix == ".ipynb":
            return f"]({on_colab(target, repository)}{mark}{heading})"
        name = target.relative_to(ROOT).as_posix()
        return f"](https://github.com/{repository}/blob/{TAG}/{name}{mark}{heading})"

    return LINK.sub(away, source)


def colab_copy(path: Path, repository: str, address: str = "") -> NotebookNode:
    """A notebook as it is stored, with the badge, the first cell, and links that lead somewhere.

    Args:
        path: of the notebook.
        repository: OWNER/NAME on GitHub.
        address: what to clone, if not that.
    """
    notebook = copy.deepcopy(read(path))
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = led_elsewhere(cell.source, path, repository)
    badge = BADGE.format(address=on_colab(path, repository))
    title, rest = notebook.cells[0].source.split("\n", 1)
    notebook.cells[0].source = f"{title}\n\n{badge}\n{rest}"
    address = address or f"https://github.com/{repository}"
    notebook.cells.insert(1, first_cell(path, address))
    for number, cell in enumerate(execute.code_cells(notebook), start=1):
        for numbered in (cell, *cell.outputs):
            if "execution_count" in numbered:
                numbered.execution_count = number
    nbformat.validate(notebook)
    return notebook


def write(repository: str, target: Path = COLAB, address: str = "") -> list[Path]:
    """Write the copies of all notebooks, and a page that lists them; their paths."""
    shutil.rmtree(target, ignore_errors=True)
    written, rows = [], []
    for path in find():
        written.append(target / path.relative_to(ROOT))
        written[-1].parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(colab_copy(path, repository, address), written[-1])
        title = read(path).cells[0].source.split("\n")[0].removeprefix("# ")
        rows.append(f"| {title} | {BADGE.format(address=on_colab(path, repository))} |")
    page = README.format(tag=TAG, address=f"https://github.com/{repository}", rows="\n".join(rows))
    (target / "README.md").write_text(page, encoding="utf-8")
    return written


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or not re.fullmatch(r"[\w.-]+/[\w.-]+", arguments[0]):
        print("say which repository on GitHub: make colab REPO=owner/name", file=sys.stderr)
        return 2
    paths = write(arguments[0])
    print(f"{len(paths)} notebooks in {COLAB.relative_to(ROOT).as_posix()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
