"""Slides from the lessons: python -m tools.slides 04     writes build/slides/html/04_....html

A slide for each piece of text of a lesson that has cells below it, with as many of these as fit:
the next slide has the rest. What is folded there (set-up, checks, solutions) is left out, and so is
the code of figures. A widget stands there as its first figure. A single cell that is too long
scrolls. Made by Sphinx with sphinx-revealjs, so that formulas and figures need no network.
"""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from notebook_gate import execute, pictures
from tools.notebooks import find, read

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "slides"
BREAK = "```{revealjs-break}\n```"
ROOM = 23  # lines of text that a slide has below its title, about
WIDE = 105  # characters of such a line
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:)[^)]*\)")  # to another notebook: words
LEFT_OUT = ("Reading", "Next")
SETTINGS = """\
project = "Loss weighting in multi-task learning"
extensions = ["myst_nb", "sphinx-mathjax-offline", "sphinx_revealjs"]
nb_execution_mode = "off"
nb_merge_streams = True
kinds = ("text/html", "text/markdown", "image/png", "text/latex", "text/plain")
nb_mime_priority_overrides = [("revealjs", kind, place) for place, kind in enumerate(kinds)]
myst_enable_extensions = ["dollarmath", "amsmath"]
suppress_warnings = ["mystnb.unknown_mime_type", "myst.header", "toc.not_included"]
revealjs_style_theme = "white"
revealjs_static_path = ["_static"]
revealjs_css_files = ["slides.css"]
revealjs_script_conf = {
    "width": 1280, "height": 720, "margin": 0.04, "hash": True, "center": False,
    "slideNumber": True, "transition": "none",
}
"""
STYLE = """\
.reveal { font-size: 24px; }
.reveal h1 { font-size: 1.7em; text-transform: none; }
.reveal h2, .reveal h3 { font-size: 1.3em; text-transform: none; }
.reveal .slides section { text-align: left; }
.reveal .slides section { max-height: 700px; overflow-y: auto; }
.reveal pre { font-size: 0.72em; width: 100%; box-shadow: none; margin: 0.3em 0; }
.reveal table { font-size: 0.75em; margin: 0.3em 0; }
.reveal img { max-height: 460px; margin: 0; }
.reveal p, .reveal ul { margin: 0.4em 0; }
"""


def is_shown(cell: NotebookNode) -> bool:
    """Whether a cell stands on a slide: not if it is folded or belongs to an exercise."""
    if cell.cell_type != "code":
        return True
    folded = cell.metadata.get("jupyter", {}).get("source_hidden", False)
    return not folded and not {"solution", "hide-input", "exercise"} & set(execute.tags(cell))


def height_of(cell: NotebookNode) -> float:
    """How many lines of text a cell takes on a slide, about."""
    if cell.cell_type == "markdown":
        lines = cell.source.replace("$$", "$$\n\n").splitlines()  # a formula stands higher
        return sum(0.4 if not line else -(-len(line) // WIDE) for line in lines)
    lines = 0 if "remove-input" in execute.tags(cell) else 0.8 * len(cell.source.splitlines()) + 0.8
    for output in cell.outputs:
        data = output.get("data", {})
        if pictures.pictures(data):
            lines += 13
        elif "text/html" in data:
            lines += data["text/html"].count("<tr") + 1
        else:
            text = output.get("text") or data.get("text/plain", "")
            lines += 0.8 * len("".join(text).splitlines()) + 0.8
    return lines


def is_introduction(cell: NotebookNode, after: NotebookNode) -> bool:
    """Whether it is text that stands with the cell below it."""
    return cell.cell_type == "markdown" and after.cell_type == "code"


def slides(notebook: NotebookNode) -> NotebookNode:
    """A lesson with a break before each text that has a cell below it, and before a cell that does
    not fit any more; of figures no code."""
    shown = [cell for cell in copy.deepcopy(notebook.cells) if is_shown(cell)]
    below = [*shown[1:], nbformat.v4.new_markdown_cell()]
    cells: list[NotebookNode] = []
    filled = 0.0
    for cell, after in zip(shown, below, strict=True):
        if cell.cell_type == "markdown":
            if re.match(rf"## (?:{'|'.join(LEFT_OUT)})\b", cell.source):
                continue
            cell.source = LINK.sub(r"\1", cell.source)
        elif any(pictures.pictures(output.get("data", {})) for output in cell.outputs):
            cell.metadata["tags"] = ["remove-input"]
        height = height_of(cell)
        if cell.cell_type == "markdown" and re.search(r"^##+ ", cell.source, re.MULTILINE):
            filled = 0.0  # a heading begins a slide itself
        elif cells and (filled + height > ROOM or is_introduction(cell, after)):
            cells.append(nbformat.v4.new_markdown_cell(BREAK))
            filled = 0.0
        filled += height
        cells.append(cell)
    return nbformat.v4.new_notebook(cells=cells, metadata=notebook.metadata)


def write(names: Sequence[str], source: Path) -> list[Path]:
    """Write the lessons as sources of Sphinx, with its settings; their paths."""
    shutil.rmtree(source, ignore_errors=True)
    (source / "_static").mkdir(parents=True)
    (source / "_static" / "slides.css").write_text(STYLE, encoding="utf-8")
    (source / "conf.py").write_text(SETTINGS, encoding="utf-8")
    paths = [path for path in find(names) if path.parent.name != "research"]
    for path in paths:
        nbformat.write(slides(read(path)), source / path.name)
    toc = "\n".join(path.stem for path in paths)
    index = f"# Lessons\n\n```{{toctree}}\n{toc}\n```\n"
    (source / "index.md").write_text(index, encoding="utf-8")
    return [source / path.name for path in paths]


def build(source: Path, target: Path) -> int:
    """Run Sphinx; its exit code."""
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "revealjs", str(source), str(target)]
    return subprocess.run(command, cwd=ROOT).returncode


def main(names: Sequence[str]) -> int:
    paths = write(names, BUILD / "source")
    code = build(BUILD / "source", BUILD / "html")
    for path in paths if code == 0 else []:
        print((BUILD / "html" / f"{path.stem}.html").relative_to(ROOT).as_posix())
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
