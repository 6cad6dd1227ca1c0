"""Where the runs of a sweep run, and what becomes of each: a line of the record."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import inspect
import os
import platform
import re
import sys
import textwrap
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

import mtl_utils
from mtl_utils import records
from mtl_utils.extras import extra
from mtl_utils.records import Config, Entry

with extra("notebooks"):
    import joblib
    from joblib.externals.loky import get_reusable_executor
    from joblib.externals.loky.process_executor import TerminatedWorkerError


@dataclass(frozen=True)
class Experiment:
    """A function that makes a line of the record of each call, whether it fails or not.

    Args:
        function: of the settings.
        code: its fingerprint.
        dtype: torch's default number type while it runs.
    """

    function: Callable[..., Any]
    code: str
    dtype: torch.dtype

    def __call__(self, config: Config) -> Entry:
        threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
        torch.set_num_threads(1)
        torch.set_default_dtype(self.dtype)
        start = time.perf_counter()
        try:
            outcome = {"result": _checked(self.function(**config))}
        except (Exception, SystemExit) as error:
            outcome = {"error": describe(error)}
        finally:
            torch.set_num_threads(threads)
            torch.set_default_dtype(dtype)
        return self.entry(config, outcome, time.perf_counter() - start)

    def entry(self, config: Config, outcome: dict[str, Any], seconds: float | None) -> Entry:
        """The line of a call that ended so."""
        dtype = str(self.dtype).removeprefix("torch.")
        return {
            "function": self.function.__name__,
            "config": records.plain(config),
            **outcome,
            "seconds": records.plain(seconds, digits=6),
            "versions": {**versions(), "code": self.code, "dtype": dtype},
        }

    def died(self, config: Config) -> Entry:
        """The line of a call that took its process with it."""
        message = "the worker process died: out of memory, or a crash in compiled code"
        error = {"type": "ProcessDied", "message": message, "traceback": []}
        return self.entry(config, {"error": error}, None)


def describe(error: BaseException) -> dict[str, Any]:
    """Type, message and last places of an error, without the folders of this machine."""
    places = traceback.extract_tb(error.__traceback__)[1:][-3:]  # the first is in this module
    return {
        "type": type(error).__name__,
        "message": _without_folders(str(error))[:500],
        "traceback": [
            f"{Path(p.filename).name}:{p.lineno} {p.name}: {_without_folders(p.line or '')}"
            for p in places
        ],
    }


def _without_folders(text: str) -> str:
    """/some/folder/file.py and C:\\some\\folder\\file.py become file.py."""
    return re.sub(r"(?<![\w.:/\\])(?:[A-Za-z]:)?[/\\](?:[^\s'\"/\\]+[/\\])+", "", text)


def _checked(result: Any) -> Any:
    """The result as JSON knows it."""
    runs = result if isinstance(result, list) else [result]
    if not runs or not all(isinstance(run, dict) for run in runs):
        raise TypeError(f"result: expected a dictionary or a list of them, got {result!r:.80}")
    for run in runs:
        if taken := set(run) & set(records.OWN_COLUMNS):
            raise ValueError(f"result: the name {taken.pop()!r} is taken by records.read")
    return records.plain(result, digits=6)


def on_cores(experiment: Experiment, configs: Sequence[Config], n_jobs: int) -> Iterator[Entry]:
    """Lines, as runs end in worker processes of this machine, one thread each.

    A run that kills its worker (out of memory, a crash in compiled code) takes the others that are
    under way with it. The halves of these are tried again, until one run is alone: that one failed.
    """
    groups = [deque(configs)]
    while groups:
        waiting = groups.pop()
        started: dict[str, Config] = {}
        with joblib.parallel_config("loky", n_jobs=n_jobs, inner_max_num_threads=1):
            parallel = joblib.Parallel(batch_size=1, return_as="generator_unordered")
        try:
            for entry in parallel(_tasks(experiment, waiting, started)):
                del started[records.key_of(entry)]
                yield entry
        except TerminatedWorkerError:
            suspects = list(started.values())
            if len(suspects) == 1:
                yield experiment.died(suspects.pop())
            half = len(suspects) // 2
            groups += [waiting, deque(suspects[half:]), deque(suspects[:half])]
        finally:  # no memory is held, and no later sweep meets code of today
            get_reusable_executor(reuse=True).shutdown(kill_workers=True)


def _tasks(
    experiment: Experiment, waiting: deque[Config], started: dict[str, Config]
) -> Iterator[Any]:
    """Calls for joblib, which takes a few more than there are workers; moved to `started`."""
    while waiting:
        config = waiting.popleft()
        started[records.key(experiment.function.__name__, config)] = config
        yield joblib.delayed(_in_worker)(experiment, config, os.getpid())


def _in_worker(experiment: Experiment, config: Config, parent: int) -> Entry:
    if os.name == "posix":  # elsewhere a launcher may stand between the two
        _end_with(parent)
    return experiment(config)


@functools.cache
def _end_with(parent: int) -> None:
    """End this process when its parent is gone: a killed sweep leaves no worker behind."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def on_dask(experiment: Experiment, configs: Sequence[Config], scheduler: Any) -> Iterator[Entry]:
    """Lines as runs end on the workers of a Dask cluster."""
    from distributed import Client, KilledWorker, as_completed

    with Client(scheduler, set_as_default=False) as client:
        if any(threads > 1 for threads in client.nthreads().values()):
            raise ValueError(f"scheduler: {ONE_THREAD}")
        on_worker = functools.partial(_in_dask, experiment)
        futures = client.map(on_worker, configs, pure=False)
        config_of = dict(zip(futures, configs, strict=True))
        del futures  # a result is kept by the cluster for as long as its future is here
        for future in as_completed(list(config_of), loop=client.loop):
            config = config_of.pop(future)
            try:
                yield future.result()
            except KilledWorker:
                yield experiment.died(config)


