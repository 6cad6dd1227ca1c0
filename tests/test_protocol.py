"""The protocol of all comparisons on a tiny study, and what its check refuses."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn.functional import mse_loss

from experiments import controls, protocol, search, verdicts
from experiments.protocol import Contender, Study, sum_to_k, train_block, usual_controls
from experiments.search import Knob
from mtl_utils import make_weighting, records
from mtl_utils.datasets import MultiTaskData
from mtl_utils.models import HardSharing, SeparateModels, count_parameters, mlp

# ---- a tiny study ----------------------------------------------------------------------------


def lines(seed):
    """Two noisy linear regressions in different units."""
    g = torch.Generator().manual_seed(seed)
    maps = torch.randn(3, 2, generator=g)
    rows = []
    for n in (30, 100, 100):
        x = torch.randn(n, 3, generator=g)
        y = (x @ maps + 0.7 * torch.randn(n, 2, generator=g)) * torch.tensor([1.0, 3.0])
        rows.append((x, y[:, :1], y[:, 1:]))
    return MultiTaskData("lines", ("a", "b"), *rows)


def shared(data, width):
    return HardSharing(mlp(3, width, last=True), [nn.Linear(width, 1) for _ in range(2)])


def single(data, width, task):
    return mlp(3, width, 1)


def losses(model, x, *targets):
    return torch.stack([mse_loss(out, y) for out, y in zip(model(x), targets, strict=True)])


def unexplained(model, x, *targets):
    return losses(model, x, *targets) / torch.stack([y.var() for y in targets])


own_rate = Knob("own_rate", 0.1, least=0.1 / 2**6, because="the weights stay where they start")
uncertainty = Contender(
    "uncertainty", "uncertainty", knobs=(own_rate,), held={"forms": "regressions"}
)
STUDY = Study(
    data={"lines": lines},
    model=shared,
    single=single,
    losses=losses,
    metric=unexplained,
    contenders=(*usual_controls(units=True), uncertainty, sum_to_k(uncertainty)),
    widths=(2, 4),
    epochs=(2, 20),
    rates={"adam": Knob("rate", 0.1)},
    batch_size=10,
    units=True,
    trials=6,
    reporting=tuple(range(20)),
    evaluations=5,
    plateau=0.3,  # it is tiny
)


def block(data, optimiser, width, epochs, contender, trials, stage):
    return train_block(STUDY, data, optimiser, width, epochs, contender, trials, stage)


QUIET = {"n_jobs": 1, "progress": False}


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    return tmp_path_factory.mktemp("results") / "tiny.jsonl"


@pytest.fixture(scope="module")
def runs(record):
    return protocol.run(STUDY, block, record, **QUIET)


def test_a_record_that_went_through_has_a_verdict_for_each(runs):
    table = verdicts.verdicts(STUDY, runs)
    assert len(table) == 4 * 7 and (table["seeds"] == 20).all()
    assert set(table["verdict"]) <= {"better", "worse", "not decided"}
    assert (table["p_holm"] >= table["p"]).all()
    for _, cell in table.groupby(["width", "epochs"]):
        assert cell["trials"].nunique() == 1 and cell["trials"].iloc[0] >= 12
    standardised = table[table["contender"] == "standardised"]
    assert (standardised["difference"] < 0).any()  # units of 1 and 3


def test_a_verdict_is_that_of_scipy_on_the_test_errors(runs):
    """From the record alone: a task alone is judged by its own training, seeds are paired, and
    what is decided is decided after Holm's correction."""
    table = verdicts.verdicts(STUDY, runs)
    for row in table.itertuples():
        errors = {}
        for name in (row.contender, "equal"):
            reports = runs[rows_of(runs, name, "report", row.width, row.epochs)]["test"]
            tests = np.array(reports.to_list(), dtype=float)  # [reports, seeds, tasks]
            own = np.stack([tests[k % len(tests), :, k] for k in range(2)], 1)
            errors[name] = own.mean(1)
        wanted = stats.ttest_rel(errors[row.contender], errors["equal"])
        assert row.p == pytest.approx(wanted.pvalue, rel=1e-6)
        side = "better" if errors[row.contender].mean() < errors["equal"].mean() else "worse"
        assert row.verdict == (side if row.p_holm < 0.05 else "not decided")
    np.testing.assert_allclose(table["p_holm"], verdicts.holm(table["p"]))
    doubtful = (table["p"] < 0.05) & (table["p_holm"] >= 0.05)
    assert doubtful.any(), "a study in which the correction decides"


