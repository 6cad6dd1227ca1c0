"""The protocol for many task sets and many contenders, within hours.

As `protocol`: the same trainings, picks and reports, and the same lattice without edges. What
differs, for the price of it:

* a cell has one width and one length, and rounds of four trials: three for everybody, then more,
  again for everybody in the cell, while the pick of any lies at the edge of what was tried, up to a
  limit; whose pick still does is named by `at_edge`;
* reports also keep, for each evaluation, what stopping there would have given on test rows, seed by
  seed, so that contenders may be compared at equal time;
* rules that a plain batch does not suffice: `fed`.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from experiments.protocol import (
    SPLITS,
    Cell,
    Study,
    _cell,
    _config,
    _epochs_to_look,
    _networks,
    _plain,
    _propose,
    _results,
    _run,
    _stacked,
    picks,
)
from experiments.search import Trial, edges
from experiments.verdicts import in_cell
from mtl_utils.datasets import MultiTaskData
from mtl_utils.ensemble import Ensemble, train_many
from mtl_utils.ensemble_optim import many_optimizer
from mtl_utils.weighting.kinds import BatchesWeighting

LEAST_ROUNDS, MOST_ROUNDS = 3, 5
Function = Callable[..., Any]


# ---- a block of trainings --------------------------------------------------------------------


def train_block(
    study: Study,
    data: str,
    optimiser: str,
    width: int,
    epochs: int,
    contender: str,
    trials: Sequence[Trial],
    stage: str,
) -> list[dict[str, Any]]:
    """As `protocol.train_block`; a report has "kept" [E][S] too, the test metric, mean over tasks,
    of who stops at each evaluation and takes what was best on validation rows until then."""
    how = study.contender(contender)
    seeds = study.picking if stage == "pick" else study.reporting
    sets = drawn(study.data[data], seeds, _change(study, how))
    members = [(trial, place) for trial in trials for place in range(len(seeds))]
    n_tasks = sets[0].n_tasks
    network = _networks(study, how, sets[0], width)
    tensors, losses, observe = fed(study, how.make(n_tasks, trials[0]), sets)

    def maker(trial: Trial) -> Callable[[], tuple[nn.Module, Any]]:
        return lambda: (network(), whole_step(how.make(n_tasks, trial)))

    def column(name: str) -> Tensor:
        return torch.tensor([trial[name] for trial, _ in members])

    has = {knob.name for knob in study.knobs(how, data, optimiser)}
    trained = train_many(
        [maker(trial) for trial, _ in members],
        losses,
        tensors,
        [seeds[place] for _, place in members],
        epochs,
        study.batch_size,
        many_optimizer(
            optimiser, column("rate"), column("own_rate") if "own_rate" in has else None
        ),
        own_data=[place for _, place in members],
        order_seeds=[seeds[place] for _, place in members],
        observe=observe,
        metric=study.metric,
        splits={split: _stacked(sets, split) for split in SPLITS[stage]},
        evaluate_at=_epochs_to_look(epochs, study.evaluations),
        progress=False,
    )
    per_task = how.network == "alone"
    found = _results(trained, trials, seeds, per_task)
    if stage == "report":
        for row, kept in zip(found, _kept(trained, len(trials), per_task), strict=True):
            row["kept"], row["weights"] = _plain(kept), row["weights"][:n_tasks]
    return found


def _kept(trained: Ensemble, n_trials: int, per_task: bool) -> list[Tensor]:
    """For each trial the test metric, mean over tasks, of who stops at each evaluation, [E, S]."""
    val, test = trained.curves["val"], trained.curves["test"]
    judged = val if per_task else val.mean(-1, keepdim=True).expand_as(val)
    kept = torch.stack(
        [test.gather(0, judged[: e + 1].argmin(0)[None])[0] for e in range(len(val))]
    )
    return list(kept.mean(-1).chunk(n_trials, 1))


@functools.lru_cache(maxsize=4)
def drawn(
    make: Callable[[int], MultiTaskData],
    seeds: tuple[int, ...],
    change: Callable[[MultiTaskData], MultiTaskData] | None = None,
) -> tuple[MultiTaskData, ...]:
    """The data of each seed, and what a change makes of them."""
    sets = tuple(make(seed) for seed in seeds)
    return tuple(map(change, sets)) if change else sets


def _change(study: Study, how: Any) -> Callable[[MultiTaskData], MultiTaskData] | None:
    """Regression targets in units of their spread, for who asks for it."""
    return (study.standardise or _standardised) if how.standardise else None


def _standardised(data: MultiTaskData) -> MultiTaskData:
    splits = {}
    for split in ("train", "val", "test"):
        x, *targets = getattr(data, split)
        pairs = zip(targets, data.train[1:], strict=True)
        splits[split] = (x, *(_scaled(y, rows) for y, rows in pairs))
    return replace(data, **splits)  # type: ignore[arg-type]


def _scaled(y: Tensor, rows: Tensor) -> Tensor:
    return (y - rows.mean()) / rows.std() if y.is_floating_point() else y


# ---- rules that a plain batch does not suffice -----------------------------------------------


def fed(
    study: Study, rule: Any, sets: Sequence[MultiTaskData]
) -> tuple[list[Tensor], Function, Function | None]:
    """What a rule's members train on: the stacked training rows, losses, and what it observes.

    * A rule that observes validation losses gets as many validation rows beside each batch.
    * A rule that observes performances gets 1 - metric of the batch, held in [0, 1]; chance, 0.5,
      where a batch of one class has none.
    * A rule on two or three independent batches gets the halves or thirds of each batch, so that
      all contenders see the same number of rows: losses [batches K], see `InParts`.
    """
    train = _stacked(sets, "train")
    n = len(train)
    if "val_losses" in rule.observes:
        tensors = train + [_filled_up(t, train[0].shape[1]) for t in _stacked(sets, "val")]
        return (
            tensors,
            lambda model, *rows: study.losses(model, *rows[:n]),
            lambda model, *rows: {"val_losses": study.losses(model, *rows[n:])},
        )
    if "kpis" in rule.observes:
        return (
            train,
            study.losses,
            lambda model, *rows: {"kpis": _performance(study.metric(model, *rows))},
        )
    batches = getattr(rule, "batches", 1)
    if batches > 1:

        def in_parts(model: nn.Module, *rows: Tensor) -> Tensor:
            parts = zip(*(t.chunk(batches) for t in rows), strict=True)
            return torch.cat([study.losses(model, *part) for part in parts])

        return train, in_parts, None
    return train, study.losses, None


def _performance(metric: Tensor) -> Tensor:
    return (1 - metric).clamp(0, 1).nan_to_num(0.5)


def _filled_up(rows: Tensor, n: int) -> Tensor:
    """Rows [S, V, ...] again and again, until there are n of them."""
    return rows[:, torch.arange(n) % rows.shape[1]]


def whole_step(rule: Any) -> Any:
    """The rule, or `InParts` of it where several batches make its step."""
    return InParts(rule) if getattr(rule, "batches", 1) > 1 else rule


class InParts(nn.Module):
    """A rule on several independent batches that gets the losses of all of them at once.

    Args:
        several: the rule.
    """

    def __init__(self, several: BatchesWeighting) -> None:
        super().__init__()
        self.several = several  # not `rule`: train_many looks there and would refuse
        self.name = several.name
        self.n_tasks = several.batches * several.n_tasks
        self.observes = several.observes
        self.needs_shared, self.needs_nonnegative = True, several.needs_nonnegative

    def backward(self, losses: Tensor, shared: Any, features: Any = None) -> Tensor:
        """Losses [batches K], those of a batch beside each other."""
        trunk = list(shared)
        eye = torch.eye(len(losses)).to(losses)
        rows = torch.autograd.grad(losses, trunk, eye, retain_graph=True, is_grads_batched=True)
        parts = torch.cat([r.flatten(1) for r in rows], 1)
        parts = parts.reshape(self.several.batches, self.several.n_tasks, -1)
        alpha = self.several.coefficients(parts[0] @ parts[1].T).to(losses)
        which = self.several.update_from
        update = alpha @ (parts.mean(0) if which is None else parts[which])
        (losses.sum() / self.several.batches).backward()  # what lands in the heads
        for p, part in zip(trunk, update.split([p.numel() for p in trunk]), strict=True):
            p.grad = part.reshape(p.shape)
        return alpha.repeat(self.several.batches)


# ---- the whole study -------------------------------------------------------------------------


def run(
    studies: Sequence[Study],
    block: Callable[..., Any],
    record: str,
    most_rounds: int = MOST_ROUNDS,
    **options: Any,
) -> None:
    """Tune all contenders of every cell in rounds, then report; a cell after the other, so that a
    record that is not complete has complete cells.

    Args:
        studies: what is compared; their cells in the order in which they are trained.
        block: the study's function, see `train_block`.
        record: name of the record.
        most_rounds: of trials, where picks stay at an edge.
        options: of `sweep.run`.
    """
    for study in studies:
        for cell in study.cells():
            run_cell(study, cell, block, record, most_rounds, **options)


def run_cell(
    study: Study,
    cell: Cell,
    block: Callable[..., Any],
    record: str,
    most_rounds: int = MOST_ROUNDS,
    **options: Any,
) -> None:
    """One cell: rounds of trials until all picks are inside of what was tried; reports."""
    rows: dict[str, list[dict[str, Any]]] = {c.name: [] for c in study.contenders}
    for number in range(most_rounds):
        if number >= LEAST_ROUNDS and not any(at_edge(study, cell, n, r) for n, r in rows.items()):
            break
        configs = [
            _config(cell, c, _propose(study, c, cell, rows[c.name]), "pick")
            for c in study.contenders
        ]
        for row in _run(block, configs, record, options):
            assert _cell(row) == cell
            rows[row["contender"]].append(row)
    reports = [
        _config(cell, c, [trial], "report")
        for c in study.contenders
        for trial in picks(study, c, cell, rows[c.name])
    ]
    _run(block, reports, record, options)


def widen(
    study: Study,
    cell: Cell,
    block: Callable[..., Any],
    runs: pd.DataFrame,
    record: str,
    most_rounds: int,
    **options: Any,
) -> None:
    """Search on for those alone whose pick lies at the edge of what was tried, and report anew.

    They get more trials than the others then: it is for asking whether that turns a verdict. The
    rows of the two records together are what all tables take.

    Args:
        study, cell, block: as in `run_cell`.
        runs: the record to go on from, which is left as it is.
        record: name of the record for what is added.
        most_rounds: further ones, where a pick stays at an edge.
        options: of `sweep.run`.
    """
    here = runs[in_cell(runs, cell)]
    of = {c.name: here[here["contender"] == c.name] for c in study.contenders}
    rows = {name: part[part["stage"] == "pick"].to_dict("records") for name, part in of.items()}
    rows = {name: known for name, known in rows.items() if at_edge(study, cell, name, known)}
    for _ in range(most_rounds):
        configs = [
            _config(cell, c, _propose(study, c, cell, rows[c.name]), "pick")
            for c in map(study.contender, rows)
            if at_edge(study, cell, c.name, rows[c.name])
        ]
        if not configs:
            break
        for row in _run(block, configs, record, options):
            rows[row["contender"]].append(row)
    reports = [
        _config(cell, c, [trial], "report")
        for c in map(study.contender, rows)
        for trial in picks(study, c, cell, rows[c.name])
        if trial not in of[c.name].loc[of[c.name]["stage"] == "report", "trial"].to_list()
    ]
    if reports:
        _run(block, reports, record, options)


def for_longer(runs: pd.DataFrame, times: int) -> list[dict[str, Any]]:
    """The reports of a record as configurations for several times the epochs; nothing is picked
    anew."""
    names = ["data", "optimiser", "width", "contender", "stage"]
    return [
        {name: row[name] for name in names}
        | {"epochs": times * row["epochs"], "trials": [row["trial"]]}
        for row in runs[runs["stage"] == "report"].to_dict("records")
    ]


def with_picks(longer: pd.DataFrame, runs: pd.DataFrame, times: int) -> pd.DataFrame:
    """The record of `for_longer` beside the trials of the first one, by which a contender finds its
    reports."""
    picking = runs[runs["stage"] == "pick"]
    picking = picking.assign(epochs=times * picking["epochs"])
    return pd.concat([picking, longer], ignore_index=True)


def at_edge(study: Study, cell: Cell, contender: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Knobs of a contender whose pick lies at the edge of what was tried."""
    how = study.contender(contender)
    knobs = study.knobs(how, *cell[:2])
    tried = [row["trial"] for row in rows]
    found = [edges(knobs, tried, pick) for pick in picks(study, how, cell, rows)]
    return sorted({knob for names in found for knob in names})


