"""Processor time from a knob's new value to the new figure, for the widget of each notebook.

    python benchmarks/widget_cost.py          # every notebook that has one, about 5 minutes
    python benchmarks/widget_cost.py 03 12

The cells up to the widget are run, then each knob is moved through its values as the arrow keys do.
A row is one knob: the median and the longest of its redraws, in milliseconds of this process's
processor time, so that other work on the machine counts little. What the browser needs to show the
picture comes on top: a few milliseconds.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from pathlib import Path
from statistics import median

import pandas as pd
from IPython.core.interactiveshell import InteractiveShell
from ipywidgets import ValueWidget, VBox

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mtl_utils import widgets  # noqa: E402
from notebook_gate.execute import code_cells  # noqa: E402
from tools.notebooks import find, label, read  # noqa: E402

REDRAWS = 7  # of each knob


def values(knob: ValueWidget) -> list:
    """Other values of a knob, spread over its range; the last is the first one again."""
    if hasattr(knob, "options"):
        among = [o[1] if isinstance(o, tuple) else o for o in knob.options]
    else:
        base = getattr(knob, "base", None)
        ends = knob.min + (knob.max - knob.min) * pd.Series(range(1, 9)) / 8
        steps = knob.min + ((ends - knob.min) / knob.step).round() * knob.step
        among = [base**e if base else type(knob.value)(e) for e in steps]
    others = [value for value in among if value != knob.value]
    return [*(others * REDRAWS)[: REDRAWS - 1], knob.value]


def redraws(knob: ValueWidget) -> list[float]:
    """Milliseconds of processor time of each redraw."""
    times = []
    for value in values(knob):
        begin = time.process_time()
        knob.value = value  # draws, too
        times.append(1000 * (time.process_time() - begin))
    return times


def boxes_of(path: Path) -> list[VBox]:
    """The widgets of a notebook, after its cells were run."""
    boxes: list[VBox] = []
    widgets._display = lambda box, *_: boxes.append(box)
    cells = code_cells(read(path))
    last = max(number for number, cell in enumerate(cells) if "explore(" in cell.source)
    shell = InteractiveShell.instance()
    shell.reset()
    os.chdir(path.parent)
    for cell in cells[: last + 1]:
        with contextlib.redirect_stdout(io.StringIO()):
            shell.run_cell(cell.source)
    return boxes


def main(names: list[str]) -> None:
    rows = []
    for path in find(names):
        if not any("explore(" in cell.source for cell in code_cells(read(path))):
            continue
        for box in boxes_of(path):
            for knob in box.children:
                if hasattr(knob, "continuous_update") or hasattr(knob, "options"):
                    times = redraws(knob)
                    rows.append(
                        {
                            "notebook": label(path),
                            "knob": knob.description,
                            "median (ms)": round(median(times)),
                            "longest (ms)": round(max(times)),
                        }
                    )
                    print(*rows[-1].values(), sep="\t", file=sys.stderr)
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main(sys.argv[1:])
