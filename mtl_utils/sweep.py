"""Many trainings: all cores of a machine, or a cluster; recorded as they end; taken up again.

An experiment is a function of its settings, in a module of its own, and the settings to try:

    # experiments/nb14_benchmark.py
    from mtl_utils import sweep

    def train(data, rule, seed):
        torch.manual_seed(seed)  # all that varies comes from the arguments, seeds too
        ...
        return {"error": error, "loss": loss_by_epoch}

    if __name__ == "__main__":
        configs = sweep.grid(data=["films", "glyphs"], rule=["equal", "dwa"], seed=range(20))
        sweep.run(train, configs, record="14_benchmark", **sweep.options(__doc__))

`python -m experiments.nb14_benchmark` runs them on all cores, one thread each, and writes
results/14_benchmark.jsonl (the format is told in `mtl_utils.records`). Stopped in any way and
started again, it goes on where it was. `--jobs 1` runs in this process, for a debugger.

On a Dask cluster, workers of one thread each, with this repository installed:

    dask scheduler                                           # prints its address
    dask worker ADDRESS --nthreads 1 --nworkers 16           # on every machine
    python -m experiments.nb14_benchmark --backend dask --scheduler ADDRESS

On Slurm, dask-jobqueue starts the workers (tried as far as its job script: there was no Slurm):

    from dask_jobqueue import SLURMCluster

    cluster = SLURMCluster(cores=1, processes=1, memory="4GB", walltime="04:00:00")
    cluster.scale(jobs=50)  # workers come and go; a run whose worker is taken starts anew elsewhere
    sweep.run(train, configs, record="14_benchmark", backend="dask", scheduler=cluster)
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import itertools
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from tqdm.auto import tqdm

from mtl_utils import records, workers
from mtl_utils.extras import extra
from mtl_utils.records import Config, Entry

with extra("notebooks"):
    import joblib


def grid(**settings: Iterable[Any]) -> list[Config]:
    """Every combination of some settings; the last one varies fastest.

    >>> from mtl_utils import sweep
    >>> sweep.grid(rule=["equal", "dwa"], seed=range(2))[1:3]
    [{'rule': 'equal', 'seed': 1}, {'rule': 'dwa', 'seed': 0}]
    """
    for name, values in settings.items():
        if isinstance(values, str) or not isinstance(values, Iterable):
            raise TypeError(f"{name}: expected a list of values, got {values!r}")
    return [
        dict(zip(settings, values, strict=True)) for values in itertools.product(*settings.values())
    ]


def run(
    function: Callable[..., Any],
    configs: Iterable[Mapping[str, Any]],
    record: str | Path | None = None,
    *,
    backend: Literal["processes", "dask"] = "processes",
    scheduler: Any = None,
    n_jobs: int = -1,
    retry_failed: bool = False,
    keep_old: bool = False,
    progress: bool = True,
) -> pd.DataFrame:
    """Call `function(**config)` for every configuration that the record does not have yet.

    Args:
        function: a named function whose result depends on its arguments alone. It returns a
            dictionary of numbers, texts and lists (a curve: one number an epoch), or a list of
            such dictionaries, one for each of many networks trained side by side. Arrays and
            tensors become lists; floats are kept to six digits. It runs with one thread, and with
            the default number type of torch that is set here.
        configs: keyword arguments, of numbers, texts and lists. What stands there twice runs once.
        record: its name, such as "14_benchmark", or its path (see `records.read`); None keeps no
            record.
        backend: "processes" of this machine, or "dask".
        scheduler: of Dask: its address, or a cluster object.
        n_jobs: how many processes; -1 is one a core, 1 runs in this process. (Dask's workers are
            all used.)
        retry_failed: run again what failed earlier.
        keep_old: accept runs that another state of the experiment's code made: of its module, and
            what this uses of its own package. Comments, docstrings and layout do not count.
        progress: show a bar with the time left.

    Returns:
        The rows of these configurations, in their order; columns as in `records.read`. A run that
        failed is in it, with the reason in column `failure`, and a warning says how many did.

    Raises:
        TypeError: an argument of `function` is missing or unknown, or `configs` holds what JSON
            does not know.
        ValueError: a setting is named as a column of `records.read`; `scheduler` is missing or
            useless; Dask's workers have several threads; runs were made by other code.
        RuntimeError: another sweep is writing the record; a Dask worker has other code.

    >>> from mtl_utils import sweep
    >>> def train(lr, seed):
    ...     return {"loss": [lr / (epoch + 1) + seed for epoch in range(3)]}
    >>> runs = sweep.run(train, sweep.grid(lr=[1.0], seed=[0, 1]), n_jobs=1, progress=False)
    >>> runs[["seed", "loss"]]
       seed                  loss
    0     0  [1.0, 0.5, 0.333333]
    1     1   [2.0, 1.5, 1.33333]
    """
    if backend not in ("processes", "dask"):
        raise ValueError(f"backend: expected 'processes' or 'dask', got {backend!r}")
    if (backend == "dask") != (scheduler is not None):
        raise ValueError(f"scheduler: Dask needs one, and nothing else; got {scheduler!r}")
    wanted = _by_key(function, configs)
    code = workers.fingerprint(function)
    experiment = workers.Experiment(workers.importable(function), code, torch.get_default_dtype())
    path = None if record is None else records.place(record)
    with records.Journal(path) as journal:
        there = {name: entry for name, entry in journal.entries.items() if name in wanted}
        _refuse_old(there.values(), code, keep_old)
        again = {name for name, entry in there.items() if retry_failed and "error" in entry}
        todo = [config for name, config in wanted.items() if name not in there or name in again]
        entries: Iterator[Entry] = iter(())
        if todo and backend == "dask":
            entries = workers.on_dask(experiment, todo, scheduler)
        elif todo and joblib.effective_n_jobs(n_jobs) == 1:
            entries = map(experiment, todo)
        elif todo:
            entries = workers.on_cores(experiment, todo, n_jobs)
        shown = _shown(entries, len(wanted), len(wanted) - len(todo), path, progress)
        with contextlib.closing(shown):  # interrupted, it ends its workers
            for entry in shown:
                journal.append(entry)
        asked_for = [journal.entries[name] for name in wanted]
    failures = [entry["error"] for entry in asked_for if "error" in entry]
    if failures:
        first = f"{failures[0]['type']}: {failures[0]['message']}"
        warnings.warn(
            f"{len(failures)} of {len(wanted)} runs failed, the first with {first}", stacklevel=2
        )
    return records.frame(asked_for)


def options(
    description: str | None = None, arguments: Sequence[str] | None = None
) -> dict[str, Any]:
    """Keyword arguments of `run`, from the command line: `sweep.run(..., **sweep.options())`.

    Args:
        description: shown by `--help`, such as the module's docstring.
        arguments: None takes those of the command line.

    >>> from mtl_utils import sweep
    >>> sweep.options(arguments=["--jobs", "1", "--retry-failed"])["n_jobs"]
    1
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backend", choices=["processes", "dask"], default="processes")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of Dask: tcp://host:8786")
    parser.add_argument(
        "--jobs", dest="n_jobs", metavar="N", type=int, default=-1, help="processes; all cores"
    )
    parser.add_argument("--retry-failed", action="store_true", help="run again what failed")
    parser.add_argument("--keep-old", action="store_true", help="accept runs of other code")
    return vars(parser.parse_args(arguments))


