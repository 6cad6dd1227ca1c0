"""What every stored notebook has to be like, without running it."""

import re
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from mtl_utils.exercises import exercise_ids
from notebook_gate import execute, pictures
from notebook_gate.numbers import short_decimals
from notebook_gate.rules import cell_faults, file_faults, output_faults
from tests.sources import coloured_texts, ends_in_semicolon, fixed_names, idle_claims, is_gpu_cell
from tools import notebooks as tool

NOTEBOOKS = tool.find()
EXPERIMENTS = sorted((tool.FOLDER.parent / "experiments").rglob("*.py"))
LESSONS = [path for path in NOTEBOOKS if path.parent == tool.FOLDER]
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=tool.label)
each_lesson = pytest.mark.parametrize("path", LESSONS, ids=tool.label)

# Not yet rewritten: figures without alt text, results with one or two digits. This list only
# shrinks: a notebook that is rewritten has to leave it.
OLD_FORM: set[str] = set()

EXERCISE_LINE = re.compile(r"^. \d\d\.\d+: .*$", re.MULTILINE)  # its numbers are the exercise's


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def form_faults(notebook: NotebookNode) -> list[str]:
    """What keeps a notebook from the form that those have which were rewritten."""
    cells = execute.code_cells(notebook)
    code = "\n".join(cell.source for cell in cells)
    fixed = fixed_names(cell.source for cell in cells)
    faults = []
    for cell in cells:
        faults += [f"cannot fail: {claim}" for claim in idle_claims(cell.source, fixed)]
        for output in cell.outputs:
            data = output.get("data", {})
            faults += [
                "a figure without alt text: use show(fig, alt=...), or a verb of mtl_utils.plots"
                for alt in pictures.alt_texts(data)
                if len(alt.split()) < 5
            ]
            text = output.get("text") or data.get("text/plain", "")
            if not text.startswith("Figure: "):
                short = short_decimals(EXERCISE_LINE.sub("", text), code)
                faults += [f"{number}: show three significant digits" for number in short]
    return faults


def test_there_are_notebooks():
    assert len(LESSONS) >= 14
    assert {tool.label(path) for path in NOTEBOOKS} >= OLD_FORM


@each_notebook
def test_form(path):
    assert file_faults(path) == []
    notebook = read(path)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.language_info == tool.LANGUAGE_INFO, "JupyterLab would change it"
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    timing = {"execution", "ExecuteTime", "papermill"}
    assert not any(timing.intersection(cell.metadata) for cell in notebook.cells)
    assert path.stat().st_size < 800_000


@each_notebook
def test_rewritten_notebooks_have_the_new_form(path):
    faults = form_faults(read(path))
    if tool.label(path) in OLD_FORM:
        assert faults, "it has the new form: take it off the list OLD_FORM"
    else:
        assert faults == []


@each_notebook
def test_cells_were_run_from_top_to_bottom_without_complaint(path):
    for number, cell in enumerate(execute.code_cells(read(path)), start=1):
        assert cell_faults(cell, number) == [], cell.source
        assert not ends_in_semicolon(cell.source), "end in plt.show() or assign to _"
        if "gpu" in execute.tags(cell):
            assert is_gpu_cell(cell.source), "all of a GPU cell stands in `if needs_cuda(...):`"


@each_notebook
def test_outputs_hold_nothing_of_a_machine_or_a_moment(path):
    for cell in execute.code_cells(read(path)):
        for output in cell.outputs:
            assert execute.WIDGET_VIEW not in output.get("data", {}), cell.source
        assert output_faults(cell) == [], cell.source


@each_notebook
def test_no_check_failed(path):
    wrong = [line for line in tool.printed_lines(read(path)) if line.startswith(("✗", "≈"))]
    assert wrong == []


@each_notebook
def test_it_is_written_as_the_course_is(path):
    notebook = read(path)
    text = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    assert not re.search(r"\b(?:obviously|simply)\b", text, re.IGNORECASE)
    passed = [line for line in tool.printed_lines(notebook) if line.startswith(tool.CHECK_MARK)]
    assert len(passed) >= 10, "a notebook asserts what it says"