def test_a_pick_has_the_least_mean_error_on_validation_rows(runs):
    for name, task in (("uncertainty", None), ("alone", 0), ("alone", 1)):
        tried = runs[rows_of(runs, name, "pick")]
        errors = np.array(tried["val"].to_list(), dtype=float).mean(1)  # [trials, tasks]
        score = errors.mean(1) if task is None else errors[:, task]
        picked = runs[rows_of(runs, name, "report")].iloc[task or 0]["trial"]
        assert picked == tried.iloc[score.argmin()]["trial"]


def test_the_record_is_read_back_and_nothing_runs_twice(record, runs, monkeypatch):
    verdicts.check(STUDY, records.read(record))
    monkeypatch.setattr(protocol, "train_many", None)  # would fail if anything were trained
    again = protocol.run(STUDY, block, record, **QUIET)
    pd.testing.assert_frame_equal(verdicts.verdicts(STUDY, again), verdicts.verdicts(STUDY, runs))
    monkeypatch.undo()
    reread = verdicts.verdicts(STUDY, records.read(record))
    pd.testing.assert_frame_equal(reread, verdicts.verdicts(STUDY, runs))


def test_a_report_is_the_training_that_it_says(runs):
    """One reported training again, in a plain loop."""
    before = torch.get_default_dtype()
    row = runs[(runs["stage"] == "report") & (runs["contender"] == "uncertainty")].iloc[0]
    seed, trial, data = 3, row["trial"], lines(3)
    torch.manual_seed(seed)
    model, rule = shared(data, row["width"]), make_weighting("uncertainty", 2)
    groups = [
        {"params": model.parameters(), "lr": trial["rate"]},
        {"params": rule.parameters(), "lr": trial["own_rate"]},
    ]
    optimizer, seen = torch.optim.Adam(groups), []
    order = torch.Generator().manual_seed(seed)
    for epoch in range(row["epochs"] + 1):
        with torch.no_grad():
            found = [unexplained(model, *rows) for rows in (data.val, data.test)]
        if epoch in row["at"]:
            seen.append((found[0].mean().item(), epoch, found[1].tolist()))
        for index in torch.randperm(30, generator=order).split(10):
            optimizer.zero_grad()
            rule.backward(losses(model, *(t[index] for t in data.train)))
            optimizer.step()
    _, stopped, test = min(seen)
    assert row["stopped"][seed] == [stopped] * 2
    np.testing.assert_allclose(
        row["test"][seed], test, rtol=2e-3 if before == torch.float32 else 1e-3
    )


# ---- what the check refuses ------------------------------------------------------------------


def refused(message, runs, study=STUDY):
    with pytest.raises(verdicts.ProtocolError, match=message):
        verdicts.check(study, runs)


def rows_of(runs, contender, stage, width=4, epochs=20):
    return (
        (runs["contender"] == contender)
        & (runs["stage"] == stage)
        & (runs["width"] == width)
        & (runs["epochs"] == epochs)
    )


def changed(runs, chosen, column, function):
    """A copy in which a column of some rows is something else."""
    copy = runs.copy()
    copy[column] = [
        function(value) if here else value for value, here in zip(runs[column], chosen, strict=True)
    ]
    return copy


def test_unequal_trials(runs):
    table = verdicts.verdicts(STUDY, runs)
    picked = rows_of(runs, "random", "report")
    tried = rows_of(runs, "random", "pick")
    worst = runs[tried].assign(score=[np.mean(v) for v in runs[tried]["val"]])["score"].idxmax()
    assert len(table) and picked.sum() == 1
    refused("unequal numbers of trials", runs.drop(index=worst))
    # the same trial twice is one trial
    twice = changed(runs, runs.index == worst, "trial", lambda _: runs[picked].iloc[0]["trial"])
    refused("unequal numbers of trials", twice)


def test_a_pick_at_an_edge(runs):
    pick = runs[rows_of(runs, "equal", "report")].iloc[0]["trial"]["rate"]
    beyond = rows_of(runs, "equal", "pick") & runs["trial"].map(lambda t: t["rate"] > pick)
    refused("lies at the edge of rate", runs[~beyond])


def test_a_pick_that_is_not_the_best_of_the_trials(runs):
    chosen = rows_of(runs, "fixed", "report")
    other = runs[rows_of(runs, "fixed", "pick")].iloc[0]["trial"]
    refused("the picks are", changed(runs, chosen, "trial", lambda _: other))


