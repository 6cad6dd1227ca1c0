"""nbval, strict, on every notebook: all outputs of all code cells are compared.

    pytest -p notebook_gate.plugin --nbval notebooks

nbval collects, selects and reports; nbclient runs the cells (`execute.py`); the comparison is
ours. A notebook is executed as a whole and then judged cell by cell, because a later cell may
update the display of an earlier one.

* Words have to be equal, numbers agree to one unit of the last shown digit, integers exactly,
  figures to the eye, also within HTML (`numbers.py`, `figures.py`). A cell sets its own tolerance
  in its metadata, and is listed for it if that is wider:
  `"gate": {"rtol": 1e-3, "atol": 1e-6, "figure_tol": 30, "reason": "..."}`.
* Outputs come in the same number, order and kind. Widget views are left out on both sides, but an
  error inside a widget fails its cell.
* What is stored has to be the record of one run from top to bottom, without anything on stderr
  and without an error, unless the cell is tagged `raises-exception`; then it has to raise
  (`rules.py`).
* A cell exempt from comparison (tags nbval-skip, nbval-ignore-output) gives its reason in
  `"gate": {"reason": "..."}`; `rules.exemptions` lists all of these.
* Cells tagged `gpu` are reported as skipped where there is no CUDA device: they are executed, and
  have to say that they do nothing. Where there is a device they are compared if the stored output
  was recorded with one.
* The kernel imports from the folders of pytest's option `pythonpath` first.
* An error in a thread or a task of a cell fails the notebook, however late it comes, and so does a
  `!command` that fails (`watch.py`).
* A file that cannot be read is one failing test, and stops none of the others.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from nbformat import NotebookNode
from nbval import plugin as nbval_plugin

from notebook_gate import execute, pictures
from notebook_gate.figures import LIMIT, figure_difference
from notebook_gate.numbers import data_difference, text_difference
from notebook_gate.rules import CANNOT, cell_faults, file_faults, settings_of


def kind_of(output: NotebookNode) -> str:
    """Kind of an output, in words."""
    if output.output_type == "stream":
        return output.name
    if output.output_type == "error":
        return "error"
    return f"{output.output_type}({', '.join(sorted(output.data))})"


def shown(outputs: list[NotebookNode], kinds: Counter[str]) -> str:
    """The outputs of these kinds, with the beginning of their text."""
    texts = []
    for output in outputs:
        if kinds[kind_of(output)] > 0:
            data = output.get("data", {})
            text = output.get("text") or output.get("evalue") or str(data.get("text/plain", ""))
            texts.append(f"{kind_of(output)}: {text.strip()[:200]!r}")
    return "; ".join(texts)


def outputs_difference(
    stored: list[NotebookNode],
    new: list[NotebookNode],
    settings: Mapping[str, Any],
    save_as: Path | None = None,
) -> str | None:
    """What differs between the stored and the new outputs of a cell; None if they agree."""
    stored, new = (execute.merged_streams(execute.without_widgets(o)) for o in (stored, new))
    kinds = [[kind_of(output) for output in outputs] for outputs in (stored, new)]
    if kinds[0] != kinds[1]:
        missing, extra = (
            Counter(kinds[0]) - Counter(kinds[1]),
            Counter(kinds[1]) - Counter(kinds[0]),
        )
        parts = [f"missing output, {shown(stored, missing)}"] if missing else []
        parts += [f"unexpected output, {shown(new, extra)}"] if extra else []
        return "\n".join(parts) or f"another order of outputs: {kinds[0]} → {kinds[1]}"
    tolerance = settings.get("rtol"), settings.get("atol")
    differences = []
    for number, (old, fresh) in enumerate(zip(stored, new, strict=True), start=1):
        if old.output_type == "stream":
            found = {old.name: text_difference(old.text, fresh.text, *tolerance)}
        elif old.output_type == "error":
            was, is_now = (f"{output.ename}: {output.evalue}" for output in (old, fresh))
            found = {"error": text_difference(was, is_now, *tolerance)}
        else:
            stem = save_as and save_as.with_name(f"{save_as.name}-output{number}")
            found = data_differences(old.data, fresh.data, settings, stem)
        differences += [f"{what}: {text}" for what, text in found.items() if text is not None]
    return "\n".join(differences) or None


def data_differences(
    stored: Mapping[str, Any],
    new: Mapping[str, Any],
    settings: Mapping[str, Any],
    stem: Path | None,
) -> dict[str, str | None]:
    """What differs between the data of two outputs of the same kind, by what it is in."""
    tolerance = settings.get("rtol"), settings.get("atol")
    found = {}
    for mime, value in stored.items():
        if mime not in pictures.ALONE:
            old, fresh = value, new[mime]
            if mime == "text/html":
                old, fresh = map(pictures.without_pictures, (old, fresh))
            found[mime] = data_difference(old, fresh, *tolerance)
    before, after = pictures.pictures(stored), pictures.pictures(new)
    if len(before) != len(after):
        return found | {"figure": f"{len(before)} pictures → {len(after)}"}
    limit = settings.get("figure_tol", LIMIT)
    for number, pair in enumerate(zip(before, after, strict=True), start=1):
        save_as = stem and stem.with_name(f"{stem.name}-{number}" if number > 1 else stem.name)
        found[f"figure {number}"] = figure_difference(*pair, limit, save_as)
    return found


class FileFaults(pytest.Item):
    """Stands for what is wrong with a notebook's file: a test that fails."""

    def __init__(self, *, faults: list[str], **options: Any) -> None:
        super().__init__(**options)
        self.faults = faults

    def runtest(self) -> None:
        pytest.fail("\n".join(self.faults), pytrace=False)


