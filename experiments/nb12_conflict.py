"""Notebook 12: do two tasks conflict in a trained network? Cosines beside their control.

python -m experiments.nb12_conflict    writes results/12_conflict.csv (3 minutes)

A trunk of 16 units learns two overlapping digits from the plain sum of their losses. Every tenth
step, the gradients of both tasks on two batches, so that there are two tasks on one batch, two
tasks on two batches, and one task on two batches. A seed draws the data, the initial weights and
the batches. What is kept is the Gramian of the four gradients, from which the rest follows, and for
comparison the cosine of the two tasks' gradients on all training rows, which have no noise, and
what the step along the first batch's sum does to either task there.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.record import Record
from mtl_utils.datasets import overlapping_digits
from mtl_utils.gradients import gramian
from mtl_utils.models import HardSharing, mlp

FILE = Path(__file__).resolve().parents[1] / "results" / "12_conflict.csv"
SEEDS, STEPS, EVERY, WINDOW = range(20), 400, 10, 100
UPPER = np.triu_indices(4)
ENTRIES = [f"g{a}g{b}" for a, b in zip(*UPPER, strict=True)]  # 0, 1: left, right; 2, 3: the same
GAINS = ["gain left", "gain right"]  # on all rows: the inner product with the first batch's sum
COLUMNS = ["seed", "step", "all rows", *ENTRIES, *GAINS]
PAIRS = {  # on the other batch
    "one task, two batches": ((0, 2), (1, 3)),
    "two tasks, two batches": ((0, 3), (1, 2)),
    "two tasks, one batch": ((0, 1), (2, 3)),
}


def train(seed: int, steps: int = STEPS) -> pd.DataFrame:
    """Train on the plain sum; columns seed, step, all rows (the cosine of the two tasks on them),
    the ten entries of the Gramian, and `GAINS`."""
    data = overlapping_digits(n_train=2000, n_val=1, n_test=1, size=18, seed=seed)
    x, *classes = data.train
    x = x.flatten(1)
    torch.manual_seed(seed)
    model = HardSharing(mlp(324, 16, last=True), [nn.Linear(16, 10) for _ in range(2)])
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    own = torch.Generator().manual_seed(seed)

    def losses(rows: Tensor) -> Tensor:
        outputs = zip(model(x[rows]), classes, strict=True)
        return torch.stack([cross_entropy(output, c[rows]) for output, c in outputs])

    found, everything = [], torch.arange(len(x))
    for step in range(steps):
        batch, other = torch.randint(2000, (2, 50), generator=own)
        if step % EVERY == 0:
            six = torch.cat([losses(batch), losses(other), losses(everything)])
            inner = gramian(six, list(model.trunk.parameters())).numpy()
            exact, gains = inner[4:, 4:], inner[:2, 4:].sum(0)
            cosine = exact[0, 1] / np.sqrt(exact[0, 0] * exact[1, 1])
            found.append([seed, step, cosine, *inner[:4, :4][UPPER], *gains])
        optimizer.zero_grad()
        losses(batch).sum().backward()
        optimizer.step()
    return pd.DataFrame(found, columns=COLUMNS)


def gramians(table: pd.DataFrame) -> np.ndarray:
    """The Gramians of a table of `train`, [rows, 4, 4]."""
    full = np.zeros((len(table), 4, 4))
    full[:, UPPER[0], UPPER[1]] = full[:, UPPER[1], UPPER[0]] = table[ENTRIES]
    return full


def cosines(table: pd.DataFrame) -> pd.DataFrame:
    """Columns seed, step (the middle of a window of 100), pair (a key of `PAIRS`), task (that of
    the pair's first gradient) and cosine."""
    full = gramians(table)
    norms = np.sqrt(full.diagonal(axis1=1, axis2=2))
    window = table["step"] // WINDOW * WINDOW + WINDOW // 2
    parts = [
        pd.DataFrame(
            {
                "seed": table["seed"],
                "step": window,
                "pair": name,
                "task": a % 2,
                "cosine": full[:, a, b] / norms[:, a] / norms[:, b],
            }
        )
        for name, pairs in PAIRS.items()
        for a, b in pairs
    ]
    return pd.concat(parts, ignore_index=True)


def corrected(table: pd.DataFrame) -> pd.DataFrame:
    """The cosine of two tasks without the noise of the batches, from a table of `cosines`.

    With noise that is independent from batch to batch, the cosine of two tasks on two batches is
    their true one times a factor for each task, the root of the task's cosine with itself on two
    batches (Spearman 1904, correction for attenuation). That of a task with itself is averaged over
    the seeds: of a single one it may come out below 0.

    Returns:
        Columns seed, step, measured (two tasks, two batches), itself (geometric mean over the two
        tasks of one task's cosine with itself) and corrected, their ratio.
    """
    alone = table[table["pair"] == "one task, two batches"]
    by_task = alone.groupby(["step", "task"])["cosine"].mean().unstack()
    itself = np.sqrt(by_task.prod(axis=1)).rename("itself").reset_index()
    two = table[table["pair"] == "two tasks, two batches"]
    measured = two.groupby(["seed", "step"])["cosine"].mean().rename("measured").reset_index()
    found = measured.merge(itself, on="step")
    return found.assign(corrected=found["measured"] / found["itself"])


def harm(table: pd.DataFrame) -> pd.DataFrame:
    """What a step along the sum of one batch's gradients does to the tasks, for each seed.

    Returns:
        Columns seed; own batch, other batch: share of the pairs of a step and a task in which the
        task is harmed there; any task: share of the steps that harm some task on the other batch,
        and on all rows; ratio: geometric mean of |g_left| / |g_right|.
    """
    full = gramians(table)
    harmed = full[:, :, 0] + full[:, :, 1] < 0  # products with the sum of the first two
    found = pd.DataFrame(
        {
            "seed": table["seed"],
            "own batch": harmed[:, :2].mean(1),
            "other batch": harmed[:, 2:].mean(1),
            "any task": harmed[:, 2:].any(1).astype(float),
            "any task, all rows": (table[GAINS] < 0).any(axis=1).astype(float),
            "ratio": np.log(full[:, 0, 0] / full[:, 1, 1]) / 2,
        }
    )
    means = found.groupby("seed").mean().reset_index()
    return means.assign(ratio=np.exp(means["ratio"]))


def main() -> None:
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    record = Record(FILE, COLUMNS, key=["seed", "step"])
    for seed in SEEDS:
        if (seed, STEPS - EVERY) not in record:
            rows = train(seed).to_numpy()
            record.add([int(s), int(t), *(f"{v:.5g}" for v in entries)] for s, t, *entries in rows)


if __name__ == "__main__":
    main()
