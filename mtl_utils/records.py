"""The records of long experiments: one text file each, one line a run, written as runs end.

`mtl_utils.sweep` writes them, `read` finds them from any folder and makes a table of them. A line
of `results/14_benchmark.jsonl` is JSON, here broken up:

    {"function": "train",
     "config":   {"data": "films", "rule": "dwa", "lr": 0.01, "seed": 3},
     "result":   {"error": 0.214, "loss": [0.71, 0.52, 0.47]},
     "seconds":  12.3,
     "versions": {"python": "3.11.7", "torch": "2.13.0", "mtl_utils": "1.0.0+4be1c0de",
                  "code": "91d2a6e0", "dtype": "float64"}}

`config` is exact; floats elsewhere have six digits, and may be NaN or Infinity. `result` is what
the function returned: a dictionary, or a list of them where one call trained many networks. A run
that failed has `error` (type, message, last places of its traceback) in place of `result`. A
configuration that stands there twice was tried again: its last line counts. `code` is a hash of the
experiment's code, and the letters after the plus sign one of `mtl_utils`.

Without this package: `[json.loads(line) for line in open("results/14_benchmark.jsonl")]`, and
`pandas.json_normalize` of that. A record that is complete may be packed (`pack`, `.jsonl.gz`): a
run with curves of 90 numbers takes 1.2 kB, and packed 0.4; what is rounded to three digits, less.
"""

from __future__ import annotations

import difflib
import gzip
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

Config = dict[str, Any]  # the settings of a run
Entry = dict[str, Any]  # a line

PLAIN, PACKED = ".jsonl", ".jsonl.gz"
SUFFIXES = (PLAIN, PACKED, ".csv")  # the order of preference; .csv: records of another make
OWN_COLUMNS = ("run_seconds", "failure")  # what `read` adds to settings and results


def read(name: str | Path, by_epoch: Sequence[str] = (), versions: bool = False) -> pd.DataFrame:
    """The runs of a record, one row each.

    Args:
        name: of the record, such as "14_benchmark"; it is sought in the folder that the environment
            variable MTL_RESULTS names, else in `results/` beside the current folder and every
            folder above it, and in the repository that this package lies in. With a slash, or as a
            `Path`: that file.
        by_epoch: columns that hold curves, all of one length within a run; a row for each of their
            entries, counted from 1 in a new column `epoch`.
        versions: also the columns function, python, torch, mtl_utils, code and dtype: what made
            the run.

    Returns:
        Columns: the settings, the results (of the same name: the result counts), `run_seconds`
        (of the call), and `failure`: why there are no results; missing where all went well.

    Raises:
        FileNotFoundError: there is no such record; the message names the folders.
        ValueError: a line is damaged, or `by_epoch` names no column or curves of several lengths.

    >>> from mtl_utils import records
    >>> records.read("step_cost").columns[:3].tolist()
    ['model', 'tasks', 'contender']
    """
    path = find(name)
    if path.suffix == ".csv":
        return explode(pd.read_csv(path), by_epoch)
    return explode(frame(load(path), versions), by_epoch)


def find(name: str | Path) -> Path:
    """The file of a record; see `read` for where it is sought."""
    stem, folders = _split(name)
    for folder in folders:
        for suffix in SUFFIXES:
            if (path := folder / f"{stem}{suffix}").is_file():
                return path
    files = [file.name for folder in folders if folder.is_dir() for file in folder.iterdir()]
    close = difflib.get_close_matches(stem, {_stem(f) for f in files if f.endswith(SUFFIXES)})
    raise FileNotFoundError(
        f"name: no record {stem!r} ({', '.join(SUFFIXES)}) in any of "
        + ", ".join(map(str, folders))
        + (f"; did you mean {' or '.join(map(repr, close))}?" if close else "")
    )


def place(name: str | Path) -> Path:
    """Where to write a record: beside the one that is there, else in the first `results/` found."""
    stem, folders = _split(name)
    try:
        folder = find(name).parent
    except FileNotFoundError:
        folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    return folder / f"{stem}{PLAIN}"


def load(path: Path) -> list[Entry]:
    """The lines of a record; of several for the same configuration, the last."""
    latest: dict[str, Entry] = {}
    for number, line in enumerate(_whole_lines(path).splitlines(), 1):
        try:
            entry = json.loads(line)
            latest[key_of(entry)] = entry
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path.name}: line {number} is damaged ({error!r})") from None
    return list(latest.values())


def key(function: str, config: Config) -> str:
    """What tells one run from another: the function's name and the configuration, as text."""
    return json.dumps([function, plain(config)], sort_keys=True)


def key_of(entry: Entry) -> str:
    """The key of a line."""
    return key(entry["function"], entry["config"])


def frame(entries: Iterable[Entry], versions: bool = False) -> pd.DataFrame:
    """A row for each run, of lines as `load` returns them; columns as in `read`."""
    rows = []
    names: dict[str, None] = {}  # of settings and results, in the order of their appearance
    for entry in entries:
        made_by = {"function": entry["function"], **entry["versions"]} if versions else {}
        error = entry.get("error")
        failure = f"{error['type']}: {error['message']}" if error else None
        result = entry.get("result", {})
        for run in result if isinstance(result, list) else [result]:
            row = {**entry["config"], **run}
            names.update(dict.fromkeys(row))
            rows.append({"run_seconds": entry["seconds"], "failure": failure, **made_by, **row})
    table = pd.DataFrame(rows)
    return table[[*names, *(column for column in table.columns if column not in names)]]


