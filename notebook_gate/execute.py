"""Execute notebooks as Jupyter does: one place for the runner and for the tests."""

from __future__ import annotations

import ast
import asyncio
import atexit
import copy
import functools
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import zmq
from jupyter_core.utils import ensure_async
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbclient.output_widget import OutputWidget
from nbformat import NotebookNode

TIMEOUT = 300  # seconds for one cell
WATCH_TIMEOUT = 60  # seconds for a question to watch.py
STARTS = 3  # of a kernel: between choosing its ports and listening another process may take one
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
SKIPPED_WITHOUT_CUDA = "no CUDA device: skipped here"  # what a cell tagged `gpu` prints then
# Puts watch.py into the kernel as a module, wherever this folder is, and leaves no name behind.
LOAD_WATCH = """\
def _load(path):
    import importlib.util, sys
    spec = importlib.util.spec_from_file_location("notebook_gate_watch", path)
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
_load({path!r})
del _load"""

ANSI = re.compile(r"\x1b\[[0-9;]*m")


# ---- reading notebooks -----------------------------------------------------------------------


def tags(cell: NotebookNode) -> list[str]:
    """Tags of a cell."""
    return cell.metadata.get("tags", [])


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The code cells, in order. Cell n is the one that Jupyter shows as In [n]."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def cleared(notebook: NotebookNode) -> NotebookNode:
    """A copy without outputs and execution counts."""
    notebook = copy.deepcopy(notebook)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    return notebook


def without_widgets(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Outputs except widget views (sliders, progress bars): these are not stored nor compared.

    What an output says in HTML to those who have no widget, as `mtl_utils.widgets.explore` does,
    is kept.
    """
    kept = []
    for output in outputs:
        data = output.get("data", {})
        if WIDGET_VIEW in data and "text/html" in data:
            output = copy.deepcopy(output)
            del output["data"][WIDGET_VIEW]
        if WIDGET_VIEW not in output.get("data", {}):
            kept.append(output)
    return kept


def merged_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Outputs with the pieces of a text joined: where it is cut is up to chance.

    Text before a figure and text after it stay apart. A carriage return overwrites its line, as on
    a screen.
    """
    merged: list[NotebookNode] = []
    for output in copy.deepcopy(outputs):
        if output.output_type == "stream" and merged and merged[-1].get("name") == output.name:
            merged[-1].text += output.text
        else:
            merged.append(output)
    for output in merged:
        if output.output_type == "stream":
            output.text = re.sub(r"^.*\r(?=[^\n])", "", output.text, flags=re.MULTILINE)
    return merged


def recorded_without_cuda(outputs: list[NotebookNode]) -> bool:
    """Whether the outputs of a `gpu` cell say that there was no CUDA device."""
    return any(SKIPPED_WITHOUT_CUDA in output.get("text", "") for output in outputs)


@functools.cache
def cuda_available() -> bool:
    """Whether torch is there and sees a CUDA device; imports it only when it is asked."""
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()


# ---- running them ----------------------------------------------------------------------------


@functools.cache
def ensure_folders() -> None:
    """Folders for what Jupyter, IPython and matplotlib keep, where the home cannot be written."""
    home = os.path.expanduser("~")  # "~" itself if there is none
    own = [os.path.join(home, name) for name in ("", ".cache", ".config", ".ipython", ".local")]
    used = [path for path in own if os.path.lexists(path)]
    if used and all(os.path.isdir(path) and os.access(path, os.W_OK) for path in used):
        return
    folder = tempfile.mkdtemp(prefix="jupyter-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "MPLCONFIGDIR"):
        os.environ.setdefault(name, folder)


class CellFailed(Exception):
    """A cell raised, ran too long, killed its kernel, or a callback of a widget raised."""

    def __init__(self, number: int, cell: NotebookNode, error: str, traceback: str = "") -> None:
        source = cell.source.strip().splitlines() or [""]
        super().__init__(f"cell {number} ({cell.get('id', 'no id')}: {source[0]!r}): {error}")
        self.error = error
        self.traceback = ANSI.sub("", traceback).rstrip()


class ListeningOutput(OutputWidget):
    """An Output widget that reports the errors shown in it, which Jupyter shows there only."""

    def send(self, *arguments: Any, **options: Any) -> None:
        """Send a message to the kernel, and look whether one came in meanwhile.

        Sending may swallow the signal that the kernel's reply has arrived; then nbclient would
        wait for it until the cell's time is up (seen in 4 % of the cells with an Output widget).
        """
        super().send(*arguments, **options)
        self.kernel_client.shell_channel.socket.get(zmq.EVENTS)

    def output(self, outs, msg, display_id, cell_index):
        if msg["msg_type"] == "error":
            error = msg["content"]
            self.executor.widget_errors.append(f"{error['ename']}: {error['evalue']}")
        super().output(outs, msg, display_id, cell_index)


class Client(NotebookClient):
    """nbclient, which treats clear_output, display updates, Output widgets and a closing `;` as
    Jupyter does; with an ear for errors in widgets."""

    def __init__(self, *args: Any, import_path: Sequence[Path] = (), **options: Any) -> None:
        super().__init__(*args, **options)
        self.import_path = import_path
        self.widget_errors: list[str] = []
        self.widget_registry["@jupyter-widgets/output"]["OutputModel"] = ListeningOutput

    async def start(self) -> None:
        """Start a kernel of this very Python, which imports from `import_path` first.

        A kernelspec "python3" of the user may belong to another environment, and a variable
        MPLBACKEND of the shell would keep figures out of the notebook.
        """
        folders = [*map(str, self.import_path), os.environ.get("PYTHONPATH")]
        inline = "module://matplotlib_inline.backend_inline"
        ensure_folders()
        environment = {
            "OMP_NUM_THREADS": "1",  # several kernels share the cores,
            "OMP_WAIT_POLICY": "PASSIVE",  # and threads that spin would take them away
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, folders)),
            "MPLBACKEND": inline,
        }
        for left in reversed(range(STARTS)):
            try:
                await self.start_kernel(environment)
                break
            except RuntimeError:  # it died: another process took a port meant for it
                if not left:
                    raise
        load = LOAD_WATCH.format(path=str(Path(__file__).with_name("watch.py")))
        await self.ask(load, {})
        await self.watch("install()")

    async def start_kernel(self, environment: dict[str, str]) -> None:
        """Start a kernel on free ports, and wait until it answers.

        Raises:
            RuntimeError: it died before. No cell has run then.
        """
        kernel = self.create_kernel_manager().kernel_spec
        assert kernel is not None
        kernel.argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        kernel.argv.append("--log-level=ERROR")  # no warning about TCP in the progress display
        await self.async_start_new_kernel(env=environment)
        await self.async_start_new_kernel_client()

    async def ask(self, code: str, expressions: dict[str, str]) -> dict[str, Any]:
        """Run code in the kernel, unseen; returns the reply with the values of expressions.

        Raises:
            TimeoutError: the kernel does not answer.
            RuntimeError: the code failed.
        """
        client: Any = self.kc
        reply = await client.execute(
            code,
            silent=True,
            store_history=False,
            user_expressions=expressions,
            reply=True,
            timeout=WATCH_TIMEOUT,
        )
        if reply["content"]["status"] != "ok":
            raise RuntimeError(f"{code}: {reply['content']}")
        return reply["content"]["user_expressions"]

    async def watch(self, call: str) -> list[tuple[int, str]]:
        """Call a function of watch.py in the kernel; returns what was heard so far."""
        module = '__import__("notebook_gate_watch")'
        try:
            values = await self.ask(f"await {module}.{call}", {"heard": f"{module}.heard"})
        except TimeoutError:
            return [(sys.maxsize, "the kernel does not answer any more")]
        return ast.literal_eval(values["heard"]["data"]["text/plain"])

    async def stop(self) -> None:
        """Kill the kernel: nothing in it is needed any more."""
        if self.kc is not None:
            self.kc.stop_channels()
        if self.km is not None and self.km.has_kernel:
            await ensure_async(self.km.shutdown_kernel(now=True))


