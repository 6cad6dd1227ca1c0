"""Notebook 12 in a network of real size: conflict along the training of a ResNet-18, 20 attributes.

Equal weights, Adam, batches of 128 glyphs of 32 x 32. At several steps, from the gradients of all
tasks on two batches: cosines between tasks, beside two controls (a task with itself and tasks with
each other on different batches); and what each rule would do: the length of its update as a ratio
to that of the mean gradient, its cosine to it, and the smallest cosine to a task. Then what a step
costs, in time and memory, by the way in which the Gramian is found.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks.step_models import resnet18
from experiments.gpu.pieces import Piece, carry_out, wait
from mtl_utils import Weighting, make_weighting
from mtl_utils.datasets import glyph_attributes
from mtl_utils.gradients import gramian
from mtl_utils.models import HardSharing

RECORD = "12_gpu"
RULES = ("mgda", "pcgrad", "cagrad", "imtl_g", "nash_mtl", "aligned_mtl", "upgrad", "config")
WAYS: dict[str, dict] = {
    "exact": {},
    "exact, loop": {"method": "loop"},
    "exact, batched": {"method": "batched"},
    "representation": {"gramian": "representation"},
    "last layer": {"gramian": "last_layer"},
}


@dataclass(frozen=True)
class Size:
    """Of the network and the training; `at`: steps at which conflict is measured."""

    width: int
    tasks: int
    images: int
    batch: int
    at: tuple[int, ...]
    seeds: int
    costs: tuple[int, ...]  # numbers of tasks whose step is timed
    repeats: int


FULL = Size(64, 20, 8000, 128, (0, 50, 100, 200, 400, 700), 2, (10, 20), 5)
SMALL = Size(4, 3, 40, 8, (0, 2), 1, (3,), 1)


def network(size: Size, n_tasks: int) -> HardSharing:
    """ResNet-18 with one output for each task."""
    work = resnet18(1, size.width)
    assert work.hard is not None
    heads = [nn.Linear(8 * size.width, 1) for _ in range(n_tasks)]
    return HardSharing(work.hard.trunk, heads)


def task_losses(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of each attribute, [K]; y [B, K]."""
    outputs = model(x)
    return torch.stack(
        [
            binary_cross_entropy_with_logits(out[:, 0], label)
            for out, label in zip(outputs, y.unbind(1), strict=True)
        ]
    )


@cache
def _glyphs(count: int, seed: int) -> tuple[Tensor, ...]:
    return glyph_attributes(count, 1, 1, size=32, seed=seed).train