# ---- what a step costs -----------------------------------------------------------------------


def step_time(study: Study, data: str, width: int, contender: str, steps: int) -> dict[str, float]:
    """Seconds of a training step of one network, as a user would take it, beside plain training.

    The two take turns, and the middle of each is taken: the rest of the machine disturbs both.

    Args:
        study: where data, networks and losses come from.
        data, width, contender: of the cell.
        steps: of each.

    Returns:
        "step", "plain": seconds of processor time; "ratio": of the one to the other.
    """
    how, make = study.contender(contender), study.data[data]
    sets = drawn(make, (0,), _change(study, how))
    middle = {knob.name: knob.start for knob in study.knobs(how, data, "adam")}
    ours = _stepper(study, sets, how, width, middle)
    plain = _stepper(study, sets, study.contender("equal"), width, middle)
    seconds = np.array([[one() for one in (ours, plain)] for _ in range(steps + 3)])[3:]
    step, other = np.median(seconds, 0)
    return {"step": float(step), "plain": float(other), "ratio": float(step / other)}


def _stepper(
    study: Study, sets: Sequence[MultiTaskData], how: Any, width: int, trial: Trial
) -> Callable[[], float]:
    """A function that trains one batch further and says how long it took, in seconds."""
    n_tasks = sets[0].n_tasks
    model = _networks(study, how, sets[0], width)()
    rule = how.make(n_tasks, trial)
    tensors, losses, observe = fed(study, rule, sets)
    rule = whole_step(rule)
    trunk = list(model.trunk.parameters()) if how.network == "shared" else None  # type: ignore
    optimizer = torch.optim.Adam([*model.parameters(), *rule.parameters()], lr=0.001)
    batch = [t[0, : study.batch_size] for t in tensors]
    if "train_losses" in rule.observes:
        rule.observe(train_losses=losses(model, *batch).detach())

    def step() -> float:
        begin = time.process_time()
        if observe is not None:
            with torch.no_grad():
                rule.observe(**observe(model, *batch))
        found = losses(model, *batch)
        optimizer.zero_grad()
        rule.backward(found, shared=trunk)
        optimizer.step()
        if "losses_after_step" in rule.observes:
            with torch.no_grad():
                rule.observe(losses_after_step=losses(model, *batch))
        return time.process_time() - begin

    return step
