"""What every notebook of the course starts and ends with."""

from __future__ import annotations

import importlib.metadata
import math
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from packaging.requirements import Requirement
from tqdm.auto import tqdm

from mtl_utils import plots
from mtl_utils.exercises import find


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


def claim(text: str, got: Any, want: Any = True, rtol: float = 1e-9, atol: float = 0.0) -> None:
    """Assert what the text claims, and print one line that says so.

    Args:
        text: the claim, in words.
        got: what was computed: a bool, number, string, or array of any kind.
        want: what it should be; left out, `got` has to be true.
        rtol, atol: allowed difference |got - want| <= atol + rtol * |want|, in every entry.

    Raises:
        AssertionError: the claim does not hold; the message shows both sides.
    """
    exact = isinstance(want, bool | str) or want is None
    if exact:
        if getattr(got, "ndim", None) == 0:  # a NumPy or torch scalar
            got = got.item()
        if getattr(got, "ndim", 0) > 0:
            raise TypeError(
                f"claim {text!r}: expected one value, got an array; use .all() or .any()"
            )
        if got != want:
            raise AssertionError(f"{text}: got {got!r}, expected {want!r}")
        print(f"✓ {text}")
        return
    left, right = as_array(got), as_array(want)
    if left.shape != right.shape and right.ndim > 0:
        raise AssertionError(f"{text}: shapes {left.shape} and {right.shape} differ")
    if left.size == 0:
        raise AssertionError(f"{text}: there is nothing to compare, shape {left.shape}")
    close = np.isclose(left, right, rtol=rtol, atol=atol)
    if not close.all():
        difference = np.max(np.abs(left - right))
        raise AssertionError(
            f"{text}: got {got}, expected {want} (largest difference {difference:.3g}, "
            f"rtol {rtol:g}, atol {atol:g})"
        )
    approximate = rtol > 1e-6 or atol > 1e-6
    if approximate and left.ndim == 0 and right.ndim == 0 and abs(left) > atol:
        print(f"✓ {text}: {float(left):.4g} against {float(right):.4g}")
    else:
        print(f"✓ {text}")


def as_array(value: Any) -> np.ndarray:
    """Numbers of any kind (tensor, sympy, list of tensors, ...) as a NumPy array."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().double().numpy()
    if isinstance(value, list | tuple):
        return np.array([as_array(v) for v in value], dtype=float)
    return np.asarray(value, dtype=float)


def check(exercise: str, answer: Any) -> None:
    """Say whether the answer to an exercise is right, or give a hint.

    Args:
        exercise: its number, such as "04.2".
        answer: a number, an array, a string, or a function, as the exercise asks.
    """
    if answer is Ellipsis:
        print(f"… {exercise}: put your answer in place of the dots")
        return
    right, message = find(exercise).judge(answer)
    print(f"{'✓' if right else '✗'} {exercise}: {message}")


def interval(values: Iterable[float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean and its confidence interval from Student's t, for results over seeds.

    Args:
        values: at least two numbers, e.g. one for each seed.
        level: coverage, in (0, 1).

    Returns:
        mean, lower end, upper end.
    """
    from scipy import stats

    values = np.asarray(list(values), dtype=float)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"values: expected at least two numbers, got shape {values.shape}")
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number in (0, 1), got {level!r}")
    half = stats.t.ppf(0.5 + level / 2, len(values) - 1) * values.std(ddof=1)
    half /= math.sqrt(len(values))
    return values.mean(), values.mean() - half, values.mean() + half
