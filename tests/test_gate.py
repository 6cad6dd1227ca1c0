"""The gate at work: cells that are changed in one way each, and what the gate says of them.

All cells are executed once for the reference, in one notebook; then the stored record or the code
is changed, and one pytest of its own judges them, in a folder of its own, as a user would run it.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import re
import socket
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
from nbformat import NotebookNode, v4
from PIL import Image

from notebook_gate import execute
from notebook_gate.figures import figure_difference
from notebook_gate.numbers import data_difference, numbers_agree, short_decimals, text_difference
from notebook_gate.plugin import NotebookCell, outputs_difference
from notebook_gate.rules import CANNOT, exemptions, file_faults, output_faults
from tests.sources import ends_in_semicolon, fixed_names, idle_claims, is_gpu_cell

ROOT = Path(__file__).resolve().parents[1]

PLOT = """\
import matplotlib.pyplot as plt
import numpy as np
x = np.linspace(0, 10, 200)
fig, ax = plt.subplots(figsize=(4, 3), dpi=80)
ax.plot(x, np.sin(x), label="sine", linewidth=1)
ax.plot(x, np.cos(x), label="cosine")
ax.set(ylim=(-1.5, 1.5), title="two curves")
ax.legend(loc="upper right")
plt.show()"""
PIXEL = 3 / (0.77 * 3 * 80)  # of PLOT, in units of the vertical axis
SHOW = PLOT.replace("plt.show()", "show(fig, alt='a sine and a cosine')")
SHOW = SHOW.replace("import numpy", "from mtl_utils.showing import show\nimport numpy")
CHECKS = """\
from mtl_utils.claims import checks, claim
with checks("the optimum"):
    claim("a", 1.0, 1.001, rtol=0.01)
    claim("b", True)"""
AROUND = "print('before')\nfig, ax = plt.subplots(figsize=(1, 1))\nplt.show()\nprint('after')"
THREAD = "import threading\nt = threading.Thread(target=lambda: 1 / 1)\nt.start()\nt.join()"
NUMBERS = "print('value 0.12345, count 17, name x2, share 34.5 %, noise 2.2e-16')"
COMPLAIN = "import sys; sys.stderr.write('beware')"
HTML = "from IPython.display import HTML, Latex, Markdown\nHTML('<td>1</td><td>0.125</td>')"
LATEX = "Latex('$0.125 x_{1}$')"
MARKDOWN = "Markdown('**1,234.5** steps')"
JSON = """\
from IPython.display import display
display({"application/x.mtl+json": {"losses": [0.5, 0.25], "task": "a"}}, raw=True)"""
INTERACT = """\
from ipywidgets import interact
@interact(x=(0, 10))
def show(x=5):
    print(x * 2)"""
GOOD_AGAIN = "\nshow.widget.children[0].value = 3"
BUTTON = """\
from ipywidgets import Button
def pressed(_):
    print(1 / 1)