def test_seeds(runs):
    refused(
        "picking: expected at least 5 seeds", runs, replace(STUDY, picking=(100, 101, 102, 103))
    )
    refused(
        "reporting: expected at least 20 seeds", runs, replace(STUDY, reporting=tuple(range(19)))
    )
    refused(r"seeds \[3\] do both", runs, replace(STUDY, picking=(3, 101, 102, 103, 104)))
    fewer = changed(runs, rows_of(runs, "equal", "report"), "val", lambda v: v[:-1])
    refused("seeds to report", fewer)
    others = changed(runs, rows_of(runs, "equal", "pick"), "seeds", lambda _: [0, 1, 2, 3, 4])
    refused("seeds to pick", others)


def test_who_still_improved_at_the_end_is_said(runs):
    chosen = rows_of(runs, "fixed", "report")
    falling = changed(runs, chosen, "best", lambda v: np.linspace(1, 0.1, len(v)).tolist())
    for record, rests in ((runs, True), (falling, False)):
        table = verdicts.verdicts(STUDY, record)
        longest = (table["epochs"] == 20) & (table["width"] == 4)
        assert table[longest & (table["contender"] == "fixed")]["plateau"].tolist() == [rests]


def test_one_width_or_length(runs):
    refused("widths: expected at least two", runs, replace(STUDY, widths=(4,)))
    refused("epochs: expected at least two", runs, replace(STUDY, epochs=(20,)))


def test_missing_controls(runs):
    for control in usual_controls(units=True):
        rest = tuple(c for c in STUDY.contenders if c.name != control.name)
        refused("is missing", runs, replace(STUDY, contenders=rest))
    no_twin = tuple(c for c in STUDY.contenders if not c.sum_to_k)
    refused("the control sum_to_k is missing", runs, replace(STUDY, contenders=no_twin))
    untuned = replace(uncertainty, held={})
    contenders = tuple(untuned if c is uncertainty else c for c in STUDY.contenders)
    refused("forms: neither tuned nor held", runs, replace(STUDY, contenders=contenders))


def test_a_contender_that_was_not_reported(runs):
    refused("equal was not reported", runs[~rows_of(runs, "equal", "report")])
    refused(
        "trials do not have the knobs", runs, replace(STUDY, weight_decay=Knob("weight_decay", 1))
    )


# ---- parts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n_knobs", [1, 2, 3])
def test_the_search_finds_the_least_far_from_its_start(n_knobs):
    knobs = [Knob(name, 1.0, reach=3) for name in ("rate", "own_rate", "ratio 1")[:n_knobs]]
    goal = [2.0**5.3, 2.0**-1.2, 2.0**2.4][:n_knobs]  # the first lies outside of the first round

    def score(trial):
        pairs = zip(knobs, goal, strict=True)
        return sum(math.log2(trial[knob.name] / value) ** 2 for knob, value in pairs)

    tried = search.first_round(knobs, 12)
    assert len({tuple(t.values()) for t in tried}) == 12
    for _ in range(5):
        tried += search.next_round(knobs, tried, [score(t) for t in tried], 12)
    assert len({tuple(t.values()) for t in tried}) == 72
    best = min(tried, key=score)
    assert score(best) < 0.2 * n_knobs and not search.edges(knobs, tried, best)


def test_the_search_goes_on_where_all_but_one_of_the_neighbours_were_tried():
    knob = Knob("rate", 1.0)
    places = [i / 4 for i in range(-24, 25) if i != 1]  # around the best, 0
    tried = [{"rate": knob.value(place)} for place in places]
    new = search.next_round([knob], tried, [abs(place) for place in places], 4)
    assert new[0] == {"rate": knob.value(0.25)}
    assert len({t["rate"] for t in tried + new}) == len(places) + 4


def test_a_natural_end_is_no_edge():
    knob = Knob("temperature", 2.0, most=8.0, because="weights are equal there")
    tried = [{"temperature": t} for t in (2.0, 4.0, 8.0)]
    assert search.edges([knob], tried, tried[-1]) == []
    assert search.edges([knob], tried, tried[0]) == ["temperature"]
    assert all(t["temperature"] <= 8 for t in search.next_round([knob], tried, [3, 2, 1], 6))
    with pytest.raises(ValueError, match="because: temperature has an end"):
        Knob("temperature", 2.0, most=8.0)


