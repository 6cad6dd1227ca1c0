"""A record is made of pieces; what is done is on the disk before the next one begins."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
import torch

RESULTS = Path(__file__).resolve().parents[2] / "results"
Piece = Callable[[], list[dict]]


class Failed(RuntimeError):
    """Some pieces raised; what the others found is in the record."""


def carry_out(
    record: str, pieces: Mapping[str, Piece], seconds: float, folder: Path | None = None
) -> pd.DataFrame:
    """Run pieces of an experiment one after another, in float32, and write their rows.

    Args:
        record: name of the file, without ".csv". It is replaced when the first piece is done.
        pieces: name -> function that returns rows. One that raises does not stop the others.
        seconds: no further piece is begun that would not fit, going by the longest so far.
        folder: of the record; default `results/`.

    Returns:
        The rows of all pieces; `.attrs["left_out"]` names those for which there was no time.

    Raises:
        Failed: a piece raised, after all the others.
    """
    folder = RESULTS if folder is None else folder
    folder.mkdir(parents=True, exist_ok=True)
    began, longest = time.perf_counter(), 0.0
    rows: list[dict] = []
    left_out: list[str] = []
    faults: list[str] = []
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        for name, piece in pieces.items():
            start = time.perf_counter()
            if start - began + longest > seconds:
                left_out.append(name)
                continue
            try:
                rows += piece()
            except Exception as error:
                traceback.print_exc()
                faults.append(f"{name}: {type(error).__name__}: {error}")
            else:
                _write(rows, folder / f"{record}.csv")
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            longest = max(longest, time.perf_counter() - start)
            print(f"  {record}, {name}: {time.perf_counter() - start:.1f} s", flush=True)
    finally:
        torch.set_default_dtype(before)
    if left_out:
        print(f"  {record}: no time for {'; '.join(left_out)}", flush=True)
    if faults:
        raise Failed(" | ".join(faults))
    table = pd.DataFrame(rows)
    table.attrs["left_out"] = left_out
    return table


def _write(rows: list[dict], path: Path) -> None:
    """The whole table, or the one that was there before."""
    new = path.with_suffix(".new")
    pd.DataFrame(rows).to_csv(new, index=False, float_format="%.5g")
    new.replace(path)


def wait(device: torch.device | str) -> None:
    """Until the card has done what it was told."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
