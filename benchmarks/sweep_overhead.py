"""What a sweep costs beside a plain loop, and what a second core gives.

python -m benchmarks.sweep_overhead    writes results/sweep_overhead.jsonl (about 12 minutes)

The same runs by a plain loop and by `sweep.run` with a record, in this process and in two. A run
sleeps (which no other work on the machine can disturb), or is a training of fixed length.
`load` is the machine's load before each measurement: a second core gives what it has free.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from mtl_utils import sweep

STEPS_A_SECOND = 5000  # of the training, on the machine of the record


def work(kind: str, seconds: float, place: int) -> dict[str, float]:
    """One run of about so many seconds; `place` tells it from the others."""
    if kind == "sleep":
        time.sleep(seconds)
        return {"loss": 0.0}
    torch.manual_seed(place)
    model = nn.Sequential(nn.Linear(20, 50), nn.ReLU(), nn.Linear(50, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x, y = torch.randn(50, 20), torch.randn(50, 3)
    for _ in range(int(seconds * STEPS_A_SECOND)):
        loss = ((model(x) - y) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {"loss": loss.item()}


def measure(kind: str, seconds: float, n_runs: int, way: str) -> dict[str, float]:
    """Seconds of all runs together, and each, by a plain loop or by a sweep of 1 or 2 processes."""
    load = os.getloadavg()[0]
    configs = sweep.grid(kind=[kind], seconds=[seconds], place=range(n_runs))
    start = time.perf_counter()
    if way == "loop":
        for config in configs:
            work(**config)
        wall = time.perf_counter() - start
        return {"wall": wall, "mean_run": wall / n_runs, "load": load}
    with tempfile.TemporaryDirectory() as folder:
        runs = sweep.run(work, configs, Path(folder) / "runs", n_jobs=int(way), progress=False)
        wall = time.perf_counter() - start
    return {"wall": wall, "mean_run": runs["run_seconds"].mean(), "load": load}


def main() -> None:
    torch.set_num_threads(1)
    ways = ["loop", "1", "2"]
    configs = [
        *sweep.grid(kind=["sleep"], seconds=[0.5], n_runs=[40], way=ways),
        *sweep.grid(kind=["sleep", "training"], seconds=[10.0], n_runs=[12], way=ways),
    ]
    runs = sweep.run(measure, configs, record="sweep_overhead", n_jobs=1)
    runs["of the loop"] = runs["wall"] / runs.groupby(["kind", "seconds"])["wall"].transform(
        "first"
    )
    print(runs.drop(columns="failure").round(3).to_string(index=False))


if __name__ == "__main__":
    main()