def test_neighbours_are_near_and_all_else_equal():
    knobs = [Knob("rate", 1.0), Knob("own_rate", 1.0)]
    point = {"rate": 1.0, "own_rate": 1.0}
    crossed = [{"rate": 2.0, "own_rate": 0.5}, {"rate": 0.5, "own_rate": 2.0}]
    assert search.edges(knobs, [point, *crossed], point) == ["rate", "own_rate"]
    far = [{"rate": r, "own_rate": 1.0} for r in (0.125, 8.0)]
    assert search.edges(knobs, [point, *far], point) == ["rate", "own_rate"]
    ended = [Knob("rate", 1.0, most=8.0, because="a test")]  # a step before its end is no end
    assert search.edges(ended, [{"rate": 2.0}, {"rate": 4.0}], {"rate": 4.0}) == ["rate"]
    for rates in ((0.125, 2.0), (0.5, 8.0)):  # near on one side only
        one_sided = [{"rate": r, "own_rate": 1.0} for r in rates]
        assert search.edges(knobs, [point, *one_sided], point) == ["rate", "own_rate"]
    near = [{"rate": r, "own_rate": 1.0} for r in (0.5, 1.41421)]
    assert search.edges(knobs, [point, *near], point) == ["own_rate"]


def test_paired_and_holm_against_scipy():
    differences = np.random.default_rng(0).normal(0.3, 1, 25)
    found = verdicts.paired(differences)
    wanted = stats.ttest_1samp(differences, 0.0)
    interval = wanted.confidence_interval(0.95)
    assert found["p"] == pytest.approx(wanted.pvalue)
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high))
    assert verdicts.paired(np.zeros(5))["p"] == 1 and verdicts.paired(np.ones(5))["p"] == 0
    p = np.array([0.01, 0.5, 0.04, 0.03, 0.005])  # Holm's own arithmetic, by hand
    np.testing.assert_allclose(verdicts.holm(p), [0.04, 0.5, 0.09, 0.09, 0.025])


def test_what_could_have_been_seen_is_seen_in_four_of_five_cases():
    rng, hits = np.random.default_rng(1), []
    known = (stats.t.ppf(0.975, 19) + stats.t.ppf(0.8, 19)) / math.sqrt(20)  # for a spread of 1
    sample = rng.normal(0, 1, 20)
    found = verdicts.paired(sample)["detectable"]
    assert found == pytest.approx(known * sample.std(ddof=1))
    for _ in range(2000):
        hits.append(verdicts.paired(rng.normal(known, 1, 20))["p"] < 0.05)
    assert np.mean(hits) == pytest.approx(0.8, abs=0.04)


def test_what_could_have_been_decided_is_decided_in_four_of_five_tables():
    """Nine differences of 0 beside one that Holm's correction should find in four of five tables:
    the level of `detectable_holm` is that of the smallest of ten p."""
    seeds, tests, rng = 20, 10, np.random.default_rng(2)
    frame = pd.Series([verdicts.paired(rng.normal(0, 1, seeds))["detectable"]])
    usual = (stats.t.ppf(0.975, seeds - 1) + stats.t.ppf(0.8, seeds - 1)) / math.sqrt(seeds)
    of = pd.Series([seeds])
    harder = verdicts.at_level(frame, of, pd.Series([0.05 / tests])) / frame * usual
    hits = []
    for _ in range(1500):
        p = [verdicts.paired(rng.normal(0, 1, seeds))["p"] for _ in range(tests - 1)]
        p.append(verdicts.paired(rng.normal(harder[0], 1, seeds))["p"])
        hits.append(verdicts.holm(p)[-1] < 0.05)
    assert np.mean(hits) == pytest.approx(0.8, abs=0.04)


def test_the_level_after_holm_counts_what_is_not_decided(runs):
    table = verdicts.verdicts(STUDY, runs)
    left = len(table) - (table["verdict"] != "not decided").sum()
    n = len(STUDY.reporting)
    wanted = stats.t.ppf(1 - 0.025 / left, n - 1) + stats.t.ppf(0.8, n - 1)
    usual = stats.t.ppf(0.975, n - 1) + stats.t.ppf(0.8, n - 1)
    np.testing.assert_allclose(
        table["detectable_holm"], table["detectable"] * wanted / usual, rtol=1e-12
    )


