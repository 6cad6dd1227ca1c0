"""An nbgrader course from the lessons: python -m tools.assignment 04 02

Writes build/assignments/source/04_two_regressions/04_two_regressions.ipynb, and the settings of
nbgrader beside `source`. Each exercise becomes two cells: one for the answer, with the solution in
it, which `nbgrader generate_assignment` takes out, and one that gives a point if the answer is
right, by the same comparison that gave the hint. docs/teaching.md says how to go on from there.
"""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from notebook_gate import execute
from tools.notebooks import exercise_of, find, read, with_answers

ROOT = Path(__file__).resolve().parents[1]
COURSE = ROOT / "build" / "assignments"
SETTINGS = """\
# Written by `make assignment`.
c = get_config()
c.CourseDirectory.course_id = "loss-weighting"
c.ClearSolutions.code_stub = {"python": "# put your answer in place of the dots"}
c.ExecutePreprocessor.timeout = 600
"""
GRADED = """\
# one point if the answer of {number} is right
from mtl_utils.exercises import RIGHT, find

assert find("{number}").judge(answer)[0] == RIGHT
del answer  # the next exercise has to bring its own"""
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)[^)]*\)")  # to a file of this repository


def nbgrader_metadata(name: str, **role: Any) -> dict[str, Any]:
    """What nbgrader wants to know of a cell (its schema, version 3)."""
    fixed = {
        "schema_version": 3,
        "cell_type": "code",
        "grade_id": name.replace(".", "-"),
        "task": False,
    }
    return {**fixed, "grade": False, "solution": False, "locked": False, **role}


def answer_cell(place: NotebookNode, solution: str) -> NotebookNode:
    """The place for an answer, with the solution between marks, and `check` below for the hint."""
    number = exercise_of(place)
    line = f'check("{number}", answer)'
    own, kept = (source.removesuffix(line).strip() for source in (place.source, solution))
    marked = f"### BEGIN SOLUTION\n{kept}\n### END SOLUTION"
    cell = nbformat.v4.new_code_cell(f"{own}\n{marked}\n{line}", id=place.id)
    cell.metadata["nbgrader"] = nbgrader_metadata(f"answer-{number}", solution=True)
    return cell


def graded_cell(place: NotebookNode) -> NotebookNode:
    """The cell that gives the point."""
    number = exercise_of(place)
    source = GRADED.format(number=number)
    cell = nbformat.v4.new_code_cell(source, id=f"{place.id[:50]}-graded")
    role = nbgrader_metadata(f"graded-{number}", grade=True, locked=True, points=1)
    cell.metadata.update({"nbgrader": role, "jupyter": {"source_hidden": True}})
    return cell


def assignment(notebook: NotebookNode) -> NotebookNode:
    """A lesson as the source of an assignment, without outputs; links to other files are words."""
    filled = execute.cleared(with_answers(notebook))
    places = {cell.id: cell for cell in notebook.cells}
    cells = []
    for cell in filled.cells:
        if "exercise" in execute.tags(cell):
            place = places[cell.id]
            cells += [answer_cell(place, cell.source), graded_cell(place)]
            continue
        if cell.cell_type == "markdown":
            cell.source = LINK.sub(r"\1", cell.source)
        cells.append(cell)
    filled = copy.copy(filled)
    filled.cells = cells
    return filled


def write(names: Sequence[str], course: Path = COURSE) -> list[Path]:
    """Write the assignments of lessons into a course folder, with its settings; their paths."""
    course.mkdir(parents=True, exist_ok=True)
    (course / "nbgrader_config.py").write_text(SETTINGS, encoding="utf-8")
    paths = []
    for path in find(names):
        paths.append(course / "source" / path.stem / path.name)
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(assignment(read(path)), paths[-1])
    return paths


def main(names: Sequence[str]) -> int:
    if not names:
        print("say which lesson: make assignment NB=04", file=sys.stderr)
        return 2
    for path in write(names):
        print(path.relative_to(ROOT).as_posix())
        print(f"next: cd {COURSE.relative_to(ROOT)} && nbgrader generate_assignment {path.stem}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
