"""From a record to verdicts, and what a record must have gone through before it may have any.

`check` refuses a record that did not go through the protocol. `verdicts` is the table of a study:
each contender against equal weights in every cell, paired by seed. `differences` is what the figure
of a method needs.

python -m experiments.verdicts nb06_dwa 06_dwa    checks the record, writes its table to
                                                  results/06_dwa_verdicts.csv, and prints it
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from experiments.protocol import CELL, Contender, Study, picks
from experiments.search import edges
from mtl_utils import records

LEAST_PICKING, LEAST_REPORTING = 5, 20
LEVEL, POWER = 0.05, 0.8


class ProtocolError(ValueError):
    """A record did not go through the protocol; the message says where."""


# ---- the check -------------------------------------------------------------------------------


def check(study: Study, runs: pd.DataFrame) -> None:
    """Refuse a record that did not go through the protocol.

    Args:
        study: what was compared.
        runs: the record (`records.read`, or what `protocol.run` returned).

    Raises:
        ProtocolError: with everything that is wrong, a line each.
    """
    wrong = [*_wrong_study(study)]
    for cell in study.cells():
        rows = runs[in_cell(runs, cell)]
        wrong += [f"{cell}: {what}" for what in _wrong_cell(study, cell, rows)]
    if wrong:
        raise ProtocolError("\n".join(["the record did not go through the protocol:", *wrong]))


def _wrong_study(study: Study) -> list[str]:
    wrong = []
    if len(set(study.picking)) < LEAST_PICKING:
        wrong.append(f"picking: expected at least {LEAST_PICKING} seeds, got {study.picking}")
    if len(set(study.reporting)) < LEAST_REPORTING:
        wrong.append(f"reporting: expected at least {LEAST_REPORTING} seeds, got {study.reporting}")
    if both := set(study.picking) & set(study.reporting):
        wrong.append(f"picking, reporting: seeds {sorted(both)} do both")
    for name in ("widths", "epochs"):
        if len(set(getattr(study, name))) < 2:
            wrong.append(f"{name}: expected at least two, got {getattr(study, name)}")
    names = [c.name for c in study.contenders]
    if len(set(names)) < len(names):
        wrong.append(f"contenders: two have the same name: {names}")
    return wrong + [f"contenders: {what} is missing" for what in _missing_controls(study)]


def _missing_controls(study: Study) -> list[str]:
    plain = [c for c in study.contenders if not c.standardise and not c.sum_to_k]
    shared = [c for c in plain if c.network == "shared"]
    there = {
        "equal": any(c.rule == "equal" and c.network == "shared" for c in plain),
        "tuned fixed weights": any(c.name == "fixed" and (c.ratios or c.knobs) for c in shared),
        "random weights": any(c.rule == "random" for c in shared),
        "an untied network": any(c.network == "untied" for c in plain),
        "each task alone": any(c.network == "alone" for c in plain),
        "standardised targets": not study.units
        or any(c.standardise and c.rule == "equal" for c in study.contenders),
    }
    return [control for control, is_there in there.items() if not is_there]


def _wrong_cell(study: Study, cell: Any, rows: pd.DataFrame) -> list[str]:
    wrong, counts = [], {}
    for contender in study.contenders:
        mine = rows[rows["contender"] == contender.name].to_dict("records")
        picking = [row for row in mine if row["stage"] == "pick"]
        reports = [row for row in mine if row["stage"] == "report"]
        trials = {tuple(sorted(row["trial"].items())) for row in picking}
        counts[contender.name] = len(trials)
        if not picking or not reports:
            wrong.append(f"{contender.name} was not {'reported' if picking else 'tuned'}")
            continue
        wrong += [
            f"{contender.name}: {what}"
            for what in _wrong_contender(study, cell, contender, picking, reports)
        ]
    if len(set(counts.values())) > 1:
        wrong.append(f"unequal numbers of trials: {counts}")
    return wrong


def _wrong_contender(
    study: Study, cell: Any, contender: Contender, picking: list[dict], reports: list[dict]
) -> list[str]:
    wrong = []
    knobs = study.knobs(contender, *cell[:2])
    tried = [row["trial"] for row in picking]
    names = {knob.name for knob in knobs}
    if any(set(trial) != names for trial in tried):
        wrong.append(f"trials do not have the knobs {sorted(names)}")
        return wrong
    for row, seeds in [(r, study.picking) for r in picking] + [
        (r, study.reporting) for r in reports
    ]:
        if list(row["seeds"]) != list(seeds) or len(row["val"]) != len(seeds):
            wrong.append(f"seeds to {row['stage']}: expected {seeds}, got {row['seeds']}")
            return wrong
    wanted = picks(study, contender, cell, picking)
    if [row["trial"] for row in reports] != wanted:
        wrong.append(f"reported {[row['trial'] for row in reports]}, the picks are {wanted}")
    for pick in wanted:
        if at_edge := edges(knobs, tried, pick):
            wrong.append(f"the pick {pick} lies at the edge of {', '.join(at_edge)}")
    n_tasks = len(picking[0]["val"][0])
    if unsaid := contender.untuned(n_tasks, tried[0]):
        wrong.append(f"{', '.join(unsaid)}: neither tuned nor held for a reason")
    wrong += _wrong_sum(study, contender, reports, n_tasks)
    return wrong


def _wrong_sum(study: Study, contender: Contender, reports: list[dict], n_tasks: int) -> list[str]:
    """Weights that grow or shrink together need the control that takes this away."""
    total = sum(reports[0]["weights"])
    twin = any(
        c.name == contender.twin
        or (c.sum_to_k and c.rule == contender.rule and c.options == contender.options)
        for c in study.contenders
    )
    if contender.sum_to_k or twin or abs(total - n_tasks) < 0.01 * n_tasks:
        return []
    if reports[0]["failed"]:
        return []  # a training that diverged has no weights from then on, which lowers the mean
    return [
        f"its weights sum to {total:.3g}, not to K = {n_tasks}; the control sum_to_k is missing"
    ]


def still_improving(curve: Sequence[float | None]) -> float:
    """How much of the best value a validation curve (lower is better) found in its last quarter.

    The larger of two shares: of the value itself, and of all that was learned since the start.

    >>> still_improving([1.0, 0.5, 0.4, 0.4, 0.4])
    0.0
    >>> round(still_improving([1.0, 0.8, 0.6, 0.5, 0.4]), 3)
    0.25
    """
    values = np.array([math.inf if v is None else v for v in curve])
    before = values[: 1 + (len(values) - 1) * 3 // 4].min()
    gained = max(0.0, before - values.min())
    if gained == 0:
        return 0.0
    return float(max(gained / abs(values.min()), gained / (values[0] - values.min())))


# ---- tables ----------------------------------------------------------------------------------


def results(study: Study, runs: pd.DataFrame) -> pd.DataFrame:
    """Test metric of every contender, cell, reporting seed and task, a row each, column `error`.

    Networks that share nothing have the value of each task from the trial picked for it. The rows
    are in the order of the record.
    """
    runs = runs.assign(place=range(len(runs)))
    found = []
    for cell in study.cells():
        here = runs[in_cell(runs, cell)]
        for contender in study.contenders:
            found += enumerate(reported(study, contender, cell, here))
    rows = []
    for row_index, row in sorted(found, key=lambda one: (one[1]["place"], one[0])):
        contender = study.contender(row["contender"])
        for seed, values in zip(study.reporting, row["test"], strict=True):
            for task, value in enumerate(values):
                if contender.network == "alone" and task != row_index:
                    continue
                error = math.inf if value is None else value
                where = {name: row[name] for name in CELL}
                rows.append(
                    {**where, "contender": row["contender"], "seed": seed, "task": task}
                    | {"error": error}
                )
    return pd.DataFrame(rows)


def verdicts(
    study: Study,
    runs: pd.DataFrame,
    against: str = "equal",
    task: int | None = None,
    within: Sequence[str] = (),
) -> pd.DataFrame:
    """Each contender against another one in every cell, paired by seed.

    Args:
        study: what was compared.
        runs: its record; a record that did not go through the protocol is refused.
        against: name of the other one.
        task: of this task alone; default the mean over tasks.
        within: columns of `CELL` that divide the table; Holm's correction covers each part by
            itself. Default: the whole table is one family.

    Returns:
        A row for each cell and contender: `error`, `other` (mean test metrics of the two);
        `difference` of the two with the ends `low` and `high` of its 95 % interval (Student's t
        over the seeds), `p` and `p_holm`; `detectable`, the smallest difference that a single
        t-test with these seeds finds with a probability of 80 %; `detectable_holm`, the smallest
        that it finds so often after Holm's correction, if all else in the table stays decided as
        it is; `verdict` ("better", "worse", or "not decided", by `p_holm`); `seeds`; `failed`,
        trainings that ended in numbers that are not finite; `trials` and `picked`; `plateau`,
        whether the training had come to rest.
    """
    check(study, runs)
    errors = results(study, runs)
    if task is not None:
        errors = errors[errors["task"] == task]
    means = errors.groupby([*CELL, "contender", "seed"], sort=False)["error"].mean()
    table = means.unstack("seed")  # rows: cell and contender
    rows = []
    for key, values in table.iterrows():
        *cell, name = key  # type: ignore[misc]
        if name == against:
            continue
        other = table.loc[(*cell, against)]
        row = dict(zip(CELL, cell, strict=True)) | {"contender": name}
        row |= {"error": values.mean(), "other": other.mean()}
        row |= paired(values.to_numpy() - other.to_numpy())
        rows.append(row | _how(runs, cell, name, study.plateau))
    frame = pd.DataFrame(rows)
    families = frame.groupby(list(within) if within else lambda _: 0)
    frame.insert(frame.columns.get_loc("p") + 1, "p_holm", families["p"].transform(holm))
    decided = frame["p_holm"] < LEVEL
    open_ones = (~decided).groupby(families.ngroup()).transform("sum")
    level = LEVEL / open_ones.clip(lower=1)
    after = frame.columns.get_loc("detectable") + 1
    harder = at_level(frame["detectable"], frame["seeds"], level)
    frame.insert(after, "detectable_holm", harder)
    sign = np.where(frame["difference"] < 0, "better", "worse")
    frame["verdict"] = np.where(decided, sign, "not decided")
    return frame


def paired(differences: np.ndarray) -> dict[str, float]:
    """Mean of paired differences, its 95 % interval, p, and what could have been seen.

    >>> found = paired(np.array([1.0, 2.0, 3.0]))
    >>> [round(found[name], 2) for name in ("difference", "low", "high", "p")]
    [2.0, -0.48, 4.48, 0.07]
    """
    n, mean = len(differences), float(differences.mean())
    if not np.isfinite(differences).all() or differences.std() == 0:
        p = 1.0 if mean == 0 or not np.isfinite(differences).all() else 0.0
        return {"difference": mean, "low": mean, "high": mean, "p": p, "detectable": 0.0}
    error = float(differences.std(ddof=1)) / math.sqrt(n)
    half = float(stats.t.ppf(1 - LEVEL / 2, n - 1)) * error
    p = float(stats.ttest_1samp(differences, 0.0).pvalue)
    detectable = half + float(stats.t.ppf(POWER, n - 1)) * error
    ends = {"low": mean - half, "high": mean + half}
    return {"difference": mean, **ends, "p": p, "detectable": detectable}


def at_level(detectable: pd.Series, seeds: pd.Series, level: pd.Series) -> pd.Series:
    """The detectable differences of tests at another level than LEVEL."""
    power = stats.t.ppf(POWER, seeds - 1)
    usual, asked = (stats.t.ppf(1 - a / 2, seeds - 1) + power for a in (LEVEL, level))
    return detectable * asked / usual


def holm(p: Sequence[float]) -> np.ndarray:
    """p-values corrected for their number (Holm, Scandinavian Journal of Statistics 6, 1979).

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    values = np.asarray(p, dtype=float)
    order = values.argsort()
    steps = values[order] * np.arange(len(values), 0, -1)
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected


