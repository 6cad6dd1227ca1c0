"""The gate at work: throw-away notebooks, each changed in one way, and what it says of them.

All of them run in one pytest of their own, in a folder of their own, as a user would run it.
"""

import base64
import copy
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

from tests.gate.figures import figure_difference
from tests.gate.numbers import numbers_agree, text_difference
from tools import execute
from tools.notebooks import normalised

ROOT = Path(__file__).resolve().parents[1]

PLOT = """\
import matplotlib.pyplot as plt
import numpy as np
x = np.linspace(0, 10, 200)
fig, ax = plt.subplots(dpi=80)
ax.plot(x, np.sin(x), label="sine")
ax.plot(x, np.cos(x), label="cosine")
ax.set(ylim=(-1.5, 1.5), title="two curves")
ax.legend()
plt.show()"""
NUMBERS = "print('value 0.12345, count 17, name x2, share 34.5 %')"
TABLE = "import pandas as pd\npd.DataFrame({'a': [1, 2], 'b': [0.125, 3.5]})"
INTERACT = """\
from ipywidgets import interact
@interact(x=(0, 10))
def show(x=5):
    print(x * 2)"""
BAR = "from tqdm.auto import tqdm\nfor _ in tqdm(range(3), leave=False): pass\nprint('done')"
CLEAR = "from IPython.display import clear_output\nprint('old')\nclear_output()\nprint('new')"
GPU = "print('no CUDA device: skipped here, a test')"
RAISES = "raise ValueError('on purpose 3')"
SEMICOLON = "x = 3\nx;"


def build(*sources, **metadata):
    """A notebook with one cell a source; metadata goes to the first."""
    cells = [v4.new_code_cell(source) for source in sources]
    cells[0].metadata.update(metadata)
    return v4.new_notebook(cells=cells)


def edit(old, new):
    """Change the stored output, as if the code had given `old` where it gives `new` now."""

    def change(notebook):
        for output in notebook.cells[0].outputs:
            if "text" in output:
                assert new in output.text
                output.text = output.text.replace(new, old)

    return change


def code(old, new):
    """Change the code, not the stored output."""

    def change(notebook):
        assert old in notebook.cells[0].source
        notebook.cells[0].source = notebook.cells[0].source.replace(old, new)

    return change


def set_metadata(**metadata):
    return lambda notebook: notebook.cells[0].metadata.update(metadata)


def clear(notebook):
    for cell in notebook.cells:
        cell.outputs, cell.execution_count = [], None


def never_executed(notebook):
    notebook.cells[0].execution_count = None


def drop_output(notebook):
    notebook.cells[0].outputs = []


def add_output(notebook):
    notebook.cells[0].outputs.append(v4.new_output("display_data", {"text/plain": "more"}))


def add_stderr(notebook):
    notebook.cells[0].outputs.append(v4.new_output("stream", name="stderr", text="warning"))


def garbage_figure(notebook):
    data = next(o.data for o in notebook.cells[0].outputs if "image/png" in o.get("data", {}))
    data["image/png"] = base64.b64encode(b"not a picture").decode()


