"""Notebook 14: every rule of the collection on five task sets, tuned alike.

python -m experiments.nb14_benchmark    writes results/14_benchmark.jsonl

Adam and SGD with momentum on all sets; on two also plain SGD for the rules on gradients and what
they are compared with, as momentum may hide what they do. A record that is not complete has
complete sets, in the order of `STUDIES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from experiments import nb14_sets as sets
from experiments.benchmark import run, step_time, train_block
from experiments.protocol import Contender, Study
from experiments.search import Knob
from experiments.small import cross_entropies, wrong
from mtl_utils import make_weighting, sweep
from mtl_utils.datasets import MultiTaskData
from mtl_utils.weighting import Weighting
from mtl_utils.weighting.base import cards

RECORD, ROUNDS = "14_benchmark", 6

# ---- rules with options in a form that suits the lattice of trials ---------------------------


def by_unit(n_tasks: int, price: float, weight: float) -> Weighting:
    """Diamonds: a weight for either regression, relative to 1 for both classifications."""
    return _fixed(torch.tensor([price, weight, 1.0, 1.0]))


def by_frequency(make: Callable[[int], MultiTaskData]) -> Callable[..., Weighting]:
    """Many yes-or-no tasks: weights in proportion to spread^z, z the standardised logarithm of the
    share of yes; 1 is equal weights, above 1 the frequent ones count more."""

    def rule(n_tasks: int, spread: float) -> Weighting:
        logs = torch.stack([y.mean() for y in make(0).train[1:]]).log()
        return _fixed(spread ** ((logs - logs.mean()) / logs.std()))

    return rule


def _fixed(weights: Tensor) -> Weighting:
    return make_weighting("fixed", len(weights), weights=len(weights) * weights / weights.sum())


def whole_window(n_tasks: int, window: float) -> Weighting:
    """The trend over a whole number of steps."""
    return make_weighting("loss_trend", n_tasks, window=round(window))


def over_steps(name: str, option: str) -> Callable[..., Weighting]:
    """A rule with an average over about so many steps: its share of the past is 1 - 1 / steps."""

    def rule(n_tasks: int, steps: float) -> Weighting:
        return make_weighting(name, n_tasks, **{option: 1 - 1 / steps})

    return rule


def balanced_cone(n_tasks: int) -> Weighting:
    """Pareto MTL for the middle one of K + 1 preferences: each task's axis, and all alike."""
    preferences = torch.cat([torch.eye(n_tasks), torch.ones(1, n_tasks)])
    return make_weighting("pareto_mtl", n_tasks, preferences=preferences, index=n_tasks)


# ---- what a user of each rule would tune, besides the learning rate ----------------------------

SLOW = "weights stay where they start"
AS_SUM = "as good as the sum of losses"
OWN_RATE = Knob("own_rate", 0.03, 4.0, 2, least=0.03 / 4**5, because=SLOW)
STEPS = Knob("steps", 4.0, 2.0, 2, least=1.0, because="no average at all")
KNOBS: Mapping[str, Knob] = {
    "uncertainty": OWN_RATE,
    "liebel": OWN_RATE,
    "imtl_l": OWN_RATE,
    "uncertainty_soft": Knob("temperature", 1.0, reach=3),
    "dwa": Knob("temperature", 0.5, reach=3, most=16.0, because="there all weights are near 1"),
    "dtp": Knob("gamma", 1.0, reach=2, least=1 / 16, because="as good as the exponent 0"),
    "gradnorm": Knob("alpha", 0.5, reach=2, least=1 / 32, because="norms are level there"),
    "moco": Knob("beta", 0.25, reach=2, most=1.0, because="no average at all"),
    "sdmgrad": Knob("lam", 0.5, reach=2, least=1 / 32, because="as good as MGDA"),
    "modo": Knob("gamma", 0.1, 4.0, 3, least=0.1 / 4**6, because=SLOW),
    "pbi": Knob("theta", 0.5, reach=3, least=1 / 64, because=AS_SUM),
    "cosmos": Knob("lam", 0.5, reach=3, least=1 / 64, because=AS_SUM),
    "loss_trend": Knob("window", 16.0, reach=2, least=1.0, because="the shortest window"),
    "graddrop": Knob("leak", 0.25, reach=2, least=1 / 64, most=1.0, because="a share, 0 to 1"),
    "gradvac": Knob("decay", 0.25, reach=2, most=1.0, because="a share of at most 1"),
    "cagrad": Knob("c", 0.5, reach=2, least=1 / 64, because="as good as the mean gradient"),
    "nash_mtl": Knob("max_norm", 1.0, 4.0, 2),
    "cr_mogm": STEPS,
    "db_mtl": STEPS,
    "fairgrad": Knob("alpha", 1.0, reach=2),
    "excess_mtl": Knob("lr", 0.05, 4.0, 3, least=0.05 / 4**6, because=SLOW),
    "pcd": Knob("tau", 0.125, reach=2, least=2**-9, most=1.0, because="a share, 0 to 1"),
    "famo": Knob("lr", 0.025, 4.0, 2, least=0.025 / 4**5, because=SLOW),
    "stch": Knob("mu", 1.0, reach=3),
}
MADE_BY: Mapping[str, Callable[..., Weighting]] = {
    "loss_trend": whole_window,
    "pareto_mtl": balanced_cone,
    "cr_mogm": over_steps("cr_mogm", "alpha"),
    "db_mtl": over_steps("db_mtl", "beta"),
}


