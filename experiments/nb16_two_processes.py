"""Notebook 16: one training on two processes, each with half of the rows of every batch.

python -m experiments.nb16_two_processes RANK WORLD RENDEZVOUS OUT
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from mtl_utils import make_weighting
from mtl_utils.models import HardSharing, flat_parameters, mlp

ROOT = Path(__file__).resolve().parents[1]
STEPS = 5
# (rule, whether it is told the group)
RUNS = (("log", True), ("log", False), ("mgda", True), ("mgda", False))
SENDERS: tuple[tuple[str, dict[str, str]], ...] = (
    ("log", {}),
    ("mgda", {}),
    ("mgda", {"gramian": "last_layer"}),
    ("mgda", {"gramian": "representation"}),
    ("graddrop", {}),
)


@contextmanager
def sending() -> Iterator[list[int]]:
    """Within it, each number of elements that a rule sends to the other processes is noted down.

    What DistributedDataParallel sends itself, once the gradient of every parameter, is not seen.
    """
    sent: list[int] = []
    all_reduce = distributed.all_reduce

    def counted(tensor: Tensor, *args: Any, **options: Any) -> Any:
        sent.append(tensor.numel())
        return all_reduce(tensor, *args, **options)

    distributed.all_reduce = counted
    try:
        yield sent
    finally:
        distributed.all_reduce = all_reduce


def build() -> HardSharing:
    """The network, the same on each process."""
    torch.manual_seed(0)
    return HardSharing(mlp(8, 32, 16, last=True, activation=nn.Tanh), [mlp(16, 1), mlp(16, 1)])


def train(
    name: str, rank: int = 0, world: int = 1, everywhere: bool = True, **options: str
) -> Tensor:
    """Five steps on this process's rows; parameters of the network afterwards, [P]."""
    model = build()
    network = DistributedDataParallel(model) if world > 1 else model
    weighting = make_weighting(name, n_tasks=2)
    if world > 1 and everywhere:
        weighting.use(group=distributed.group.WORLD, **options)
    optimizer = torch.optim.SGD([*model.parameters(), *weighting.parameters()], lr=0.1)
    for _ in range(STEPS):
        x = torch.randn(32, 8)[rank::world]
        outputs = network(x)
        targets = (x[:, :1], 5 * x[:, 1:2].abs())
        losses = torch.stack([((o - y) ** 2).mean() for o, y in zip(outputs, targets, strict=True)])
        optimizer.zero_grad()
        weighting.backward(losses, shared=model.trunk.parameters())
        optimizer.step()
    return flat_parameters(model)


def run(rank: int, world: int, rendezvous: str, out: str) -> None:
    """What each process does: meet the others, train, write the result, leave together."""
    distributed.init_process_group(
        "gloo", rank=rank, world_size=world, init_method=f"file://{rendezvous}"
    )
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    found: dict = {(name, told): train(name, rank, world, told) for name, told in RUNS}
    found["sent"] = []
    for name, options in SENDERS:
        with sending() as sent:
            train(name, rank, world, **options)
        found["sent"].append(sum(sent) // STEPS)
    torch.save(found, f"{out}.{rank}")
    distributed.barrier()
    os._exit(0)  # gloo's threads can abort an ordinary exit


def start(world: int = 2) -> list[dict]:
    """Start the processes and collect what they found.

    Returns:
        For each process the parameters [P] of each of `RUNS`; under "sent", how many numbers each
        of `SENDERS` sends a step.

    Raises:
        RuntimeError: a process failed; the message holds what it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "experiments.nb16_two_processes"]
        ends = [str(world), f"{folder}/rendezvous", f"{folder}/out"]
        processes = [
            subprocess.Popen(
                [*command, str(rank), *ends], cwd=ROOT, stderr=subprocess.PIPE, text=True
            )
            for rank in range(world)
        ]
        try:
            for process in processes:
                _, said = process.communicate(timeout=300)
                if process.returncode != 0:
                    raise RuntimeError(f"a process failed: {said}")
        finally:
            for process in processes:
                process.kill()
        return [torch.load(f"{folder}/out.{rank}") for rank in range(world)]


if __name__ == "__main__":
    run(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