def explode(table: pd.DataFrame, curves: Sequence[str]) -> pd.DataFrame:
    """A row for each entry of the curves, with the column `epoch` that counts them from 1."""
    curves = [curves] if isinstance(curves, str) else list(curves)
    if not curves:
        return table
    if missing := [name for name in curves if name not in table]:
        raise ValueError(f"by_epoch: no column {missing[0]!r}; there are {list(table.columns)}")
    try:
        long = table.explode(curves)
    except ValueError:
        raise ValueError(f"by_epoch: {curves} are not of one length within each run") from None
    long[curves] = long[curves].infer_objects()
    if "epoch" not in long:
        long.insert(long.columns.get_loc(curves[0]), "epoch", long.groupby(level=0).cumcount() + 1)
    return long.reset_index(drop=True)


def pack(name: str | Path) -> Path:
    """Compress a record that is complete; the same bytes for the same lines.

    `read` reads it as before; a sweep that has something to add unpacks it first.
    """
    path = place(name)
    with Journal(path):  # nobody writes it meanwhile
        if path.is_file():
            _replace(path.with_name(path.stem + PACKED), gzip.compress(_whole_lines(path), mtime=0))
            path.unlink()
    return find(name)


class Journal:
    """The one writer of a record: `with Journal(path) as journal: journal.append(entry)`.

    Each line is on the disk when `append` returns. A line that a killed writer left half written is
    cut off before the next one is added. A lock (`NAME.jsonl.lock`, which stays) keeps a second
    writer out; the system releases it however this one ends.

    Args:
        path: of the plain file; None keeps the entries in memory only.

    Attributes:
        entries: the latest line of each configuration, by `key`.

    Raises:
        RuntimeError: somebody else is writing the record.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.entries: dict[str, Entry] = {}
        self._file: Any = None
        self._lock: FileLock | None = None

    def __enter__(self) -> Journal:
        if self.path is None:
            return self
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(f"{self.path}.lock")
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise RuntimeError(
                f"record: another sweep is writing {self.path.name}; wait for it, or stop it"
            ) from None
        packed = self.path.with_name(self.path.stem + PACKED)
        for file in (self.path, packed):
            if file.is_file():
                self.entries = {key_of(entry): entry for entry in load(file)}
                break
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
        if self._lock is not None:
            self._lock.release()

    def append(self, entry: Entry) -> None:
        """Add a run."""
        if self.path is not None:
            if self._file is None:
                self._file = _open_whole(self.path)
            text = json.dumps(entry, ensure_ascii=False, separators=(",", ":"))
            self._file.write(text.encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        self.entries[key_of(entry)] = entry


def plain(value: Any, digits: int | None = None) -> Any:
    """Numbers, text, None, and lists and dictionaries of them, as JSON knows them.

    Args:
        value: may hold tuples, ranges, NumPy arrays and torch tensors: they become lists.
        digits: significant digits of floats; None keeps them exact.

    Raises:
        TypeError: there is something else in it.

    >>> from mtl_utils import records
    >>> records.plain({"losses": (1 / 3, 2), "rule": "dwa"}, digits=6)
    {'losses': [0.333333, 2], 'rule': 'dwa'}
    """
    if isinstance(value, float):
        return float(value) if digits is None else float(f"{value:.{digits}g}")
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, dict):
        return {str(name): plain(entry, digits) for name, entry in value.items()}
    if isinstance(value, list | tuple | range):
        return [plain(entry, digits) for entry in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist(), digits)
    raise TypeError(f"expected numbers, text, and lists of them, got {type(value).__name__}")


def _split(name: str | Path) -> tuple[str, list[Path]]:
    """The name of a record without its suffix, and the folders to look in."""
    path = Path(name)
    if isinstance(name, Path) or len(path.parts) > 1:
        return _stem(path.name), [path.parent.absolute()]
    if named := os.environ.get("MTL_RESULTS"):
        return _stem(path.name), [Path(named).absolute()]
    here, package = Path.cwd(), Path(__file__).resolve().parent
    above = [here, *here.parents, package.parent]
    return _stem(path.name), list(dict.fromkeys(folder / "results" for folder in above))


def _stem(filename: str) -> str:
    for suffix in (PACKED, PLAIN, ".csv"):
        filename = filename.removesuffix(suffix)
    return filename


def _whole_lines(path: Path) -> bytes:
    """The content up to the last newline: what stands after it was never finished."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    return content[: content.rfind(b"\n") + 1]


def _open_whole(path: Path) -> Any:
    """Open for appending a file that is plain and whose last line is whole."""
    packed = path.with_name(path.stem + PACKED)
    if packed.is_file():
        if not path.is_file():
            _replace(path, _whole_lines(packed))
        packed.unlink()
    file = path.open("ab")
    file.truncate(len(_whole_lines(path)))
    return file


def _replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    new = path.with_name(path.name + ".new")
    with new.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