def _in_dask(experiment: Experiment, config: Config) -> Entry:
    """Refuse a worker that came later, or has other code; these errors stop the sweep."""
    from distributed import get_worker

    if get_worker().state.nthreads > 1:
        raise ValueError(f"scheduler: {ONE_THREAD}")
    function = experiment.function
    if function.__module__ != "__main__" and fingerprint(function) != experiment.code:
        raise RuntimeError(f"scheduler: a worker has another state of {function.__module__}")
    return experiment(config)


ONE_THREAD = "its workers need one thread each: dask worker ADDRESS --nthreads 1 --nworkers N"


@functools.cache
def fingerprint(function: Callable[..., Any]) -> str:
    """Eight letters that change with the code of an experiment, but not with its layout.

    The code is that of the function's module and of the modules of the same package that it uses;
    comments and docstrings do not count. Of a function in a notebook, its own code counts.
    """
    module = sys.modules[function.__module__]
    sources: Collection[str]
    try:
        if hasattr(module, "__file__"):
            sources = _sources(module, {})
        else:
            sources = [textwrap.dedent(inspect.getsource(function))]
    except OSError:
        raise ValueError(f"function: {function.__name__} has no source; put it in a file") from None
    text = "\n".join(sorted(map(_bare, sources)))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _sources(module: ModuleType, found: dict[str, str]) -> Collection[str]:
    """The text of a module, and of those of its package from which it has a function or class."""
    found[module.__name__] = inspect.getsource(module)
    for value in list(vars(module).values()):
        name = value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", None)
        owner = sys.modules.get(name) if isinstance(name, str) else None
        near = owner is not None and module.__package__ and owner.__package__ == module.__package__
        if owner is not None and near and owner.__name__ not in found:
            _sources(owner, found)
    return found.values()


def _bare(source: str) -> str:
    """A program without comments, docstrings and layout, the same in every version of Python.

    (`ast.unparse` and `ast.dump` are not: 3.12 quotes otherwise and knows further fields.)
    """
    tree = ast.parse(source)  # knows no comments
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:] or [ast.Pass()]
    return _told(tree)


def _told(value: Any) -> str:
    """A syntax tree as text; what is empty is left out."""
    if isinstance(value, list):
        return "[" + " ".join(map(_told, value)) + "]"
    if not isinstance(value, ast.AST):
        return repr(value)
    fields = ((name, part) for name, part in ast.iter_fields(value) if part not in (None, []))
    return type(value).__name__ + "(" + " ".join(f"{n}={_told(p)}" for n, p in fields) + ")"


@functools.cache
def versions() -> dict[str, str]:
    """Of Python, torch and `mtl_utils`, the latter with a hash of its files."""
    folder = Path(mtl_utils.__file__).parent
    files = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        files.update(path.read_bytes())
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "mtl_utils": f"{mtl_utils.__version__}+{files.hexdigest()[:8]}",
    }


def importable(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of `python -m experiments.x` as other processes import it.

    As `__main__.train` it would be sent to them as code, and its module's caches with each call.
    """
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    nested = "." in function.__qualname__
    if function.__module__ != "__main__" or spec is None or nested:
        return function
    return getattr(importlib.import_module(spec.name), function.__name__)
