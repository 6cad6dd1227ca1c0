"""One protocol for every comparison of this collection.

A study says what is compared: data sets, networks, contenders, what a user of each would tune. The
protocol does the rest, the same for all contenders:

1. tune: rounds of trials, equally many for everybody, on a lattice without edges (`search`), each
   trial trained on the picking seeds; the pick has the lowest validation metric, mean over tasks
   and seeds, with early stopping on validation rows;
2. report: the pick is trained on the reporting seeds, stopped in the same way, and judged on test
   rows. A seed draws the data, the initial weights and the order of the rows;
3. this for every data set, optimiser, width and length (a cell).

`verdicts` checks that a record went through all of this, and makes the tables. A study is a module:

    STUDY = Study(...)

    def block(data, optimiser, width, epochs, contender, trials, stage):
        return train_block(STUDY, data, optimiser, width, epochs, contender, trials, stage)

    if __name__ == "__main__":
        run(STUDY, block, record="06_dwa", **sweep.options(__doc__))

A block, the unit of work, is the training of some trials of one contender on all seeds, side by
side (`train_many`); what is recorded of each trial is told in `train_block`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from experiments.controls import SumToK
from experiments.search import Knob, Trial, edges, first_round, next_round
from mtl_utils import make_weighting, sweep
from mtl_utils.datasets import MultiTaskData
from mtl_utils.ensemble import GIVEN_BY_THE_LOOP, Ensemble, early_stopping, train_many
from mtl_utils.ensemble_optim import many_optimizer
from mtl_utils.models import SeparateModels, count_parameters
from mtl_utils.weighting import Weighting

LEAST_ROUNDS, MOST_ROUNDS = 2, 24
NETWORKS = ("shared", "untied", "alone")
SPLITS = {"pick": ("val",), "report": ("val", "test")}  # nobody picks on test rows
CELL = ("data", "optimiser", "width", "epochs")
Cell = tuple[str, str, int, int]


@dataclass(frozen=True)
class Contender:
    """One way to train, with all that a user of it would tune.

    Args:
        name: in the record.
        rule: name for `make_weighting`, or a function of (n_tasks, **options) that returns a rule.
        options: of the rule, held at what the name says.
        knobs: tuned besides the learning rate (and weight decay): options of the rule, "own_rate"
            for what it learns.
        ratios: fixed weights, tuned: further knobs "ratio 1" to "ratio K - 1" of the weights to
            the first one; they sum to K.
        held: option -> why nobody would tune it. Each option is in `options`, `knobs` or here.
        network: "shared"; "untied", networks that share nothing and have together as many
            parameters; "alone", a network of full width for each task, tuned and stopped for it.
        standardise: train on targets with mean 0 and standard deviation 1.
        sum_to_k: scale the rule's weights to sum K.
        twin: name of the contender that is this one with weights that sum to K, where it is not
            this one's own `sum_to_k` (the sum of logs is that of the geometric mean too).
    """

    name: str
    rule: str | Callable[..., Weighting] = "equal"
    options: Mapping[str, Any] = field(default_factory=dict)
    knobs: tuple[Knob, ...] = ()
    ratios: bool = False
    held: Mapping[str, str] = field(default_factory=dict)
    network: str = "shared"
    standardise: bool = False
    sum_to_k: bool = False
    twin: str | None = None

    def __post_init__(self) -> None:
        if self.network not in NETWORKS:
            raise ValueError(f"network: expected one of {', '.join(NETWORKS)}: {self.network!r}")

    def make(self, n_tasks: int, trial: Trial) -> Any:
        """The rule with the settings of a trial."""
        options = dict(self.options)
        options |= {knob.name: trial[knob.name] for knob in self.knobs if knob.name != "own_rate"}
        if self.ratios:
            weights = torch.tensor([1.0, *(trial[f"ratio {k}"] for k in range(1, n_tasks))])
            options["weights"] = n_tasks * weights / weights.sum()
        if isinstance(self.rule, str):
            rule = make_weighting(self.rule, n_tasks, **options)
        else:
            rule = self.rule(n_tasks, **options)
        return SumToK(rule) if self.sum_to_k else rule

    def untuned(self, n_tasks: int, trial: Trial) -> list[str]:
        """Options of the rule, and "own_rate" where it learns, of which nothing is said."""
        rule = self.make(n_tasks, trial)
        rule = rule.rule if self.sum_to_k else rule
        options = list(inspect.signature(type(rule)).parameters)[1:]
        said = {knob.name for knob in self.knobs} | set(self.options) | set(self.held)
        said |= {"weights"} if self.ratios else set()
        wanted = [name for name in options if name not in ("rule", "generator")]
        wanted += ["own_rate"] if list(rule.parameters()) else []
        return [name for name in wanted if name not in said]


def sum_to_k(contender: Contender) -> Contender:
    """The same with weights that sum to K."""
    return replace(contender, name=f"{contender.name}, sum K", sum_to_k=True)


def usual_controls(units: bool) -> tuple[Contender, ...]:
    """The controls that every study has; standardised targets where they have units."""
    controls = [
        Contender("equal"),
        Contender("fixed", "fixed", ratios=True),
        Contender("random", "random"),
        Contender("untied", network="untied"),
        Contender("alone", network="alone"),
    ]
    if units:
        controls.insert(3, Contender("standardised", standardise=True))
    return tuple(controls)


def _ratio(name: str, start: float) -> Knob:
    """Of a fixed weight to the first one."""
    none = "one of the two tasks counts for nothing there"
    return Knob(name, start, reach=3, least=start / 2**12, most=start * 2**12, because=none)


@dataclass(frozen=True)
class Study:
    """What is compared.

    Args:
        data: name -> function of a seed that draws train, validation and test rows.
        model: function of (data, width) that makes the shared network.
        single: function of (data, width, task) that makes a network for one task.
        losses: function of (model, *batch) that returns the task losses, [K].
        metric: function of (model, *rows) that returns for each task an error, [K], lower is
            better, in a unit in which tasks may be averaged: share of the variance that is not
            explained, share of wrong classes.
        contenders: the methods; the controls among them.
        widths: of the trunk, at least two.
        epochs: lengths of training, at least two; the longest is meant to reach a plateau.
            Everybody is stopped early; who still improved is said in the table of verdicts.
        rates: name of an optimiser (`ensemble_optim.KINDS`) -> knob of the learning rate.
        batch_size: rows a step.
        units: the targets have units that differ, so that standardising them is a control.
        weight_decay: its knob, where the study has it.
        ratios: name of a data set -> weights of all tasks but the first, relative to it, at which
            the search for fixed weights starts; 1 where nothing is said.
        observe: as in `train_many`.
        standardise: function of a data set that returns it with standardised targets, for the
            contenders that ask for these; default: every target, each of its columns.
        trials: a round for each contender.
        picking, reporting: seeds.
        evaluations: about how often validation rows are looked at in a training.
        plateau: largest share by which the last quarter of the longest training may still improve
            what early stopping keeps.
    """

    data: Mapping[str, Callable[[int], MultiTaskData]]
    model: Callable[[MultiTaskData, int], nn.Module]
    single: Callable[[MultiTaskData, int, int], nn.Module]
    losses: Callable[..., Tensor]
    metric: Callable[..., Tensor]
    contenders: tuple[Contender, ...]
    widths: tuple[int, ...]
    epochs: tuple[int, ...]
    rates: Mapping[str, Knob]
    batch_size: int
    units: bool = False
    weight_decay: Knob | None = None
    ratios: Mapping[str, Sequence[float]] = field(default_factory=dict)
    observe: Callable[..., dict[str, Tensor]] | None = None
    standardise: Callable[[MultiTaskData], MultiTaskData] | None = None
    trials: int = 8
    picking: tuple[int, ...] = tuple(range(100, 105))
    reporting: tuple[int, ...] = tuple(range(30))
    evaluations: int = 20
    plateau: float = 0.05

    def contender(self, name: str) -> Contender:
        """By name."""
        return next(c for c in self.contenders if c.name == name)

    def knobs(self, contender: Contender, data: str, optimiser: str) -> tuple[Knob, ...]:
        """All that is tuned of a contender."""
        network = [self.rates[optimiser]]
        if self.weight_decay is not None:
            network.append(self.weight_decay)
        n_ratios = _n_tasks(self.data[data]) - 1 if contender.ratios else 0
        starts = self.ratios.get(data, [1.0] * n_ratios)
        ratios = [_ratio(f"ratio {k + 1}", starts[k]) for k in range(n_ratios)]
        return (*network, *contender.knobs, *ratios)

    def cells(self) -> Iterator[Cell]:
        """Every data set, optimiser, width and length."""
        for data in self.data:
            for optimiser in self.rates:
                for width in self.widths:
                    for epochs in self.epochs:
                        yield data, optimiser, width, epochs


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
    """Train some trials of a contender on the picking or on the reporting seeds, side by side.

    Args:
        study: where the names are explained.
        data, optimiser, width, epochs: the cell.
        contender: its name.
        trials: values of its knobs, one training a seed for each.
        stage: "pick" or "report".

    Returns:
        for each trial: "trial"; "seeds" [S]; "val" [S][K], the validation metric where it was best;
        "stopped" [S][K], after how many epochs that was; "curve" [E], the validation metric after
        the epochs "at" [E], and "best" [E], the best until then, which is what stopping there would
        have kept: means over seeds and tasks; "failed", how many seeds ended in numbers
        that are not finite. When reporting also "test" [S][K] where training was stopped, "last"
        [S][K] at its end, "test_curve" [E][K], mean over seeds, and "weights" [K], mean over
        training and seeds. None stands for what is not finite.
    """
    how = study.contender(contender)
    seeds = study.picking if stage == "pick" else study.reporting
    change = (study.standardise or _standardised) if how.standardise else None
    sets = _draw(study.data[data], seeds, change)
    members = [(trial, place) for trial in trials for place in range(len(seeds))]
    n_tasks = sets[0].n_tasks
    network = _networks(study, how, sets[0], width)

    def maker(trial: Trial) -> Callable[[], tuple[nn.Module, Any]]:
        return lambda: (network(), how.make(n_tasks, trial))

    def column(name: str) -> Tensor:
        return torch.tensor([trial[name] for trial, _ in members])

    has = {knob.name for knob in study.knobs(how, data, optimiser)}
    trained = train_many(
        [maker(trial) for trial, _ in members],
        study.losses,
        _stacked(sets, "train"),
        [seeds[place] for _, place in members],
        epochs,
        study.batch_size,
        many_optimizer(
            optimiser,
            column("rate"),
            column("own_rate") if "own_rate" in has else None,
            column("weight_decay") if "weight_decay" in has else 0.0,
        ),
        own_data=[place for _, place in members],
        order_seeds=[seeds[place] for _, place in members],
        observe=study.observe if _observes(how, n_tasks, trials[0]) else None,
        metric=study.metric,
        splits={split: _stacked(sets, split) for split in SPLITS[stage]},
        evaluate_at=_epochs_to_look(epochs, study.evaluations),
        progress=False,
    )
    return _results(trained, trials, seeds, how.network == "alone")


def _results(
    trained: Ensemble, trials: Sequence[Trial], seeds: Sequence[int], per_task: bool
) -> list[dict[str, Any]]:
    val_curves, *others = trained.curves.values()  # [E, M, K]
    index, (val, *stopped_others) = early_stopping(val_curves, *others, per_task=per_task)
    stopped = torch.tensor(trained.epochs)[index]
    weights = trained.history["weights"].mean(0)
    found = []
    for t, trial in enumerate(trials):
        mine = slice(t * len(seeds), (t + 1) * len(seeds))
        by_task = val_curves[:, mine]  # [E, S, K]
        curves = by_task.mean(2)
        best = by_task.cummin(0).values.mean(2) if per_task else curves.cummin(0).values
        row = {"trial": trial, "seeds": list(seeds), "val": _plain(val[mine])}
        row["stopped"] = stopped[mine].tolist()
        row |= {"at": trained.epochs, "curve": _plain(curves.mean(1)), "best": _plain(best.mean(1))}
        row["failed"] = int((~torch.isfinite(curves[-1])).sum())
        for test, curve in zip(stopped_others, others, strict=True):  # none while picking
            row |= {"test": _plain(test[mine]), "last": _plain(curve[-1, mine])}
            row["test_curve"] = _plain(curve[:, mine].mean(1))
            row["weights"] = _plain(weights[mine].mean(0))
        found.append(row)
    return found


def _observes(contender: Contender, n_tasks: int, trial: Trial) -> bool:
    """Whether the rule wants to see more than what the training loop hands it."""
    return not set(contender.make(n_tasks, trial).observes) <= GIVEN_BY_THE_LOOP


def _plain(values: Tensor) -> Any:
    """Lists with four digits, None for what is not finite."""
    if values.dim() > 0:
        return [_plain(value) for value in values]
    number = values.item()
    return float(f"{number:.4g}") if abs(number) < float("inf") else None


def _epochs_to_look(epochs: int, count: int) -> list[int]:
    """Before the first epoch and then about `count` times, evenly, up to the last."""
    return sorted({0, *(round(epochs * (i + 1) / count) for i in range(count))})


@functools.cache
def _n_tasks(make: Callable[[int], MultiTaskData]) -> int:
    return make(0).n_tasks


@functools.lru_cache(maxsize=4)
def _draw(
    make: Callable[[int], MultiTaskData],
    seeds: tuple[int, ...],
    change: Callable[[MultiTaskData], MultiTaskData] | None,
) -> tuple[MultiTaskData, ...]:
    sets = tuple(make(seed) for seed in seeds)
    return tuple(map(change, sets)) if change else sets


def _standardised(data: MultiTaskData) -> MultiTaskData:
    """Targets of all splits in units of the training rows; nothing is left of `info["units"]`."""
    moments = [(t.mean(0), t.std(0)) for t in data.train[1:]]
    splits = {}
    for split in ("train", "val", "test"):
        x, *targets = getattr(data, split)
        scaled = [(t - mean) / std for t, (mean, std) in zip(targets, moments, strict=True)]
        splits[split] = (x, *scaled)
    info = {key: value for key, value in data.info.items() if key != "units"}
    return replace(data, **splits, info=info)  # type: ignore[arg-type]


def _stacked(sets: Sequence[MultiTaskData], split: str) -> list[Tensor]:
    """The rows of all seeds, each tensor [S, N, ...]."""
    return [torch.stack(t) for t in zip(*(getattr(s, split) for s in sets), strict=True)]


def _networks(
    study: Study, contender: Contender, data: MultiTaskData, width: int
) -> Callable[[], nn.Module]:
    """A function that makes the contender's network."""
    if contender.network == "shared":
        return lambda: study.model(data, width)
    if contender.network == "untied":
        width = untied_width(study, data, width)
    return lambda: SeparateModels([study.single(data, width, k) for k in range(data.n_tasks)])