def differences(
    study: Study, runs: pd.DataFrame, against: str = "equal", task: int | None = None
) -> pd.DataFrame:
    """What `mtl_utils.plots.forest_plot` draws: each contender minus another one, by seed.

    Args:
        study: what was compared.
        runs: its record.
        against: name of the other one.
        task: of this task alone; default the mean over tasks.

    Returns:
        a row for each cell, contender and seed: columns of `CELL`, seed, contender, `difference` of
        the test metrics, `percent`, that in per cent of the other's mean over seeds, `cell` (its
        name in `overview`), `setting` (optimiser if there are several, width and length;
        categories in the order of the study) and `decided` (whether `verdicts` has a verdict).
    """
    errors = results(study, runs)
    if task is not None:
        errors = errors[errors["task"] == task]
    keys = [*CELL, "seed", "contender"]
    wide = errors.groupby(keys, sort=False)["error"].mean().unstack("contender")
    other = wide.pop(against)
    scale = other.groupby(list(CELL)).transform("mean")
    table = wide.sub(other, axis=0).melt(value_name="difference", ignore_index=False)
    table["percent"] = 100 * table["difference"] / scale.loc[table.index]
    table = table.reset_index()
    several = len(study.rates) > 1
    names = [_setting(r.optimiser * several, r.width, r.epochs) for r in table.itertuples()]
    order = [
        _setting(optimiser * several, width, epochs)
        for optimiser in study.rates
        for width in study.widths
        for epochs in study.epochs
    ]
    judged = verdicts(study, runs, against, task).set_index([*CELL, "contender"])["verdict"]
    rows = pd.MultiIndex.from_frame(table[[*CELL, "contender"]])
    table["decided"] = judged.loc[rows].to_numpy() != "not decided"
    return table.assign(cell=_cell_names(table), setting=pd.Categorical(names, order))


