"""The notebooks as pages: as they are stored, with checks and solutions folded."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from tools.readme import front_matter

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"\]\(((?!https?:)[^)\s]*#[^)\s]+)\)")  # to a heading
PAIR = re.compile(r"([\[(][-+.e\d]+,) ([-+.e\d]+[\])])")  # such as [-0.12, 0.34]
STAR = re.compile(r"(?<=\]) (?=\*<)")  # behind an interval: decided
FOLDED = ("solution", "hide-input")


def write(source: Path) -> None:
    """All notebooks into the folder, with an index of them."""
    folder = ROOT / "notebooks"
    paths = sorted([*folder.glob("*.ipynb"), *(folder / "research").glob("*.ipynb")])
    for path in paths:
        place = source / path.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(page(nbformat.read(path, as_version=4)), place)
    lessons = [path for path in paths if path.parent == folder]
    reports = [path for path in paths if path.parent != folder]
    (source / "notebooks" / "index.md").write_text(_lessons(lessons), encoding="utf-8")
    (source / "notebooks" / "research" / "index.md").write_text(_reports(reports), encoding="utf-8")


def page(notebook: NotebookNode) -> NotebookNode:
    """A notebook for the site: what is folded in JupyterLab is folded here.

    An interval or a place in a table is not broken into two lines, and keeps its star.
    """
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            table = output.get("data", {}).get("text/html", "")
            if "<table" in table:
                table = re.sub(PAIR, r"\1&nbsp;\2", table)
                output.data["text/html"] = re.sub(STAR, "&nbsp;", table)
        tags = cell.metadata.get("tags", [])
        folded = cell.metadata.get("jupyter", {}).get("source_hidden", False)
        if cell.cell_type == "code" and (folded or any(tag in tags for tag in FOLDED)):
            cell.metadata["tags"] = [*tags, "hide-input"]
            first = cell.source.splitlines()[0] if cell.source else ""
            words = first.lstrip("# ").strip() if first.startswith("#") else "code"
            cell.metadata["mystnb"] = {"code_prompt_show": f"Show: {words}"}
        if cell.cell_type == "markdown":
            cell.source = re.sub(LINK, lambda link: f"]({slug(link[1])})", cell.source)
    return notebook


def slug(link: str) -> str:
    """A link to a heading as JupyterLab has it, `#Stop-and-resume`, as Sphinx and GitHub do."""
    path, _, title = link.partition("#")
    return path + "#" + re.sub(r"[^\w-]", "", title.lower())


def heading(path: Path) -> str:
    """The title of a notebook."""
    text = nbformat.read(path, as_version=4).cells[0].source
    found = re.match(r"# (.+)", text)
    if found is None:
        raise ValueError(f"{path.name}: its first cell does not begin with a title")
    return found[1]


def _contents(names: list[str]) -> list[str]:
    return ["```{toctree}", ":hidden:", ":maxdepth: 1", *names, "```", ""]


def _lessons(paths: list[Path]) -> str:
    lines = [
        "# Lessons",
        "",
        "One hour each, in this order.",
        "",
        "| lesson | what you learn | minutes |",
    ]
    lines.append("|---|---|---|")
    for path in paths:
        front = front_matter(path)
        minutes = front["time"].split()[0]
        lines.append(f"| [{front['title']}]({path.name}) | {front['promise']} | {minutes} |")
    return "\n".join([*lines, "", *_contents([path.stem for path in paths])])


def _reports(paths: list[Path]) -> str:
    lines = [
        "# Research",
        "",
        "What the lessons leave out: the published toys, ablations, controls,",
    ]
    lines += ["records, negative results, and errors in the literature.", ""]
    lines += [f"- [{heading(path)}]({path.name})" for path in paths]
    return "\n".join([*lines, "", *_contents([path.stem for path in paths])])