button = Button()
button.on_click(pressed)
button.click()"""
BAR = "from tqdm.auto import tqdm\nfor _ in tqdm(range(3)): pass\nprint('done')"
CLEAR = "from IPython.display import clear_output\nprint('old')\nclear_output()\nprint('new')"
UPDATE_1 = "print('a')\nhandle = display('before', display_id=True)\nprint('b')"
UPDATE_2 = "handle.update('after')"
GPU = "on_gpu = False\nprint('no CUDA device: skipped here, a test')"
FAINT = """\
fig, ax = plt.subplots(figsize=(4, 3), dpi=80)
ax.plot([0, 1], [0.5, 0.5], color="0.8", linewidth=0.7)
ax.set(ylim=(0, 1))
plt.show()"""
SWAPPED = 'ax.legend(labels=["cosine", "sine"], loc="upper right")'
RAISES = "raise ValueError('on purpose 3')"
REASON = {"reason": "a test of the gate"}

Change = Callable[[NotebookNode], object]


@dataclass
class Case:
    """A cell, a change to its record after the reference was made, and what the gate then says.

    Attributes:
        source: the code of the cell.
        change: what is changed.
        says: pattern of the failure; empty if the cell passes.
        tags, settings: metadata of the cell.
    """

    source: str
    change: Change = lambda cell: None
    says: str = ""
    tags: list[str] = field(default_factory=list)
    settings: dict = field(default_factory=dict)


def stored(old: str, new: str) -> Change:
    """Change the stored text."""

    def change(cell: NotebookNode) -> None:
        (output,) = cell.outputs
        assert old in output.text
        output.text = output.text.replace(old, new)

    return change


def code(old: str, new: str) -> Change:
    """Change the code, and not the record."""

    def change(cell: NotebookNode) -> None:
        assert old in cell.source
        cell.source = cell.source.replace(old, new)

    return change


def metadata(**values: object) -> Change:
    return lambda cell: cell.metadata.update(values)


def add_output(*arguments: object, **data: object) -> Change:
    return lambda cell: cell.outputs.append(v4.new_output(*arguments, **data))


def drop_outputs(cell: NotebookNode) -> None:
    cell.outputs = []


def never_executed(cell: NotebookNode) -> None:
    cell.execution_count = None


def executed_late(cell: NotebookNode) -> None:
    cell.execution_count += 20


def texts_together(cell: NotebookNode) -> None:
    """As a gate would store it that joins all text of a cell."""
    before, figure, after = cell.outputs
    before.text += after.text
    cell.outputs = [before, figure]


def without_alt(cell: NotebookNode) -> None:
    data = cell.outputs[0].data
    data["text/html"] = data["text/html"].replace('alt="a sine and a cosine"', 'alt="a sine"')


def without_picture(cell: NotebookNode) -> None:
    data = cell.outputs[0].data
    data["text/html"] = re.sub('src="[^"]*"', "", data["text/html"])


def garbage_figure(cell: NotebookNode) -> None:
    cell.outputs[0].data["image/png"] = base64.b64encode(b"not a picture").decode()


CASES = {
    # numbers and words
    "same": Case(NUMBERS),
    "number-within-one-unit": Case(NUMBERS, stored("0.12345", "0.12346")),
    "number-beyond-one-unit": Case(NUMBERS, stored("0.12345", "0.12347"), "0.12347 → 0.12345"),
    "one-digit": Case("print('lost 0.3 of it')", stored("0.3", "0.4"), "0.4 → 0.3"),
    "two-digits": Case("print('left 0.012')", stored("0.012", "0.013"), "0.013 → 0.012"),
    "interval-end": Case("print('+0.1 [-0.02, +0.22]')", stored("-0.02", "-0.03"), "-0.03 → -0.02"),
    "percentage-changed": Case(NUMBERS, stored("34.5", "34.7"), "34.7 → 34.5"),
    "noise-changed": Case(NUMBERS, stored("2.2e-16", "0.0")),
    "integer-off-by-one": Case(NUMBERS, stored("17", "18"), "18 → 17"),
    "word-changed": Case(NUMBERS, stored("value", "Value"), "the words differ"),
    "name-changed": Case(NUMBERS, stored("x2", "x3"), "the words differ"),
    "html-within-one-unit": Case(HTML, code("0.125", "0.126")),
    "html-changed": Case(HTML, code("0.125", "0.135"), "text/html: numbers differ.* 0.125 → 0.135"),
    "html-integer": Case(HTML, code("<td>1", "<td>2"), "text/html: numbers differ.* 1 → 2"),
    "latex-changed": Case(LATEX, code("0.125", "0.135"), "text/latex: numbers differ"),
    "markdown-changed": Case(MARKDOWN, code("1,234.5", "1,334.5"), "text/markdown: numbers differ"),
    "json-same": Case(JSON, code("0.25", "0.25 + 1e-14")),
    "json-changed": Case(JSON, code("0.25", "0.251"), "json: numbers differ.* 0.25 → 0.251"),
    # tolerances
    "tightened": Case(
        "print(1.0005)", stored("5", "6"), "1.0006 → 1.0005", settings={"rtol": 1e-6}
    ),
    "widened": Case("print(1.0005)", stored("1.0005", "1.005"), settings={"rtol": 1e-2, **REASON}),
    "widened-across-zero": Case(
        "print(0.005)", stored("0.005", "-0.004"), "atol 0.01: say why", settings={"atol": 0.01}
    ),
    "unknown-setting": Case(
        NUMBERS, says="unknown key in metadata.gate: 'tol'", settings={"tol": 1}
    ),
    "no-number": Case(NUMBERS, says="has to be a number >= 0, got '1'", settings={"rtol": "1"}),
    # executed or not
    "never-executed": Case(NUMBERS, never_executed, "the cell was never executed"),
    "executed-late": Case(NUMBERS, executed_late, "not run once from top to bottom"),
    "missing-output": Case(NUMBERS, drop_outputs, "unexpected output, stdout: 'value 0.12345"),
    "output-gone": Case(NUMBERS, code("print", "str"), "missing output, stdout"),
    "extra-output": Case(
        NUMBERS, add_output("display_data", {"text/plain": "more"}), "missing output, display_data"
    ),
    "stderr-stored": Case(
        NUMBERS, add_output("stream", name="stderr", text="beware"), "holds text on stderr"
    ),
    "stderr-new": Case(NUMBERS, code("print(", f"{COMPLAIN}; print("), "stderr: 'beware'"),
    # figures
    "figure-same": Case(PLOT),
    "figure-jitter": Case(PLOT, code("np.sin(x)", f"np.sin(x) + {PIXEL / 2}")),
    "curve-shifted": Case(PLOT, code("np.sin(x)", f"np.sin(x) + {3 * PIXEL}"), "figure differs by"),
    "curve-changed": Case(PLOT, code("np.sin(x)", "np.sin(1.02 * x)"), "figure differs by"),
    "colour-changed": Case(PLOT, code('"sine"', '"sine", color="C4"'), "figure differs by"),
    "legend-gone": Case(PLOT, code("ax.legend(", "dict("), "figure differs by"),
    "title-changed": Case(PLOT, code("two curves", "two curve5"), "figure differs by"),
    "figure-size": Case(PLOT, code("dpi=80", "dpi=84"), "figure's size differs"),
    "figure-garbage": Case(PLOT, garbage_figure, "picture cannot be read"),
    "figure-gone": Case(PLOT, code("plt.show()", "plt.close()"), "missing output.*Figure size"),
    "figure-widened": Case(
        PLOT,
        code("np.sin(x)", f"np.sin(x) + {3 * PIXEL}"),
        settings={"figure_tol": 250, **REASON},
    ),
    "text-around-a-figure": Case(AROUND),
    "text-after-a-figure-moved-before-it": Case(
        AROUND, texts_together, "unexpected output, stdout: .*after"
    ),
    "names-changed-places": Case(
        PLOT, code('ax.legend(loc="upper right")', SWAPPED), "figure differs by"
    ),
    "faint-line-moved": Case(FAINT, code("0.5,", "0.53,"), "figure differs by"),
    # what the course shows
    "shown": Case(SHOW),
    "shown-jitter": Case(SHOW, code("np.sin(x)", f"np.sin(x) + {PIXEL / 40}")),
    "shown-curve": Case(
        SHOW, code("np.sin(x)", f"np.sin(x) + {PIXEL}"), "figure 1: the figure dif"
    ),
    "shown-curve-by-a-hair": Case(
        SHOW, code("np.sin(x)", f"np.sin(x) + {PIXEL / 4}"), "text/plain: numbers differ"
    ),
    "shown-curve-between-the-points": Case(  # x of 1.3, where the text has no point
        SHOW,
        code("np.sin(x)", f"np.sin(x) + {3 * PIXEL} * (np.abs(x - 1.3) < 0.3)"),
        "figure 1: the figure dif",
    ),
    "shown-colours-changed-places": Case(
        SHOW,
        code('"sine", linewidth=1)', '"sine", linewidth=1, color="C1")'),
        "text/plain: the words differ",
    ),
    "shown-names-changed-places": Case(
        SHOW, code('ax.legend(loc="upper right")', SWAPPED), "text/plain: the words differ"
    ),
    "shown-alt-text": Case(SHOW, without_alt, "text/html: the words differ"),
    "shown-without-picture": Case(SHOW, without_picture, "figure: 0 pictures → 1"),
    "checks": Case(CHECKS),
    "checks-changed": Case(CHECKS, code("1.0,", "1.005,"), "text/plain: numbers differ"),
    "checks-fewer": Case(CHECKS, code('    claim("b", True)', ""), "text/plain: .*2 → 1|the words"),
    # errors
    "thread": Case(THREAD),
    "thread-fails": Case(THREAD, code("1 / 1", "1 / 0"), "in a thread: ZeroDivisionError"),
    "shell": Case("!true"),
    "shell-fails": Case("!true", code("true", "false"), "command 'false' failed with exit code 1"),
    "shell-kept": Case("lines = !echo 0.125\nlines", code("0.125", "0.126")),
    "shell-kept-fails": Case(
        "lines = !echo 3", code("echo 3", "echo 3; exit 2"), "3; exit 2' failed with exit code 2"
    ),
    "raises": Case(NUMBERS, code("print(", "1 / 0; print("), "ZeroDivisionError: division"),
    "raises-on-purpose": Case(RAISES, tags=["raises-exception"]),
    "raises-another": Case(
        RAISES, code("purpose", "porpoise"), "error: the words differ", tags=["raises-exception"]
    ),
    "raises-no-longer": Case(
        RAISES, code(RAISES, "3"), "raises no longer", tags=["raises-exception"]
    ),
    "error-stored": Case(
        RAISES, metadata(tags=[]), "stored output holds an error", tags=["raises-exception"]
    ),
    # exemptions
    "ignored": Case(
        NUMBERS, stored("0.12345", "0.9"), tags=["nbval-ignore-output"], settings=dict(REASON)
    ),
    "ignored-but-raises": Case(
        NUMBERS,
        code("print(", "1 / 0; print("),
        "ZeroDivisionError",
        tags=["nbval-ignore-output"],
        settings=dict(REASON),
    ),
    "skipped": Case("1 + 1", code("1 + 1", "1 / 0"), tags=["nbval-skip"], settings=dict(REASON)),
    "ignored-without-reason": Case(
        NUMBERS, metadata(tags=["nbval-ignore-output"]), "nbval-ignore-output: say why"
    ),
    "widened-without-reason": Case(NUMBERS, metadata(gate={"rtol": 0.1}), "rtol 0.1: say why"),
    "comment": Case("# NBVAL_IGNORE_OUTPUT\n3", says="belong in the tags"),
    "refused-tag": Case(NUMBERS, says="tag nbval-check-output: use", tags=["nbval-check-output"]),
    # as in Jupyter
    "interact": Case(INTERACT),
    "interact-fails": Case(INTERACT, code("x * 2", "x / 0"), "inside a widget: ZeroDivisionError"),
    "interact-failed-before": Case(
        INTERACT,
        code("print(x * 2)", "print(1 / x)\nshow.widget.children[0].value = 0" + GOOD_AGAIN),
        "inside a widget: ZeroDivisionError",
    ),
    "button": Case(BUTTON),
    "button-fails": Case(BUTTON, code("1 / 1", "1 / 0"), "though the cell went on: ZeroDivision"),
    "progress-bar": Case(BAR),
    "clear-output": Case(CLEAR),
    "display-updated-later": Case(UPDATE_1),
    "display-update": Case(UPDATE_2),
    "semicolon": Case("x = 3\nx;  # quiet"),
    "gpu": Case(GPU, tags=["gpu"]),
    "gpu-recorded-with-cuda": Case(GPU, stored("no CUDA", "a CUDA"), tags=["gpu"]),
    "gpu-but-none": Case(NUMBERS, stored("17", "18"), "does not say what it skips", tags=["gpu"]),
    "after-gpu": Case("print(on_gpu)"),
}


def notebook_of(*cells: NotebookNode) -> NotebookNode:
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return v4.new_notebook(cells=list(cells), metadata={"kernelspec": kernel})


@dataclass
class Outcome:
    """What pytest reported of one cell."""

    failure: str
    skipped: str


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("gate")


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> dict[str, Outcome]:
    """Make the reference, change it, run pytest on it; the outcome of each case."""
    cells = []
    for name, case in CASES.items():
        cell = v4.new_code_cell(case.source, id=name)
        cell.metadata.update({"tags": case.tags, "gate": case.settings})
        cells.append(cell)
    notebook = notebook_of(*cells)
    failures = asyncio.run(execute.execute_cells(notebook, folder, keep_going=True))
    assert not failures, failures
    for cell, case in zip(cells, CASES.values(), strict=True):
        case.change(cell)
    nbformat.write(notebook, folder / "cases.ipynb")
    cleared = notebook_of(v4.new_code_cell("print(1)"), v4.new_code_cell(" "))
    nbformat.write(cleared, folder / "cleared.ipynb")
    doubled = json.dumps(notebook_of(v4.new_code_cell("1", id="a"), v4.new_code_cell("2", id="b")))
    (folder / "doubled.ipynb").write_text(doubled.replace('"id": "b"', '"id": "a"'))
    (folder / "garbage.ipynb").write_text("{", encoding="utf-8")

    report = folder / "report.xml"
    command = [sys.executable, "-m", "pytest", "-p", "notebook_gate.plugin", "--nbval", "-q"]
    command += ["-p", "no:cacheprovider", "-p", "no:xdist", "--color=no", f"--rootdir={folder}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    found = subprocess.run(
        [*command, f"--junitxml={report}", str(folder)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert report.exists(), found.stdout + found.stderr
    collected = []
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        failure = "".join(c.text or "" for c in case if c.tag in ("failure", "error"))
        skipped = "".join(c.get("message", "") for c in case if c.tag == "skipped")
        collected.append(Outcome(failure, skipped))
    names = [*CASES, "cleared", "empty", "doubled", "doubled-1", "doubled-2", "garbage"]
    assert len(collected) == len(names), found.stdout
    return dict(zip(names, collected, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_case(outcomes, name):
    case, failure = CASES[name], outcomes[name].failure
    if case.says:
        assert failure, "the gate let it pass"
        assert re.search(case.says, failure, re.DOTALL), failure
        assert "Input:" in failure  # the cell is shown
    else:
        assert failure == ""


def test_cleared_notebook(outcomes):
    assert "the cell was never executed" in outcomes["cleared"].failure
    assert "the cell is empty" in outcomes["empty"].failure


def test_faults_of_a_file_fail_it_and_stop_no_other(outcomes):
    assert "2 cells have the id 'a'" in outcomes["doubled"].failure
    assert "the cell was never executed" in outcomes["doubled-2"].failure
    assert "the notebook cannot be read: JSONDecodeError" in outcomes["garbage"].failure


BROKEN = {
    "kernelspec": lambda n: n["metadata"].update(kernelspec=None),
    "'id' is a required": lambda n: n["cells"][0].pop("id"),
    "'source' is a required": lambda n: n["cells"][0].pop("source"),
    "cells/0/metadata/tags": lambda n: n["cells"][0]["metadata"].update(tags="gpu"),
    "TypeError": lambda n: n.update(cells=None),
    "is in julia": lambda n: n["metadata"]["kernelspec"].update(language="julia"),
}


@pytest.mark.parametrize("says", BROKEN)
def test_a_file_that_is_no_notebook_is_a_fault_and_not_an_error(says, tmp_path):
    """An error while pytest collects would keep all other notebooks from being looked at."""
    notebook = notebook_of(v4.new_code_cell("1"))
    path = tmp_path / "x.ipynb"
    path.write_text(json.dumps(notebook))
    assert file_faults(path) == []
    BROKEN[says](notebook)
    path.write_text(json.dumps(notebook))
    (fault,) = file_faults(path)
    assert fault.startswith(CANNOT) and says in fault


def test_skips_are_visible_and_no_more_than_expected(outcomes):
    skipped = {name: outcome.skipped for name, outcome in outcomes.items() if outcome.skipped}
    assert skipped == {
        "skipped": REASON["reason"],
        "gpu": "no CUDA device",
        "gpu-recorded-with-cuda": "no CUDA device",
    }


def test_both_figures_and_their_difference_are_kept(outcomes, folder):
    files = re.findall(r"\S+\.png", outcomes["curve-shifted"].failure)
    kinds = [Path(file).stem.split("-")[-1] for file in files]
    assert kinds == ["stored", "new", "difference"]
    for file in files:
        path = Path(file.rstrip(","))
        assert path.parent == folder / "build" / "figure_failures"
        assert Image.open(path).size == Image.open(files[0].rstrip(",")).size


# ---- the parts -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "new", "agree"),
    [
        ("0.123", "0.124", True),
        ("0.123", "0.125", False),
        ("0.5", "0.5001", True),  # %g drops zeros: one unit of the longer number
        ("0.5", "0.5999", False),
        ("0.30000000000000004", "0.3", True),
        ("3", "2.999", True),  # %.4g
        ("3", "4", False),
        ("3.", "4.", False),  # the end of a sentence, or NumPy's way to show whole floats
        ("1e-05", "2e-05", False),
        ("1.55e-05", "1.56e-05", True),
        ("1.55e-05", "1.57e-05", False),
        ("1.5e-05", "1.6e-05", False),
        ("0.3", "0.4", False),  # one unit, but more than 1 % of the number
        ("0.99", "1.00", True),
        ("0.001", "-0.001", False),
        ("1.1e-16", "-4.4e-16", True),
        ("-0.000", "0.000", True),
        ("−0.5", "-0.5", True),
        ("1,234.5", "1,234.6", True),
        ("1,234", "1,235", False),
        ("nan", "nan", True),
        ("nan", "0.1", False),
        ("inf", "-inf", False),
    ],
)
def test_numbers_agree(stored, new, agree):
    assert numbers_agree(stored, new) is agree
    assert numbers_agree(new, stored) is agree


def test_tolerance_of_a_cell():
    assert numbers_agree("100.0", "100.9", rtol=1e-2)
    assert not numbers_agree("100.0", "101.1", rtol=1e-2)
    assert not numbers_agree("0.123", "0.124", rtol=1e-6)
    assert numbers_agree("0.0", "0.01", atol=0.02)
    assert not numbers_agree("2.2e-16", "4.4e-16", rtol=0.0)
    assert not numbers_agree("100", "101", rtol=0.5), "integers are exact whatever the tolerance"


@pytest.mark.parametrize(
    ("stored", "new", "differ"),
    [
        ("x2", "x3", "words"),
        ("1.2.3", "1.2.4", "words"),
        ("3rd", "4th", "words"),
        ("12px", "13px", "words"),
        ("loss_0.5", "loss_0.6", "words"),
        ("a b", "a  b", "blanks"),
        ("a 1\nb", "a 1 b", "words"),
        ("task 1.", "task 2.", "numbers"),
        ("3-5", "3-6", "numbers"),
        ("1.52x faster", "1.55x faster", "numbers"),
        ("(0.10,0.20)", "(0.10,0.22)", "numbers"),
        ("nan", "0.5", "numbers"),
        ("a   9.99 b", "a  10.00 b", None),
        ("[ 0.00 1.]", "[-0.00 1.]", None),
        ("loss\n 1.00", " loss\n-0.99", "numbers"),
    ],
)
def test_text(stored, new, differ):
    difference = text_difference(stored, new)
    assert (difference or "None").startswith(f"{differ}" if differ in (None, "numbers") else "the ")
    assert differ is None or differ in difference


def test_json_values():
    assert data_difference({"a": [1, 0.5, None, True]}, {"a": [1, 0.5 + 1e-15, None, True]}) is None
    for other in ({"a": [2]}, {"b": [1]}, {"a": [1, 2]}, {"a": [True]}, {"a": [None]}, {"a": 1}):
        assert data_difference({"a": [1]}, other) is not None


def test_order_of_outputs():
    outputs = [
        v4.new_output("stream", name="stdout", text="a"),
        v4.new_output("display_data", {"text/plain": "b"}),
    ]
    assert outputs_difference(outputs, outputs, {}) is None
    assert "another order" in outputs_difference(outputs, outputs[::-1], {})


def test_pieces_of_a_stream_are_one():
    def stream(*texts):
        return [v4.new_output("stream", name="stdout", text=text) for text in texts]

    assert outputs_difference(stream("ab\n", "c"), stream("a", "b\nc"), {}) is None
    assert execute.merged_streams(stream("1 of 2\r2 of 2\n", "end"))[0].text == "2 of 2\nend"


def test_gpu_cells_are_compared_where_they_can_be():
    def faults(recorded, new, without_cuda):
        stored = v4.new_code_cell("x", outputs=[v4.new_output("stream", text=recorded)])
        stored.metadata.tags = ["gpu"]
        config = SimpleNamespace(rootpath=Path("."))
        item = SimpleNamespace(cell=stored, cell_num=1, options={"check": True})
        item.config, item.path = config, Path("x")
        executed = v4.new_code_cell("x", outputs=[v4.new_output("stream", text=new)])
        return NotebookCell.output_faults(item, executed, without_cuda)

    skipped = f"{execute.SKIPPED_WITHOUT_CUDA}, many seeds"
    assert faults("✓ 1.00", "✓ 1.00", without_cuda=False) == []
    assert faults("✓ 1.00", "✓ 2.00", without_cuda=False) != []
    assert faults("✓ 1.00", skipped, without_cuda=True) == []
    assert faults(skipped, "✓ 1.00", without_cuda=False) == []
    assert faults(skipped, skipped, without_cuda=True) == []
    assert faults("✓ 1.00", "✓ 1.00", without_cuda=True) != [], "this is no GPU cell"
    assert faults(skipped, f"{skipped} more", without_cuda=True) != []


def png(size=(100, 50), line=None, colour=(0, 114, 178)) -> str:
    """A white picture with a horizontal line, two pixels thick."""
    pixels = np.full((size[1], size[0], 3), 255, dtype=np.uint8)
    if line is not None:
        pixels[line : line + 2, 10:90] = colour
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return base64.b64encode(buffer.getvalue()).decode()


def test_figures():
    assert figure_difference(png(line=20), png(line=20)) is None
    assert figure_difference(png(line=20), png(line=21)) is None
    assert figure_difference(png(line=20), png(line=22)) is not None
    assert figure_difference(png(line=20), png(line=23)) is not None
    assert figure_difference(png(line=20), png()) is not None
    assert figure_difference(png(), png(line=20)) is not None
    assert figure_difference(png(line=20), png(line=20, colour=(86, 180, 233))) is not None
    pale = (190, 190, 190)
    assert figure_difference(png(line=20, colour=pale), png(line=23, colour=pale)) is not None
    assert figure_difference(png(line=20), png((101, 50), line=20)) is None
    assert figure_difference(png(line=20), png((100, 52), line=22)) is None
    assert "size differs: 100x50 → 103x50" in figure_difference(png(), png((103, 50)))


@pytest.mark.parametrize(
    "text",
    [
        "<Line2D at 0x7f3a2c1b5d90>",
        "saved to /home/me/figure.png",
        "File ~/python/lib/json/decoder.py:337",
        "File /usr/lib/python3.11/json/decoder.py:337",
        r"C:\Users\me\x.txt",
        "100%|███| 20/20 [00:01<00:00, 15.2it/s]",
        "2026-01-31 12:30",
    ],
)
def test_unstable_outputs(text):
    cell = v4.new_code_cell("x", outputs=[v4.new_output("stream", text=text)])
    assert output_faults(cell) != []


def test_stable_outputs():
    text = "a/b/c <td>/</td> https://arxiv.org/abs/1705.07115 1/2 0x2 km/h ../docs/x.png 10:1"
    image = '<img src="data:image/png;base64,iVBO/ab/cd+/ef/gh==">'
    data = {"text/plain": text, "text/html": image, "image/png": "/ab/cd/ef"}
    cell = v4.new_code_cell("x", outputs=[v4.new_output("display_data", data)])
    assert output_faults(cell) == []
    view = v4.new_output("display_data", {"text/plain": "1it/s", execute.WIDGET_VIEW: {}})
    assert output_faults(v4.new_code_cell("x", outputs=[view])) == []


@pytest.mark.parametrize("source", ["x;", "x; # why", "f(';');\n# end\n"])
def test_semicolons(source):
    assert ends_in_semicolon(source) and not ends_in_semicolon("f(';')")


def test_exemptions_are_found(tmp_path):
    def cell(name, tags=(), **gate):
        made = v4.new_code_cell("x", id=name)
        made.metadata.update(tags=list(tags), gate=gate)
        return made

    cells = [
        cell("strict", rtol=1e-6, figure_tol=25),
        cell("loose", rtol=0.02, atol=0.5, figure_tol=90, reason="float32"),
        cell("off", ["nbval-ignore-output"], reason="times"),
        cell("silent", ["nbval-skip"]),
    ]
    (tmp_path / "research").mkdir()
    for name in ("04_x", "research/04_x"):
        nbformat.write(notebook_of(*cells), tmp_path / f"{name}.ipynb")
    assert exemptions(tmp_path / "research/04_x.ipynb", tmp_path)[0].startswith(
        "research/04_x | loose | "
    )
    assert exemptions(tmp_path / "04_x.ipynb", tmp_path) == [
        "04_x | loose | rtol 0.02 | float32",
        "04_x | loose | atol 0.5 | float32",
        "04_x | loose | figure_tol 90 | float32",
        "04_x | off | nbval-ignore-output | times",
        "04_x | silent | nbval-skip | NO REASON",
    ]


@pytest.mark.parametrize(
    ("source", "error"),
    [("while True: pass", "ran for more than 1 s"), ("import os; os._exit(3)", "the kernel died")],
)
def test_nothing_runs_after_the_kernel_stopped(source, error, tmp_path):
    notebook = notebook_of(v4.new_code_cell(source), v4.new_code_cell("2"))
    run = execute.execute_cells(notebook, tmp_path, keep_going=True, timeout=1)
    failures = asyncio.run(run)
    assert [(number, failure.error) for number, failure in failures.items()] == [(1, error)]
    assert notebook.cells[1].execution_count is None


@pytest.mark.parametrize("taken", [1, execute.STARTS])
def test_a_kernel_whose_port_was_taken_is_started_again(taken, tmp_path, monkeypatch):
    """Ports are chosen before the kernel listens on them: kernels that start at once may clash."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        made = []

        def manager(client):
            made.append(create(client))
            if len(made) <= taken:
                made[-1].cache_ports = False  # or it chooses another
                made[-1].shell_port = other.getsockname()[1]
            return made[-1]

        create = execute.Client.create_kernel_manager
        monkeypatch.setattr(execute.Client, "create_kernel_manager", manager)
        notebook = notebook_of(v4.new_code_cell("1 + 1"))
        run = execute.execute_cells(notebook, tmp_path)
        if taken < execute.STARTS:
            assert asyncio.run(run) == {}
            assert notebook.cells[0].outputs[0].data["text/plain"] == "2"
        else:
            with pytest.raises(RuntimeError, match="died before replying"):
                asyncio.run(run)
        assert len(made) == min(taken + 1, execute.STARTS)


