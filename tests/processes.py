"""Trainings for tests/test_processes.py: on R processes, each with its rows, and on one with all.

python -m tests.processes RANK WORLD RENDEZVOUS OUT
"""

from __future__ import annotations

import os
import sys
import warnings
from itertools import product

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from experiments.nb16_two_processes import sending
from mtl_utils.models import HardSharing, mlp
from mtl_utils.weighting import Weighting
from tests.rules import NAMES, fresh

K, ROWS, STEPS = 3, 24, 4
# "inside": the weighting is a part of the wrapped network; "sharded": by FSDP2
CASES = (
    "plain",
    "absent tasks",
    "micro-batches",
    "absent from micro-batches",
    "last layer",
    "inside",
    "sharded",
)
UNUSED = "inside a network with find_unused_parameters=True"
SHARDED = "inside a sharded network"
ALONE = "not told of the others"


def batches() -> list[tuple[Tensor, Tensor]]:
    """Inputs [ROWS, 4] and targets [ROWS, K] of each step."""
    own = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(ROWS, 4, generator=own, dtype=torch.float64),
            torch.randn(ROWS, K, generator=own, dtype=torch.float64) * torch.tensor([1.0, 2, 0.3]),
        )
        for _ in range(STEPS)
    ]


def build() -> HardSharing:
    """The same each time."""
    torch.manual_seed(0)
    trunk = mlp(4, 6, 5, last=True, activation=nn.Tanh)
    return HardSharing(trunk, [mlp(5, 1) for _ in range(K)]).double()


def losses_of(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    outputs = model(x)
    return torch.stack([(o[:, 0] - y[:, k]).square().mean() + 0.1 for k, o in enumerate(outputs)])


def options(rule: Weighting, case: str, group) -> dict:
    """What `use` is told."""
    found: dict = {"group": group}
    if case.endswith("micro-batches"):
        found["accumulate"] = 2 * rule.batches
    if case == "last layer" and "gramian" in rule.engine_options:
        found["gramian"] = "last_layer"
    return found


def train(name: str, case: str, rank: int = 0, world: int = 1) -> Tensor:
    """Parameters of network and rule after some steps, [P]. Rank r has rows r, r + world, ..., so
    that the micro-batches of all ranks together are those of one process."""
    model = build()
    group = distributed.group.WORLD if world > 1 and case != ALONE else None
    rule = fresh(name, K)
    rule.use(**options(rule, case, group))
    if case.startswith("inside"):
        model.weighting = rule
    network = wrapped(model, case, world)
    parameters = dict.fromkeys([*model.parameters(), *rule.parameters()])  # each once
    optimizer = torch.optim.SGD(list(parameters), lr=0.05)
    parts = rule.accumulate
    for step, (x, y) in enumerate(batches()):
        present = None
        if case.startswith("absent"):  # task 1 has labels in every other row alone
            present = torch.tensor([True, rank == 0, step % 2 == 0])
            if step == 3:
                present[0] = False
        x, y = x[rank::world], y[rank::world]
        optimizer.zero_grad()
        for i in range(parts):
            piece = slice(i * len(x) // parts, (i + 1) * len(x) // parts)
            losses = losses_of(network, x[piece], y[piece])
            if case.startswith("absent") and world == 1:  # one process with all rows
                half = losses_of(network, x[piece][::2], y[piece][::2])
                losses = torch.stack([losses[0], half[1], losses[2]])
            if present is not None:
                losses = torch.stack(
                    [
                        loss if p else loss * torch.nan
                        for loss, p in zip(losses, present, strict=True)
                    ]
                )
            if i < parts - 1 and isinstance(network, DistributedDataParallel):
                with network.no_sync():
                    rule.backward(losses, shared=model.trunk.parameters(), present=present)
            else:
                rule.backward(losses, shared=model.trunk.parameters(), present=present)
        optimizer.step()
        seen = losses_of(model, x, y).detach()
        if present is not None:
            if world == 1:
                seen[1] = losses_of(model, x[::2], y[::2]).detach()[1]
            seen = seen.masked_fill(~present, torch.nan)
        observed = {"kpis": 1 - seen / 100, "val_losses": seen, "train_losses": seen}
        if "losses_after_step" in rule.observes:
            observed["losses_after_step"] = seen
        rule.observe(**{key: v for key, v in observed.items() if key in rule.observes})
    found = [p.full_tensor() if isinstance(p, DTensor) else p for p in parameters]
    return torch.cat([p.detach().flatten() for p in found])


def wrapped(model: nn.Module, case: str, world: int) -> nn.Module:
    """The network as several processes share it."""
    if world == 1:
        return model
    if case in ("sharded", SHARDED):
        mesh = init_device_mesh("cpu", (world,))
        fully_shard(model.trunk, mesh=mesh)
        return fully_shard(model, mesh=mesh)
    return DistributedDataParallel(model, find_unused_parameters=case == UNUSED)


def main(rank: int, world: int, rendezvous: str, out: str, names: tuple[str, ...] = NAMES) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", rank=rank, world_size=world, init_method=f"file://{rendezvous}"
    )
    found = {}
    for case, name in [*product(CASES, names), *product((UNUSED, SHARDED), names)]:
        try:
            with sending() as sent:
                found[case, name] = train(name, case, rank, world)
            found["sent", case, name] = sum(sent) / STEPS
        except Exception as error:
            found[case, name] = f"{type(error).__name__}: {error}"
    for name in names:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            train(name, ALONE, rank, world)
        found[ALONE, name] = [str(w.message) for w in said]
    torch.save(found, f"{out}.{rank}")
    distributed.barrier()
    sys.stdout.flush()
    os._exit(0)  # gloo's threads may abort an ordinary exit


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