def headings(notebook: NotebookNode) -> list[int]:
    """Depths of the headings, in order: 1 for `#`, 2 for `##`, ..."""
    text = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)  # code, with comments
    return [len(marks) for marks in re.findall(r"^(#+) ", text, re.MULTILINE)]


def gaps(depths: list[int]) -> list[tuple[int, int]]:
    """Where headings go down by more than one, or do not begin at the top."""
    return [(a, b) for a, b in pairwise([0, *depths]) if b > a + 1]


@each_notebook
def test_headings_have_no_gaps(path):
    """Who hears a page goes through it from heading to heading."""
    depths = headings(read(path))
    assert depths.count(1) == 1 == depths[0] and gaps(depths) == []


def test_gaps_are_seen():
    assert gaps([1, 2, 3, 2, 3, 3]) == []
    assert gaps([2, 3]) == [(0, 2)] and gaps([1, 3, 2]) == [(1, 3)]


FIGURE = re.compile(r"^Figure: (.*)\n((?:.*\n?)*)", re.MULTILINE)


def figures(notebook: NotebookNode) -> list[tuple[str, str]]:
    """The alternative text of each figure, and what is drawn in it, in words and numbers."""
    outputs = [output for cell in execute.code_cells(notebook) for output in cell.outputs]
    texts = [output.get("data", {}).get("text/plain", "") for output in outputs]
    return [pair for text in texts for pair in FIGURE.findall(text)]


def says_nothing(alt: str, drawn: str) -> bool:
    """Whether an alternative text is shorter than a sentence, or a title once more."""
    titles = {part.strip(" .").lower() for line in drawn.splitlines() for part in line.split("|")}
    titles |= {title.removeprefix("axes: ") for title in titles}
    return len(alt.split()) < 8 or alt.strip(" .").lower() in titles


@each_notebook
def test_alternative_texts_say_what_is_to_be_seen(path):
    assert [alt for alt, drawn in figures(read(path)) if says_nothing(alt, drawn)] == []


def test_an_alternative_text_that_says_nothing_is_seen():
    title = "The likelihood calls all of the hard half noise"
    drawn = f"{title}\naxes: A panel with a title of just eight words | x"
    assert says_nothing("Two curves.", drawn) and says_nothing(f"{title}.", drawn)
    assert says_nothing("A panel with a title of just eight words.", drawn)
    assert not says_nothing("Two panels: the fit is flat on the right.", drawn)


@each_notebook
def test_text_in_figures_can_be_read(path):
    cells = execute.code_cells(read(path))
    assert [call for cell in cells for call in coloured_texts(cell.source)] == []


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_text_that_experiments_draw_can_be_read(path):
    assert coloured_texts(path.read_text(encoding="utf-8")) == []


def test_coloured_text_is_seen():
    bad = 'ax.text(0, 1, "a", color="#56B4E9"); label.set_color(task_color(2))'
    assert len(coloured_texts(bad)) == 2
    good = 'ax.text(0, 1, "a", color=readable(task_color(4))); ax.plot(x, color="#56B4E9")'
    assert coloured_texts(good) == []


@each_lesson
def test_a_lesson_ends_as_lessons_do(path):
    text = "\n".join(c.source for c in read(path).cells if c.cell_type == "markdown")
    for heading in ("Summary", "Common mistakes", "Exercises", "Next"):
        assert re.search(rf"^## .*{heading}", text, re.MULTILINE), f"no heading {heading}"


@each_lesson
def test_each_exercise_has_a_place_for_the_answer_and_a_solution_that_is_right(path):
    cells = {"exercise": [], "solution": []}
    for cell in read(path).cells:
        for tag in cells:
            if tag in execute.tags(cell):
                cells[tag].append(cell)
    ids = exercise_ids(path.name[:2])
    assert len(ids) >= 3
    for tag in cells:
        assert [tool.exercise_of(cell) for cell in cells[tag]] == ids
    for number, place, solution in zip(ids, *cells.values(), strict=True):
        (line,) = place.outputs
        assert line.text == f"… {number}: put your answer in place of the dots\n"
        assert solution.metadata.jupyter.source_hidden, number
        assert solution.source.startswith("# "), "the line that a folded cell shows: no answer"
        assert any(o.get("text", "").startswith(f"✓ {number}") for o in solution.outputs), number