def untied_width(study: Study, data: MultiTaskData, width: int) -> int:
    """Width of networks that share nothing and have together as many parameters as the shared one,
    as nearly as that goes."""

    def size(candidate: int) -> int:
        return sum(count_parameters(study.single(data, candidate, k)) for k in range(data.n_tasks))

    wanted = count_parameters(study.model(data, width))
    found = 1
    while size(found + 1) <= wanted:
        found += 1
    if abs(size(found + 1) - wanted) < abs(size(found) - wanted):
        found += 1
    return found


# ---- the whole study -------------------------------------------------------------------------


def run(study: Study, block: Callable[..., Any], record: str, **options: Any) -> pd.DataFrame:
    """Tune all contenders in rounds, then report; what the record has is not run again.

    Args:
        study: what is compared.
        block: the study's function, see the top of this module.
        record: name of the record.
        options: of `sweep.run`.

    Returns:
        the rows of the record, one a trial.
    """
    rows: dict[tuple[Cell, str], list[dict[str, Any]]] = {}
    for number in range(MOST_ROUNDS):
        configs = []
        for cell in study.cells():
            if number >= LEAST_ROUNDS and _settled(study, cell, rows):
                continue
            for contender in study.contenders:
                known = rows.get((cell, contender.name), [])
                trials = _propose(study, contender, cell, known)
                configs.append(_config(cell, contender, trials, "pick"))
        if not configs:
            break
        for row in _run(block, configs, record, options):
            rows.setdefault((_cell(row), row["contender"]), []).append(row)
    configs = []
    for cell in study.cells():
        for contender in study.contenders:
            trials = picks(study, contender, cell, rows[cell, contender.name])
            configs.append(_config(cell, contender, trials, "report"))
    reports = _run(block, configs, record, options)
    return pd.DataFrame([row for known in rows.values() for row in known] + reports)


