"""Text of the repository: links within it, spelling, and what docs/teaching.md says of lessons."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from mtl_utils.exercises import find
from tools import notebooks as tool
from tools.readme import front_matter

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("docs/zh/*.md"),
    *ROOT.glob("results/*.md"),
]
TEACHING = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")
# NumPy's norm, matplotlib's whiskers, names that tests mistype on purpose.
WORDS = ("fro", "whis", "wieghts", "regresion")
LINK = re.compile(r"\]\((?!https?:|mailto:|attachment:)([^)\s]+)\)")


def text_of(path: Path) -> str:
    """The text of a page or of a notebook, without code."""
    if path.suffix == ".ipynb":
        cells = nbformat.read(path, as_version=4).cells
        text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    else:
        text = path.read_text(encoding="utf-8")
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


def anchors(path: Path) -> set[str]:
    """What a link can lead to within a file: as GitHub has it, and for notebooks JupyterLab."""
    text = path.read_text(encoding="utf-8") if path.suffix == ".md" else ""
    if path.suffix == ".ipynb":
        cells = nbformat.read(path, as_version=4).cells
        text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    heads = [head.replace("`", "") for head in re.findall(r"^#+ (.+?)\s*$", text, re.MULTILINE)]
    if path.suffix == ".ipynb":
        return {head.replace(" ", "-") for head in heads}
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def dead_links(path: Path) -> list[str]:
    """The links of a page or notebook to a file or heading of this repository that is not there."""
    dead = []
    for link in LINK.findall(text_of(path)):
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    return dead


@pytest.mark.parametrize("path", [*PAGES, *tool.find()], ids=lambda path: path.name)
def test_links_within_the_repository_lead_somewhere(path):
    assert dead_links(path) == []


def test_dead_links_are_seen(tmp_path):
    (tmp_path / "b.md").write_text("# What it `does`, or not\n")
    links = "[a](b.md) [b](c.md) [c](b.md#what-it-does-or-not) [d](b.md#gone) [e](https://x.org/y)"
    (tmp_path / "a.md").write_text(f"{links} `[f](d.md)`\n")
    assert dead_links(tmp_path / "a.md") == ["c.md", "b.md#gone"]


def words_of(path: Path) -> str:
    """What a file says: of a notebook its cells, and not the pictures in its outputs."""
    if path.suffix == ".ipynb":
        return "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
    return path.read_text(encoding="utf-8")


def test_spelling(tmp_path):
    pytest.importorskip("codespell_lib", reason="needs the package codespell")
    folders = ("benchmarks", "experiments", "mtl_utils", "notebook_gate", "tests", "tools")
    code = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    for path in [*PAGES, *code, *tool.find()]:
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(words_of(path), encoding="utf-8")
    command = [sys.executable, "-m", "codespell_lib", "-L", ",".join(WORDS), "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_plan_of_twelve_sessions_has_every_lesson_and_its_minutes():
    plan = TEACHING.split("## Twelve sessions")[1].split("## Projects")[0]
    rows = re.findall(r"^\| \d+ \| (.+?) \| ([\d +]+) \|", plan, re.MULTILINE)
    said = {}
    for links, minutes in rows:
        names = re.findall(r"/(\d\d)_\w+\.ipynb", links)
        said.update(zip(names, map(int, minutes.split(" + ")), strict=True))
    lessons = [path for path in tool.find() if path.parent == tool.FOLDER]
    time = {path.name[:2]: front_matter(path)["time"] for path in lessons}
    assert said == {number: int(text.split(" min")[0]) for number, text in time.items()}


def test_the_exercises_that_it_names_are_there():
    names = re.findall(r"(?<![\d.])\d\d\.\d(?!\d)", TEACHING)
    assert len(names) > 15
    for name in names:
        find(name)
