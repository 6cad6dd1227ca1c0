"""Notebook 02: the trade-off curve of fixed weights, and what it looks like from one setting.

python -m experiments.nb02_weights    writes results/02_weights.jsonl

Two overlapping digits; a trunk that both share, with seven fixed weights, and networks that share
nothing, with as many hidden units in sum or with as many each. Adam at a rate that nobody tuned;
errors after 10 and after 40 epochs, and stopped on validation rows. The comparison in which
everybody is tuned is `experiments.nb02_digits`.
"""

from __future__ import annotations

from typing import Any

import torch

from experiments.nb02_digits import pairs, shared, single
from experiments.small import cross_entropies, wrong
from mtl_utils import make_weighting, sweep
from mtl_utils.ensemble import early_stopping, train_many
from mtl_utils.ensemble_optim import many_optimizer
from mtl_utils.models import SeparateModels

SEEDS = tuple(range(20))
WEIGHTS = (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98)
SHORT, LONG = 10, 40  # epochs


def errors(network: str, width: int, w: float, rate: float) -> list[dict[str, Any]]:
    """Share of wrong classes on test rows, after training with the weights 2w and 2 - 2w.

    Args:
        network: "shared", one hidden layer; "separate", one for each task, without weights.
        width: units of a hidden layer.
        w: half of the left digit's weight.
        rate: of Adam.

    Returns:
        a row for each seed and task (0 left, 1 right): "short", "long", the error after so many
        epochs; "stopped", where the validation error, weighted as the losses are, was least.
    """
    sets = [pairs(seed) for seed in SEEDS]
    rows = {
        split: [torch.stack(t) for t in zip(*(getattr(s, split) for s in sets), strict=True)]
        for split in ("train", "val", "test")
    }

    def make():
        model = shared(sets[0], width)
        if network == "separate":
            model = SeparateModels([single(sets[0], width, k) for k in range(2)])
        return model, make_weighting("fixed", n_tasks=2, weights=[2 * w, 2 - 2 * w])

    trained = train_many(
        make,
        cross_entropies,
        rows.pop("train"),
        SEEDS,
        LONG,
        batch_size=100,
        optimizer=many_optimizer("adam", rate),
        order_seeds=SEEDS,
        own_data=True,
        metric=wrong,
        splits=rows,
        evaluate_at=range(0, LONG + 1, 2),
        progress=False,
    )
    val, test = trained.curves["val"], trained.curves["test"]
    weighted = val * torch.tensor([w, 1 - w])
    _, (_, stopped) = early_stopping(weighted, test, per_task=network == "separate")
    short = test[trained.epochs.index(SHORT)]
    return [
        {"seed": seed, "task": k, "short": short[s, k], "long": test[-1, s, k]}
        | {"stopped": stopped[s, k]}
        for s, seed in enumerate(SEEDS)
        for k in range(2)
    ]


CONFIGS = [
    *sweep.grid(network=["shared"], width=[12, 32], w=WEIGHTS, rate=[0.003]),
    *sweep.grid(network=["shared"], width=[12, 32], w=[0.5], rate=[0.01]),
    *sweep.grid(network=["separate"], width=[6, 12, 16, 32], w=[0.5], rate=[0.003, 0.01]),
]

if __name__ == "__main__":
    sweep.run(errors, CONFIGS, record="02_weights", **sweep.options(__doc__))
