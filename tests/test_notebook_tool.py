"""The runner: what it executes, what it records and what it leaves alone."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from ipykernel.ipkernel import IPythonKernel
from nbformat import NotebookNode, v4

from notebook_gate import execute
from tools import notebooks as tool

ROOT = Path(__file__).resolve().parents[1]

FIGURE = """\
import matplotlib.pyplot as plt
fig, ax = plt.subplots(figsize=(2, 1))
ax.plot([0, 1])
plt.show()
print("✓ drawn")"""
BAR = """\
from IPython.display import display
from ipywidgets import IntSlider
from tqdm.auto import tqdm
display(IntSlider())
print("done")
for _ in tqdm(range(3)): pass"""
CHECKS = """\
from pathlib import Path
from mtl_utils.claims import checks, claim
with checks("the folder"):
    claim("relative paths start here", Path().resolve().name, "research")
    claim("and lead to the lessons", Path("../01_fine.ipynb").exists())"""
GPU = "print('no CUDA device: skipped here, a test')"


def write(path: Path, *sources: str, tags: tuple[str, ...] = ()) -> NotebookNode:
    """Write a notebook that was never executed; the tags go to its last cell."""
    cells = [v4.new_code_cell(source, id=f"c{i}") for i, source in enumerate(sources, start=1)]
    cells[-1].metadata.tags = list(tags)
    notebook = v4.new_notebook(cells=[v4.new_markdown_cell("# text", id="m"), *cells])
    nbformat.write(notebook, path)
    return notebook


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty folder of notebooks, in place of the course's."""
    monkeypatch.setattr(tool, "FOLDER", tmp_path)
    monkeypatch.setattr(tool, "EXECUTED", tmp_path / "executed")
    return tmp_path


def test_find(folder):
    (folder / "research").mkdir()
    for name in ("02_b.ipynb", "01_a.ipynb", "scratch.ipynb", "research/02_b.ipynb"):
        write(folder / name, "1")
    assert [tool.label(path) for path in tool.find()] == ["01_a", "02_b", "research/02_b"]
    for name in ("02", "02_b", "02_b.ipynb", "notebooks/02_b.ipynb"):
        assert [tool.label(path) for path in tool.find([name])] == ["02_b"]
    for name in ("research/02", "research/02_b", "notebooks/research/02_b.ipynb"):
        assert [tool.label(path) for path in tool.find([name])] == ["research/02_b"]
    with pytest.raises(SystemExit, match="no notebook '07'; there are: 01_a, 02_b, research/02_b"):
        tool.find(["07"])


def test_run(folder, capsys):
    write(folder / "01_fine.ipynb", "print('✓ one\\n✓ two\\nnot ✓ three')", FIGURE)
    (folder / "research").mkdir()
    write(folder / "research" / "01_fine.ipynb", CHECKS)
    write(folder / "02_fails.ipynb", "print('✓ four')", "x = 0\n1 / x", "print('✓ never')")
    write(folder / "03_raises.ipynb", "1 / 0", tags=("raises-exception",))
    before = {path: path.read_bytes() for path in folder.glob("*.ipynb")}

    assert tool.main(["run"]) == 1
    out = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if "_" in line[:13]}
    assert {name: row[1] for name, row in rows.items() if len(row) == 2} == {
        "01_fine": "3",
        "02_fails": "FAILED",
        "03_raises": "0",
        "research/01_fine": "2",
    }
    assert "02_fails, cell 2 (c2: 'x = 0'): ZeroDivisionError: division by zero" in out
    assert "----> 2 1 / x" in out, "the end of the traceback"
    assert "\x1b" not in out
    assert before == {path: path.read_bytes() for path in folder.glob("*.ipynb")}
    executed = tool.read(folder / "executed" / "01_fine.ipynb")
    assert tool.printed_lines(executed)[-1] == "✓ drawn"
    assert "image/png" in executed.cells[2].outputs[0].data

    assert (folder / "executed" / "research" / "01_fine.ipynb").exists()

    assert tool.main(["run", "01", "--jobs", "1"]) == 0


