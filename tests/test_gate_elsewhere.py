"""The gate in another repository, as docs/testing-notebooks.md says, beside plain nbval.

The repository is made here, without the course and without the packages that the course needs: an
import of one of them fails, in pytest and in the kernels. Its notebooks were recorded by nbconvert.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode, v4

from tests.test_gate import png

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "testing-notebooks.md").read_text(encoding="utf-8")
GATE = sorted(ROOT.glob("notebook_gate/*.py"))

BLOCKED = "mtl_utils experiments tools torch pandas matplotlib seaborn sklearn sympy"
SITECUSTOMIZE = f"""\
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name in {BLOCKED.split()!r}:
            raise ImportError(f"{{name}} is not installed in this repository")
sys.meta_path.insert(0, Blocked())
"""
FIGURE = """\
from IPython.display import Image
import base64
Image(data=base64.b64decode("{}"))"""
OUTPUTS_IN_PLACE = (
    "from IPython.display import clear_output\nprint('old')\nclear_output()\nprint(2)"
)
UPDATE = "handle = display('before', display_id=True)\nhandle.update('after')"
LATE = """\
import threading, time
def work():
    time.sleep(0.5)
    {}
threading.Thread(target=work).start()"""

Change = Callable[[NotebookNode], object]


def source(old: str, new: str) -> Change:
    """A change of the code after it was recorded."""

    def change(cell: NotebookNode) -> None:
        assert old in cell.source
        cell.source = cell.source.replace(old, new)

    return change


def stripped(cell: NotebookNode) -> None:
    cell.outputs, cell.execution_count = [], None
    cell.source += "\n'another result'"


def out_of_order(cell: NotebookNode) -> None:
    cell.execution_count = 77


def raises_no_longer(cell: NotebookNode) -> None:
    """The record was made when it did not raise, and the tag promises that it does."""
    cell.source, cell.metadata.tags, cell.outputs = "3", ["raises-exception"], []
    cell.outputs = [v4.new_output("execute_result", {"text/plain": "3"}, execution_count=1)]


# What nbval lets pass and the gate does not: code, what is changed, what the gate says.
MISSED: dict[str, tuple[str, Change, str]] = {
    "figure": (
        FIGURE.format(png(line=20)),
        source(png(line=20), png(line=25)),
        "figure 1: the figure differs",
    ),
    "stripped": ("print('one')", stripped, "the cell was never executed"),
    "order": ("print('two')", out_of_order, "not run once from top to bottom"),
    "command": ("!true", source("true", "false"), "command 'false' failed with exit code 1"),
    "raises": ("3", raises_no_longer, "raises no longer"),
    "exempt": ("# NBVAL_IGNORE_OUTPUT\n'old'", source("'old'", "'new'"), "belong in the tags"),
    "thread": (
        LATE.format("1 / 1"),
        source("1 / 1", "1 / 0"),
        "in a thread: ZeroDivisionError",
    ),  # the last one
}
# What nbval fails though nothing is wrong: code, what is changed.
ALARMS: dict[str, tuple[str, Change]] = {
    "last digit": ("x = 0.12344\nprint(x)", source("0.12344", "0.12345")),
    "tolerance": ("y = 1.0005\nprint(y)", source("1.0005", "1.005")),
    "semicolon": ("7;", lambda cell: None),
    "clear_output": (OUTPUTS_IN_PLACE, lambda cell: None),
    "update": (UPDATE, lambda cell: None),
}
CLEAN = ["import helpers\nprint(helpers.half(3.0))", "print('a word, 17 and 0.125')", "1 / 3"]
WRONG = "print('a sum of 0.250')"


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """Variables of a process without the packages of the course."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
    return {**os.environ, "PYTHONPATH": str(folder)}


