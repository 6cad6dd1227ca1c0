"""Notebook 14: what its record says. Long tables, a row a seed, and what follows from them.

Everything here takes tables, so that it works on any benchmark: `results` makes them of the record.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from experiments.benchmark import at_edge, train_block
from experiments.protocol import Study, picks
from experiments.search import Knob, Trial
from experiments.verdicts import (
    LEVEL,
    at_level,
    entries,
    holm,
    in_cell,
    paired,
    reported,
    still_improving,
)
from mtl_utils.metrics import delta_m
from mtl_utils.models import count_parameters
from mtl_utils.weighting.base import cards

WHERE = ["data", "optimiser"]


# ---- from the record ---------------------------------------------------------------------------


def results(studies: Sequence[Study], runs: pd.DataFrame) -> pd.DataFrame:
    """Test errors of every cell that is complete.

    Args:
        studies: what was compared.
        runs: the record (`records.read`).

    Returns:
        a row for each cell, contender, reporting seed and task: data, optimiser, contender, seed,
        task, `error`; infinite where a training ended in numbers that are not finite. Each task
        alone has the error of a task from the trial that was picked for it.
    """
    rows: list[dict[str, Any]] = []
    for study, cell, report in complete_cells(studies, runs):
        for contender in study.contenders:
            for seed_place, seed in enumerate(study.reporting):
                per_task = [found["test"][seed_place] for found in report[contender.name]]
                for task in range(len(per_task[0])):
                    which = task if contender.network == "alone" else 0
                    value = per_task[which][task]
                    error = math.inf if value is None else value
                    place = {"data": cell[0], "optimiser": cell[1], "contender": contender.name}
                    rows.append({**place, "seed": seed, "task": task, "error": error})
    columns = [*WHERE, "contender", "seed", "task", "error"]
    return pd.DataFrame(rows, columns=columns)


def complete_cells(studies: Sequence[Study], runs: pd.DataFrame) -> list[tuple[Study, Any, Any]]:
    """Cells of which the record has a report of everybody: study, cell, and by contender the
    report of each pick."""
    found = []
    for study in studies:
        for cell in study.cells():
            here = runs[in_cell(runs, cell)]
            reports = {c.name: reported(study, c, cell, here) for c in study.contenders}
            if all(reports.values()):
                found.append((study, cell, reports))
    return found


def complete(studies: Sequence[Study], runs: pd.DataFrame) -> pd.DataFrame:
    """What there is of a record that is still being made: a row a cell that is complete.

    Returns:
        data, optimiser, contenders, trials (of each contender), hours (of one core), and `at_edge`,
        how many contenders have a pick at the edge of what was tried.
    """
    rows = []
    for study, cell, _ in complete_cells(studies, runs):
        here = runs[in_cell(runs, cell)]
        tried = {
            c.name: here[(here["contender"] == c.name) & (here["stage"] == "pick")]
            for c in study.contenders
        }
        edges = [at_edge(study, cell, name, t.to_dict("records")) for name, t in tried.items()]
        # a block's seconds stand in the row of each of its trials
        seconds = here["run_seconds"].groupby(_block_of(here)).first().sum()
        row = {"data": cell[0], "optimiser": cell[1], "contenders": len(study.contenders)}
        row |= {"trials": max(map(len, tried.values())), "hours": seconds / 3600}
        rows.append(row | {"at_edge": sum(map(bool, edges))})
    return pd.DataFrame(rows)


def _block_of(runs: pd.DataFrame) -> pd.Series:
    """A name for each block: the contender, the stage and the trials that were trained together."""
    return runs["contender"] + runs["stage"] + runs["trials"].astype(str)


def settings(studies: Sequence[Study]) -> pd.DataFrame:
    """What was compared, a row a data set: number of tasks, training rows, steps of a training,
    parameters of the shared network."""
    rows = []
    for study in studies:
        for name, draw in study.data.items():
            data, epochs = draw(study.reporting[0]), study.epochs[0]
            n = len(data.train[0])
            row = {"data": name, "tasks": data.n_tasks, "rows": n}
            row["steps"] = math.ceil(n / study.batch_size) * epochs
            row["parameters"] = count_parameters(study.model(data, study.widths[0]))
            rows.append(row)
    return pd.DataFrame(rows).drop_duplicates("data").reset_index(drop=True)


def picked(studies: Sequence[Study], runs: pd.DataFrame) -> pd.DataFrame:
    """How far the pick of each contender can be trusted; a row a cell and contender.

    Returns:
        data, optimiser, contender; `outermost`, knobs whose picked value is the smallest or largest
        that was tried, and beyond which something lies; `untried`, knobs on whose one side no trial
        stands within a step of the lattice, all else equal; `late` (per cent), how much of the
        best validation error was found in the last quarter of the training (the mean of each task
        alone's picks).
    """
    rows = []
    for study, cell, reports in complete_cells(studies, runs):
        here = runs[in_cell(runs, cell)]
        for contender in study.contenders:
            mine = here[(here["contender"] == contender.name) & (here["stage"] == "pick")]
            tried = mine.to_dict("records")
            knobs = study.knobs(contender, *cell[:2])
            ends = {
                knob.name
                for knob in knobs
                for pick in picks(study, contender, cell, tried)
                if _is_outermost(knob, pick, tried)
            }
            untried = at_edge(study, cell, contender.name, tried)
            late = np.mean([still_improving(report["curve"]) for report in reports[contender.name]])
            row = {"data": cell[0], "optimiser": cell[1], "contender": contender.name}
            row |= {"outermost": ", ".join(sorted(ends)), "untried": ", ".join(untried)}
            rows.append(row | {"late": 100 * late})
    return pd.DataFrame(rows)


def _is_outermost(knob: Knob, pick: Trial, tried: Sequence[Mapping[str, Any]]) -> bool:
    places = [knob.place(row["trial"][knob.name]) for row in tried]
    mine, (low, high) = knob.place(pick[knob.name]), knob.ends
    return (mine == min(places) and mine > low) or (mine == max(places) and mine < high)


def mean_error(errors: pd.DataFrame) -> pd.DataFrame:
    """What everybody is tuned for and stopped by: the mean error over tasks, in hundredths; a row
    for each data set, optimiser, contender and seed, column `error`."""
    keys = [*WHERE, "contender", "seed"]
    return errors.groupby(keys, sort=False)["error"].mean().mul(100).reset_index()


def step_ratios(runs: pd.DataFrame, on: Sequence[str] = ()) -> dict[tuple[str, str], float]:
    """(data set, contender) -> cost of a step in units of a plain step, from the record.

    Args:
        runs: the record.
        on: data sets with the same networks, if only one of them was measured.
    """
    costs = runs.dropna(subset=["ratio"])
    measured = zip(costs["data"], costs["contender"], costs["ratio"], strict=True)
    return {(name, rule): ratio for data, rule, ratio in measured for name in on or [data]}


def once_more(
    studies: Sequence[Study], runs: pd.DataFrame, data: str, optimiser: str, contender: str
) -> tuple[np.ndarray, np.ndarray]:
    """The report of a contender's pick trained again, and as recorded: test errors [seeds, K]."""
    for study, cell, reports in complete_cells(studies, runs):
        if cell[:2] == (data, optimiser):
            recorded = reports[contender][0]
            (again,) = train_block(study, *cell, contender, [recorded["trial"]], "report")
            return np.array(again["test"], float), np.array(recorded["test"], float)
    raise ValueError(f"data, optimiser: the record of {data} with {optimiser} is not complete")


# ---- one number for several tasks ----------------------------------------------------------------


def relative_gain(errors: pd.DataFrame, baseline: str = "alone") -> pd.DataFrame:
    """delta-m of every seed: mean over tasks of the gain over the baseline in per cent of it.

    Errors are better when lower; above 0 is better than the baseline, as in
    `mtl_utils.metrics.delta_m`. The baseline of a task is its mean over seeds, as published tables
    have it: a ratio by seed would be dominated by seeds in which the baseline does well.

    Args:
        errors: as `results` returns them.
        baseline: the contender that counts as 0.

    Returns:
        a row for each data set, optimiser, contender and seed, column `delta_m`.
    """
    rows = []
    for where, cell in errors.groupby(WHERE, sort=False):
        by_task = cell[cell["contender"] == baseline].groupby("task")["error"].mean().to_numpy()
        higher = np.zeros(len(by_task), bool)
        for (name, seed), mine in cell.groupby(["contender", "seed"], sort=False):
            values = mine.sort_values("task")["error"].to_numpy()
            finite = np.isfinite(values).all()
            gain = delta_m(values, by_task, higher) if finite else -math.inf
            rows.append((*where, name, seed, gain))
    return pd.DataFrame(rows, columns=[*WHERE, "contender", "seed", "delta_m"])


def negative_transfer(errors: pd.DataFrame, baseline: str = "alone") -> pd.DataFrame:
    """Which tasks do worse together than alone.

    Returns:
        a row for each data set, optimiser, contender and task: `difference` of the errors to the
        baseline with its 95 % interval, `p_holm` (Holm over the rows of a data set and optimiser),
        and `transfer`: "negative", "positive" or "not decided".
    """
    keys = [*WHERE, "task"]
    wide = errors.pivot_table("error", [*keys, "seed"], "contender", sort=False)
    rows = []
    for name in wide.columns.drop(baseline):
        for key, differences in (wide[name] - wide[baseline]).dropna().groupby(keys, sort=False):
            place = dict(zip(keys, key, strict=True))
            rows.append({**place, "contender": name, **paired(differences.to_numpy())})
    table = pd.DataFrame(rows)
    table["p_holm"] = table.groupby(WHERE)["p"].transform(holm)
    sign = np.where(table["difference"] > 0, "negative", "positive")
    table["transfer"] = np.where(table["p_holm"] < 0.05, sign, "not decided")
    return table


# ---- ranks -----------------------------------------------------------------------------------


def mean_ranks(scores: pd.DataFrame) -> tuple[pd.Series, float, float]:
    """Mean ranks, whether they differ at all, and by how much they have to.

    Args:
        scores: lower is better; a row a block (a data set, or a data set and seed), a column a
            contender. Blocks should be independent: seeds of one data set are not independent
            evidence about other data sets.

    Returns:
        mean rank by contender, best first; p of Friedman's test; the critical difference of
        Nemenyi's test at 5 %: contenders closer than this are not told apart.

    Raises:
        ValueError: fewer than two blocks or three contenders, or missing scores.

    Source: Demsar, Journal of Machine Learning Research 7, 2006.
    """
    n, k = scores.shape
    if n < 2 or k < 3 or scores.isna().any(axis=None):
        raise ValueError(f"scores: expected two rows and three columns, all there, got {n} x {k}")
    ranks = scores.rank(axis=1).mean().sort_values()
    p = float(stats.friedmanchisquare(*(scores[name] for name in scores)).pvalue)
    return ranks, p, critical_difference(k, n)


def critical_difference(k: int, n: int) -> float:
    """By how much two of k mean ranks over n blocks have to differ (Nemenyi's test, 5 %).

    >>> round(critical_difference(4, 14), 2)
    1.25
    """
    q = stats.studentized_range.ppf(0.95, k, np.inf) / math.sqrt(2)
    return float(q * math.sqrt(k * (k + 1) / (6 * n)))


def blocks(gains: pd.DataFrame, optimiser: str | None = None) -> pd.DataFrame:
    """What `mean_ranks` takes, from `relative_gain`: a row a data set, a column a contender.

    Args:
        gains: delta-m of every seed.
        optimiser: of this one; default the best of each contender and data set, so that a data set
            is one block.

    Returns:
        minus the mean delta-m over seeds.
    """
    here = gains if optimiser is None else gains[gains["optimiser"] == optimiser]
    means = here.groupby([*WHERE, "contender"], sort=False)["delta_m"].mean()
    return -means.groupby(["data", "contender"], sort=False).max().unstack("contender")


def not_told_apart(ranks: pd.Series, critical: float) -> list[tuple[str, str]]:
    """The bars of a critical-difference diagram: first and last of each longest run of contenders
    that lie within the critical difference.

    >>> ranks = pd.Series({"a": 1.0, "b": 1.8, "c": 2.5, "d": 4.0})
    >>> not_told_apart(ranks, 1.0)
    [('a', 'b'), ('b', 'c')]
    """
    ordered, bars, reached = ranks.sort_values(), [], -1
    for i, first in enumerate(ordered):
        last = int((ordered <= first + critical).sum()) - 1
        if last > max(i, reached):
            bars.append((str(ordered.index[i]), str(ordered.index[last])))
        reached = max(reached, last)
    return bars


# ---- against one other -------------------------------------------------------------------------


def against(scores: pd.DataFrame, other: str, value: str, higher: bool = False) -> pd.DataFrame:
    """Every contender against another, paired by seed.

    Args:
        scores: a row for each data set, optimiser, contender and seed.
        other: name of the other.
        value: column to compare.
        higher: whether higher values are better.

    Returns:
        as `verdicts.verdicts`: `difference`, `low`, `high`, `p`, `p_holm` (over each data set and
        optimiser), `detectable` and `detectable_holm`, the smallest difference that these seeds
        find with a probability of 80 %, by one test and after the correction, and `verdict`. A
        contender with a run that failed has no interval.
    """
    wide = scores.pivot_table(value, [*WHERE, "seed"], "contender", sort=False, dropna=False)
    rows = []
    for name in wide.columns.drop(other):
        for where, both in wide[[name, other]].dropna().groupby(WHERE, sort=False):
            differences = (both[name] - both[other]).to_numpy()
            place = dict(zip(WHERE, where, strict=True))
            row = {**place, "contender": name, "seeds": len(differences)}
            rows.append(row | paired(differences))
    table = pd.DataFrame(rows)
    table["p_holm"] = table.groupby(WHERE)["p"].transform(holm)
    sign = np.where((table["difference"] > 0) == higher, "better", "worse")
    table["verdict"] = np.where(table["p_holm"] < LEVEL, sign, "not decided")
    open_ones = table.groupby(WHERE)["p_holm"].transform(lambda p: max(1, (p >= LEVEL).sum()))
    table["detectable_holm"] = at_level(table["detectable"], table["seeds"], LEVEL / open_ones)
    return table.drop(columns="seeds")


def over_sets(scores: pd.DataFrame, other: str, value: str) -> pd.DataFrame:
    """Every contender against another on the mean over the data sets, which all count alike.

    Paired by seed within a data set; seeds of different sets have nothing in common, so that the
    variances of the sets' means add up (degrees of freedom by Welch and Satterthwaite). It is about
    these data sets, seeds being drawn anew; about others `mean_ranks` has to be asked.

    Args:
        scores: a row for each data set, contender and seed, of one optimiser; lower is better.
        other: name of the other.
        value: column to compare.

    Returns:
        a row a contender that all data sets have, the best first: `difference` in per cent of what
        the other has on a data set, mean over the data sets, with `low`, `high`, `p`, `p_holm`
        (over all rows) and `verdict`.
    """
    wide = scores.pivot(index=["data", "seed"], columns="contender", values=value)
    level = wide[other].groupby("data").mean()
    shares = 100 * wide.sub(wide[other], axis=0).div(level, level="data", axis=0)
    by_set = shares.dropna(axis=1).drop(columns=other).groupby("data")
    n_sets, mean = by_set.ngroups, by_set.mean().mean()
    seeds, variance = by_set.count(), by_set.var() / by_set.count() / by_set.ngroups**2
    error = variance.sum().pow(0.5)
    freedom = error**4 / (variance**2 / (seeds - 1)).sum() if n_sets > 1 else seeds.iloc[0] - 1
    half = stats.t.ppf(1 - LEVEL / 2, freedom) * error
    p = 2 * stats.t.sf((mean / error).abs(), freedom)
    table = pd.DataFrame({"difference": mean, "low": mean - half, "high": mean + half, "p": p})
    table["p_holm"] = holm(table["p"])
    sign = np.where(table["difference"] < 0, "better", "worse")
    table["verdict"] = np.where(table["p_holm"] < LEVEL, sign, "not decided")
    return table.sort_values("difference").rename_axis("contender").reset_index()


def between_optimisers(
    scores: pd.DataFrame, one: str, other: str, value: str, baseline: str = "equal"
) -> pd.DataFrame:
    """Whether contenders differ from a baseline more with one optimiser than with another.

    Args:
        scores: a row for each data set, optimiser, contender and seed.
        one, other: names of the optimisers.
        value: column to compare.
        baseline: what a contender is held against, with the same optimiser and seed.

    Returns:
        a row for each data set and contender that both have: `difference`, what the contender
        differs from the baseline with `one` minus the same with `other`, paired by seed, with
        `low`, `high`, `p`, `p_holm` (over each data set) and `verdict`, "differs" or "not decided".
    """
    keys = ["data", "seed"]
    gaps = {}
    for name in (one, other):
        mine = scores[scores["optimiser"] == name]
        wide = mine.pivot_table(value, keys, "contender", sort=False, dropna=False)
        gaps[name] = wide.sub(wide[baseline], axis=0).drop(columns=baseline)
    change = gaps[one] - gaps[other]
    rows = []
    for contender in change.columns:
        for data, differences in change[contender].dropna().groupby("data", sort=False):
            row = {"data": data, "contender": contender}
            rows.append(row | paired(differences.to_numpy()))
    table = pd.DataFrame(rows)
    table["p_holm"] = table.groupby("data")["p"].transform(holm)
    differs = table["p_holm"] < LEVEL
    return table.assign(verdict=np.where(differs, "differs", "not decided"))


def overview(table: pd.DataFrame) -> pd.DataFrame:
    """A table of `against` for readers: a row a contender, a column a data set, the best mean on
    top; a star where a difference is decided after Holm's correction."""
    decided = table["verdict"] != "not decided"
    wide = entries(table, table["data"], 100.0, decided)
    order = table.groupby("contender")["difference"].mean()
    return wide.loc[order.sort_values().index].fillna("")


# ---- at equal time -------------------------------------------------------------------------------


# who reads nothing: a step is a plain step
PLAIN = {"standardised", *(card.name for card in cards() if card.reads == "nothing")}


def at_equal_time(
    studies: Sequence[Study],
    runs: pd.DataFrame,
    ratios: Mapping[tuple[str, str], float],
    share: float = 1.0,
    between: bool = False,
) -> pd.DataFrame:
    """Mean test error of who stops when plain training has done a share of its epochs.

    Args:
        studies, runs: as in `results`.
        ratios: (data set, contender) -> cost of a step in units of a plain step, at least 1 and
            exactly 1 for contenders that read nothing, whatever was measured.
        share: of the epochs of plain training, in (0, 1].
        between: count parts of epochs too: on a straight line between two evaluations. Else what
            does not suffice for the next evaluation is lost.

    Returns:
        a row for each data set, optimiser, contender and seed: `epochs` that the time suffices for
        and `error`, mean over tasks, of what early stopping kept there.
    """
    rows = []
    for study, cell, reports in complete_cells(studies, runs):
        data, optimiser, _, epochs = cell
        for contender in study.contenders:
            name, per_pick = contender.name, reports[contender.name]
            budget = share * epochs / (1.0 if name in PLAIN else max(1.0, ratios[data, name]))
            looks = np.array(per_pick[0]["at"], dtype=float)
            if not between:
                budget = looks[looks <= budget + 1e-9][-1]
            for s, seed in enumerate(study.reporting):
                curve = [_kept(per_pick, place, s) for place in range(len(looks))]
                where = {"data": data, "optimiser": optimiser, "contender": name, "seed": seed}
                rows.append(where | {"epochs": budget, "error": np.interp(budget, looks, curve)})
    return pd.DataFrame(rows)


def _kept(per_pick: Sequence[Mapping[str, Any]], place: int, seed: int) -> float:
    """What one seed has kept at an evaluation. Of tasks alone, which have a pick each, the mean
    over their picks: the record has no curve of each task by seed."""
    values = [row["kept"][place][seed] for row in per_pick]
    return float(np.mean([math.inf if v is None else v for v in values]))


# ---- the trade-offs of all trials ----------------------------------------------------------------


def trial_hypervolume(
    studies: Sequence[Study], runs: pd.DataFrame, reference: float = 1.0
) -> pd.DataFrame:
    """Hypervolume of all that a contender's trials reached: what a user could choose from.

    For each picking seed the validation errors [K] of all trials, each stopped where its mean was
    best, are a set of points. Tasks alone have one point, made of the picks of all tasks.

    Args:
        studies, runs: as in `results`.
        reference: the worst error of a task that counts.

    Returns:
        a row for each data set, optimiser, contender and picking seed: `hypervolume`, as a share of
        the box up to the reference, and `points`, how many trials no other trial beats.
    """
    import moocore  # any number of tasks; `mtl_utils.metrics.hypervolume` is for two

    rows = []
    for study, cell, _ in complete_cells(studies, runs):
        here = runs[in_cell(runs, cell)]
        for contender in study.contenders:
            mine = here[(here["contender"] == contender.name) & (here["stage"] == "pick")]
            values = np.array([*mine["val"]], dtype=float)  # [trials, seeds, K], NaN: not finite
            if contender.network == "alone":
                values = _one_point(study, contender, cell, mine)
            for place, seed in enumerate(study.picking):
                points = np.nan_to_num(values[:, place], nan=reference)
                volume = moocore.hypervolume(points, ref=reference) / reference ** points.shape[1]
                where = {"data": cell[0], "optimiser": cell[1], "contender": contender.name}
                count = int(moocore.is_nondominated(points).sum())
                rows.append({**where, "seed": seed, "hypervolume": volume, "points": count})
    return pd.DataFrame(rows)


def _one_point(study: Study, contender: Any, cell: Any, tried: pd.DataFrame) -> np.ndarray:
    """Of tasks alone the validation errors of the pick of each, [1, seeds, K]."""
    rows = tried.to_dict("records")
    val = {str(row["trial"]): np.array(row["val"], dtype=float) for row in rows}
    chosen = picks(study, contender, cell, rows)  # one for each task
    return np.stack([val[str(trial)][:, k] for k, trial in enumerate(chosen)], axis=-1)[None]
