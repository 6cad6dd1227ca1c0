"""The runner: what it executes, what it records and what it leaves alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode, v4

from tools import execute
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
    for name in ("02_b.ipynb", "01_a.ipynb", "scratch.ipynb"):
        write(folder / name, "1")
    assert [path.name for path in tool.find([])] == ["01_a.ipynb", "02_b.ipynb"]
    for name in ("02", "02_b", "02_b.ipynb", "notebooks/02_b.ipynb"):
        assert [path.name for path in tool.find([name])] == ["02_b.ipynb"]
    with pytest.raises(SystemExit, match="no notebook '07'; there are: 01_a, 02_b"):
        tool.find(["07"])


def test_run(folder, capsys):
    write(folder / "01_fine.ipynb", "print('✓ one\\n✓ two\\nnot ✓ three')", FIGURE)
    write(folder / "02_fails.ipynb", "print('✓ four')", "x = 0\n1 / x", "print('✓ never')")
    write(folder / "03_raises.ipynb", "1 / 0", tags=("raises-exception",))
    before = {path: path.read_bytes() for path in folder.glob("*.ipynb")}

    assert tool.main(["run"]) == 1
    out = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line[:1].isdigit()}
    assert {name: row[1] for name, row in rows.items() if len(row) == 2} == {
        "01_fine": "3",
        "02_fails": "FAILED",
        "03_raises": "0",
    }
    assert "02_fails.ipynb, cell 2 (c2: 'x = 0'): ZeroDivisionError: division by zero" in out
    assert "----> 2 1 / x" in out, "the end of the traceback"
    assert "\x1b" not in out
    assert before == {path: path.read_bytes() for path in folder.glob("*.ipynb")}
    executed = tool.read(folder / "executed" / "01_fine.ipynb")
    assert tool.printed_lines(executed)[-1] == "✓ drawn"
    assert "image/png" in executed.cells[2].outputs[0].data

    assert tool.main(["run", "01", "--jobs", "1"]) == 0


def test_refresh_gives_the_same_bytes_twice(folder, capsys):
    path = folder / "01_x.ipynb"
    write(path, FIGURE, BAR, "import json\njson.loads('{')", tags=("raises-exception",))
    stored = tool.read(path)
    stored.cells[1].metadata.execution = {"iopub.status.busy": "2026-01-01T00:00:00Z"}
    nbformat.write(stored, path)
    assert tool.main(["refresh", "01"]) == 0
    assert "01_x.ipynb: " in capsys.readouterr().out
    first = path.read_bytes()
    assert tool.main(["refresh", "01_x"]) == 0
    assert path.read_bytes() == first

    notebook = tool.read(path)
    cells = execute.code_cells(notebook)
    assert [cell.execution_count for cell in cells] == [1, 2, 3]
    assert [cell.id for cell in cells] == ["c1", "c2", "c3"]
    assert [output.output_type for output in cells[1].outputs] == ["stream"]
    assert notebook.metadata.kernelspec.name == "python3"
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
    assert "left as it was: 01_x.ipynb, cell 2 (c2: " in out
    assert error in out
    assert path.read_bytes() == before


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


def test_student_copies(folder, capsys):
    path = folder / "01_x.ipynb"
    solution = 'a = 1\nanswer = a + 1\ncheck("01.1", answer)'
    notebook = write(path, "print('text')", solution, tags=("solution", "hard"))
    for cell in execute.code_cells(notebook):
        cell.execution_count = 1
        cell.outputs = [v4.new_output("stream", text="✓ 01.1: right")]
    notebook.cells[-1].metadata.jupyter = {"source_hidden": True}
    nbformat.write(notebook, path)
    before = path.read_bytes()

    assert tool.main(["student"]) == 0
    copy = tool.read(folder / "student" / "01_x.ipynb")
    _, shown, exercise = copy.cells
    assert shown == notebook.cells[1], "other cells keep their outputs"
    assert exercise.source == 'answer = ...  # your answer\ncheck("01.1", answer)'
    assert (exercise.outputs, exercise.execution_count) == ([], None)
    assert "jupyter" not in exercise.metadata, "the cell is visible"
    assert path.read_bytes() == before

    write(path, "answer = 2", tags=("solution",))
    with pytest.raises(ValueError, match="a solution has to end in check"):
        tool.main(["student"])


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