@pytest.fixture(scope="module")
def repository(tmp_path_factory, environment) -> Path:
    """Another repository: the gate's folder, the lines of the page, a module, notebooks."""
    folder = tmp_path_factory.mktemp("their own") / "with spaces"
    (folder / "analysis").mkdir(parents=True)
    (folder / "notebook_gate").mkdir()
    for path in GATE:
        shutil.copy(path, folder / "notebook_gate")
    (folder / "conftest.py").write_text('pytest_plugins = ["notebook_gate.plugin"]\n')
    (ini,) = re.findall(r"```ini\n(.*?)```", PAGE, re.DOTALL)
    (folder / "pytest.ini").write_text(ini)
    (folder / "helpers.py").write_text("def half(x):\n    return x / 2\n")

    missed = {name: case[0] for name, case in MISSED.items()}
    alarms = {name: case[0] for name, case in ALARMS.items()}
    for name, sources in {
        "clean": CLEAN,
        "wrong": [*CLEAN, WRONG],
        "missed": list(missed.values()),
        "alarms": list(alarms.values()),
    }.items():
        cells = [v4.new_code_cell(text) for text in sources]
        nbformat.write(v4.new_notebook(cells=cells), folder / "analysis" / f"{name}.ipynb")
    command = [sys.executable, "-m", "jupyter", "nbconvert", "--execute", "--inplace"]
    command += ["--to", "notebook", *map(str, sorted(folder.glob("analysis/*.ipynb")))]
    paths = os.pathsep.join([str(folder), environment["PYTHONPATH"]])
    subprocess.run(command, env={**environment, "PYTHONPATH": paths}, check=True)

    change(folder / "analysis/missed.ipynb", [case[1] for case in MISSED.values()])
    change(folder / "analysis/alarms.ipynb", [case[1] for case in ALARMS.values()])
    change(folder / "analysis/wrong.ipynb", [lambda c: None] * 3 + [source("0.250", "0.260")])
    return folder


def change(path: Path, changes: list[Change]) -> None:
    notebook = nbformat.read(path, as_version=4)
    for cell, of_cell in zip(notebook.cells, changes, strict=True):
        of_cell(cell)
        if "1.005\n" in cell.source:
            cell.metadata.gate = {"rtol": 0.01, "reason": "three digits are enough"}
    nbformat.write(notebook, path)


def run(repository: Path, environment: dict[str, str], *arguments: str) -> dict[str, str]:
    """What pytest says of each cell, its name without the folder: PASSED, or FAILED and why."""
    command = [sys.executable, "-m", "pytest", "-rA", "-q", "--color=no", "-p", "no:cacheprovider"]
    found = subprocess.run(
        [*command, *arguments],
        cwd=repository,
        env={**environment, "COLUMNS": "400"},  # a line of the report is cut there
        capture_output=True,
        text=True,
    )
    lines = re.findall(r"^(PASSED|FAILED) \S*/(\w+)\.ipynb::(\S+ \d+)(.*)$", found.stdout, re.M)
    assert lines, found.stdout + found.stderr
    first = {"Cell 0": 1}.get(min(line[2] for line in lines), 0)  # nbval counts from 0
    return {
        f"{notebook} {int(cell.split()[1]) + first}": outcome + rest
        for outcome, notebook, cell, rest in lines
    }


@pytest.fixture(scope="module")
def of_the_gate(repository, environment) -> dict[str, str]:
    return run(repository, environment)


@pytest.fixture(scope="module")
def of_nbval(repository, environment, tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("plain") / "analysis"
    shutil.copytree(repository / "analysis", folder)
    return run(folder.parent, environment, "--nbval", "--nbval-current-env")


def test_the_right_notebook_passes_and_the_wrong_number_is_caught(of_the_gate):
    assert [of_the_gate[f"clean {n}"] for n in (1, 2, 3)] == ["PASSED"] * 3
    assert [of_the_gate[f"wrong {n}"] for n in (1, 2, 3)] == ["PASSED"] * 3
    assert of_the_gate["wrong 4"].startswith("FAILED")


def test_installed_and_called_from_elsewhere_without_a_home(repository, environment, tmp_path):
    folder, site = tmp_path / "theirs", tmp_path / "site"
    shutil.copytree(repository / "analysis", folder / "analysis")
    shutil.copytree(repository / "notebook_gate", site / "notebook_gate")
    for name in ("helpers.py", "pytest.ini"):
        shutil.copy(repository / name, folder)
    paths = os.pathsep.join([str(site), environment["PYTHONPATH"]])
    clean = str(folder / "analysis" / "clean.ipynb")
    outcomes = run(
        tmp_path,
        {**environment, "PYTHONPATH": paths, "HOME": os.devnull},
        *("-p", "notebook_gate.plugin", f"--rootdir={folder}", clean),
    )
    assert outcomes == {f"clean {n}": "PASSED" for n in (1, 2, 3)}


@pytest.mark.parametrize("name", MISSED)
def test_what_nbval_misses_the_gate_catches(name, of_the_gate, of_nbval):
    number = list(MISSED).index(name) + 1
    assert of_nbval[f"missed {number}"] == "PASSED"
    assert re.match(f"FAILED.*{MISSED[name][2]}", of_the_gate[f"missed {number}"])


@pytest.mark.parametrize("name", ALARMS)
def test_what_nbval_fails_for_nothing_the_gate_passes(name, of_the_gate, of_nbval):
    number = list(ALARMS).index(name) + 1
    assert of_nbval[f"alarms {number}"].startswith("FAILED")
    assert of_the_gate[f"alarms {number}"] == "PASSED"
