"""Run, record and copy the notebooks of the course.

run      execute every notebook (or those named), two at a time, and end with a table
refresh  execute notebooks in place, to record their outputs anew
student  write copies without the solutions to notebooks/student
"""

from __future__ import annotations

import argparse
import re
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from tqdm import tqdm

from tools import execute

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"
EXECUTED = ROOT / "build" / "executed"
CHECK_MARK = "✓ "


def find(names: Sequence[str]) -> list[Path]:
    """Paths of the notebooks named (with or without .ipynb, or by number), all without names."""
    every = sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))
    if not names:
        return every
    chosen = []
    for name in names:
        stem = Path(name).stem
        matches = [path for path in every if path.stem == stem or path.stem[:2] == stem]
        if not matches:
            raise SystemExit(f"no notebook {name!r}; there are: {', '.join(p.stem for p in every)}")
        chosen += matches
    return chosen


def printed_lines(notebook: NotebookNode) -> list[str]:
    """Every line that the cells of a notebook print."""
    outputs = [output for cell in execute.code_cells(notebook) for output in cell.outputs]
    text = "\n".join(output.text for output in outputs if output.get("name") == "stdout")
    return text.splitlines()


# ---- run -------------------------------------------------------------------------------------


def run(names: Sequence[str], jobs: int) -> int:
    """Execute notebooks and print a table; 1 if any failed."""
    paths = find(names)
    total = sum(len(execute.code_cells(nbformat.read(path, as_version=4))) for path in paths)
    EXECUTED.mkdir(parents=True, exist_ok=True)
    bar = tqdm(total=total, unit="cell", dynamic_ncols=True)
    running: list[str] = []
    lock = threading.Lock()

    def show(path: Path, begins: bool) -> None:
        with lock:
            (running.append if begins else running.remove)(path.stem[:2])
            bar.set_description("running " + " ".join(running) if running else "done")

    def one(path: Path) -> tuple[float, int, execute.CellFailed | None]:
        show(path, begins=True)
        begin = time.monotonic()
        failure, checks = None, 0
        try:
            notebook = execute.execute(path, on_cell=lambda done, total: bar.update(1))
            nbformat.write(notebook, EXECUTED / path.name)
            checks = sum(line.startswith(CHECK_MARK) for line in printed_lines(notebook))
        except execute.CellFailed as error:
            failure = error
        show(path, begins=False)
        return time.monotonic() - begin, checks, failure

    with ThreadPoolExecutor(jobs) as pool:
        results = list(pool.map(one, paths))
    bar.close()

    width = max(len(path.stem) for path in paths)
    print(f"\n{'notebook':{width}}  seconds  checks passed")
    for path, (seconds, checks, failure) in zip(paths, results, strict=True):
        print(f"{path.stem:{width}}  {seconds:7.1f}  {'FAILED' if failure else checks:>13}")
    print(f"{'all':{width}}  {sum(r[0] for r in results):7.1f}  {sum(r[1] for r in results):13d}")
    for path, (_, _, failure) in zip(paths, results, strict=True):
        if failure is not None:
            print(f"\n{path.name}, {failure}\n{failure.traceback}")
    return int(any(failure for _, _, failure in results))


# ---- refresh ---------------------------------------------------------------------------------


def normalised(notebook: NotebookNode, stored: NotebookNode) -> NotebookNode:
    """An executed notebook as it is to be stored.

    Without widget views and the state of widgets; outputs of `gpu` cells that were recorded with a
    GPU are kept where this machine had none.
    """
    notebook.metadata = {
        "kernelspec": {
            "display_name": "Python 3 (ipykernel)",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"},
    }
    for cell, old in zip(execute.code_cells(notebook), execute.code_cells(stored), strict=True):
        cell.metadata.pop("execution", None)
        cell.outputs = execute.without_widgets(cell.outputs)
        for output in cell.outputs:
            if output.get("name") == "stderr":
                raise execute.CellFailed(cell.execution_count, cell, f"on stderr: {output.text}")
            if "metadata" in output:
                output.metadata = {}
        skipped = any(execute.SKIPPED_WITHOUT_CUDA in o.get("text", "") for o in cell.outputs)
        recorded = old.outputs and not any(
            execute.SKIPPED_WITHOUT_CUDA in o.get("text", "") for o in old.outputs
        )
        if "gpu" in execute.tags(cell) and skipped and recorded:
            cell.outputs = old.outputs
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def refresh(names: Sequence[str]) -> int:
    """Record the outputs of notebooks anew; a notebook with a failing cell is left as it is."""
    if not names:
        raise SystemExit("refresh: say which, for example: make refresh NB=04_two_regressions")
    status = 0
    for path in find(names):
        begin = time.monotonic()
        stored = nbformat.read(path, as_version=4)
        try:
            notebook = normalised(execute.execute(path), stored)
        except execute.CellFailed as failure:
            print(f"{path.name} is left as it was, {failure}\n{failure.traceback}")
            status = 1
            continue
        nbformat.validate(notebook)
        nbformat.write(notebook, path)
        seconds, size = time.monotonic() - begin, path.stat().st_size / 1000
        print(f"{path.name}: {seconds:.1f} s, {size:.0f} kB")
    return status


# ---- student ---------------------------------------------------------------------------------


def student_copy(notebook: NotebookNode) -> NotebookNode:
    """The notebook with each solution replaced by a place for the reader's answer."""
    for cell in execute.code_cells(notebook):
        if "solution" not in execute.tags(cell):
            continue
        checks = re.findall(r"^check\(.*\)$", cell.source, re.MULTILINE)
        if not checks:
            raise ValueError(f"cell {cell.id}: a solution has to end in check(..., answer)")
        cell.source = "answer = ...  # your answer\n" + "\n".join(checks)
        cell.outputs, cell.execution_count = [], None
        cell.metadata.pop("jupyter", None)
    return notebook


def student() -> int:
    """Write all student copies."""
    folder = FOLDER / "student"
    folder.mkdir(exist_ok=True)
    for path in find([]):
        nbformat.write(student_copy(nbformat.read(path, as_version=4)), folder / path.name)
        print(f"notebooks/student/{path.name}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("run", "refresh"):
        command = commands.add_parser(name)
        command.add_argument("names", nargs="*", help="notebooks, such as 04_two_regressions or 04")
    commands.choices["run"].add_argument("--jobs", type=int, default=2, help="how many at a time")
    commands.add_parser("student")
    options = parser.parse_args(arguments)
    if options.command == "run":
        return run(options.names, options.jobs)
    if options.command == "refresh":
        return refresh(options.names)
    return student()


if __name__ == "__main__":
    sys.exit(main())
