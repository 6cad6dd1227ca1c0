"""What every data set of the course looks like. Nothing downloads: data come with packages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class MultiTaskData:
    """Inputs and K targets, split into train, validation and test.

    Attributes:
        name: of the data set.
        tasks: names of the K tasks.
        train, val, test: (inputs [N, ...], targets of task 1 [N, ...], ..., of task K [N, ...]).
            A split that the data set does not have is an empty tuple.
        source: where the data come from: package, number of originals, licence.
        info: anything else that belongs to the data, such as class names.
    """

    name: str
    tasks: tuple[str, ...]
    train: tuple[Tensor, ...]
    val: tuple[Tensor, ...] = ()
    test: tuple[Tensor, ...] = ()
    source: str = ""
    info: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        for split in ("train", "val", "test"):
            tensors = getattr(self, split)
            if tensors and len(tensors) != len(self.tasks) + 1:
                raise ValueError(
                    f"{split}: expected {self.n_tasks + 1} tensors (inputs, targets), "
                    f"got {len(tensors)}"
                )
            if len({len(t) for t in tensors}) > 1:
                raise ValueError(f"{split}: lengths differ: {[len(t) for t in tensors]}")

    @property
    def n_tasks(self) -> int:
        """Number of tasks K."""
        return len(self.tasks)

    def to(self, *args: Any, **kwargs: Any) -> MultiTaskData:
        """A copy with the tensors moved, as `Tensor.to`; integer targets keep their type."""
        dtypes = [a for a in args if isinstance(a, torch.dtype)]
        args = tuple(a for a in args if not isinstance(a, torch.dtype))
        dtype = kwargs.pop("dtype", dtypes[0] if dtypes else None)

        def move(tensor: Tensor) -> Tensor:
            if dtype is not None and tensor.is_floating_point():
                tensor = tensor.to(dtype)
            return tensor.to(*args, **kwargs) if args or kwargs else tensor

        splits = {s: tuple(map(move, getattr(self, s))) for s in ("train", "val", "test")}
        return MultiTaskData(
            self.name, self.tasks, **splits, source=self.source, info=dict(self.info)
        )

    def __repr__(self) -> str:
        sizes = ", ".join(
            f"{split} {len(getattr(self, split)[0])}"
            for split in ("train", "val", "test")
            if getattr(self, split)
        )
        return (
            f"{self.name}: {self.n_tasks} tasks ({', '.join(self.tasks)}); {sizes}; {self.source}"
        )


def check_count(name: str, value: int, least: int = 1) -> None:
    """Refuse a count that is no integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}: expected an integer of at least {least}, got {value!r}")


def as_float(array: Any) -> Tensor:
    """A tensor of torch's default number type."""
    return torch.as_tensor(array, dtype=torch.get_default_dtype())
