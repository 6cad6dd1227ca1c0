"""A notebook in the form that the course is rewritten to, from its source to the student's copy."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode, v4

from notebook_gate import execute
from tests.test_notebooks_static import form_faults
from tests.test_showing import picture
from tools import notebooks as tool

ROOT = Path(__file__).resolve().parents[1]

SETUP = """\
# imports and set-up
import numpy as np
import pandas as pd

from mtl_utils.notebook import check, checks, claim, interval_text, setup, show
from mtl_utils.plots import band_plot

generator = setup(seed=0)"""
DATA = """\
epochs, seeds = np.meshgrid(np.arange(1, 21), np.arange(5))
losses = {"equal": 1 / epochs + 0.02 * seeds, "mgda": 1.3 / epochs + 0.03 * seeds**0.5}
history = pd.concat(
    pd.DataFrame({"epoch": epochs.ravel(), "loss (m²)": loss.ravel(), "rule": rule})
    for rule, loss in losses.items()
)"""
TABLE = """\
last = history[history["epoch"] == 20]
show(last.groupby("rule")[["loss (m²)"]].mean(), caption="Means of five seeds, epoch 20")"""
FIGURE = """\
band_plot(
    history, "epoch", "loss (m²)", "rule", log="y",
    title="Equal weights end lower",
    alt="Two falling curves over twenty epochs; that of equal weights ends below that of MGDA.",
)"""  # fmt: skip
INTERVAL = """\
gap = losses["equal"][:, -1] - losses["mgda"][:, -1]
print("equal minus mgda, epoch 20:", interval_text(gap))"""
CHECKS = """\
# 2 checks: the end of training
with checks("the end of training"):
    claim("equal weights end lower on average", gap.mean() < 0)
    claim("an epoch of 1 has a loss of 1", losses["equal"][0, 0], 1.0)"""
PLACE = 'answer = ...  # your answer\ncheck("00.1", answer)'
SOLUTION = '# a solution of 00.1\nanswer = [2.0, 0.5]\ncheck("00.1", answer)'


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("course")
    sources = (SETUP, DATA, TABLE, FIGURE, INTERVAL, CHECKS, PLACE, SOLUTION)
    cells = [v4.new_code_cell(source, id=f"cell-{n}") for n, source in enumerate(sources)]
    cells[-2].metadata.tags, cells[-1].metadata.tags = ["exercise"], ["solution"]
    for cell in (cells[0], cells[-3], cells[-1]):
        cell.metadata.jupyter = {"source_hidden": True}
    nbformat.write(v4.new_notebook(cells=cells), folder / "00_small.ipynb")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tool, "FOLDER", folder)
        assert tool.main(["refresh", "00"]) == 0
    return folder


@pytest.fixture(scope="module")
def notebook(folder) -> NotebookNode:
    return tool.read(folder / "00_small.ipynb")


def test_it_has_the_new_form(notebook):
    assert form_faults(notebook) == []


def test_what_is_shown(notebook):
    _, _, table, figure, interval, checks, place, solution = notebook.cells
    assert "<caption>Means of five seeds, epoch 20</caption>" in table.outputs[0].data["text/html"]
    assert table.outputs[0].data["text/plain"].splitlines()[2] == "equal    0.0900"
    attributes, stored = picture(figure.outputs[0].data)
    assert attributes["alt"].startswith("Two falling curves")
    assert stored.mode == "P" and abs(stored.width - 2 * int(attributes["width"])) <= 1
    assert len(attributes["src"]) < 60_000
    assert "<details><summary>✓ 2 checks, the end of" in checks.outputs[0].data["text/html"]
    assert re.fullmatch(r"equal minus .*: [-+]0\.\d{3} \[.*\]\n", interval.outputs[0].text)
    assert [cell.outputs[0].text[:7] for cell in (place, solution)] == ["… 00.1:", "✓ 00.1:"]
    assert all(len(cell.outputs) <= 1 for cell in notebook.cells), "no picture is there twice"


def test_checks_are_counted_in_both_forms(notebook):
    assert tool.Result(Path("x"), notebook, 0.0, None).checks == 3


def test_the_gate_lets_it_pass(folder):
    command = [sys.executable, "-m", "pytest", "-p", "notebook_gate.plugin", "--nbval", "-q"]
    command += ["-p", "no:cacheprovider", f"--rootdir={folder}", str(folder / "00_small.ipynb")]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0 and "8 passed" in found.stdout, found.stdout


def test_the_solved_copy_runs(folder, notebook):
    copy = execute.cleared(tool.student_copy(notebook, answers=True))
    assert len(copy.cells) == 7
    assert asyncio.run(execute.execute_cells(copy, folder)) == {}
    assert copy.cells[-1].outputs[0].text.startswith("✓ 00.1")


@pytest.mark.parametrize(
    ("source", "output", "fault"),
    [
        ("plt.show()", {"image/png": "abc"}, "a figure without alt text"),
        ("show(fig)", {"text/html": '<img src="data:image/png;base64,abc">'}, "without alt text"),
        ("show(fig)", {"text/html": '<img alt="loss curves" src="x">'}, "without alt text"),
        ("print(x)", "loss 0.05 and 0.123", "0.05: show three significant digits"),
        ("show(t)", {"text/plain": "loss\n0.5"}, "0.5: show three significant digits"),
        ('claim("x", True)', "✓ x", "cannot fail: claim('x', True)"),
        ("show(fig)", {"text/html": '<img alt="a b c d e" src="x">'}, ""),
        ("lr = 0.05\nprint(lr)", "0.05", ""),
        ('check("06.2", a)', "✓ 06.2: 0.43 is it", ""),
    ],
)
def test_faults_of_form_are_seen(source, output, fault):
    data = output if isinstance(output, dict) else {}
    made = v4.new_output("display_data", data) if data else v4.new_output("stream", text=output)
    notebook = v4.new_notebook(cells=[v4.new_code_cell(source, outputs=[made])])
    faults = form_faults(notebook)
    assert any(fault in found for found in faults) if fault else faults == []