def test_refresh_gives_the_same_bytes_twice(folder, capsys):
    path = folder / "01_x.ipynb"
    write(path, FIGURE, BAR, "import json\njson.loads('{')", tags=("raises-exception",))
    stored = tool.read(path)
    stored.cells[1].metadata.execution = {"iopub.status.busy": "2026-01-01T00:00:00Z"}
    nbformat.write(stored, path)
    assert tool.main(["refresh", "01"]) == 0
    assert "01_x: " in capsys.readouterr().out
    first = path.read_bytes()
    assert tool.main(["refresh", "01_x"]) == 0
    assert path.read_bytes() == first

    notebook = tool.read(path)
    cells = execute.code_cells(notebook)
    assert [cell.execution_count for cell in cells] == [1, 2, 3]
    assert [cell.id for cell in cells] == ["c1", "c2", "c3"]
    assert [output.output_type for output in cells[1].outputs] == ["stream"]
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.language_info == tool.LANGUAGE_INFO
    assert "widgets" not in notebook.metadata
    assert "execution" not in cells[0].metadata
    assert cells[2].metadata.tags == ["raises-exception"]
    text = first.decode()
    for unwanted in (str(ROOT), sys.prefix, sys.base_prefix, "Matplotlib version"):
        assert unwanted not in text
    assert "File json/decoder.py" in execute.ANSI.sub("", "\n".join(cells[2].outputs[0].traceback))


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import sys; sys.stderr.write('beware')", "on stderr: beware"),
        (
            "from ipywidgets import interact\n_ = interact(lambda x: 1 / x, x=[0])",
            "inside a widget",
        ),
    ],
)
def test_refresh_refuses(source, error, folder, capsys):
    path = folder / "01_x.ipynb"
    write(path, "print(1)", source)
    before = path.read_bytes()
    assert tool.main(["refresh", "01"]) == 1
    out = capsys.readouterr().out
    assert "left as it was: 01_x, cell 2 (c2: " in out
    assert error in out
    assert path.read_bytes() == before


def test_refresh_with_a_limit(folder, capsys):
    path = folder / "01_x.ipynb"
    write(path, "import time\ntime.sleep(3)")
    assert tool.main(["refresh", "01", "--limit", "1"]) == 1
    assert "ran for more than 1 s" in capsys.readouterr().out
    assert tool.main(["refresh", "01", "--limit", "60"]) == 0


def test_refresh_keeps_what_a_gpu_gave(folder):
    executed = v4.new_notebook(cells=[v4.new_code_cell(GPU, execution_count=1) for _ in range(3)])
    stored = v4.new_notebook(cells=[v4.new_code_cell(GPU) for _ in range(3)])
    without = [v4.new_output("stream", text="no CUDA device: skipped here, a test")]
    with_gpu = [v4.new_output("stream", text="✓ equal on the GPU")]
    for cell, old, recorded in zip(
        executed.cells, stored.cells, (with_gpu, without, []), strict=True
    ):
        cell.metadata.tags = ["gpu"]
        cell.outputs, old.outputs = without, recorded
    outputs = [cell.outputs for cell in tool.normalised(executed, stored).cells]
    assert outputs == [with_gpu, without, without]


def test_what_the_kernel_says_of_itself_is_what_is_stored():
    """JupyterLab marks a notebook as changed where the two differ, save for the version."""
    said = IPythonKernel.language_info
    assert {**said, "version": ""} == {**tool.LANGUAGE_INFO, "version": ""}
    assert tool.LANGUAGE_INFO["version"].startswith("3.11."), "the oldest Python that is supported"


# ---- student copies --------------------------------------------------------------------------

PLACE = 'answer = ...  # your answer\ncheck("01.1", answer)'
SOLUTION = '# a solution of 01.1\na = 1\nanswer = a + 1\ncheck("01.1", answer)'


def exercise_notebook(path: Path) -> NotebookNode:
    """A notebook with text, a cell that reads a file, and an exercise; executed."""
    notebook = write(path, "open('../data.csv').read()", PLACE, SOLUTION)
    reads, place, solution = execute.code_cells(notebook)
    notebook.cells[0].source = "[next](02_b.ipynb), [report](../02_b.ipynb), [map](../docs/x.png)"
    place.metadata.tags, solution.metadata.tags = ["exercise"], ["solution", "hard"]
    solution.metadata.jupyter = {"source_hidden": True}
    for count, cell in enumerate((reads, place, solution), start=1):
        cell.execution_count = count
        cell.outputs = [v4.new_output("stream", text=f"output {count}")]
    nbformat.write(notebook, path)
    return notebook


