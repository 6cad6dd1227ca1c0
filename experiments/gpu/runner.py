"""Runs the parts one after another, each in a process and a time budget of its own.

So a part that raises, hangs, runs out of memory or breaks the card's context takes nothing with it
but what it had not yet written.
"""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from experiments.gpu import nb04, nb08, nb09, nb10, nb11, nb12, nb15, step_costs

RECORD = "gpu"
GRACE = 30.0  # seconds for starting a process and for the last piece, before it is ended


@dataclass(frozen=True)
class Part:
    """An experiment.

    Attributes:
        run: function of (device, seconds, folder, size) that writes the record.
        record: its name.
        seconds: the budget.
        full, small: values of `size`.
    """

    run: Callable[..., pd.DataFrame]
    record: str
    seconds: float
    full: Any = None
    small: Any = None


def _of(module: Any, seconds: float) -> Part:
    return Part(module.run, module.RECORD, seconds, module.FULL, module.SMALL)


PARTS = {
    "04": _of(nb04, 55),
    "08": _of(nb08, 90),
    "09": _of(nb09, 65),
    "10": _of(nb10, 45),
    "11": _of(nb11, 45),
    "12": _of(nb12, 50),
    "15": _of(nb15, 45),
    "step_cost": _of(step_costs, 80),
}


@dataclass(frozen=True)
class Outcome:
    """What became of a part: "done", "failed", or "time-out"; `note` says what is missing."""

    part: str
    record: str
    status: str
    seconds: float
    note: str
    device: str
    torch: str


def run_all(
    parts: Mapping[str, Part], device: str, folder: Path, small: bool = False, share: float = 1.0
) -> list[Outcome]:
    """Run the parts, write the table results/gpu.csv after each.

    Args:
        parts: name -> part.
        device: where to train.
        folder: of the records.
        small: with the small sizes.
        share: by which all budgets are multiplied.
    """
    folder.mkdir(parents=True, exist_ok=True)
    outcomes = []
    for name, part in parts.items():
        print(f"{name}: at most {share * part.seconds:.0f} s", flush=True)
        outcome = run_one(name, part, device, folder, small, share * part.seconds)
        print(f"{name}: {outcome.status}, {outcome.seconds:.1f} s {outcome.note}", flush=True)
        outcomes.append(outcome)
        _write(outcomes, folder / f"{RECORD}.csv")
    return outcomes


def run_one(
    name: str, part: Part, device: str, folder: Path, small: bool, seconds: float
) -> Outcome:
    """Run a part in a process of its own, and end that where it takes too long."""
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe(duplex=False)
    start = time.perf_counter()
    process = context.Process(target=_inside, args=(its, part, device, folder, small, seconds))
    process.start()
    its.close()
    process.join(seconds + GRACE)
    status, note, card = "failed", "the process ended without a word", ""
    if process.is_alive():
        process.kill()
        process.join()
        status, note = "time-out", f"ended after {seconds + GRACE:.0f} s"
    elif ours.poll():
        try:
            status, note, card = ours.recv()
        except EOFError:
            note = f"the process ended with exit status {process.exitcode}"
    taken = time.perf_counter() - start
    return Outcome(name, part.record, status, round(taken, 1), note, card, torch.__version__)


def _inside(
    connection: Connection, part: Part, device: str, folder: Path, small: bool, seconds: float
) -> None:
    """What the process of a part does."""
    start = time.perf_counter()
    card = "CPU"
    try:
        if torch.device(device).type == "cuda":
            card = torch.cuda.get_device_name()
            torch.zeros(1, device=device)
        left = seconds - (time.perf_counter() - start)
        size = part.small if small else part.full
        table = part.run(device, left, folder, size)
        left_out = table.attrs.get("left_out", [])
        note = f"no time for: {'; '.join(left_out)}" if left_out else ""
        connection.send(("done", note, card))
    except Exception as error:
        traceback.print_exc()
        connection.send(("failed", f"{type(error).__name__}: {error}"[:500], card))


def _write(outcomes: list[Outcome], path: Path) -> None:
    """The table of outcomes; parts that were run earlier, and not now, stay."""
    table = pd.DataFrame([asdict(outcome) for outcome in outcomes])
    if path.is_file():
        before = pd.read_csv(path, dtype={"part": str})
        table = pd.concat([before[~before.part.isin(table.part)], table])
    table.to_csv(path, index=False)