def picks(
    study: Study, contender: Contender, cell: Cell, rows: Sequence[Mapping[str, Any]]
) -> list[Trial]:
    """The best trial; of networks that share nothing the best for each task."""
    tables = [_scores(row, contender) for row in rows]
    trials = [row["trial"] for row in rows]

    def best(k: int) -> Trial:
        ranked = sorted(range(len(rows)), key=lambda i: (tables[i][k], sorted(trials[i].items())))
        return trials[ranked[0]]

    return [best(k) for k in range(len(tables[0]))]


def _scores(row: Mapping[str, Any], contender: Contender) -> list[float]:
    """What a trial is judged by: its validation metric, mean over seeds and tasks; of networks that
    share nothing, for each task."""
    table = [[float("inf") if v is None else v for v in seed] for seed in row["val"]]
    val = torch.tensor(table, dtype=torch.float64).mean(0)  # else ties depend on the default type
    return val.tolist() if contender.network == "alone" else [val.mean().item()]


def _settled(study: Study, cell: Cell, rows: Mapping[tuple[Cell, str], Any]) -> bool:
    """Whether no pick of a cell lies at the edge of what was tried."""
    for contender in study.contenders:
        known = rows[cell, contender.name]
        tried = [row["trial"] for row in known]
        knobs = study.knobs(contender, *cell[:2])
        if any(edges(knobs, tried, pick) for pick in picks(study, contender, cell, known)):
            return False
    return True


