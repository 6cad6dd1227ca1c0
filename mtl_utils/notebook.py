"""What every notebook of the course starts and ends with."""

from __future__ import annotations

import importlib.metadata
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from tqdm.auto import tqdm

from mtl_utils import plots
from mtl_utils.claims import as_array, checks, claim
from mtl_utils.exercises import OTHER_FORM, WRONG, find
from mtl_utils.extras import extra
from mtl_utils.intervals import interval, interval_text
from mtl_utils.showing import show
from mtl_utils.widgets import explore

with extra("notebooks"):
    from packaging.requirements import Requirement

__all__ = [
    "as_array",
    "check",
    "check_environment",
    "checks",
    "claim",
    "device",
    "explore",
    "interval",
    "interval_text",
    "needs_cuda",
    "progress",
    "setup",
    "show",
]


def setup(seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Generator:
    """Seed, threads, number type and plot style; the second cell of every notebook.

    One thread, so that the numbers do not depend on the machine's core count; the environment
    variable MTL_THREADS overrides it. float64, because float32 trainings drift apart between
    kernels of different processors (up to 10 % after 2000 steps of Adam).

    Args:
        seed: of torch's global generator (initial weights) and of the returned generator.
        dtype: torch's default number type from here on.

    Returns:
        A generator for everything that the notebook draws.
    """
    torch.set_num_threads(int(os.environ.get("MTL_THREADS", "1")))
    torch.set_default_dtype(dtype)
    torch.manual_seed(seed)
    plots.set_style()
    return torch.Generator().manual_seed(seed)


def check_environment(extra: str = "notebooks") -> None:
    """Compare the installed packages with the ranges that the project supports.

    Args:
        extra: the set of packages in the project's `pyproject.toml` to look at, besides the core.

    Prints one line if all is well, else a line for each package that is missing or out of range.
    """
    try:
        lines = importlib.metadata.requires("mtl-loss-weighting") or []
    except importlib.metadata.PackageNotFoundError:
        print("✗ mtl_utils is not installed here: in the project's folder, pip install -e .")
        return
    problems, found = [], 0
    for requirement in map(Requirement, lines):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            problems.append(f'✗ {requirement.name} is missing: pip install "{requirement}"')
            continue
        if requirement.specifier.contains(version, prereleases=True):
            found += 1
        else:
            problems.append(f"✗ {requirement.name} {version} is installed, needed: {requirement}")
    print("\n".join(problems) if problems else f"✓ environment: all {found} packages are there")


def device() -> torch.device:
    """The first CUDA device where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def needs_cuda(what: str) -> bool:
    """Whether there is a CUDA device; says in one line what is skipped where there is none.

    For cells tagged `gpu`: `if needs_cuda("thousands of seeds at once"): ...`.
    """
    if torch.cuda.is_available():
        return True
    print(f"no CUDA device: skipped here, {what}")
    return False


def progress(iterable: Iterable, desc: str = "", total: int | None = None) -> Iterator:
    """Progress bar that leaves no trace in the stored notebook."""
    return tqdm(iterable, desc=desc, total=total, leave=False)


_wrong: Counter[str] = Counter()  # answers to each exercise, since the kernel was started


def check(exercise: str, answer: Any) -> None:
    """Say whether the answer to an exercise is right; if not, give a hint, then the formula.

    Prints a line that begins with ✓ (right), ≈ (right, but rounded too much), ✗ (wrong), or … (not
    answered, or not in the form that is asked for).

    Args:
        exercise: its number, such as "04.2".
        answer: a number, an array, a string, or a function, as the exercise asks; `...` if you have
            not answered yet.

    Raises:
        ValueError: there is no such exercise.
    """
    if answer is Ellipsis:
        find(exercise)
        mark, message = OTHER_FORM, "put your answer in place of the dots"
    else:
        mark, message = find(exercise).judge(answer, _wrong[exercise] + 1)
    _wrong[exercise] += mark == WRONG
    print(f"{mark} {exercise}: {message}")
