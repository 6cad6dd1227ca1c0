"""The published two-regression toy in the settings that are too long for notebook 04.

python -m benchmarks.published_toy    writes results/04_published_toy.csv (about 2 minutes)

Each setting: 1-1024 ReLU, batches of 20, 2000 epochs, Adam with a rate of 0.001, five seeds.
"""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from torch import Tensor, nn

from mtl_utils import Weighting, make_weighting
from mtl_utils.datasets import two_regressions
from mtl_utils.ensemble import train_many
from mtl_utils.models import HardSharing, SeparateModels, mlp

FILE = Path(__file__).resolve().parents[1] / "results" / "04_published_toy.csv"
SEEDS, EPOCHS = range(5), 2000


def losses(model: nn.Module, x: Tensor, *targets: Tensor) -> Tensor:
    return torch.stack([((o - y) ** 2).mean() for o, y in zip(model(x), targets, strict=True)])


def shared() -> tuple[nn.Module, Weighting]:
    heads = [nn.Linear(1024, 1) for _ in range(2)]
    return HardSharing(mlp(1, 1024, last=True), heads), make_weighting("uncertainty", n_tasks=2)


def shared_glorot() -> tuple[nn.Module, Weighting]:
    """Initial weights as Keras draws them: Glorot's uniform, biases 0."""
    model, weighting = shared()
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return model, weighting


def separate() -> tuple[nn.Module, Weighting]:
    models = [mlp(1, 1024, 1) for _ in range(2)]
    return SeparateModels(models), make_weighting("uncertainty", n_tasks=2)


def adam(log_var_rate: float):
    def make(parameters: dict[str, Tensor]) -> torch.optim.Optimizer:
        own = [p for name, p in parameters.items() if name.startswith("weighting.")]
        rest = [p for name, p in parameters.items() if not name.startswith("weighting.")]
        groups = [{"params": rest}, {"params": own, "lr": log_var_rate}]
        return torch.optim.Adam(groups, lr=1e-3, eps=1e-7, fused=True)

    return make


SETTINGS = {
    "separate, log-variance rate 0.05": (separate, 5e-2),
    "shared trunk": (shared, 1e-3),
    "shared trunk, Glorot": (shared_glorot, 1e-3),
}


def main() -> None:
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    data = two_regressions(n=100, seed=0).train
    FILE.parent.mkdir(exist_ok=True)
    with FILE.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["setting", "seed", "sigma 1", "sigma 2", "rmse 1", "rmse 2"])
        for setting, (make, rate) in SETTINGS.items():
            generator = torch.Generator().manual_seed(0)
            trained = train_many(
                make, losses, data, SEEDS, EPOCHS, 20, adam(rate), generator=generator
            )
            sigma = torch.exp(trained.parameters["weighting.log_vars"] / 2)
            rmse = torch.stack(
                [
                    (out - y).square().mean((1, 2)).sqrt()
                    for out, y in zip(trained.predict(data[0]), data[1:], strict=True)
                ],
                1,
            )
            for seed, row in zip(SEEDS, torch.cat([sigma, rmse], 1).tolist(), strict=True):
                table.writerow([setting, seed, *(f"{value:.4f}" for value in row)])
            file.flush()


if __name__ == "__main__":
    main()