def test_overall_is_the_geometric_mean_over_cells(runs):
    table = verdicts.overall(STUDY, runs).set_index("contender")
    by_seed = (
        verdicts.results(STUDY, runs).groupby([*protocol.CELL, "contender", "seed"])["error"].mean()
    )
    wide = by_seed.unstack("contender")
    name = table.index[0]
    quotients = (wide[name] / wide["equal"]).groupby("seed").apply(stats.gmean)
    assert table.loc[name, "difference"] == pytest.approx(stats.gmean(quotients) - 1)
    interval = stats.ttest_1samp(np.log(quotients), 0.0).confidence_interval(0.95)
    ends = np.expm1([interval.low, interval.high])
    assert table.loc[name, ["low", "high"]].tolist() == pytest.approx(ends.tolist())
    assert (table["cells"] == len(list(STUDY.cells()))).all()
    apart = verdicts.overall(STUDY, runs, by=("width",))
    assert len(apart) == len(STUDY.widths) * len(table)


def test_agreement(runs):
    table = verdicts.verdicts(STUDY, runs, within=("width", "epochs"))
    made = table.assign(verdict=["better"] * 27 + ["worse"])
    common = verdicts.agreement(made).set_index("contender")["verdict"]
    assert common.value_counts()["better"] == 6
    assert common[made.iloc[-1]["contender"]] == "depends"
    first = table["contender"].iloc[0]
    half = (table["contender"] == first) & (table["epochs"] == 2)
    made = table.assign(verdict=np.where(half, "better", "not decided"))
    common = verdicts.agreement(made).set_index("contender")["verdict"]
    assert common[first] == "depends"
    assert set(common.drop(first)) == {"not decided"}


@pytest.mark.parametrize("task", [None, 0])
def test_differences_by_seed_have_the_means_of_the_verdicts(runs, task):
    table = verdicts.verdicts(STUDY, runs, task=task)
    by_seed = verdicts.differences(STUDY, runs, task=task)
    keys = ["width", "epochs", "contender"]
    wanted = table.set_index(keys)
    means = by_seed.groupby(keys)[["difference", "percent"]].mean().loc[wanted.index]
    np.testing.assert_allclose(means["difference"], wanted["difference"], atol=1e-12)
    share = 100 * wanted["difference"] / wanted["other"]
    np.testing.assert_allclose(means["percent"], share, atol=1e-9)
    assert len(by_seed) == len(table) * len(STUDY.reporting)
    decided = by_seed.groupby(keys)["decided"].agg(["all", "any"]).loc[wanted.index]
    for column in decided:
        assert (decided[column] == (wanted["verdict"] != "not decided")).all()


def test_settings_are_in_the_order_of_the_study(runs):
    settings = list(verdicts.differences(STUDY, runs)["setting"].cat.categories)
    assert len(settings) == len(STUDY.rates) * len(STUDY.widths) * len(STUDY.epochs)
    assert settings[0].endswith("2 units, 2 epochs")


def test_overview_has_a_row_for_each_contender(runs):
    table = verdicts.verdicts(STUDY, runs)
    shown = verdicts.overview(table)
    assert list(shown.index) == list(table["contender"].unique())
    assert next(iter(shown)) == "2 units, 2 epochs" and shown.shape == (7, 4)
    row = table[(table["contender"] == "fixed") & (table["width"] == 4) & (table["epochs"] == 20)]
    text = shown.loc["fixed", "4 units, 20 epochs"]
    assert text.startswith(f"{100 * row['difference'].item() / row['other'].item():+.1f} [")
    assert text.endswith("*") == (row["verdict"].item() != "not decided")


def test_differences_by_seed_average_to_the_overview(runs):
    shown = verdicts.overview(verdicts.verdicts(STUDY, runs))
    means = verdicts.differences(STUDY, runs).groupby(["contender", "cell"])["percent"].mean()
    for (contender, cell), mean in means.items():
        assert shown.loc[contender, cell].startswith(f"{mean:+.1f} [")
    assert len(means) == shown.size


def test_tally_counts_the_cells_that_are_decided(runs):
    table = verdicts.verdicts(STUDY, runs)
    names, places = list(table["contender"].unique()), table.groupby("contender").cumcount()
    made = table.assign(verdict="not decided")
    made.loc[(made["contender"] == names[0]) & (places < 2), "verdict"] = "better"
    made.loc[(made["contender"] == names[0]) & (places == 2), "verdict"] = "worse"
    found = verdicts.tally(made)
    assert list(found.index) == names and list(found) == list(table["data"].unique())
    assert list(found.iloc[:, 0]) == ["2 better, 1 worse of 4"] + ["none of 4"] * (len(names) - 1)


