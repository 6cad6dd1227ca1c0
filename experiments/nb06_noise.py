"""Notebook 06: how noisy are the losses of single batches?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from experiments.nb06_dwa import STUDY, both_learnable
from mtl_utils import make_weighting
from mtl_utils.ensemble import train_many


def losses_of_rows(
    seeds: Sequence[int] = range(10), width: int = 6, epochs: int = 12
) -> tuple[Tensor, Tensor]:
    """Train on two regressions with equal weights; look at rows that were not trained on.

    Returns:
        losses of each epoch, [epochs, S, K]; squared errors of held-out rows, with the noise that
        training rows have, [S, N, K].
    """
    sets = [both_learnable(seed) for seed in seeds]
    rows = [torch.stack(tensors) for tensors in zip(*(s.train for s in sets), strict=True)]
    trained = train_many(
        lambda: (STUDY.model(sets[0], width), make_weighting("equal", 2)),
        STUDY.losses,
        rows,
        list(seeds),
        epochs,
        STUDY.batch_size,
        lambda p: torch.optim.Adam(p.values(), lr=0.01),
        own_data=True,
        order_seeds=list(seeds),
        progress=False,
    )
    x, *targets = (torch.stack(t) for t in zip(*(s.test for s in sets), strict=True))
    noise = torch.Generator().manual_seed(0)
    errors = [
        out - y - 0.1 * torch.randn(y.shape, generator=noise)
        for out, y in zip(trained.predict(x), targets, strict=True)
    ]
    return trained.losses, torch.cat(errors, -1).square()
