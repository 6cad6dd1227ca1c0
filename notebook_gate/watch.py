"""Runs in the kernel of a notebook, and hears the errors that no cell shows.

An error in a thread, or in an asyncio task that nobody awaits, goes to stderr after its cell has
ended, or nowhere if the notebook is over by then. And a cell goes on after `!command`, or after
`lines = !command`, has failed.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from types import CodeType
from typing import Any

from IPython.core import interactiveshell
from IPython.core.getipython import get_ipython

PATIENCE = 10  # seconds, for the threads and tasks of the last cell to end

cells: list[object] = []  # that have been run
heard: list[tuple[int, str]] = []  # number of the cell that ran, or ran last, and the error
started: set[threading.Thread] = set()  # by a cell


def hear(error: str) -> None:
    heard.append((len(cells), error))


def hear_exit(command: str, code: int | None) -> None:
    if code:
        hear(f"the command {command!r} failed with exit code {code}")


async def install() -> None:
    """Listen from now on; called once, before the first cell."""
    shell: Any = get_ipython()
    system, loop = shell.system, asyncio.get_running_loop()
    start = threading.Thread.start

    def watched_system(command: str) -> None:
        system(command)
        hear_exit(command, shell.user_ns.get("_exit_code"))

    def watched_output(cmd: str | list[str]) -> str:
        """As IPython's getoutput, which forgets the exit code."""
        in_shell = isinstance(cmd, str)
        found = subprocess.run(
            cmd,
            shell=in_shell,
            executable=os.environ.get("SHELL") if in_shell else None,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        hear_exit(str(cmd), found.returncode)
        return found.stdout.decode(errors="replace")

    def watched_start(thread: threading.Thread) -> None:
        if _of_a_cell(sys._getframe(1).f_code):
            started.add(thread)
        start(thread)

    def in_a_thread(args: threading.ExceptHookArgs) -> None:
        hear(f"in a thread: {args.exc_type.__name__}: {args.exc_value}")
        threading.__excepthook__(args)

    def in_a_task(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if error := context.get("exception"):
            hear(f"in a task: {type(error).__name__}: {error}")
        loop.default_exception_handler(context)

    shell.system = watched_system
    interactiveshell.getoutput = watched_output
    threading.Thread.start = watched_start  # type: ignore[assignment, method-assign]
    shell.events.register("pre_run_cell", cells.append)
    threading.excepthook = in_a_thread
    loop.set_exception_handler(in_a_task)


def _of_a_cell(code: Any) -> bool:
    """Whether code was written in a cell: Jupyter runs it as a file ipykernel_<number>/..."""
    return isinstance(code, CodeType) and "ipykernel_" in code.co_filename


def _busy() -> bool:
    """Whether threads, tasks or timers that were started in a cell still run."""
    for thread in threading.enumerate():
        target = getattr(thread, "_target", None) or type(thread).run
        if thread in started or _of_a_cell(getattr(target, "__code__", None)):
            return True
    loop = asyncio.get_running_loop()
    timers = [timer for timer in getattr(loop, "_scheduled", ()) if not timer.cancelled()]
    if any(_of_a_cell(getattr(timer._callback, "__code__", None)) for timer in timers):
        return True
    coroutines = (task.get_coro() for task in asyncio.all_tasks() - {asyncio.current_task()})
    return any(_of_a_cell(getattr(coroutine, "cr_code", None)) for coroutine in coroutines)


async def settle() -> None:
    """Wait for what the cells have started, and look for tasks whose error nobody has seen."""
    end = time.monotonic() + PATIENCE
    while _busy() and time.monotonic() < end:
        await asyncio.sleep(0.02)
    gc.collect()  # a lost task reports its error when it is collected
    tasks = [it for it in gc.get_objects() if issubclass(type(it), asyncio.Task)]
    for task in tasks:
        if task.done() and task._log_traceback:  # true until somebody asks for the error
            error = task.exception()
            hear(f"in a task: {type(error).__name__}: {error}")