def _setting(optimiser: str, width: int, epochs: int) -> str:
    name = {"sgd": "SGD", "adamw": "AdamW"}.get(optimiser, optimiser.capitalize())
    return ", ".join(filter(None, [name, f"{width} units", f"{epochs} epochs"]))


def overall(
    study: Study, runs: pd.DataFrame, against: str = "equal", by: Sequence[str] = ()
) -> pd.DataFrame:
    """Each contender against another one over all cells together: how large is it on average?

    A cell may decide nothing because it can see little. Their mean sees more: for each seed the
    quotient of the two errors, its geometric mean over cells, and of that the mean over seeds with
    its 95 % interval. What depends on the cell is averaged away, so read it beside the cells.

    Args:
        study: what was compared.
        runs: its record; a record that did not go through the protocol is refused.
        against: name of the other one.
        by: columns of `CELL`; a mean for each of their values.

    Returns:
        A row for each of these values and contender: `difference`, the mean quotient minus 1, with
        the ends `low` and `high` of its interval, and how many `cells` it is a mean of.
    """
    check(study, runs)
    keys = [*CELL, "contender", "seed"]
    means = results(study, runs).groupby(keys, sort=False)["error"].mean().reset_index()
    mine, theirs = means[means["contender"] != against], means[means["contender"] == against]
    long = mine.merge(theirs, on=[*CELL, "seed"], suffixes=("", " of the other"))
    long["log"] = np.log(long["error"] / long["error of the other"])
    rows = []
    for key, part in long.groupby([*by, "contender"], sort=False):
        found = paired(part.groupby("seed")["log"].mean().to_numpy())
        ends = {name: math.expm1(found[name]) for name in ("difference", "low", "high")}
        cells = len(part) // part["seed"].nunique()
        rows.append(dict(zip((*by, "contender"), key, strict=True)) | ends | {"cells": cells})
    return pd.DataFrame(rows)


