"""What every stored notebook has to be like, without running it."""

import re
from pathlib import Path

import nbformat
import pytest

from tests.gate.rules import cell_faults, output_faults
from tools import execute
from tools.notebooks import CHECK_MARK, printed_lines

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def test_there_are_notebooks():
    assert len(NOTEBOOKS) >= 4


@each_notebook
def test_form(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    assert "widgets" not in notebook.metadata
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    timing = {"execution", "ExecuteTime", "papermill"}
    assert not any(timing.intersection(cell.metadata) for cell in notebook.cells)
    assert path.stat().st_size < 300_000


@each_notebook
def test_cells_were_run_from_top_to_bottom_without_complaint(path):
    for number, cell in enumerate(execute.code_cells(read(path)), start=1):
        assert cell_faults(cell, number) == [], cell.source


@each_notebook
def test_outputs_hold_nothing_of_a_machine_or_a_moment(path):
    for cell in execute.code_cells(read(path)):
        for output in cell.outputs:
            assert execute.WIDGET_VIEW not in output.get("data", {}), cell.source
        assert output_faults(cell) == [], cell.source


@each_notebook
def test_no_check_failed(path):
    wrong = [line for line in printed_lines(read(path)) if line.startswith("✗")]
    assert wrong == []


@each_notebook
def test_it_is_written_as_the_course_is(path):
    notebook = read(path)
    assert 20 <= len(notebook.cells) <= 64
    words = sum(len(c.source.split()) for c in notebook.cells if c.cell_type == "markdown")
    assert words < 4000
    text = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    for heading in ("Summary", "Common mistakes", "Exercises", "Next"):
        assert re.search(rf"^## .*{heading}", text, re.MULTILINE), f"no heading {heading}"
    assert not re.search(r"\b(?:obviously|simply)\b", text, re.IGNORECASE)
    passed = [line for line in printed_lines(notebook) if line.startswith(CHECK_MARK)]
    assert len(passed) >= 10, "a notebook asserts what it says"


@each_notebook
def test_each_exercise_has_a_solution_that_is_right(path):
    from mtl_utils.exercises import exercise_ids

    solutions = [c for c in execute.code_cells(read(path)) if "solution" in execute.tags(c)]
    checked = [re.findall(r'^check\("([\d.]+)", answer\)$', c.source, re.M) for c in solutions]
    assert [ids[0] for ids in checked] == exercise_ids(path.name[:2])
    assert len(solutions) >= 3
    for cell, (exercise,) in zip(solutions, checked, strict=True):
        assert cell.metadata.get("jupyter", {}).get("source_hidden"), exercise
        assert any(o.get("text", "").startswith(f"✓ {exercise}") for o in cell.outputs), exercise
