"""Short trainings for the notebooks: the data and networks of a study, a few rules, one setting.

What a notebook draws and what it uses as an example is trained here, while you look. A verdict is
not made here: nothing is tuned (see `protocol`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch

from experiments.protocol import Contender, Study, _draw, _networks, _stacked
from mtl_utils.ensemble import GIVEN_BY_THE_LOOP, Ensemble, train_many
from mtl_utils.ensemble_optim import many_optimizer
from mtl_utils.weighting import Weighting


def watch(
    study: Study,
    data: str,
    rules: Mapping[str, Weighting | Sequence[Weighting]],
    width: int,
    epochs: int,
    *,
    rate: float = 0.01,
    own_rate: float = 0.03,
    optimiser: str = "adam",
    seeds: Sequence[int] = range(10),
    network: str = "shared",
    test_every: int = 0,
) -> pd.DataFrame:
    """Train every rule with every seed, side by side, and write down what happens.

    Args:
        study: where data, networks, losses and metric come from.
        data: name of one of the study's data sets.
        rules: label -> a rule, of which each seed gets a copy; or one for each seed.
        width, epochs: of the network and of the training.
        rate, own_rate: learning rates of the network, and of what a rule learns.
        optimiser: "adam", "momentum" or "sgd".
        seeds: each draws the data, the initial weights and the order of the rows.
        network: "shared", "untied" or "alone", as of a `Contender`.
        test_every: how often, in epochs, to look at the test rows; 0: at the end only.

    Returns:
        A row for each rule, seed, epoch and task: rule, seed, epoch (from 1), task, `loss` (mean
        over the epoch), `weight` (mean over its steps), `kpi` or `val loss` where one of the
        rules observes it, and `error`, the study's metric on test rows (lower is better), NaN in
        epochs without a look.
    """
    sets = _draw(study.data[data], tuple(seeds), None)
    make_network = _networks(study, Contender("", network=network), sets[0], width)
    members = [(name, place) for name in rules for place in range(len(seeds))]

    def maker(name: str, place: int) -> Any:
        rule: Any = rules[name]
        mine = rule[place] if isinstance(rule, Sequence) else rule
        return lambda: (make_network(), copy.deepcopy(mine))

    places = [place for _, place in members]
    rates = torch.full((len(members),), rate)
    looks = range(test_every or epochs, epochs + 1, test_every or epochs)
    trained = train_many(
        [maker(*member) for member in members],
        study.losses,
        _stacked(sets, "train"),
        [seeds[place] for place in places],
        epochs,
        study.batch_size,
        many_optimizer(optimiser, rates, torch.full_like(rates, own_rate), 0.0),
        own_data=places,
        order_seeds=[seeds[place] for place in places],
        observe=study.observe if any(map(_observes_more, rules.values())) else None,
        metric=study.metric,
        splits={"test": _stacked(sets, "test")},
        evaluate_at=sorted({*looks, epochs}),
        progress=False,
    )
    return _long(trained, [(name, seeds[place]) for name, place in members], sets[0].tasks)


def _observes_more(rules: Weighting | Sequence[Weighting]) -> bool:
    """Whether a rule wants to see more than what the training loop hands it."""
    rule = rules[0] if isinstance(rules, Sequence) else rules
    return not set(rule.observes) <= GIVEN_BY_THE_LOOP


def _long(trained: Ensemble, members: Sequence[Any], tasks: Sequence[str]) -> pd.DataFrame:
    """A row for each member, epoch and task."""
    columns = {"loss": trained.losses, "weight": trained.history["weights"]}
    observed = {"kpis": "kpi", "val_losses": "val loss"}
    columns |= {v: trained.history[k] for k, v in observed.items() if k in trained.history}
    errors = torch.full_like(trained.losses, torch.nan)
    errors[torch.tensor(trained.epochs) - 1] = trained.curves["test"]
    columns["error"] = errors
    n_epochs = len(trained.losses)
    where = [
        {"rule": name, "seed": seed, "epoch": epoch, "task": task}
        for epoch in range(1, n_epochs + 1)
        for name, seed in members
        for task in tasks
    ]
    table = pd.DataFrame(where)
    return table.assign(**{name: values.flatten().numpy() for name, values in columns.items()})


def minus(table: pd.DataFrame, rule: str, other: str, task: str | None = None) -> pd.Series:
    """Error of one rule minus that of another at the end of training, a value a seed.

    Args:
        table: what `watch` returned.
        rule, other: labels.
        task: of this task; default the mean over tasks.
    """
    end = table[table["epoch"] == table["epoch"].max()]
    if task is not None:
        end = end[end["task"] == task]
    means = end.groupby(["rule", "seed"])["error"].mean().unstack("rule")
    return means[rule] - means[other]
