"""The table of a long experiment: written as it goes, taken up again where it ended."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


class Record:
    """A CSV file that is completed.

    Args:
        path: the file; made with its header if it is not there.
        columns: names of the columns.
        key: the columns that tell one piece of work from another; `key in record` says whether a
            row has these values already (compared as text).

    Attributes:
        rows: all rows, as text by column.

    Raises:
        ValueError: the file has other columns, or a row to add has not one value for each.
    """

    def __init__(self, path: Path, columns: Sequence[str], key: Sequence[str] = ()) -> None:
        self.path, self.columns, self.key = path, list(columns), list(key)
        self.rows: list[dict[str, str]] = []
        self._done: set[tuple[str, ...]] = set()
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            self._append([self.columns])
            return
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if reader.fieldnames != self.columns:
                raise ValueError(
                    f"{path.name}: expected columns {self.columns}, got {reader.fieldnames}"
                )
            for row in reader:
                self._remember(row)

    def __contains__(self, key: Sequence[Any]) -> bool:
        return tuple(map(str, key)) in self._done

    def add(self, rows: Iterable[Sequence[Any]]) -> None:
        """Write rows, values in the order of the columns, at once."""
        texts = [[str(value) for value in row] for row in rows]
        for text in texts:
            if len(text) != len(self.columns):
                raise ValueError(f"rows: expected {len(self.columns)} values each, got {text}")
        self._append(texts)
        for text in texts:
            self._remember(dict(zip(self.columns, text, strict=True)))

    def _append(self, lines: list[list[str]]) -> None:
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(lines)

    def _remember(self, row: dict[str, str]) -> None:
        self.rows.append(row)
        self._done.add(tuple(row[column] for column in self.key))


def short(value: Any) -> Any:
    """A float with four digits, for a table; anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else value
