"""Assignments for nbgrader, and what its own programs make of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from mtl_utils.exercises import RIGHT, exercise_ids, find
from notebook_gate import execute
from tools import assignment
from tools import notebooks as tool

ROOT = Path(__file__).resolve().parents[1]
LESSONS = [path for path in tool.find() if path.parent == tool.FOLDER]
NAME = "04_two_regressions"


def of_nbgrader(notebook, role: str) -> dict:
    """The cells of a notebook with a role, by the number of their exercise."""
    cells = [cell for cell in notebook.cells if "nbgrader" in cell.metadata]
    ids = [cell.metadata.nbgrader.grade_id.split("-", 1) for cell in cells]
    pairs = zip(ids, cells, strict=True)
    return {number.replace("-", "."): cell for (kind, number), cell in pairs if kind == role}


@pytest.mark.parametrize("path", LESSONS, ids=tool.label)
def test_every_exercise_has_a_place_and_a_point(path):
    notebook = tool.read(path)
    made = assignment.assignment(notebook)
    nbformat.validate(made)
    assert notebook == tool.read(path), "what was handed over is left alone"
    answers, graded = of_nbgrader(made, "answer"), of_nbgrader(made, "graded")
    assert [*answers] == [*graded] == exercise_ids(path.name[:2])
    cells = execute.code_cells(made)
    assert all(cell.outputs == [] for cell in cells)
    for number, cell in answers.items():
        begin, end = cell.source.split("### BEGIN SOLUTION")[0], cell.source.split("\n")[-1]
        assert "..." in begin and "answer" in begin and end == f'check("{number}", answer)'
        assert cells[cells.index(cell) + 1] == graded[number]
    outside = re.sub(
        r"### BEGIN SOLUTION.*?### END SOLUTION", "", nbformat.writes(made), flags=re.DOTALL
    )
    assert "solution of" not in outside, "nbgrader would hand it out"
    text = "\n".join(cell.source for cell in made.cells if cell.cell_type == "markdown")
    assert re.findall(r"\]\((?!https?:|#)[^)]*\)", text) == [], "a link out of the folder"


def test_it_says_what_is_missing(capsys):
    assert assignment.main([]) == 2
    assert "make assignment NB=04" in capsys.readouterr().err


@pytest.fixture(scope="module")
def course(tmp_path_factory) -> Path:
    """A course of nbgrader with one assignment, released, and three submissions, graded."""
    pytest.importorskip("nbgrader", reason="needs the package nbgrader")
    course = tmp_path_factory.mktemp("a course")
    (source,) = assignment.write([NAME], course)
    nbgrader(course, "generate_assignment", f"--assignment={NAME}")
    released = quick(nbformat.read(course / "release" / NAME / source.name, as_version=4))
    solutions = tool.with_answers(tool.read(tool.FOLDER / source.name))
    solved = {tool.exercise_of(c): c for c in solutions.cells if "exercise" in execute.tags(c)}
    first, *_ = exercise_ids(NAME[:2])
    for student in ("empty", "solved", "wrong"):
        for number, cell in of_nbgrader(released, "answer").items():
            if student != "empty":
                cell.source = solved[number].source
            if student == "wrong" and number == first:
                cell.source = f"answer = {find(number).mistakes[0][0]!r}"
        target = course / "submitted" / student / NAME / source.name
        target.parent.mkdir(parents=True)
        nbformat.write(released, target)
    nbgrader(course, "autograde", f"--assignment={NAME}", "--create")
    return course


def quick(notebook):
    """Without the lesson's own code, save for the set-up, which the answers of 04 need.

    With MTL_SLOW all of it is run, for each submission.
    """
    others = [c for c in execute.code_cells(notebook) if "nbgrader" not in c.metadata][1:]
    if not os.environ.get("MTL_SLOW"):
        notebook.cells = [cell for cell in notebook.cells if cell not in others]
    return notebook


def nbgrader(course: Path, *arguments: str) -> None:
    """Run a program of nbgrader, which calls others of its environment by name."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    subprocess.run(
        [sys.executable, "-m", "nbgrader", *arguments],
        cwd=course,
        env={**os.environ, "PATH": path, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        check=True,
    )


def test_what_students_get_has_no_solution(course):
    text = (course / "release" / NAME / f"{NAME}.ipynb").read_text(encoding="utf-8")
    assert "a solution of" not in text and "BEGIN SOLUTION" not in text
    assert text.count("# put your answer in place of the dots") == len(exercise_ids(NAME[:2]))


@pytest.mark.parametrize(("student", "lost"), [("solved", 0), ("empty", None), ("wrong", 1)])
def test_marks(course, student, lost):
    from nbgrader.api import Gradebook

    full = len(exercise_ids(NAME[:2]))
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as gradebook:
        submission = gradebook.find_submission(NAME, student)
        assert submission.max_score == full
        assert submission.score == (0 if lost is None else full - lost)


@pytest.mark.parametrize(("student", "says"), [("solved", RIGHT), ("empty", "… ")])
def test_hints_of_graded_copies(course, student, says):
    graded = nbformat.read(course / "autograded" / student / NAME / f"{NAME}.ipynb", as_version=4)
    for number, cell in of_nbgrader(graded, "answer").items():
        # a busy kernel may send a line and its end one by one
        printed = "".join(o.text for o in cell.outputs if o.output_type == "stream")
        assert f"\n{says.strip()} {number}" in f"\n{printed}"
