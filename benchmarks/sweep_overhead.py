"""What a sweep costs beside a plain loop, and what a second process gives.

python -m benchmarks.sweep_overhead    writes results/sweep_overhead.jsonl (about 20 minutes)

The same runs by a plain loop and by `sweep.run` with a record, in this process and in two. A run
sleeps, which no other work on the machine disturbs, or is a training of fixed length. Recorded are
seconds by the clock, seconds of processor time of all processes together, and the machine's load
before: a second process speeds trainings up only where a second core is free.
"""

from __future__ import annotations

import resource
import tempfile
import time
from os import getloadavg
from pathlib import Path

import torch
from torch import nn

from mtl_utils import sweep

STEPS_A_SECOND = 5000  # of the training, about


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
    """Seconds of all runs together, by a plain loop ("loop") or a sweep of "1" or "2" processes."""
    load, clock, processor = getloadavg()[0], time.perf_counter(), processor_seconds()
    configs = sweep.grid(kind=[kind], seconds=[seconds], place=range(n_runs))
    with tempfile.TemporaryDirectory() as folder:
        if way == "loop":
            for config in configs:
                work(**config)
        else:
            sweep.run(work, configs, Path(folder) / "runs", n_jobs=int(way), progress=False)
    return {
        "clock": time.perf_counter() - clock,
        "processor": processor_seconds() - processor,
        "load": load,
    }


def processor_seconds() -> float:
    """Of this process and of its children that have ended."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> None:
    work("training", 0.1, 0)  # what torch does once
    ways = ["loop", "1", "2"]
    configs = [
        *sweep.grid(kind=["sleep"], seconds=[0.5], n_runs=[100], way=ways),
        *sweep.grid(kind=["sleep"], seconds=[10.0], n_runs=[24], way=ways),
        *sweep.grid(kind=["training"], seconds=[10.0], n_runs=[12], way=ways),
    ]
    runs = sweep.run(measure, configs, record="sweep_overhead", n_jobs=1)
    groups = runs.groupby(["kind", "seconds"])
    for column in ("clock", "processor"):
        runs[f"{column}, of loop"] = runs[column] / groups[column].transform("first")
    print(runs.drop(columns=["run_seconds", "failure"]).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