class NotebookFile(nbval_plugin.IPyNbFile):
    """A notebook: executed once, when its first cell is asked for."""

    nb: NotebookNode | None = None  # of a file that cannot be read

    def collect(self) -> Iterator[FileFaults | NotebookCell]:
        if faults := file_faults(self.path):
            yield FileFaults.from_parent(self, name="File", faults=faults)
            if any(fault.startswith(CANNOT) for fault in faults):
                return
        for number, item in enumerate(super().collect(), start=1):
            yield NotebookCell.from_parent(
                self, name=f"Cell {number}", cell_num=number, cell=item.cell, options=item.options
            )

    def setup(self) -> None:
        if self.nb is None:
            return
        notebook = execute.cleared(self.nb)
        run = execute.execute_cells(
            notebook,
            self.path.parent,
            keep_going=True,
            skip_tag="nbval-skip",
            timeout=min(execute.TIMEOUT, self.config.option.nbval_cell_timeout),
            import_path=self.config.getini("pythonpath"),
        )
        self.failures = asyncio.run(run)
        self.executed = execute.code_cells(notebook)

    def teardown(self) -> None:
        pass  # the kernel is gone already


class NotebookCell(nbval_plugin.IPyNbCell):
    """A code cell; `cell_num` counts from 1, as Jupyter's In [n] does."""

    def runtest(self) -> None:
        new, tags = self.parent.executed[self.cell_num - 1], execute.tags(self.cell)
        faults = cell_faults(self.cell, self.cell_num)
        failure = self.parent.failures.get(self.cell_num)
        if failure is not None:
            self.raise_cell_error("\n".join([failure.error, *faults]), failure.traceback)
        was_run = new.execution_count is not None
        without_cuda = "gpu" in tags and not execute.cuda_available()
        if was_run:
            faults += self.output_faults(new, without_cuda)
        if faults:
            self.raise_cell_error("\n".join(faults))
        if "nbval-skip" in tags:
            pytest.skip(settings_of(self.cell)["reason"])
        if not was_run:
            pytest.skip("not executed: a cell before it stopped the kernel")
        if without_cuda:
            pytest.skip("no CUDA device")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException]) -> str:
        """The report: the reason first, because pytest's summary shows the first line."""
        error = excinfo.value
        if not isinstance(error, nbval_plugin.NbCellError):
            return str(super(nbval_plugin.IPyNbCell, self).repr_failure(excinfo))
        parts = [f"cell {error.cell_num} ({self.cell.id}): {error}", f"Input:\n{error.source}"]
        return "\n\n".join(parts + ([error.inner_traceback] if error.inner_traceback else []))

    def output_faults(self, new: NotebookNode, without_cuda: bool) -> list[str]:
        """What is wrong with the new outputs."""
        stored, tags = self.cell.outputs, execute.tags(self.cell)
        if "raises-exception" in tags and all(o.output_type != "error" for o in new.outputs):
            return ["tagged raises-exception, but it raises no longer"]
        if not self.options["check"]:
            return []
        if without_cuda and not execute.recorded_without_cuda(new.outputs):
            return ["tagged gpu, but it does not say what it skips where there is no CUDA device"]
        if "gpu" in tags and execute.recorded_without_cuda(stored) != without_cuda:
            return []
        save_as = self.config.rootpath / "build" / "figure_failures"
        save_as /= f"{self.path.stem}-cell{self.cell_num}"
        difference = outputs_difference(stored, new.outputs, settings_of(self.cell), save_as)
        return (
            [] if difference is None else [f"the output differs from the stored one: {difference}"]
        )


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(parent: pytest.Collector) -> Generator[None, list, list]:
    """Take the place of what nbval collects."""
    collected = yield
    return [
        NotebookFile.from_parent(parent, path=file.path)
        if isinstance(file, nbval_plugin.IPyNbFile)
        else file
        for file in collected
    ]


def pytest_configure(config: pytest.Config) -> None:
    if config.option.nbval_lax:
        raise pytest.UsageError("--nbval-lax: the notebooks are compared strictly, use --nbval")