def test_student_copies(folder, capsys):
    (folder / "research").mkdir()
    for path in (folder / "01_x.ipynb", folder / "research" / "01_x.ipynb"):
        notebook = exercise_notebook(path)
    before = path.read_bytes()

    assert tool.main(["student"]) == 0
    assert capsys.readouterr().out == "student/01_x.ipynb\nstudent/research/01_x.ipynb\n"
    copies = [folder / "student" / name for name in ("01_x.ipynb", "research/01_x.ipynb")]
    first = copies[0].read_bytes()
    assert first == copies[1].read_bytes()
    text, reads, place = tool.read(copies[0]).cells
    assert text.source == "[next](02_b.ipynb), [report](../02_b.ipynb), [map](../../docs/x.png)"
    assert reads.source == "open('../../data.csv').read()"
    assert place == notebook.cells[2], "the place for the answer is as it was"
    assert "a solution" not in first.decode()
    assert path.read_bytes() == before

    assert tool.main(["student"]) == 0
    assert copies[0].read_bytes() == first, "the same bytes every time"


def test_student_copies_can_be_filled_in(folder):
    notebook = exercise_notebook(folder / "01_x.ipynb")
    *_, place = tool.student_copy(notebook, answers=True).cells
    assert place.source == SOLUTION
    assert execute.tags(place) == ["exercise"]
    assert notebook.cells[2].source == PLACE, "what was handed over is left alone"


@pytest.mark.parametrize(
    "sources", [(SOLUTION,), (PLACE, "answer = 2"), ("answer = ...", SOLUTION)]
)
def test_a_solution_needs_a_place_for_the_answer(sources, folder):
    notebook = write(folder / "01_x.ipynb", *sources, tags=("solution",))
    for cell in execute.code_cells(notebook)[:-1]:
        cell.metadata.tags = ["exercise"]
    with pytest.raises(ValueError, match=f"cell c{len(sources)}: a solution has to end in check"):
        tool.student_copy(notebook)


QUICK = ("00_start_here", "03_homoscedastic_uncertainty")
OTHERS = [tool.label(path) for path in tool.find() if tool.label(path) not in QUICK]
SLOW = pytest.mark.skipif(
    not os.environ.get("MTL_SLOW"), reason="takes as long as all notebooks; MTL_SLOW=1 runs it"
)


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=SLOW) for name in OTHERS)])
def test_student_copies_run_with_the_solutions_filled_in(name, tmp_path):
    """In their own folder, two levels below the results; every answer is right."""
    (path,) = tool.find([name])
    target = tmp_path / "notebooks" / "student" / f"{name}.ipynb"
    target.parent.mkdir(parents=True)
    (tmp_path / "results").symlink_to(ROOT / "results")
    notebook = execute.cleared(tool.student_copy(tool.read(path), answers=True))
    failures = asyncio.run(execute.execute_cells(notebook, target.parent))
    assert failures == {}
    places = [cell for cell in notebook.cells if "exercise" in execute.tags(cell)]
    for cell in places:
        assert cell.outputs[-1].text.splitlines()[-1].startswith("✓ "), cell.source
    assert places or path.parent != tool.FOLDER


@pytest.mark.skipif(sys.platform == "win32", reason="signals as on POSIX")
def test_interrupting_the_runner_kills_the_kernels(folder):
    for n in (1, 2, 3):  # two run at a time, the third must not begin
        source = f"import os, pathlib, time\npathlib.Path('pid{n}').write_text(str(os.getpid()))"
        write(folder / f"0{n}_x.ipynb", f"{source}\ntime.sleep(60)")
    code = "from pathlib import Path; from tools import notebooks as tool; import signal, sys;"
    # A shell starts what it puts in the background with interrupts ignored.
    code += "signal.signal(signal.SIGINT, signal.default_int_handler);"
    code += f"tool.FOLDER = Path({str(folder)!r}); tool.EXECUTED = tool.FOLDER / 'executed';"
    runner = subprocess.Popen(
        [sys.executable, "-c", code + "sys.exit(tool.main(['run']))"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    files = [folder / "pid1", folder / "pid2"]
    deadline = time.monotonic() + 60
    while not all(file.exists() and file.read_text() for file in files):
        assert time.monotonic() < deadline and runner.poll() is None
        time.sleep(0.1)
    runner.send_signal(signal.SIGINT)
    _, err = runner.communicate(timeout=30)
    assert runner.returncode == 130
    assert "interrupted; the kernels are stopped" in err
    assert "Traceback" not in err
    assert not (folder / "pid3").exists()
    for file in files:
        with pytest.raises(ProcessLookupError):
            os.kill(int(file.read_text()), 0)
