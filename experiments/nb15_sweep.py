"""Notebook 15: what weights, units and noise in the labels do, at one learning rate.

python -m experiments.nb15_sweep    writes results/15_sweep.jsonl (about ten core-minutes)

Data, network and batches of `nb15_rooms`; Adam at 0.01, log-variances at 0.05, no stopping. Nothing
is tuned: this shows what happens; which method is better, `nb15_rooms` compares.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from experiments.nb15_rooms import (
    FORMS,
    IMAGES,
    SIZE,
    STUDY,
    by_task,
    errors,
    shared,
    single,
    standard_depth,
    with_depth_noise,
)
from mtl_utils import make_weighting, sweep
from mtl_utils.datasets import MultiTaskData, rooms
from mtl_utils.ensemble import train_many
from mtl_utils.ensemble_optim import many_optimizer
from mtl_utils.models import SeparateModels

RECORD = "15_sweep"
WIDTH, EPOCHS = STUDY.widths[0], STUDY.epochs[0]
RATE, OWN_RATE = 0.01, 0.05
CLEAN = (0.0, 0.0, 0.0)  # share of classes drawn anew, metres (Laplace), length added to normals
WEIGHTS = tuple(4.0**power for power in range(-3, 3))  # of the depth
UNITS = ("metres", "centimetres", "standardised")
RULES = ("equal", "uncertainty", "dwa", "geometric", "gradnorm")


def draw(seed: int, unit: str = "metres", noise: tuple[float, ...] = CLEAN) -> MultiTaskData:
    """Rooms with noise in the labels of training and validation images."""
    share, metres, length = noise
    data = rooms(
        *IMAGES, SIZE, noise=(share, 0, length), centimetres=unit == "centimetres", seed=seed
    )
    data = with_depth_noise(data, metres, seed) if metres else data
    return standard_depth(data) if unit == "standardised" else data


def miou(model: nn.Module, x: Tensor, classes: Tensor) -> Tensor:
    """Intersection over union of each class, mean over the classes."""
    found, there = (
        nn.functional.one_hot(c, 5).flatten(0, -2).bool() for c in (model(x)[0].argmax(-3), classes)
    )
    both, either = (found & there).sum(0), (found | there).sum(0)
    return (both / either.clamp(min=1)).mean()


def train(
    rule: str, depth: float, unit: str, noise: tuple[float, ...], epochs: int, seeds: int
) -> list[dict[str, Any]]:
    """Train `seeds` networks side by side; a row for each.

    Args:
        rule: a rule's name, "fixed" with the weight of depth, or "alone".
        depth: its weight relative to the two others.
        unit: of the depth, one of `UNITS`.
        noise: in the labels, see `CLEAN`.
        epochs, seeds: how long, how many.

    Returns:
        "seed"; on test images "wrong" (share of pixels), "metres" (mean absolute error of the
        depth), "degrees" (mean angle of the normals), "miou"; "losses" [3], mean of the last epoch;
        "weights" [3], mean of the last epoch; "sigma" [3] of uncertainty weighting.
    """
    sets = [draw(seed, unit, noise) for seed in range(seeds)]
    splits = {
        s: [torch.stack(t) for t in zip(*(getattr(d, s) for d in sets), strict=True)]
        for s in ("train", "test")
    }

    def make() -> tuple[nn.Module, Any]:
        if rule == "alone":
            nets = [single(sets[0], WIDTH, task) for task in range(3)]
            return SeparateModels(nets), make_weighting("equal", 3)
        if rule == "fixed":
            return shared(sets[0], WIDTH), by_task(3, depth, 1.0)
        options = {"forms": FORMS} if rule == "uncertainty" else {}
        return shared(sets[0], WIDTH), make_weighting(rule, 3, **options)

    trained = train_many(
        make,
        STUDY.losses,
        splits["train"],
        range(seeds),
        epochs,
        STUDY.batch_size,
        many_optimizer("adam", torch.full((seeds,), RATE), torch.full((seeds,), OWN_RATE)),
        own_data=True,
        order_seeds=range(seeds),
        metric=lambda model, x, *targets: torch.cat(
            [errors(model, x, *targets), miou(model, x, targets[0])[None]]
        ),
        splits={"test": splits["test"]},
        evaluate_at=[epochs],
        progress=False,
    )
    found = trained.curves["test"][0]  # [S, 4]
    in_metres = [
        {"centimetres": 0.01, "standardised": _spread(seed)}.get(unit, 1.0) for seed in range(seeds)
    ]
    found[:, 1] *= torch.tensor(in_metres)
    log_vars = trained.parameters.get("weighting.log_vars")
    rows = []
    for seed in range(seeds):
        row: dict[str, Any] = {"seed": seed}
        row |= dict(zip(("wrong", "metres", "degrees", "miou"), found[seed].tolist(), strict=True))
        row["losses"] = trained.losses[-1, seed].tolist()
        row["weights"] = trained.history["weights"][-1, seed].tolist()
        row["sigma"] = None if log_vars is None else (log_vars[seed] / 2).exp().tolist()
        rows.append(row)
    return rows


def _spread(seed: int) -> float:
    """Standard deviation of the depth of the training images, in metres."""
    return float(draw(seed).train[2].std())


def configs() -> list[dict[str, Any]]:
    """All settings, those first that the lesson needs."""
    usual = {"rule": "equal", "depth": 1.0, "unit": "metres", "noise": CLEAN}
    usual |= {"epochs": EPOCHS, "seeds": 10}
    found = [usual | {"rule": rule} for rule in ("uncertainty", "alone")]
    found += [usual | {"rule": "fixed", "depth": weight} for weight in WEIGHTS]
    found += [usual | {"rule": rule, "unit": unit} for rule in RULES[:2] for unit in UNITS[1:]]
    found += [usual | {"rule": "alone", "unit": "standardised"}]
    noises = [(0, 0.5, 0), (0, 1.0, 0), (0, 2.0, 0), (0.3, 0, 0), (0, 0, 0.5)]
    found += [usual | {"rule": "uncertainty", "noise": noise} for noise in noises]
    found += [usual | {"epochs": epochs, "seeds": 20} for epochs in (EPOCHS, 4 * EPOCHS)]
    return found + [usual | {"rule": rule, "unit": unit} for rule in RULES[2:] for unit in UNITS]


if __name__ == "__main__":
    sweep.run(train, configs(), record=RECORD, **sweep.options(__doc__))