def overview(table: pd.DataFrame) -> pd.DataFrame:
    """A table of `verdicts` for readers: a row a contender, a column a cell.

    An entry is the difference in per cent of the other's error, its 95 % interval, and a star where
    it is decided after Holm's correction.
    """
    return entries(table, _cell_names(table), table["other"], table["verdict"] != "not decided")


def entries(
    table: pd.DataFrame, columns: Sequence[str], unit: Any, decided: Sequence[bool]
) -> pd.DataFrame:
    """Differences in per cent of a unit, with 95 % intervals and a star where they are decided.

    Args:
        table: a row for each entry; columns contender, difference, low and high.
        columns: where each entry stands.
        unit: a number, or one for each row.
        decided: of each row.

    Returns:
        a row a contender, in the order of the table, as the columns are.
    """
    percent = table[["difference", "low", "high"]].mul(100).div(unit, axis=0)
    texts = [
        f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]" + " *" * bool(star)
        for (mean, low, high), star in zip(percent.to_numpy(), decided, strict=True)
    ]
    long = table[["contender"]].assign(column=list(columns), text=texts)
    wide = long.pivot(index="contender", columns="column", values="text")
    return wide.loc[long["contender"].unique(), long["column"].unique()].rename_axis(columns=None)


def _cell_names(table: pd.DataFrame) -> list[str]:
    """What readers call the cell of each row."""
    names = []
    for row in table.itertuples():
        name = f"{row.width} units, {row.epochs} epochs"
        names.append(name if table["data"].nunique() == 1 else f"{row.data}, {name}")
    return names


