"""Several processes, each with its own rows of a batch: means over them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch import distributed as dist

NEEDS_OUTSIDE = (
    "losses: DistributedDataParallel(find_unused_parameters=True) takes the parameters of a "
    "weighting inside the network for unused; keep the weighting outside of the network that it "
    "wraps, and say weighting.use(group=torch.distributed.group.WORLD)"
)


class Mean:
    """The mean of a tensor over the processes of a group.

    Args:
        group: a process group of `torch.distributed`, such as `torch.distributed.group.WORLD`.

    Attributes:
        size: how many processes these are.

    Raises:
        ValueError: no process group, or this process is not in it.
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        if not dist.is_initialized() or not isinstance(group, dist.ProcessGroup):
            raise ValueError(
                "group: expected a process group, such as torch.distributed.group.WORLD after "
                f"torch.distributed.init_process_group(), got {group!r}"
            )
        if dist.get_rank(group) < 0:
            raise ValueError("group: this process is not in it")
        self.group, self.size = group, dist.get_world_size(group)

    def __call__(self, tensor: Tensor) -> Tensor:
        """The mean, of the shape of the tensor, which stays as it is."""
        total = tensor.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, dist.ReduceOp.SUM, self.group)
        return total / self.size

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum."""
        return self(tensor) * self.size

    def of_numbers(self, values: Tensor) -> Tensor:
        """The mean over the processes that have a number; NaN where none has."""
        there = ~values.isnan()
        total, count = self.sum(torch.stack([values.masked_fill(~there, 0), there.to(values)]))
        return total / count

    def first(self, tensor: Tensor) -> Tensor:
        """The tensor of the first process of the group."""
        theirs = tensor.detach().clone()
        dist.broadcast(theirs, dist.get_global_rank(self.group, 0), self.group)
        return theirs


def how_many() -> int:
    """Number of processes that `torch.distributed` was started with, else 1."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@contextmanager
def naming_unused_parameters() -> Iterator[None]:
    """Within it, a reducer that misses the parameters of a weighting is named."""
    try:
        yield
    except RuntimeError as error:
        if "undefined, but still allreduced by DDP" in str(error):
            raise ValueError(NEEDS_OUTSIDE) from error
        raise