def test_tasks_one_by_one_average_to_the_mean(runs):
    whole = verdicts.verdicts(STUDY, runs)["difference"]
    parts = [verdicts.verdicts(STUDY, runs, task=k)["difference"] for k in range(2)]
    np.testing.assert_allclose(whole, sum(parts) / 2, atol=1e-12)


def test_looks_are_evenly_spread_from_before_the_first_step_to_the_end():
    assert protocol._epochs_to_look(20, 5) == [0, 4, 8, 12, 16, 20]
    assert protocol._epochs_to_look(2, 5) == [0, 1, 2]


def test_targets_are_standardised_by_the_training_rows():
    plain, scaled = lines(0), protocol._standardised(lines(0))
    for k in (1, 2):
        mean, std = plain.train[k].mean(), plain.train[k].std()
        for split in ("train", "val", "test"):
            wanted = (getattr(plain, split)[k] - mean) / std
            torch.testing.assert_close(getattr(scaled, split)[k], wanted)


@pytest.mark.parametrize("trials", [6, 7])
def test_a_round_has_as_many_trials_for_tasks_alone_as_for_others(trials):
    study = replace(STUDY, trials=trials)
    for name in ("equal", "alone"):
        contender = study.contender(name)
        cell = ("lines", "adam", 2, 2)
        first = protocol._propose(study, contender, cell, [])
        known = [{"trial": t, "val": [[t["rate"], 1 / t["rate"]]] * 5} for t in first]
        new = protocol._propose(study, contender, cell, known)
        assert len(first) == len(new) == trials
        assert len({t["rate"] for t in first + new}) == 2 * trials


def test_still_improving():
    assert verdicts.still_improving([1.0, 0.3, 0.2, 0.25, 0.3]) == 0
    assert verdicts.still_improving([1.0, None, 0.9, 0.8, 0.7]) == pytest.approx(1 / 3)


def test_untied_networks_have_as_many_parameters():
    data = lines(0)
    for width in (4, 16, 64):
        found = protocol.untied_width(STUDY, data, width)
        untied = SeparateModels([single(data, found, k) for k in range(2)])
        wanted = count_parameters(shared(data, width))
        assert abs(count_parameters(untied) - wanted) <= 5  # half a unit in each of two networks


def test_fixed_weights_sum_to_k():
    fixed = STUDY.contender("fixed")
    rule = fixed.make(3, {"rate": 0.1, "ratio 1": 2.0, "ratio 2": 0.5})
    torch.testing.assert_close(rule.constant, torch.tensor([1.0, 2.0, 0.5]) * 3 / 3.5)


@pytest.mark.parametrize("name", ["log", "uncertainty", "upgrad"])
def test_sum_to_k_keeps_the_direction(name):
    plain, scaled = make_weighting(name, 2), controls.SumToK(make_weighting(name, 2))
    found = []
    for rule in (plain, scaled):
        p = torch.tensor([1.0, 2.0], requires_grad=True)
        p.grad = torch.tensor([10.0, 20.0])
        head = torch.ones(2, requires_grad=True)
        loss = torch.stack([p[0] ** 2 * head[0], (p[0] + p[1]) ** 2 * head[1]])
        weights = rule.backward(loss, shared=[p])
        found.append((weights, p.grad - torch.tensor([10.0, 20.0])))
    (weights, update), (new, scaled_update) = found
    assert new.sum().item() == pytest.approx(2)
    torch.testing.assert_close(new, 2 * weights / weights.sum())
    torch.testing.assert_close(scaled_update, update * 2 / weights.sum())


def test_averaged_trunk_is_a_moving_average():
    rule = controls.AveragedTrunk(make_weighting("equal", 2), beta=0.5)
    updates = []
    for value in (1.0, 3.0):
        p, head = torch.tensor([value], requires_grad=True), torch.ones(2, requires_grad=True)
        rule.backward(p**2 * head, shared=[p])
        updates.append(p.grad.item())
        torch.testing.assert_close(head.grad, torch.full((2,), value**2))
    assert updates == pytest.approx([2.0, 7.0])  # 0.5 * 4, then 0.5 * 2 + 0.5 * 12
