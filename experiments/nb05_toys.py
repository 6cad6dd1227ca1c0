"""Notebook 05: a curve whose noise depends on x, and networks that predict it.

Called by the notebooks, for some seconds of training.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from experiments.nb05_trap import adam
from mtl_utils import Weighting, make_weighting
from mtl_utils.ensemble import Ensemble, train_many
from mtl_utils.losses import beta_nll
from mtl_utils.models import HardSharing, mlp

SEEDS = range(10)


class ConstantHead(nn.Module):
    """A variance head that ignores its input: one s for all samples."""

    def __init__(self) -> None:
        super().__init__()
        self.s = nn.Parameter(torch.zeros(1))

    def forward(self, features: Tensor) -> Tensor:
        return self.s + 0 * features[..., :1]


def noise(x: Tensor) -> Tensor:
    """Standard deviation of the noise: quiet in the middle, loud outside."""
    return 0.1 + 0.5 * x.abs()


def draw(n: int, generator: torch.Generator, low: float = 0.0, high: float = 3.0) -> list[Tensor]:
    """x with low <= |x| <= high, and y = sin x + noise, each [S, n, 1]."""
    size = len(SEEDS), n, 1
    distance = low + (high - low) * torch.rand(size, generator=generator)
    x = distance * torch.randn(size, generator=generator).sign()
    return [x, torch.sin(x) + noise(x) * torch.randn(size, generator=generator)]


def network(head: Callable[[], nn.Module]) -> tuple[nn.Module, Weighting]:
    """A trunk of two layers with a head for f and one for s."""
    trunk = mlp(1, 32, 32, activation=nn.Tanh, last=True)
    return HardSharing(trunk, [nn.Linear(32, 1), head()]), make_weighting("equal", 1)


def likelihood(model: nn.Module, x: Tensor, y: Tensor, beta: float) -> Tensor:
    """The loss of the only task, [1]; beta = 0 is the likelihood itself."""
    mean, s = model(x)
    return beta_nll(mean, s, y, beta)[None]


def train(
    rows: list[Tensor],
    constant: bool = False,
    epochs: int = 60,
    batch: int = 200,
    beta: float = 0.0,
) -> Ensemble:
    """A network for each seed, on the rows of that seed.

    Args:
        rows: of `draw`.
        constant: one s for all x, instead of a variance head.
        epochs, batch: of Adam at 0.02, which falls to 0 along a cosine.
        beta: of `beta_nll`.
    """
    steps = epochs * -(-rows[0].shape[1] // batch)
    head = ConstantHead if constant else partial(nn.Linear, 32, 1)
    return train_many(
        partial(network, head),
        partial(likelihood, beta=beta),
        rows,
        SEEDS,
        epochs,
        batch,
        adam(0.02, steps),
        generator=torch.Generator().manual_seed(0),
        own_data=True,
        progress=False,
    )


def standardised(trained: Ensemble, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """z = (y - f) / sigma and sigma, each [S, n]."""
    mean, s = trained.predict(x)
    sigma = torch.exp(s / 2)
    return ((y - mean) / sigma).squeeze(-1), sigma.squeeze(-1)
