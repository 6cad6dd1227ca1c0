"""Notebook 04: how far do estimates of the noise spread, over initial weights and over data sets?

Called by the research notebook, on the CPU for tens of networks, on a GPU for thousands.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from experiments.small import squared_errors
from mtl_utils import Weighting, make_weighting
from mtl_utils.datasets import two_regressions
from mtl_utils.ensemble import train_many
from mtl_utils.ensemble_optim import many_optimizer
from mtl_utils.models import HardSharing, mlp


def shared_trunk() -> tuple[nn.Module, Weighting]:
    """A trunk of 32 units with two heads, and uncertainty weighting."""
    heads = [nn.Linear(32, 1) for _ in range(2)]
    return HardSharing(mlp(1, 32, last=True), heads), make_weighting("uncertainty", n_tasks=2)


def sigmas(
    n_networks: int, own_data: bool, epochs: int = 1500, device: torch.device | str = "cpu"
) -> Tensor:
    """Learned sigma of both tasks of the published toy, [n_networks, 2].

    Args:
        n_networks: trained side by side, all rows in each step, initial weights of their own.
        own_data: 100 points of its own for each network; else the published ones for all.
        epochs: of Adam with a rate of 0.003, 0.1 for the log-variances.
        device: where to train.
    """
    draws = [two_regressions(n=100, seed=s).train for s in range(n_networks if own_data else 1)]
    rows = [torch.stack(t) if own_data else t[0] for t in zip(*draws, strict=True)]
    trained = train_many(
        shared_trunk,
        squared_errors,
        rows,
        range(n_networks),
        epochs,
        batch_size=100,
        optimizer=many_optimizer("adam", 3e-3, own_lr=0.1),
        own_data=own_data,
        device=device,
        progress=False,
    )
    return torch.exp(trained.parameters["weighting.log_vars"] / 2).cpu()
