"""What a stored cell has to be like, and the list of those that are compared less strictly."""

from __future__ import annotations

import json
import re
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbformat.validator import iter_validate
from nbval import plugin as nbval_plugin

from notebook_gate import execute
from notebook_gate.figures import LIMIT
from notebook_gate.pictures import ALONE, without_pictures

SETTINGS = ("rtol", "atol", "figure_tol", "reason")  # keys of metadata.gate
WIDEST = {"rtol": 1e-6, "atol": 1e-9, "figure_tol": LIMIT}  # without being listed
EXEMPT_TAGS = ("nbval-skip", "nbval-ignore-output")
# nbval's other tags, and nbclient's: they would do something else than they say, or nothing.
REFUSED_TAGS = {*nbval_plugin.metadata_tags, "skip-execution", "nbval-variable-output"}
REFUSED_TAGS -= {*EXEMPT_TAGS, "raises-exception"}

CANNOT = "the notebook cannot"  # begins the faults after which its cells are not looked at

# What differs from machine to machine or from run to run, and does not belong in an output.
UNSTABLE = {
    "an absolute path": r"(?<![\w./:<$\\])~?/(?:[\w.+-]+/)+[\w.+-]+|\b[A-Za-z]:\\+\w+",
    "a memory address": r"\b0x[0-9a-fA-F]{6,}\b",
    "the rate or time of a progress bar": r"\d(?:it/s|s/it)\b|\[\d\d:\d\d<",
    "a time of day": r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d",
}


def settings_of(cell: NotebookNode) -> Mapping[str, Any]:
    """A cell's own settings for the gate, `metadata.gate`."""
    return cell.metadata.get("gate", {})


def leniencies(cell: NotebookNode) -> list[str]:
    """In what way a cell is compared less strictly than most, if it is."""
    settings = settings_of(cell)
    found = [tag for tag in EXEMPT_TAGS if tag in execute.tags(cell)]
    return found + [
        f"{key} {settings[key]:g}" for key, most in WIDEST.items() if settings.get(key, 0) > most
    ]


def exemptions(path: Path, folder: Path) -> list[str]:
    """A line for each leniency in a notebook: notebook | cell id | what | reason.

    A repository that keeps these lines in a file, and tests that the file has all of them, sees
    each new one in review.

    Args:
        path: of the notebook.
        folder: that notebooks are named from, without their ending: "research/04_x".
    """
    name = path.relative_to(folder).with_suffix("").as_posix()
    return [
        f"{name} | {cell.id} | {what} | {settings_of(cell).get('reason', 'NO REASON')}"
        for cell in execute.code_cells(nbformat.read(path, as_version=4))
        for what in leniencies(cell)
    ]


def file_faults(path: Path) -> list[str]:
    """What is wrong with a notebook's file, before its cells are looked at."""
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        ids = Counter(cell.get("id") for cell in notebook["cells"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of doubled ids, which are named below
            kernel = nbformat.read(path, as_version=4).metadata.get("kernelspec", {})
        # nbformat.read takes much that Jupyter and pytest stumble over later.
        for error in iter_validate(notebook):
            place = "/".join(map(str, error.absolute_path))
            return [f"{CANNOT} be read: {place}: {error.message[:500]}"]
    except Exception as error:  # JSON, Unicode, or of nbformat, which raises many kinds
        return [f"{CANNOT} be read: {type(error).__name__}: {str(error)[:500]}"]
    # nbformat.read gives doubled ids new names, so that nobody sees them afterwards.
    faults = [f"{n} cells have the id {name!r}" for name, n in ids.items() if name and n > 1]
    if (language := kernel.get("language", "python")) != "python":
        faults.append(f"{CANNOT} be executed: it is in {language}, and not in Python")
    return faults


def cell_faults(cell: NotebookNode, number: int) -> list[str]:
    """What is wrong with the n-th code cell as it is stored, before it is run."""
    faults = setting_faults(cell)
    tags = execute.tags(cell)
    if not cell.source.strip():
        faults.append("the cell is empty")
    if list(nbval_plugin.find_comment_markers(cell.source)):
        faults.append("nbval's markers belong in the tags of the cell, not in a comment")
    if refused := sorted(REFUSED_TAGS.intersection(tags)):
        faults.append(f"tag {refused[0]}: use one of {(*EXEMPT_TAGS, 'raises-exception')}")
    if cell.execution_count is None:
        faults.append("the cell was never executed")
    elif cell.execution_count != number:
        faults.append(
            f"execution count {cell.execution_count} instead of {number}: "
            "the notebook was not run once from top to bottom"
        )
    if any(output.get("name") == "stderr" for output in cell.outputs):
        faults.append("the stored output holds text on stderr")
    raised = any(output.output_type == "error" for output in cell.outputs)
    if raised and "raises-exception" not in tags:
        faults.append("the stored output holds an error; tag raises-exception if it is meant")
    return faults


def setting_faults(cell: NotebookNode) -> list[str]:
    """What is wrong with `metadata.gate`."""
    settings = settings_of(cell)
    if unknown := sorted(set(settings) - set(SETTINGS)):
        return [f"unknown key in metadata.gate: {unknown[0]!r}; known: {', '.join(SETTINGS)}"]
    faults = []
    for key in WIDEST:
        number = settings.get(key, 0)
        if isinstance(number, bool) or not isinstance(number, int | float) or not number >= 0:
            return [f"metadata.gate.{key} has to be a number >= 0, got {number!r}"]
    reason = settings.get("reason", "")
    if leniencies(cell) and not (isinstance(reason, str) and reason.strip()):
        faults.append(f"{leniencies(cell)[0]}: say why, in a sentence, in metadata.gate.reason")
    return faults


def output_faults(cell: NotebookNode) -> list[str]:
    """What in the stored outputs depends on the machine or the moment."""
    faults = []
    for output in execute.without_widgets(cell.outputs):
        pieces = [output.get("text", ""), output.get("evalue", ""), *output.get("traceback", [])]
        pieces += [str(v) for k, v in output.get("data", {}).items() if k not in ALONE]
        text = without_pictures("\n".join(pieces))
        for what, pattern in UNSTABLE.items():
            if match := re.search(pattern, text):
                faults.append(f"the output holds {what}: {match.group()}")
    return faults