# name: (notebook, change after the reference was made, text of the failure; None if it passes)
CASES = {
    "same": (build(NUMBERS, TABLE, PLOT), None, None),
    "number_within_one_unit": (build(NUMBERS), edit("0.12346", "0.12345"), None),
    "number_changed": (build(NUMBERS), edit("0.12347", "0.12345"), r"0\.12347 → 0\.12345"),
    "integer_off_by_one": (build(NUMBERS), edit("count 18", "count 17"), "18 → 17"),
    "word_changed": (build(NUMBERS), edit("Value", "value"), "the words differ"),
    "name_changed": (build(NUMBERS), edit("x3", "x2"), "the words differ"),
    "table_changed": (build(TABLE), code("3.5", "3.8"), r"text/(html|plain): numbers differ"),
    "tightened": (
        build("print(1.0005)", mtl={"rtol": 1e-6}),
        edit("1.0006", "1.0005"),
        r"1\.0006 → 1\.0005",
    ),
    "widened": (build("print(1.0005)", mtl={"rtol": 1e-2}), edit("1.005", "1.0005"), None),
    "unknown_setting": (build(NUMBERS, mtl={"tolerance": 1}), None, "unknown key in metadata.mtl"),
    "cleared": (build(NUMBERS), clear, "not one run from top to bottom"),
    "never_executed": (build(NUMBERS), never_executed, "not one run from top to bottom"),
    "empty_cell": (build(NUMBERS, " "), None, "the cell is empty"),
    "missing_output": (build(NUMBERS), drop_output, "unexpected output stdout"),
    "output_gone": (build(NUMBERS), code("print", "str"), "missing output stdout"),
    "extra_output": (build(NUMBERS), add_output, "missing output display_data"),
    "curve_shifted": (build(PLOT), code("np.sin(x)", "np.sin(x) + 0.04"), "the figure differs"),
    "colour_changed": (build(PLOT), code('"sine"', '"sine", color="C4"'), "the figure differs"),
    "legend_gone": (build(PLOT), code("ax.legend()", "ax"), "the figure differs"),
    "title_changed": (build(PLOT), code("two curves", "two curve5"), "the figure differs"),
    "figure_size": (build(PLOT), code("dpi=80", "dpi=90"), "the figure's size differs"),
    "figure_garbage": (build(PLOT), garbage_figure, "the picture cannot be read"),
    "anti_aliasing": (build(PLOT), code("np.sin(x)", "np.sin(x) + 0.002"), None),
    "figure_widened": (
        build(PLOT, mtl={"figure_tol": 250}),
        code("np.sin(x)", "np.sin(x) + 0.04"),
        None,
    ),
    "stderr_stored": (build(NUMBERS), add_stderr, "the stored output holds text on stderr"),
    "stderr_new": (
        build(NUMBERS),
        code("print(", "import sys; print('x', file=sys.stderr); print("),
        "unexpected output stderr|writes on stderr",
    ),
    "raises": (build(NUMBERS), code("print(", "1 / 0; print("), "ZeroDivisionError"),
    "raises_on_purpose": (build(RAISES, tags=["raises-exception"]), None, None),
    "raises_another": (
        build(RAISES, tags=["raises-exception"]),
        code("purpose", "porpoise"),
        "the words differ",
    ),
    "raises_no_longer": (
        build(RAISES, tags=["raises-exception"]),
        code(RAISES, "3"),
        "missing output error",
    ),
    "error_stored": (
        build(RAISES, tags=["raises-exception"]),
        set_metadata(tags=[]),
        "the stored output holds an error",
    ),
    "exempt_without_reason": (
        build(NUMBERS),
        set_metadata(tags=["nbval-ignore-output"]),
        "needs a reason",
    ),
    "exempt_with_reason": (
        build(NUMBERS, tags=["nbval-ignore-output"], mtl={"reason": "a test of the gate"}),
        edit("0.9", "0.12345"),
        None,
    ),
    "exempt_by_comment": (build("# NBVAL_IGNORE_OUTPUT\n3"), None, "belong in the tags"),
    "exempt_but_raises": (
        build(NUMBERS, tags=["nbval-ignore-output"], mtl={"reason": "a test of the gate"}),
        code("print(", "1 / 0; print("),
        "ZeroDivisionError",
    ),
    "interact": (build(INTERACT), None, None),
    "interact_fails": (build(INTERACT), code("x * 2", "x / 0"), "an error inside a widget"),
    "progress_bar": (build(BAR), None, None),
    "clear_output": (build(CLEAR), None, None),
    "semicolon": (build(SEMICOLON), None, None),
    "gpu_without_cuda": (build(GPU, tags=["gpu"]), None, None),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Run all cases in one pytest; for each notebook its outcome and what was said."""
    folder = tmp_path_factory.mktemp("gate")
    executed = {}
    for name, (notebook, change, _) in CASES.items():
        key = nbformat.writes(notebook).replace(" ", "")
        key = re.sub(r'"id":"[^"]*"', "", key)
        path = folder / f"{name}.ipynb"
        nbformat.write(notebook, path)
        if key not in executed:
            executed[key] = normalised(execute.execute(path), notebook)
        stored = copy.deepcopy(executed[key])
        if change is not None:
            change(stored)
        nbformat.write(stored, path)
    report = folder / "report.xml"
    command = [sys.executable, "-m", "pytest", "-p", "tests.gate.plugin", "--nbval"]
    command += ["-p", "no:cacheprovider", "-n", "2", "--dist", "loadfile", "-q", "--color=no"]
    command += ["--rootdir", str(folder), f"--junitxml={report}", str(folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    found = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert report.exists(), found.stdout + found.stderr
    collected = {name: [] for name in CASES}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        name = case.get("classname").split(".")[0]
        failures = [child.text or "" for child in case if child.tag in ("failure", "error")]
        skipped = [child.get("message") for child in case if child.tag == "skipped"]
        collected[name].append((failures, skipped))
    return collected


@pytest.mark.parametrize("name", CASES)
def test_case(outcomes, name):
    expected = CASES[name][2]
    cells = outcomes[name]
    assert len(cells) == len(CASES[name][0].cells)
    failures = [text for failures, _ in cells for text in failures]
    if expected is None:
        assert failures == []
    else:
        assert failures, "the gate let it pass"
        assert re.search(expected, failures[0]), failures[0]


def test_gpu_cells_are_skipped_visibly(outcomes):
    torch = pytest.importorskip("torch")
    ((_, skipped),) = outcomes["gpu_without_cuda"]
    assert skipped == ([] if torch.cuda.is_available() else ["no CUDA device"])


@pytest.mark.parametrize(
    ("stored", "new", "agree"),
    [
        ("0.123", "0.124", True),
        ("0.123", "0.125", False),
        ("1e-05", "1.1e-05", True),
        ("3", "4", False),
        ("3", "3.0", True),
        ("-0.000", "0.000", True),
        ("1,234.5", "1,234.6", True),
        ("1,234", "1,235", False),
        ("nan", "nan", True),
        ("nan", "0.1", False),
        ("inf", "-inf", False),
    ],
)
def test_numbers_agree(stored, new, agree):
    assert numbers_agree(stored, new) is agree


def test_text_keeps_numbers_inside_names():
    assert text_difference("x2 and 1.2.3", "x3 and 1.2.3") is not None
    assert text_difference("x2 and 1.2.3", "x2 and 1.2.4") is not None
    assert text_difference("12px", "13px") is not None
    assert text_difference("a  1.00", "a 1.01") is None


def test_figures_of_another_size_differ():
    import io

    from PIL import Image

    def picture(size):
        buffer = io.BytesIO()
        Image.new("RGB", size, "white").save(buffer, "png")
        return base64.b64encode(buffer.getvalue()).decode()

    assert figure_difference(picture((100, 50)), picture((101, 50))) is None
    assert "size differs" in figure_difference(picture((100, 50)), picture((110, 50)))