def _shown(
    entries: Iterable[Entry], total: int, done: int, path: Path | None, progress: bool
) -> Generator[Entry]:
    """The entries, under a progress bar that counts failures."""
    name = "runs" if path is None else path.stem
    style = {"unit": "run", "smoothing": 0, "leave": False, "disable": not progress}
    bar = tqdm(entries, name, total, initial=done, **style)
    failed = 0
    for entry in bar:
        failed += "error" in entry
        if failed:
            bar.set_postfix(failed=failed, refresh=False)
        yield entry


def _by_key(
    function: Callable[..., Any], configs: Iterable[Mapping[str, Any]]
) -> dict[str, Config]:
    """The configurations by their key in the record, each once."""
    if not inspect.isfunction(function) or function.__name__ == "<lambda>":
        raise TypeError(f"function: expected a named function, got {function!r}")
    arguments = inspect.signature(function)
    wanted = {}
    for place, config in enumerate(configs):
        try:
            arguments.bind(**config)
            name = records.key(function.__name__, dict(config))
        except TypeError as error:
            raise TypeError(f"configs[{place}] of {function.__name__}: {error}") from None
        if taken := set(config) & set(records.OWN_COLUMNS):
            raise ValueError(f"configs: the name {taken.pop()!r} is taken by records.read")
        wanted[name] = dict(config)
    return wanted


def _refuse_old(entries: Iterable[Entry], code: str, keep_old: bool) -> None:
    """Runs of two states of the code do not get into one record unseen."""
    old = [e for e in entries if "result" in e and e["versions"]["code"] != code]
    if old and not keep_old:
        raise ValueError(
            f"record: {len(old)} of the runs asked for were made by another state of the "
            f"experiment's code ({old[0]['versions']['code']}, now {code}); delete them from the "
            "record to make them anew, or keep them: keep_old=True, --keep-old"
        )
