"""nbval, strict, on every notebook: all outputs of all code cells are compared.

nbval collects, selects and reports; nbclient runs the cells; the comparison is ours.

* Words have to be equal, numbers agree to one unit of the last shown digit, integers exactly,
  figures to the eye (`numbers.py`, `figures.py`). A cell sets its own tolerance in its metadata:
  `"mtl": {"rtol": 1e-3, "atol": 1e-6, "figure_tol": 30}`.
* Outputs come in the same number, order and kind. Widget views are left out on both sides, but an
  error inside a widget fails its cell.
* Every code cell has to have been executed, from top to bottom, without anything on stderr and
  without an error (unless it is tagged `raises-exception`, and then it has to raise).
* A cell exempt from comparison (tags nbval-skip, nbval-ignore-output) gives its reason in
  `"mtl": {"reason": "..."}` and is listed in `tests/exemptions.txt`.
* Cells tagged `gpu` are skipped where there is no CUDA device, and compared where there is one and
  the stored output was recorded with one.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from nbclient.exceptions import CellExecutionError
from nbval import plugin as nbval_plugin

from tests.gate.figures import LIMIT, figure_difference
from tests.gate.numbers import data_difference, text_difference
from tools import execute

SETTINGS = {"rtol", "atol", "figure_tol", "reason"}
EXEMPT_TAGS = {"nbval-skip", "nbval-ignore-output"}
PICTURES = {"image/png"}


def has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def outputs_difference(stored, new, settings: dict, save_as: Path | None = None) -> str | None:
    """What differs between the stored and the new outputs of a cell; None if they agree."""
    stored, new = (
        nbval_plugin.coalesce_streams(execute.without_widgets(outputs)) for outputs in (stored, new)
    )
    kinds = [[kind_of(output) for output in outputs] for outputs in (stored, new)]
    if kinds[0] != kinds[1]:
        missing = [kind for kind in kinds[0] if kind not in kinds[1]]
        extra = [kind for kind in kinds[1] if kind not in kinds[0]]
        shown = ", ".join(f"missing output {kind}" for kind in missing)
        shown += ", ".join(f"unexpected output {kind}" for kind in extra)
        return f"{shown or 'the outputs differ'}: stored {kinds[0]}, new {kinds[1]}"
    rtol, atol = settings.get("rtol", 0.0), settings.get("atol", 0.0)
    for number, (old, fresh) in enumerate(zip(stored, new, strict=True)):
        if old.output_type == "stream":
            difference = text_difference(old.text, fresh.text, rtol, atol)
        elif old.output_type == "error":
            texts = [f"{output.ename}: {output.evalue}" for output in (old, fresh)]
            difference = text_difference(*texts, rtol, atol)
        else:
            difference = None
            for mime, value in old.data.items():
                if mime in PICTURES:
                    limit = settings.get("figure_tol", LIMIT)
                    stem = save_as and save_as.with_name(f"{save_as.name}-{number}")
                    difference = figure_difference(value, fresh.data[mime], limit, stem)
                else:
                    difference = data_difference(value, fresh.data[mime], rtol, atol)
                if difference is not None:
                    difference = f"{mime}: {difference}"
                    break
        if difference is not None:
            return difference
    return None


def kind_of(output) -> str:
    """Type of an output and, of data, its kinds."""
    if output.output_type == "stream":
        return output.name
    if output.output_type == "error":
        return "error"
    return f"{output.output_type}({', '.join(sorted(output.data))})"


def cell_faults(cell, number: int) -> list[str]:
    """What is wrong with a stored code cell before it is run."""
    faults = []
    settings = cell.metadata.get("mtl", {})
    if unknown := set(settings) - SETTINGS:
        faults.append(f"unknown key in metadata.mtl: {sorted(unknown)}; known: {sorted(SETTINGS)}")
    if not cell.source.strip():
        faults.append("the cell is empty")
    if dict(nbval_plugin.find_comment_markers(cell.source)):
        faults.append("nbval markers belong in the tags of the cell, not in a comment")
    if EXEMPT_TAGS & set(execute.tags(cell)) and not settings.get("reason", "").strip():
        faults.append("a cell exempt from comparison needs a reason in metadata.mtl.reason")
    if cell.execution_count != number:
        faults.append(
            f"execution count {cell.execution_count} instead of {number}: "
            "not one run from top to bottom"
        )
    if any(output.get("name") == "stderr" for output in cell.outputs):
        faults.append("the stored output holds text on stderr")
    raised = any(output.output_type == "error" for output in cell.outputs)
    if raised and "raises-exception" not in execute.tags(cell):
        faults.append("the stored output holds an error")
    if not raised and "raises-exception" in execute.tags(cell):
        faults.append("tagged raises-exception, but no error is stored")
    return faults


# ---- what takes the place of nbval's own methods ---------------------------------------------


def file_setup(self) -> None:
    """Start the kernel of a notebook."""
    notebook = execute.cleared(self.nb)
    self.fresh = notebook
    self.client = execute.make_client(notebook, self.path.parent)
    self.client.reset_execution_trackers()
    self.kernel_context = self.client.setup_kernel()
    self.kernel_context.__enter__()
    self.indices = [i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]


def file_teardown(self) -> None:
    """Stop the kernel."""
    if getattr(self, "kernel_context", None) is not None:
        self.kernel_context.__exit__(None, None, None)


def cell_runtest(self) -> None:
    """Run one cell and compare its outputs."""
    if faults := cell_faults(self.cell, self.cell_num + 1):
        with contextlib.suppress(nbval_plugin.NbCellError):
            run_cell(self, check=False)  # later cells may need what it does
        self.raise_cell_error("; ".join(faults))
    if self.options["skip"]:
        pytest.skip(self.cell.metadata.mtl.reason)
    on_gpu = "gpu" in execute.tags(self.cell)
    if on_gpu and not has_cuda():
        pytest.skip("no CUDA device")
    recorded_without = any(
        execute.SKIPPED_WITHOUT_CUDA in output.get("text", "") for output in self.cell.outputs
    )
    run_cell(self, check=self.options["check"] and not (on_gpu and recorded_without))


def run_cell(self, check: bool) -> None:
    file = self.parent
    index = file.indices[self.cell_num]
    cell = file.fresh.cells[index]
    try:
        file.client.execute_cell(cell, index)
    except CellExecutionError as error:
        self.raise_cell_error(f"{error.ename}: {error.evalue}", error.traceback)
    except TimeoutError:
        file.timed_out = True
        self.raise_cell_error(f"timed out after {execute.TIMEOUT} s")
    self.test_outputs = cell.outputs
    if errors := execute.widget_errors(file.client):
        self.raise_cell_error(f"an error inside a widget: {errors[0]}")
    if not check:
        return
    if complaint := "".join(o.text for o in cell.outputs if o.get("name") == "stderr"):
        self.raise_cell_error(f"the cell writes on stderr: {complaint}")
    settings = self.cell.metadata.get("mtl", {})
    folder = self.config.rootpath / "build" / "figure_failures"
    save_as = folder / f"{self.path.stem}-cell{self.cell_num}"
    difference = outputs_difference(self.cell.outputs, cell.outputs, settings, save_as)
    if difference is not None:
        self.raise_cell_error("the output differs from the stored one", difference)


def pytest_configure(config) -> None:
    if getattr(config.option, "nbval_lax", False):
        raise pytest.UsageError("--nbval-lax: the notebooks are compared strictly, use --nbval")
    nbval_plugin.IPyNbFile.setup = file_setup
    nbval_plugin.IPyNbFile.teardown = file_teardown
    nbval_plugin.IPyNbCell.runtest = cell_runtest