def _propose(
    study: Study, contender: Contender, cell: Cell, known: Sequence[Mapping[str, Any]]
) -> list[Trial]:
    knobs = study.knobs(contender, *cell[:2])
    if not known:
        return first_round(knobs, study.trials)
    tried = [row["trial"] for row in known]
    tables = [_scores(row, contender) for row in known]
    n_tasks = len(tables[0])
    # networks that share nothing: the trials of a round are dealt out to the tasks in turn
    new: list[Trial] = []
    for k in range(n_tasks):
        share = study.trials // n_tasks + (k < study.trials % n_tasks)
        scores = [table[k] for table in tables] + [float("inf")] * len(new)
        new += next_round(knobs, tried + new, scores, share)
    return new


def _config(
    cell: Cell, contender: Contender, trials: Sequence[Trial], stage: str
) -> dict[str, Any]:
    names = dict(zip(CELL, cell, strict=True))
    return {**names, "contender": contender.name, "trials": list(trials), "stage": stage}


def _cell(row: Mapping[str, Any]) -> Cell:
    return row["data"], row["optimiser"], row["width"], row["epochs"]


def _run(block: Callable[..., Any], configs: list, record: str, options: dict) -> list[dict]:
    table = sweep.run(block, configs, record, **options)
    if table["failure"].notna().any():
        raise RuntimeError(f"record: {table['failure'].dropna().iloc[0]}")
    return table.drop(columns="trials").to_dict("records")