def unraised_error(cell: NotebookNode, widget_errors: list[str]) -> str:
    """An error that did not stop its cell: a widget's callback raised. Empty if there was none."""
    if widget_errors:
        return f"inside a widget: {widget_errors[0]}"
    shown = [output for output in cell.outputs if output.output_type == "error"]
    if shown and "raises-exception" not in tags(cell):
        return f"shown, though the cell went on: {shown[0].ename}: {shown[0].evalue}"
    return ""


async def execute_cells(
    notebook: NotebookNode,
    folder: Path,
    *,
    keep_going: bool = False,
    skip_tag: str = "",
    timeout: float = TIMEOUT,
    import_path: Sequence[Path] = (),
    on_cell: Callable[[], Any] = lambda: None,
) -> dict[int, CellFailed]:
    """Execute the code cells of a notebook, from top to bottom, in a kernel of their own.

    Args:
        notebook: receives the outputs; a cell that was not executed has no execution count.
        folder: the working directory.
        keep_going: go on after a cell that raised. After one that ran too long or killed the
            kernel nothing more is executed.
        skip_tag: cells with this tag are not executed.
        timeout: seconds for one cell.
        import_path: folders that the kernel imports from before all others.
        on_cell: called after each cell.

    Returns:
        the failures by number of the code cell (1, 2, ...).
    """
    client = Client(
        notebook,
        kernel_name="python3",
        timeout=timeout,
        skip_cells_with_tag=skip_tag,
        import_path=import_path,
        resources={"metadata": {"path": str(folder)}},
    )
    failures: dict[int, CellFailed] = {}
    indices = [i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    try:
        await client.start()
        for number, index in enumerate(indices, start=1):
            cell = notebook.cells[index]
            error = traceback = ""
            alive = True
            try:
                await client.async_execute_cell(cell, index)
            except CellExecutionError as raised:
                error = f"{raised.ename}: {raised.evalue}"
                traceback = "\n".join(line for o in cell.outputs for line in o.get("traceback", []))
            except CellTimeoutError:
                error, alive = f"ran for more than {timeout:g} s", False
            except DeadKernelError:
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    raise asyncio.CancelledError from None  # nbclient mistakes one for the other
                error, alive = "the kernel died", False
            error = error or unraised_error(cell, client.widget_errors)
            client.widget_errors.clear()
            if error:
                failures[number] = CellFailed(number, cell, error, traceback)
            on_cell()
            if error and not (keep_going and alive):
                break
        else:
            for number, error in await client.watch("settle()"):
                number = max(1, min(number, len(indices)))
                cell = notebook.cells[indices[number - 1]]
                if "raises-exception" not in tags(cell):
                    failures.setdefault(number, CellFailed(number, cell, error))
    finally:
        await client.stop()
    for cell in code_cells(notebook):
        cell.outputs = merged_streams(cell.outputs)
    return failures