@pytest.mark.parametrize("spoiled", ["nothing", "", ".config", ".cache", ".ipython"])
def test_folders_of_their_own_where_the_home_takes_no_files(spoiled, tmp_path, monkeypatch):
    """A file is no folder, not even for root; "" spoils the home itself."""
    names = ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "MPLCONFIGDIR")
    for name in names:
        monkeypatch.setenv(name, "before")  # so that it is put back afterwards
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    if spoiled:
        home.mkdir()
    if spoiled != "nothing":
        (home / spoiled).write_text("")
    monkeypatch.setenv("HOME", str(home))
    execute.ensure_folders.__wrapped__()
    found = {os.environ.get(name) for name in names}
    assert len(found) == 1
    (folder,) = found
    assert (folder is None) == (spoiled == "nothing")
    assert folder is None or (os.access(folder, os.W_OK) and not folder.startswith(str(home)))


LATE = {
    "thread": "import threading, time\ndef f():\n    time.sleep(0.3)\n    1 / 0\n"
    "threading.Thread(target=f).start()",
    "daemon": "import threading, time\ndef f():\n    time.sleep(0.3)\n    1 / 0\n"
    "threading.Thread(target=f, daemon=True).start()",
    "timer thread": "import threading\nthreading.Timer(0.3, lambda: 1 / 0).start()",
    "partial thread": "import threading, time, functools\ndef f(t):\n    time.sleep(t)\n"
    "    1 / 0\nthreading.Thread(target=functools.partial(f, 0.3)).start()",
    "later in a task": "import asyncio\n"
    "_ = asyncio.get_running_loop().call_later(0.3, lambda: 1 / 0)",
    "task": "import asyncio\nasync def f():\n    await asyncio.sleep(0.3)\n    1 / 0\n"
    "task = asyncio.create_task(f())",
    "lost task": "import asyncio\nasync def f():\n    1 / 0\n_ = asyncio.create_task(f()) and None",
    "seen task": "import asyncio\nasync def f():\n    1 / 0\ntask = asyncio.create_task(f())\n"
    "try:\n    await task\nexcept ZeroDivisionError:\n    print('seen')",
    "cancelled task": "import asyncio\ntask = asyncio.create_task(asyncio.sleep(60))\n"
    "_ = task.cancel()",
}