def draw(size: Size, n_tasks: int, seed: int, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Images in three equal channels, and labels [N, K]."""
    x, *labels = _glyphs(size.images, seed)
    images = ((x - 0.25) / 0.3).to(device)
    return images.expand(-1, 3, -1, -1), torch.stack(labels[:n_tasks], 1).to(device)


def off_diagonal(square: Tensor) -> Tensor:
    """Entries of a [K, K] matrix without those of the diagonal, [K (K - 1)]."""
    return square[~torch.eye(len(square), dtype=torch.bool, device=square.device)]


def conflict(both: Tensor) -> dict[str, float]:
    """Cosines between tasks, from the Gramian of K gradients on one batch and K on another.

    Args:
        both: [2 K, 2 K], in float64 on the CPU.
    """
    norms = both.diagonal().sqrt()
    cosine = both / norms / norms[:, None]
    n_tasks = len(both) // 2
    one_batch, two_batches = cosine[:n_tasks, :n_tasks], cosine[:n_tasks, n_tasks:]
    return {
        "cosine, two tasks": off_diagonal(one_batch).mean().item(),
        "negative, share of pairs": (off_diagonal(one_batch) < 0).double().mean().item(),
        "cosine, two tasks, two batches": off_diagonal(two_batches).mean().item(),
        "negative, two batches": (off_diagonal(two_batches) < 0).double().mean().item(),
        "cosine, one task, two batches": two_batches.diagonal().mean().item(),
        "norms, largest / smallest": (norms[:n_tasks].max() / norms[:n_tasks].min()).item(),
    }


def updates(one: Tensor) -> dict[str, float]:
    """What each rule makes of gradients with this Gramian, [K, K], beside their mean."""
    n_tasks = len(one)
    mean = torch.full((n_tasks,), 1 / n_tasks, dtype=one.dtype)
    length_of_mean = (mean @ one @ mean).sqrt()
    found = {}
    for name in RULES:
        alpha = make_weighting(name, n_tasks).coefficients(one)
        length = (alpha @ one @ alpha).clamp_min(0).sqrt()
        along = one @ alpha  # inner products of the update with each task gradient
        found[f"length / mean, {name}"] = (length / length_of_mean).item()
        found[f"cosine to mean, {name}"] = (mean @ along / length / length_of_mean).item()
        found[f"least cosine, {name}"] = (along / length / one.diagonal().sqrt()).min().item()
    return found


def along_training(seed: int, size: Size, device: torch.device | str) -> list[dict]:
    """Train one network and measure; a row for each number."""
    x, y = draw(size, size.tasks, seed, device)
    torch.manual_seed(seed)
    model = network(size, size.tasks).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for step in range(max(size.at) + 1):
        index = torch.randint(size.images, (2, size.batch), generator=generator).to(device)
        if step in size.at:
            two = torch.cat([task_losses(model, x[part], y[part]) for part in index])
            both = gramian(torch.stack(list(two)), model.trunk.parameters(), method="loop")
            both = both.detach().double().cpu()
            numbers = conflict(both) | updates(both[: size.tasks, : size.tasks])
            numbers["loss"] = two.mean().item()
            named = {"seed": seed, "step": step, "tasks": size.tasks}
            rows += [{**named, "what": what, "value": value} for what, value in numbers.items()]
        optimizer.zero_grad()
        task_losses(model, x[index[0]], y[index[0]]).sum().backward()
        optimizer.step()
    return rows


def timed(
    step: Callable[[], None], repeats: int, device: torch.device | str
) -> tuple[float, float]:
    """Fastest of a few steps in milliseconds, and the peak of their memory in MiB (NaN on a CPU);
    after two to warm up."""
    cuda = torch.device(device).type == "cuda"
    for _ in range(2):
        step()
    wait(device)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        wait(device)
        seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() / 2**20 if cuda else float("nan")
    return 1e3 * min(seconds), peak


def costs(n_tasks: int, size: Size, device: torch.device | str) -> list[dict]:
    """A step of plain training and of MGDA in each way; a way that fails is said and left out."""
    x, y = (t[: size.batch] for t in draw(size, n_tasks, 0, device))
    torch.manual_seed(0)
    model = network(size, n_tasks).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)
    rules: dict[str, Weighting] = {"plain": make_weighting("equal", n_tasks)}
    for way, options in WAYS.items():
        rules[way] = make_weighting("mgda", n_tasks).use(**options)
    rows = []
    for way, rule in rules.items():
        weighting = rule.to(device)

        def step(weighting: Weighting = weighting) -> None:
            optimizer.zero_grad()
            shared = model.trunk.parameters() if weighting.needs_shared else None
            weighting.backward(task_losses(model, x, y), shared)
            optimizer.step()

        try:
            ms, peak = timed(step, size.repeats, device)
        except (RuntimeError, NotImplementedError, ValueError) as error:
            print(f"  {RECORD}, {way}: {type(error).__name__}: {error}"[:200], flush=True)
            continue
        named = {"seed": 0, "step": -1, "tasks": n_tasks}
        rows.append({**named, "what": f"ms, {way}", "value": ms})
        rows.append({**named, "what": f"peak MiB, {way}", "value": peak})
    return rows


def run(
    device: torch.device | str, seconds: float = 55, folder: Path | None = None, size: Size = FULL
) -> pd.DataFrame:
    """Measure, write results/12_gpu.csv: columns seed, step (-1: costs), tasks, what, value.

    Args:
        device: where to train.
        seconds, folder: see `carry_out`.
        size: of everything.
    """
    pieces: dict[str, Piece] = {"training, seed 0": partial(along_training, 0, size, device)}
    for n_tasks in size.costs:
        pieces[f"costs, {n_tasks} tasks"] = partial(costs, n_tasks, size, device)
    for seed in range(1, size.seeds):
        pieces[f"training, seed {seed}"] = partial(along_training, seed, size, device)
    return carry_out(RECORD, pieces, seconds, folder)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Each number at each step, mean over the seeds; the costs in the column of step -1."""
    return table.groupby(["what", "tasks", "step"], sort=False).value.mean().unstack()
