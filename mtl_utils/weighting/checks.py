"""What rules ask of their options and of the numbers that they are given."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import torch
from torch import Tensor


def check_number(name: str, value: float, interval: str) -> float:
    """The option `value` as a float; ValueError if it lies outside an interval such as "[0, 1)"."""
    low, high = (float(end) for end in interval[1:-1].split(","))
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if is_number:
        above = value >= low if interval[0] == "[" else value > low
        below = value <= high if interval[-1] == "]" else value < high
        if above and below:
            return float(value)
    raise ValueError(f"{name}: expected a number in {interval}, got {value!r}")


def check_count(name: str, value: Any) -> int:
    """The option `value`, an integer of at least 1; ValueError if it is anything else."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}: expected an integer of at least 1, got {value!r}")
    return value


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    """The option `value`, one of `choices`; ValueError if it is another."""
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")
    return value


def check_generator(generator: torch.Generator | None) -> torch.Generator:
    """A generator on the CPU; without one, one seeded from torch's global generator, so that
    `torch.manual_seed` governs it."""
    if generator is None:
        return torch.Generator().manual_seed(int(torch.randint(2**31, (1,))))
    if not isinstance(generator, torch.Generator) or generator.device.type != "cpu":
        raise ValueError(f"generator: expected a torch.Generator on the CPU, got {generator!r}")
    return generator


def check_vector(name: str, values: Any, n_tasks: int, may_lack: bool = False) -> Tensor:
    """K finite real numbers of any kind (list, array, series, tensor) as a tensor [K], detached.

    Args:
        may_lack: NaN is allowed too, for a number that is not there.

    Raises:
        ValueError: something else, named `name`.
    """
    try:
        if hasattr(values, "to_list"):  # a pandas series
            values = values.to_list()
        vector = torch.as_tensor(values).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name}: expected {n_tasks} numbers, got {values!r}") from error
    if vector.shape != (n_tasks,):
        raise ValueError(
            f"{name}: expected a 1-D tensor of K = {n_tasks} values, "
            f"got shape {tuple(vector.shape)}"
        )
    if vector.is_complex():
        raise ValueError(f"{name}: expected real numbers, got {vector.dtype}")
    if not vector.is_floating_point():
        vector = vector.to(torch.get_default_dtype())
    bad = torch.isinf(vector) if may_lack else ~torch.isfinite(vector)
    refuse_tasks(name, vector, bad, "expected finite values")
    return vector


def check_weights(name: str, values: Any, n_tasks: int) -> Tensor:
    """K numbers of at least 0, not all 0, as a tensor [K] of its own; else ValueError."""
    weights = check_vector(name, values, n_tasks).clone()
    if bool((weights < 0).any()) or not bool((weights > 0).any()):
        raise ValueError(
            f"{name}: expected values of at least 0, not all 0, got {weights.tolist()}"
        )
    return weights


def refuse_tasks(name: str, values: Tensor, bad: Tensor, reason: str) -> None:
    """Raise ValueError if any task is marked bad, naming the tasks and their values.

    Args:
        name: of the argument that holds the values.
        values: [K].
        bad: [K], booleans.
        reason: what was expected.
    """
    if bool(bad.any()):
        tasks = bad.nonzero().flatten().tolist()
        listed = ", ".join(f"task {k} is {values[k].item():.6g}" for k in tasks)
        raise ValueError(f"{name}: {reason}, got: {listed}")


def all_finite(values: Tensor) -> bool:
    """As torch.isfinite(values).all(), faster for a handful of numbers."""
    return all(map(math.isfinite, values.flatten().tolist()))


EPS_HINT = "; eps=1e-8 would allow a loss of 0"


def log_of(name: str, values: Tensor, rule: str, hint: str = "") -> Tensor:
    """Logarithm of values [K] of `rule` that have to be above 0; ValueError where one is not."""
    refuse_tasks(name, values.detach(), values <= 0, f"{rule} needs values above 0{hint}")
    return torch.log(values)
