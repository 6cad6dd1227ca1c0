"""Run, record and copy the notebooks of the course.

run      execute every notebook (or those named), two at a time, and end with a table
refresh  execute notebooks in place, to record their outputs anew
student  write copies without the solutions to notebooks/student
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import io
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for `python tools/notebooks.py`

from notebook_gate import execute, pictures  # noqa: E402

FOLDER = ROOT / "notebooks"
NAMED = "[0-9][0-9]_*.ipynb"
EXECUTED = ROOT / "build" / "executed"
CHECK_MARK = "✓ "  # begins the lines of claim() and check()
TRACEBACK_LINES = 12  # of the report of a failure


def label(path: Path) -> str:
    """A notebook's name: "04_two_regressions", of a report "research/04_two_regressions"."""
    return path.relative_to(FOLDER).with_suffix("").as_posix()


def find(names: Sequence[str] = ()) -> list[Path]:
    """Paths of the notebooks named; without names all, the lessons first, then the reports.

    Args:
        names: such as "04", "04_two_regressions", "04_two_regressions.ipynb", and "research/04".
    """
    lessons, reports = (sorted(f.glob(NAMED)) for f in (FOLDER, FOLDER / "research"))
    chosen = []
    for name in names:
        wanted = Path(name).with_suffix("")
        among = reports if wanted.parent.name == "research" else lessons
        matches = [path for path in among if wanted.name in (path.stem, path.stem[:2])]
        if not matches:
            known = ", ".join(map(label, lessons + reports))
            raise SystemExit(f"no notebook {name!r}; there are: {known}")
        chosen += matches
    return chosen or lessons + reports


def read(path: Path) -> NotebookNode:
    """A notebook, as it is stored."""
    return nbformat.read(path, as_version=4)


def printed_lines(notebook: NotebookNode) -> list[str]:
    """Every line of text that the cells of a notebook print or show."""
    outputs = [output for cell in execute.code_cells(notebook) for output in cell.outputs]
    texts = [o.get("text") or o.get("data", {}).get("text/plain", "") for o in outputs]
    return "\n".join(texts).splitlines()


# What the kernel says of itself: JupyterLab puts it into a notebook that says anything else, and so
# marks it as changed as soon as it is opened. The version is that of the Python which the course
# was recorded with, whoever refreshes a notebook.
LANGUAGE_INFO = {
    "codemirror_mode": {"name": "ipython", "version": 3},
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "nbconvert_exporter": "python",
    "pygments_lexer": "ipython3",
    "version": "3.11.7",
}

# ---- run -------------------------------------------------------------------------------------


@dataclass
class Result:
    """What came of executing one notebook.

    Attributes:
        path: of the notebook.
        notebook: the executed copy.
        seconds: wall time, with the start of the kernel.
        failure: the first cell that failed.
    """

    path: Path
    notebook: NotebookNode
    seconds: float
    failure: execute.CellFailed | None

    @property
    def checks(self) -> int:
        """How many checks passed: lines of claim(), alone or in a block, and of check()."""
        return sum(line.startswith(CHECK_MARK) for line in printed_lines(self.notebook))

    def report(self) -> str:
        """The failing cell and the end of its traceback."""
        assert self.failure is not None
        traceback = self.failure.traceback.splitlines()[-TRACEBACK_LINES:]
        return "\n".join([f"{label(self.path)}, {self.failure}", *(f"    {t}" for t in traceback)])


async def execute_copy(
    path: Path, limit: float, on_cell: Callable[[], Any] = lambda: None
) -> Result:
    """Execute a copy of a notebook, up to the first cell that fails or runs for longer than
    `limit` seconds."""
    begin = time.monotonic()
    notebook = execute.cleared(read(path))
    failures = await execute.execute_cells(
        notebook, path.parent, timeout=limit, import_path=[ROOT], on_cell=on_cell
    )
    return Result(path, notebook, time.monotonic() - begin, next(iter(failures.values()), None))


async def execute_all(paths: Sequence[Path], jobs: int, limit: float) -> list[Result]:
    """Execute copies of notebooks, `jobs` at a time, with a progress bar that names them."""
    cells = sum(len(execute.code_cells(read(path))) for path in paths)
    free = asyncio.Semaphore(jobs)
    running: list[str] = []
    with tqdm(total=cells, unit="cell", dynamic_ncols=True) as bar:

        async def one(path: Path) -> Result:
            async with free:
                running.append(label(path))
                bar.set_description_str(", ".join(running))
                result = await execute_copy(path, limit, bar.update)
                running.remove(label(path))
                bar.set_description_str(", ".join(running) or "done")
            target = EXECUTED / f"{label(path)}.ipynb"
            target.parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(result.notebook, target)
            return result

        return await asyncio.gather(*map(one, paths))


def run(names: Sequence[str], jobs: int, limit: float = execute.TIMEOUT) -> int:
    """Execute notebooks and print a table; 1 if any failed. The notebooks are not changed."""
    paths = find(names)
    begin = time.monotonic()
    results = asyncio.run(execute_all(paths, jobs, limit))
    seconds = time.monotonic() - begin

    width = max([len(label(path)) for path in paths], default=8)
    print(f"\n{'notebook':{width}}  seconds  checks passed")
    for result in results:
        outcome = "FAILED" if result.failure else str(result.checks)
        print(f"{label(result.path):{width}}  {result.seconds:7.1f}  {outcome:>13}")
    print(f"{'all':{width}}  {seconds:7.1f}  {sum(result.checks for result in results):13d}")
    failed = [result for result in results if result.failure is not None]
    for result in failed:
        print(f"\n{result.report()}")
    return int(bool(failed))


