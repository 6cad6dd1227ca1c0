"""Execute notebooks as Jupyter does: one place for the runner and for the tests."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

TIMEOUT = 300  # seconds for one cell
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
SKIPPED_WITHOUT_CUDA = "no CUDA device: skipped here"

# One thread in each kernel, and no spinning: several kernels share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def tags(cell: NotebookNode) -> list[str]:
    """Tags of a cell."""
    return cell.metadata.get("tags", [])


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The code cells, in order."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def cleared(notebook: NotebookNode) -> NotebookNode:
    """A copy without outputs and execution counts."""
    notebook = copy.deepcopy(notebook)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    return notebook


def make_client(notebook: NotebookNode, folder: Path) -> NotebookClient:
    """A client that runs the cells of `notebook` in place, in `folder`.

    nbclient understands clear_output, display updates, Output widgets and a closing `;`, which
    nbval's own loop does not.
    """
    return NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=TIMEOUT,
        store_widget_state=True,  # Output widgets need it
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )


def widget_errors(client: NotebookClient) -> list[str]:
    """Errors that a widget's callback raised: Jupyter shows them inside the widget only."""
    return [
        f"{output['ename']}: {output['evalue']}"
        for state in client.widget_state.values()
        for output in state.get("outputs", [])
        if output["output_type"] == "error"
    ]


def without_widgets(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Outputs except widget views (sliders, progress bars), which are neither stored nor compared."""
    return [output for output in outputs if WIDGET_VIEW not in output.get("data", {})]


class CellFailed(Exception):
    """A cell raised, timed out, or a widget's callback did."""

    def __init__(self, number: int, cell: NotebookNode, error: str, traceback: str = "") -> None:
        source = cell.source.strip().splitlines() or [""]
        super().__init__(f"cell {number} ({cell.get('id', 'no id')}: {source[0]!r}): {error}")
        self.traceback = traceback


def execute(
    path: Path, on_cell: Callable[[int, int], Any] = lambda done, total: None
) -> NotebookNode:
    """Execute a notebook from top to bottom and return the executed copy.

    Args:
        path: of the notebook; it is not changed.
        on_cell: called after each code cell with the number of cells done and their total.

    Raises:
        CellFailed: names the first cell that failed.
    """
    notebook = cleared(nbformat.read(path, as_version=4))
    client = make_client(notebook, path.parent)
    cells = [(i, cell) for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    with client.setup_kernel():
        for number, (index, cell) in enumerate(cells, start=1):
            try:
                client.execute_cell(cell, index, execution_count=number)
            except CellExecutionError as error:
                raise CellFailed(
                    number, cell, f"{error.ename}: {error.evalue}", error.traceback
                ) from None
            except TimeoutError:
                raise CellFailed(number, cell, f"timed out after {TIMEOUT} s") from None
            if errors := widget_errors(client):
                raise CellFailed(number, cell, f"in a widget: {errors[0]}")
            on_cell(number, len(cells))
    return notebook