def contenders(fixed: Contender, forms: str | list[str], units: bool) -> tuple[Contender, ...]:
    """Each task alone, the controls, then every rule of the collection in the course's order.

    Args:
        fixed: tuned fixed weights, whose ratios depend on the tasks.
        forms: of the likelihoods, for uncertainty weighting.
        units: there are regressions in units of their own, to be standardised as a control.
    """
    found = [Contender("alone", network="alone")]
    for card in cards():
        name = card.name
        if name == "fixed":
            found.append(fixed)
            continue
        options = {"forms": forms} if name == "uncertainty" else {}
        knobs = (KNOBS[name],) if name in KNOBS else ()
        found.append(Contender(name, MADE_BY.get(name, name), options, knobs))
    if units:
        found.insert(2, Contender("standardised", standardise=True))
    return tuple(found)


# ---- the studies -------------------------------------------------------------------------------

BY_RATIO = Contender("fixed", "fixed", ratios=True)
RATES = {
    "adam": Knob("rate", 0.02, reach=3),
    "momentum": Knob("rate", 0.02, 4.0, 3),
    "sgd": Knob("rate", 0.1, 4.0, 3),
}
USUAL: dict[str, Any] = {
    "rates": RATES,
    "batch_size": 48,
    "trials": 4,
    "reporting": tuple(range(20)),
}


def _questions(name: str, draw: Any, model: Any, single: Any, width: int, epochs: int) -> Study:
    """Many yes-no questions; fixed weights by how frequent a yes is."""
    fixed = Contender("fixed", by_frequency(draw), knobs=(Knob("spread", 1.0, reach=2),))
    return Study(
        data={name: draw},
        model=model,
        single=single,
        losses=sets.log_losses,
        metric=sets.out_of_order,
        contenders=contenders(fixed, "classification", units=False),
        widths=(width,),
        epochs=(epochs,),
        **USUAL,
    )


ONE_SET = {
    "diamonds": Study(
        data={"diamonds": sets.stones},
        model=sets.stones_model,
        single=sets.stones_single,
        losses=sets.stones_losses,
        metric=sets.stones_errors,
        contenders=contenders(
            Contender("fixed", by_unit, knobs=(Knob("price", 1.0, 4.0, 2), Knob("weight", 1.0))),
            ["regression", "regression", "classification", "classification"],
            units=True,
        ),
        widths=(24,),
        epochs=(20,),
        units=True,
        **USUAL,
    ),
    "digits": Study(
        data={"digits": sets.digits},
        model=sets.digits_model,
        single=sets.digits_single,
        losses=cross_entropies,
        metric=wrong,
        contenders=contenders(BY_RATIO, "classification", units=False),
        widths=(24,),
        epochs=(12,),
        **USUAL,
    ),
    "films": _questions("films", sets.films, sets.films_model, sets.films_single, 16, 9),
    "glyphs": _questions(
        "glyphs", sets.glyphs, sets.questions_model, sets.questions_single, 24, 10
    ),
    "rooms": Study(
        data={"rooms": sets.small_rooms},
        model=sets.rooms_model,
        single=sets.rooms_single,
        losses=sets.rooms_losses,
        metric=sets.rooms_errors,
        contenders=contenders(BY_RATIO, ["classification", "laplace", "regression"], units=False),
        widths=(6,),
        epochs=(15,),
        **USUAL | {"batch_size": 20},
    ),
}
ON_GRADIENTS = ("gramian", "gradients")  # what the card of such a rule says that it reads


def _plain_steps(study: Study) -> Study:
    """Of the study the rules on gradients, and what they are compared with; plain SGD."""
    names = {card.name for card in cards() if card.reads in ON_GRADIENTS}
    names |= {"alone", "equal", "standardised", "fixed"}
    rules = tuple(c for c in study.contenders if c.name in names)
    return replace(study, contenders=rules, rates={"sgd": RATES["sgd"]})


def _with(optimiser: str, study: Study) -> Study:
    return replace(study, rates={optimiser: RATES[optimiser]})


ADAM = tuple(_with("adam", study) for study in ONE_SET.values())
MOMENTUM = {name: _with("momentum", study) for name, study in ONE_SET.items()}
OTHER_STEPS = (
    _plain_steps(ONE_SET["diamonds"]),
    MOMENTUM["diamonds"],
    _plain_steps(ONE_SET["digits"]),
    *(MOMENTUM[name] for name in ("digits", "films", "glyphs", "rooms")),
)
STUDIES = (*ADAM, *OTHER_STEPS)


def block(data, optimiser, width, epochs, contender, trials, stage):
    """The unit of work: see `experiments.benchmark.train_block`."""
    study = ONE_SET[data]
    return train_block(study, data, optimiser, width, epochs, contender, trials, stage)


def cost(data, width, contender, steps):
    """Seconds of a step: see `experiments.benchmark.step_time`."""
    return step_time(ONE_SET[data], data, width, contender, steps)


def costs(**options: Any) -> None:
    """The cost of a step of every contender on every set, in one process."""
    configs = [
        {"data": data, "width": study.widths[0], "contender": c.name, "steps": 50}
        for data, study in ONE_SET.items()
        for c in study.contenders
    ]
    sweep.run(cost, configs, record=RECORD, **options | {"n_jobs": 1})


if __name__ == "__main__":
    options = sweep.options(__doc__)
    run(STUDIES, block, RECORD, ROUNDS, **options)
    costs(**options)