# ---- refresh ---------------------------------------------------------------------------------


def without_folders(traceback: list[str]) -> list[str]:
    """A traceback without the folders of this machine's Python, packages and checkout."""
    start, packages = r"(?:~|[A-Za-z]:)?[\\/]", r"(?:site-packages|lib[\\/]python3[.\d]*)[\\/]"
    folders = re.compile(rf"{start}(?:[^\s'\"\x1b]*[\\/])?{packages}")
    here = f"{ROOT}{os.sep}"
    return [folders.sub("", line.replace(here, "")) for line in traceback]


def normalised(notebook: NotebookNode, stored: NotebookNode) -> NotebookNode:
    """An executed notebook as it is to be stored: the same bytes whenever it is executed.

    Without widget views, the versions of Python and matplotlib, and the folders of this machine.
    Outputs of `gpu` cells that were recorded with a GPU are kept where this machine had none.

    Args:
        notebook: executed; changed in place.
        stored: as it was before.

    Raises:
        CellFailed: a cell wrote on stderr.
    """
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {
                "display_name": "Python 3 (ipykernel)",
                "language": "python",
                "name": "python3",
            },
            "language_info": LANGUAGE_INFO,
        }
    )
    pairs = zip(execute.code_cells(notebook), execute.code_cells(stored), strict=True)
    for number, (cell, old) in enumerate(pairs, start=1):
        cell.metadata.pop("execution", None)
        cell.outputs = execute.merged_streams(execute.without_widgets(cell.outputs))
        for output in cell.outputs:
            if output.get("name") == "stderr":
                raise execute.CellFailed(number, cell, f"on stderr: {output.text}")
            if output.output_type == "error":
                output.traceback = without_folders(output.traceback)
            pictures.make_lean(output.get("data", {}))
        if "gpu" in execute.tags(cell) and execute.recorded_without_cuda(cell.outputs):
            if old.outputs and not execute.recorded_without_cuda(old.outputs):
                cell.outputs = old.outputs
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    nbformat.validate(notebook)
    return notebook


def refresh(names: Sequence[str], limit: float = execute.TIMEOUT) -> int:
    """Record the outputs of notebooks anew; a notebook with a failing cell is left as it is."""
    status = 0
    for path in find(names):
        stored = read(path)
        result = asyncio.run(execute_copy(path, limit))
        try:
            if result.failure is not None:
                raise result.failure
            nbformat.write(normalised(result.notebook, stored), path)
        except execute.CellFailed as failure:
            result.failure = failure
            print(f"left as it was: {result.report()}")
            status = 1
        else:
            print(f"{label(path)}: {result.seconds:.1f} s, {path.stat().st_size / 1000:.0f} kB")
    return status


# ---- student ---------------------------------------------------------------------------------


def exercise_of(cell: NotebookNode) -> str | None:
    """The number of the exercise that a cell ends with: `check("04.1", answer)`."""
    found = re.search(r'^check\("([\d.]+)", answer\)\s*\Z', cell.source, re.MULTILINE)
    return found.group(1) if found else None


def with_answers(notebook: NotebookNode) -> NotebookNode:
    """A copy with each solution typed into the place for the reader's answer.

    Raises:
        ValueError: a solution without such a place before it.
    """
    cells: list[NotebookNode] = []
    for cell in copy.deepcopy(notebook.cells):
        if "solution" not in execute.tags(cell):
            cells.append(cell)
            continue
        place = next((c for c in reversed(cells) if "exercise" in execute.tags(c)), None)
        if place is None or exercise_of(place) != exercise_of(cell) or exercise_of(cell) is None:
            raise ValueError(
                f"cell {cell.id}: a solution has to end in check(...), and to stand below a cell "
                "with the tag exercise that ends in the same check(...)"
            )
        place.source = cell.source
    notebook = copy.copy(notebook)
    notebook.cells = cells
    return notebook


def student_copy(notebook: NotebookNode, answers: bool = False) -> NotebookNode:
    """A copy without the solutions, for the folder `student`, which is one level further down.

    Args:
        notebook: as it is stored; left alone.
        answers: type the solutions into the places for the reader's answers.
    """
    filled = with_answers(notebook)
    places = {cell.id: cell for cell in notebook.cells}
    for cell in filled.cells:
        if not answers:
            cell.source = places[cell.id].source
        if cell.cell_type == "code":
            cell.source = re.sub(r"""(["'])\.\.(?=["'/])""", r"\1../..", cell.source)
        else:
            away = r"(?<=\]\()\.\./(?![^)]*\.ipynb)"  # from the notebooks, which are all copied
            cell.source = re.sub(away, "../../", cell.source)
    return filled


def student() -> int:
    """Write all student copies."""
    for path in find():
        target = FOLDER / "student" / f"{label(path)}.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(student_copy(read(path)), target)
        print(target.relative_to(FOLDER).as_posix())
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, count in (("run", "*"), ("refresh", "+")):
        command = commands.add_parser(name)
        command.add_argument("names", nargs=count, help="such as 04_two_regressions or 04")
        text = (
            f"seconds that a cell may run, {execute.TIMEOUT} by default; a slow machine wants more"
        )
        command.add_argument("--limit", type=float, default=execute.TIMEOUT, help=text)
    commands.choices["run"].add_argument("--jobs", type=int, default=2, help="how many at a time")
    commands.add_parser("student")
    options = parser.parse_args(arguments)
    try:
        if options.command == "run":
            return run(options.names, options.jobs, options.limit)
        if options.command == "refresh":
            return refresh(options.names, options.limit)
        return student()
    except KeyboardInterrupt:
        print("interrupted; the kernels are stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # Windows pipes
    sys.exit(main())
