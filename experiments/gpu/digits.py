"""Overlapping digits on the card, for notebooks 09 and 10."""

from __future__ import annotations

import torch

from mtl_utils.datasets import MultiTaskData, overlapping_digits


def draw(n_train: int, n_held_out: int, size: int, seed: int) -> MultiTaskData:
    """Pairs of digits, twice as many test pairs as validation pairs."""
    return overlapping_digits(n_train, n_held_out, 2 * n_held_out, size=size, seed=seed)


def stacked(draws: list[MultiTaskData], split: str) -> list[torch.Tensor]:
    """A split of several data sets, each tensor [D, N, ...]."""
    return [torch.stack(t) for t in zip(*(getattr(d, split) for d in draws), strict=True)]


def tune_convolutions() -> None:
    """Let cuDNN time a few algorithms for the odd shapes that networks side by side give."""
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.benchmark_limit = 4
