"""Notebook 01: more data, or more structure? One main task, with one thing changed at a time."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from experiments.nb01_mechanisms import adam, stacked
from mtl_utils import Weighting, make_weighting
from mtl_utils.datasets import RelatedTasks
from mtl_utils.ensemble import train_many
from mtl_utils.models import HardSharing, mlp

ROWS, EPOCHS, WIDTH = 100, 100, 4


def rows(p: float, seed: int) -> tuple[Tensor, ...]:
    """Twice 100 rows with the labels of both tasks, shuffled labels, and clean test rows."""
    tasks = RelatedTasks(p, 10, 1, noise=0.5, seed=seed)
    g = torch.Generator().manual_seed(100 + seed)
    x, y1, y2 = tasks.draw(2 * ROWS, g)
    test = torch.randn(1000, 10, generator=g)
    shuffled = y2[ROWS:][torch.randperm(ROWS, generator=g)]
    return x, y1, y2, shuffled, test, tasks.targets(test)[:, :1]


def arms(drawn: Sequence[Tensor]) -> dict[str, tuple[Tensor, ...]]:
    """What each arm learns from: x_1, y_1 and, with a second head, x_2, y_2."""
    x, y1, y2, shuffled = drawn[:4]
    mine, new = slice(0, ROWS), slice(ROWS, 2 * ROWS)
    return {
        "alone": (x[:, mine], y1[:, mine]),
        "+ a label on each row": (x[:, mine], y1[:, mine], x[:, mine], y2[:, mine]),
        "+ rows of task 2": (x[:, mine], y1[:, mine], x[:, new], y2[:, new]),
        "the same, labels shuffled": (x[:, mine], y1[:, mine], x[:, new], shuffled),
        "the same rows, one head": (x, torch.cat([y1[:, mine], y2[:, new]], 1)),
        "+ rows of task 1": (x, y1),
    }


def losses(model: nn.Module, *tensors: Tensor) -> Tensor:
    """Squared error of each head on rows of its own."""
    pairs = zip(tensors[::2], tensors[1::2], strict=True)
    return torch.stack([mse_loss(model(x)[k], y) for k, (x, y) in enumerate(pairs)])


def run(p: float, seeds: range) -> pd.DataFrame:
    """Clean test error of the main task, a row a seed, a column an arm; as many steps for all."""
    drawn = stacked([rows(p, seed) for seed in seeds])
    found = {}
    for arm, data in arms(drawn).items():
        n_heads = len(data) // 2

        def make(n_heads: int = n_heads) -> tuple[nn.Module, Weighting]:
            trunk = mlp(10, WIDTH, activation=nn.Tanh, last=True)
            heads = [nn.Linear(WIDTH, 1) for _ in range(n_heads)]
            return HardSharing(trunk, heads), make_weighting("equal", n_heads)

        trained = train_many(
            make,
            losses,
            data,
            list(seeds),
            EPOCHS,
            50 * data[0].shape[1] // ROWS,
            adam(0.01),
            generator=torch.Generator().manual_seed(1),
            own_data=True,
            progress=False,
        )
        found[arm] = (trained.predict(drawn[4])[0] - drawn[5]).square().mean((1, 2)).numpy()
    return pd.DataFrame(found, index=pd.Index(seeds, name="seed"))
