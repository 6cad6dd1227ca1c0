"""Notebook 05: the trap. A network that calls hard points noisy; does tuning get out of it?

python -m experiments.nb05_trap    writes results/05_trap.csv (about 5 minutes)

Seven ways to train a mean and a log-variance on the same data, at several learning rates and
lengths: ten seeds, each with data and initial weights of its own. The notebooks call `train` for
one of them. A record that is there is completed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.record import Record
from mtl_utils import make_weighting
from mtl_utils.ensemble import Ensemble, train_many
from mtl_utils.losses import beta_nll, gaussian_nll
from mtl_utils.models import HardSharing, mlp

FILE = Path(__file__).resolve().parents[1] / "results" / "05_trap.csv"
SEEDS, N, N_TEST, BATCH = range(10), 500, 2000, 100
RATES = (0.005, 0.01, 0.02, 0.04)
LENGTHS = {200: RATES, 800: (0.01, 0.02)}  # epochs: learning rates
METHODS = (
    "likelihood",
    "warm-up, 1/4",
    "warm-up, 1/2",
    "beta 0.25",
    "beta 0.5",
    "beta 1",
    "squared error",
)


def truth(x: Tensor) -> Tensor:
    return torch.where(x < 0, torch.sin(2 * x), torch.sin(4 * x))


def draw(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    x = 6 * torch.rand(len(SEEDS), n, 1, generator=generator) - 3
    return x, truth(x) + 0.05 * torch.randn(len(SEEDS), n, 1, generator=generator)


def make(width: int):
    trunk = mlp(1, width, width, activation=nn.Tanh, last=True)
    heads = [nn.Linear(width, 1), nn.Linear(width, 1)]
    return HardSharing(trunk, heads), make_weighting("equal", 1)


def loss_of(method: str, steps: int) -> Callable[..., Tensor]:
    held = {"squared error": steps, "warm-up, 1/4": steps // 4, "warm-up, 1/2": steps // 2}
    left = held.get(method, 0)  # steps in which s is held at 0
    beta = float(method.split()[1]) if method.startswith("beta") else 0.0

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        nonlocal left
        mean, s = model(x)
        s = 0 * s if left > 0 else s
        left -= 1
        return beta_nll(mean, s, y, beta)[None]

    return loss


def adam(rate: float, steps: int):
    def optimizer(parameters: dict[str, Tensor]) -> torch.optim.Optimizer:
        own = torch.optim.Adam(parameters.values(), lr=rate)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(own, steps)
        own.register_step_post_hook(lambda *_: decay.step())
        return own

    return optimizer


def rows() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Training and test rows of all seeds, x and y [S, N, 1]; the noise is 0.05 everywhere."""
    generator = torch.Generator().manual_seed(5)
    return draw(N, generator), draw(N_TEST, generator)


def half_errors(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """RMSE against the true curve in the hard (right) and in the easy half, [2]."""
    error = (model(x)[0] - truth(x)).square()
    hard = (x > 0).to(error.dtype)
    return torch.stack([(error * part).sum() / part.sum() for part in (hard, 1 - hard)]).sqrt()


def train(method: str, rate: float = 0.02, epochs: int = 200, width: int = 32) -> Ensemble:
    """All seeds side by side, by one of `METHODS`; `curves["test"]` holds `half_errors`."""
    data, test = rows()
    steps = epochs * (N // BATCH)
    return train_many(
        partial(make, width),
        loss_of(method, steps),
        data,
        SEEDS,
        epochs,
        BATCH,
        adam(rate, steps),
        generator=torch.Generator().manual_seed(0),
        own_data=True,
        metric=half_errors,
        splits={"test": test},
        evaluate_at=range(0, epochs + 1, epochs // 40),
        progress=False,
    )


def run(method: str, rate: float, epochs: int) -> Tensor:
    """RMSE in the hard and in the easy half, and the held-out likelihood of each seed, [S, 3]."""
    trained = train(method, rate, epochs)
    _, (x, y) = rows()
    mean, s = trained.predict(x)
    nll = gaussian_nll(mean, s, y, reduction="none").mean(1)
    return torch.cat([trained.curves["test"][-1], nll], 1)


def main() -> None:
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    columns = ["method", "rate", "epochs", "seed", "hard", "easy", "nll"]
    record = Record(FILE, columns, key=columns[:3])
    for epochs, rates in LENGTHS.items():
        for rate in rates:
            for method in METHODS:
                if (method, rate, epochs) not in record:
                    found = zip(SEEDS, run(method, rate, epochs).tolist(), strict=True)
                    record.add(
                        [method, rate, epochs, seed, *(f"{v:.4f}" for v in row)]
                        for seed, row in found
                    )


if __name__ == "__main__":
    main()