@pytest.mark.parametrize("name", LATE)
def test_errors_that_come_after_the_last_cell(name, tmp_path):
    notebook = notebook_of(v4.new_code_cell("1"), v4.new_code_cell(LATE[name]))
    failures = asyncio.run(execute.execute_cells(notebook, tmp_path))
    if name in ("seen task", "cancelled task"):
        assert failures == {}
    else:
        kind = "thread" if "thread" in name or name == "daemon" else "task"
        assert failures[2].error == f"in a {kind}: ZeroDivisionError: division by zero"


@pytest.mark.parametrize(
    ("text", "code", "short"),
    [
        ("loss 0.012, 0.0123, 1.5, 12.3, 1.5e-05, 7", "", ["0.012", "1.5", "1.5e-05"]),
        ("+0.012 [-0.003, +0.027] and -0.5", "", ["-0.5"]),
        ("0.00 0.5 −0.25", "lr = 0.5", ["−0.25"]),
        ("rate 0.30", "lr=0.3", []),
    ],
)
def test_short_decimals(text, code, short):
    assert short_decimals(text, code) == short


@pytest.mark.parametrize(
    ("source", "idle"),
    [
        ('claim("x", True)', True),
        ('claim("x", 1 + 1 == 2)', True),
        ('claim("x", len([1]), 1)', True),
        ('claim("x", got=3, want=3)', True),
        ('claim("x", loss, loss)', True),
        ('for k in range(3):\n    claim(f"x {k}", True)', True),
        ('claim("x", (lambda v: v)(3), 3)', True),
        ('claim("x", n > 50)', True),  # n = 100 elsewhere
        ('claims.claim("x", True)', True),
        ("from mtl_utils.claims import claim as check", True),
        ('claim("x", loss == loss)', True),
        ('claim("x", (loss <= loss).all())', True),
        ('claim("x", loss < 0.5 or True)', True),
        ('claim("x", loss, 0.5, rtol=1)', True),
        ('claim("x", loss, 0.5, 0, float("inf"))', True),
        ('try:\n    claim("x", loss < 0.5)\nexcept AssertionError:\n    pass', True),
        ('try:\n    claim("x", loss < 0.5)\nexcept:\n    pass', True),
        ('with suppress(Exception):\n    claim("x", loss < 0.5)', True),
        ('claim("x", loss < 0.5)', False),
        ('try:\n    claim("x", loss < 0.5)\nexcept ValueError:\n    pass', False),
        ('with checks("a"):\n    claim("x", loss != other or loss > 1)', False),
        ("from mtl_utils.claims import claim", False),
        ('claim("x", loss, 0.5, rtol=0.1)', False),
        ('claim("x", f(3), 3)', False),
        ('claim("x", table["loss"].min() > 0)', False),
        ('claim("x", len(rows), 3)', False),
        ('!echo "claim"\n%matplotlib inline', False),
    ],
)
def test_claims_that_cannot_fail(source, idle):
    fixed = fixed_names(["n = 100\nrows = []", "loss = 1.0\nloss = step(loss)", "k = n + 1"])
    assert fixed == {"n", "k"}
    assert bool(idle_claims(source, fixed)) is idle


@pytest.mark.parametrize(
    ("source", "is_one"),
    [
        ('if needs_cuda("x"):\n    run()', True),
        ('if needs_cuda("x"):\n    run()\nelse:\n    other()', False),
        ('run()\nif needs_cuda("x"):\n    run()', False),
        ("print(1)", False),
        ("if True:\n    run()", False),
        ('if needs_cuda("x") or True:\n    run()', False),
        ('if not needs_cuda("x"):\n    run()', False),
    ],
)
def test_gpu_cells(source, is_one):
    assert is_gpu_cell(source) is is_one