def tally(table: pd.DataFrame) -> pd.DataFrame:
    """In how many cells of a table of `verdicts` each contender is decided, and which way.

    Returns:
        a row a contender, a column a data set; an entry is such as "3 better, 1 worse of 8".
    """
    columns: dict[str, dict[str, str]] = {}
    for (name, data), cells in table.groupby(["contender", "data"], sort=False):
        counts = cells["verdict"].value_counts()
        found = [f"{counts[which]} {which}" for which in ("better", "worse") if which in counts]
        text = ", ".join(found) or "none"
        columns.setdefault(str(data), {})[str(name)] = f"{text} of {len(cells)}"
    return pd.DataFrame(columns).rename_axis("contender")


def agreement(table: pd.DataFrame) -> pd.DataFrame:
    """For each contender, data set and optimiser: does the verdict hold at every width and length?

    Returns:
        a row each: `verdict`, the common one, or "depends" (on width or length), or "not decided";
        and how many cells are better, worse and not decided.
    """
    rows = []
    for key, cells in table.groupby(["contender", "data", "optimiser"], sort=False):
        counts = cells["verdict"].value_counts()
        better, worse = counts.get("better", 0), counts.get("worse", 0)
        common = len(cells) in (better, worse) or better + worse == 0
        decided = "better" if better else "worse" if worse else "not decided"
        verdict = decided if common else "depends"
        names = dict(zip(("contender", "data", "optimiser"), key, strict=True))
        rows.append({**names, "verdict": verdict, "better": better, "worse": worse})
        rows[-1]["not decided"] = len(cells) - better - worse
    return pd.DataFrame(rows)


def _how(runs: pd.DataFrame, cell: Sequence[Any], name: str, plateau: float) -> dict[str, Any]:
    mine = runs[in_cell(runs, cell) & (runs["contender"] == name)]
    reports = mine[mine["stage"] == "report"]
    picked = [
        ", ".join(f"{knob} {value:g}" for knob, value in trial.items())
        for trial in reports["trial"]
    ]
    rest = [still_improving(curve) <= plateau for curve in reports["best"]]
    return {
        "seeds": len(reports["val"].iloc[0]),
        "failed": int(reports["failed"].sum()),
        "trials": int((mine["stage"] == "pick").sum()),
        "picked": "; ".join(picked),
        "plateau": all(rest),
    }


def reported(
    study: Study, contender: Contender, cell: Any, here: pd.DataFrame
) -> list[dict[str, Any]]:
    """The report of each pick of a contender, one for each task if it shares nothing; none of them
    if one is missing. Two tasks with the same pick may have one report.

    Args:
        here: the record's rows of this cell.
    """
    mine = here[here["contender"] == contender.name]
    tried = mine[mine["stage"] == "pick"].to_dict("records")
    there = mine[mine["stage"] == "report"].to_dict("records")
    wanted = picks(study, contender, cell, tried) if tried else []
    of_pick = [next((row for row in there if row["trial"] == pick), None) for pick in wanted]
    found = [row for row in of_pick if row is not None]
    return found if len(found) == len(wanted) else []


def in_cell(runs: pd.DataFrame, cell: Sequence[Any]) -> pd.Series:
    mask = pd.Series(True, index=runs.index)
    for name, value in zip(CELL, cell, strict=True):
        mask &= runs[name] == value
    return mask


def main(module: str, record: str) -> None:
    """Check a record and write its table, see the top of this module."""
    study = importlib.import_module(f"experiments.{module}").STUDY
    table = verdicts(study, records.read(record))
    path = records.find(record).with_name(f"{record}_verdicts.csv")
    table.to_csv(path, index=False, float_format="%.4g")
    print(table.drop(columns="picked").round(4).to_string(index=False))


if __name__ == "__main__":
    main(*sys.argv[1:])
