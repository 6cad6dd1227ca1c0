"""Notebook 10: fronts of five networks, asked for in different ways, and not asked for at all.

python -m experiments.nb10_pareto    writes results/10_pareto.jsonl

The two digits of notebook 07 with all labels right. A contender is a set of five networks, which
start from five initial weights and see the rows in five orders, the same for all contenders. They
differ in what they are asked for: weights, directions of the losses, or nothing. A set is judged by
the hypervolume of its five pairs of errors, as a share of the square up to what guessing gives; the
protocol, which wants errors, sees the share that is missing. A set is stopped as a whole, where
that share is smallest on validation rows. Adam, two widths, two lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from experiments.nb07_dtp import CLASSES, clean, shared, single
from experiments.protocol import (
    SPLITS,
    Contender,
    Study,
    _draw,
    _epochs_to_look,
    _networks,
    _plain,
    _stacked,
    run,
    sum_to_k,
    usual_controls,
)
from experiments.search import Knob, Trial
from experiments.small import cross_entropies, wrong
from mtl_utils import make_weighting, sweep
from mtl_utils.ensemble import train_many
from mtl_utils.ensemble_optim import many_optimizer
from mtl_utils.metrics import hypervolume
from mtl_utils.weighting import Weighting

PLACES = (-1.0, -0.5, 0.0, 0.5, 1.0)  # of the five networks between the two ends
GUESSING = 1 - 1 / CLASSES


def linear(n_tasks: int, spread: float, place: float = 0.0) -> Weighting:
    """Fixed weights in the ratio spread^place."""
    ratio = spread**place
    return make_weighting("fixed", 2, weights=(2 * ratio / (1 + ratio), 2 / (1 + ratio)))


def tchebycheff(n_tasks: int, spread: float, place: float = 0.0) -> Weighting:
    """Nearly the maximum of the losses times preferences in the ratio spread^place."""
    ratio = spread**place
    return make_weighting("stch", 2, mu=0.1, preference=(2 * ratio / (1 + ratio), 2 / (1 + ratio)))


def towards(n_tasks: int, degrees: float, place: float = 0.0) -> Weighting:
    """Pareto MTL with five vectors around 45 degrees; larger ones favour the left digit."""
    angles = np.radians([45 + degrees * p for p in PLACES])
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1)
    return make_weighting("pareto_mtl", 2, preferences=vectors, index=PLACES.index(place))


SPREAD = Knob("spread", 8.0, reach=2, least=1.0, because="all five are asked for the same there")
DEGREES = Knob("degrees", 22.5, reach=1, most=45.0, because="the quarter circle ends there")
HELD = {
    "weights": "from the spread",
    "preference": "from the spread",
    "preferences": "from the degrees",
    "index": "which of the five networks",
    "mu": "small, where it is nearly the maximum; large ones are linear weights, which run too",
    "ideal": "cross-entropies have 0",
    "warm_up": "the plain form has none",
}
PARETO_MTL = Contender("pareto_mtl", towards, knobs=(DEGREES,), held=HELD)
ASKED = ("fixed", "pareto_mtl", "pareto_mtl, sum K", "stch")

STUDY = Study(
    data={"two digits": clean},
    model=shared,
    single=single,
    losses=cross_entropies,
    metric=wrong,
    contenders=(
        *(c for c in usual_controls(units=False) if c.name != "fixed"),
        Contender("fixed", linear, knobs=(SPREAD,), held=HELD),
        PARETO_MTL,
        sum_to_k(PARETO_MTL),
        Contender("stch", tchebycheff, knobs=(SPREAD,), held=HELD, sum_to_k=True),
    ),
    widths=(8, 24),
    epochs=(10, 50),
    rates={"adam": Knob("rate", 0.02, reach=3)},
    batch_size=100,
    trials=6,
    reporting=tuple(range(20)),
    evaluations=10,
)


def member(contender: Contender, trial: Trial, place: float) -> Any:
    """The rule of one of the five networks."""
    if contender.name in ASKED:
        contender = replace(contender, options={"place": place})
    return contender.make(2, trial)


def missing(errors: Tensor) -> Tensor:
    """What is missing of the hypervolume, from [..., 5, 2] to [...]; 0 for a perfect network.

    >>> missing(torch.tensor([[0.0, 0.45], [0.45, 0.9]]))
    tensor(0.5000)
    """
    flat = errors.flatten(0, -3) if errors.dim() > 2 else errors[None]
    areas = [hypervolume(points.clamp(max=GUESSING), (GUESSING, GUESSING)) for points in flat]
    return 1 - torch.tensor(areas).reshape(errors.shape[:-2]) / GUESSING**2


def block(
    data: str,
    optimiser: str,
    width: int,
    epochs: int,
    contender: str,
    trials: Sequence[Trial],
    stage: str,
) -> list[dict[str, Any]]:
    """Train the sets of some trials of a contender on the picking or on the reporting seeds.

    Returns:
        what `experiments.protocol.train_block` returns, with one "task", the set: "val" and "test"
        [S][1] are what is `missing` of the hypervolume. When reporting also "points" [S][5][2], the
        test errors of the networks where the set was stopped; "weights" is the sum over tasks, in
        parts of K.
    """
    how = STUDY.contender(contender)
    seeds = STUDY.picking if stage == "pick" else STUDY.reporting
    sets = _draw(STUDY.data[data], seeds, None)
    make_network = _networks(STUDY, how, sets[0], width)

    def maker(trial: Trial, place: float) -> Callable[[], tuple[nn.Module, Any]]:
        return lambda: (make_network(), member(how, trial, place))

    members = [
        (trial, s, which)
        for trial in trials
        for s in range(len(seeds))
        for which in range(len(PLACES))
    ]
    starts = [seeds[s] + 1000 * which for _, s, which in members]
    trained = train_many(
        [maker(trial, PLACES[which]) for trial, _, which in members],
        STUDY.losses,
        _stacked(sets, "train"),
        starts,
        epochs,
        STUDY.batch_size,
        many_optimizer(optimiser, torch.tensor([trial["rate"] for trial, _, _ in members])),
        own_data=[s for _, s, _ in members],
        order_seeds=starts,
        metric=STUDY.metric,
        splits={split: _stacked(sets, split) for split in SPLITS[stage]},
        evaluate_at=_epochs_to_look(epochs, STUDY.evaluations),
        progress=False,
    )
    shape = (len(trials), len(seeds), len(PLACES), 2)
    curves = {split: errors.reshape(-1, *shape) for split, errors in trained.curves.items()}
    weights = trained.history["weights"].mean(0).sum(-1).reshape(shape[:-1]) / 2
    return [
        {"trial": trial, "seeds": list(seeds), "at": trained.epochs}
        | _result({split: errors[:, t] for split, errors in curves.items()}, weights[t])
        for t, trial in enumerate(trials)
    ]


def _result(errors: dict[str, Tensor], weights: Tensor) -> dict[str, Any]:
    """Of one trial, from errors [E, S, 5, 2] of each split and weights [S, 5]."""
    val = missing(errors["val"])  # [E, S]
    stop = val.argmin(0)
    each = torch.arange(val.shape[1])
    row = {"val": _plain(val[stop, each, None]), "stopped": stop.tolist()}
    row |= {"curve": _plain(val.mean(1)), "best": _plain(val.cummin(0).values.mean(1))}
    row["failed"] = int((~torch.isfinite(errors["val"][-1])).any(-1).any(-1).sum())
    if "test" in errors:
        test = missing(errors["test"])
        row |= {"test": _plain(test[stop, each, None]), "last": _plain(test[-1, :, None])}
        row["points"] = _plain(errors["test"][stop, each])
        row["weights"] = [_plain(weights.mean())]
    return row


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    run(STUDY, block, record="10_pareto", **sweep.options(__doc__))
