"""The tables of notebook 14, on made-up records with known answers."""

import moocore
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from experiments import cityscapes
from experiments import nb14_tables as tables
from experiments.protocol import Contender, Study
from experiments.search import Knob
from mtl_utils.metrics import hypervolume
from tests.test_protocol import lines, losses, shared, single

SEEDS = range(20)


def errors(levels, spread=0.0, data="d", optimiser="adam"):
    """Contender -> error of each task; seeds move all contenders of a task alike, and each own."""
    rng, rows = np.random.default_rng(0), []
    common = rng.normal(0, 0.1, (20, 2))
    for name, tasks in levels.items():
        own = rng.normal(0, spread, (20, 2))
        for seed in SEEDS:
            for task, level in enumerate(tasks):
                value = level * (1 + common[seed, task] - common[:, task].mean())
                rows.append((data, optimiser, name, seed, task, value + own[seed, task]))
    columns = ["data", "optimiser", "contender", "seed", "task", "error"]
    return pd.DataFrame(rows, columns=columns)


def test_relative_gain_has_the_sign_and_size_that_it_says():
    table = tables.relative_gain(errors({"alone": (0.2, 0.4), "a": (0.1, 0.4), "b": (0.2, 0.6)}))
    means = table.groupby("contender")["delta_m"].mean()
    assert means["alone"] == pytest.approx(0)
    assert means["a"] == pytest.approx(25)  # +50 % and 0
    assert means["b"] == pytest.approx(-25)  # 0 and -50 %


def test_a_failed_run_is_infinitely_worse():
    broken = errors({"alone": (0.2, 0.4), "a": (0.1, 0.4)})
    broken.loc[(broken["contender"] == "a") & (broken["seed"] == 3), "error"] = np.inf
    table = tables.relative_gain(broken).set_index(["contender", "seed"])["delta_m"]
    assert table["a", 3] == -np.inf and np.isfinite(table["a", 4])


def test_negative_transfer_is_found_in_the_task_that_has_it():
    made = errors({"alone": (0.2, 0.4), "a": (0.25, 0.3), "b": (0.2, 0.4)}, spread=0.005)
    table = tables.negative_transfer(made).set_index(["contender", "task"])["transfer"]
    assert table["a", 0] == "negative" and table["a", 1] == "positive"
    assert table["b", 0] == table["b", 1] == "not decided"


# Demsar 2006, table 5(a): Nemenyi's q at 5 %, by the number of contenders
Q = {3: 2.343, 4: 2.569, 5: 2.728, 6: 2.850, 7: 2.949, 8: 3.031, 9: 3.102, 10: 3.164}


@pytest.mark.parametrize("k", Q)
def test_the_critical_difference_is_that_of_published_tables(k):
    scores = pd.DataFrame(np.random.default_rng(k).random((14, k)))
    _, _, critical = tables.mean_ranks(scores)
    assert critical == pytest.approx(Q[k] * np.sqrt(k * (k + 1) / (6 * 14)), abs=1e-3)


def test_mean_ranks_by_hand():
    scores = pd.DataFrame({"c": [3, 3, 2, 3], "a": [1, 1, 1, 2], "b": [2, 2, 3, 2]})
    ranks, p, _ = tables.mean_ranks(scores)
    assert ranks.to_dict() == {"a": 1.125, "b": 2.125, "c": 2.75}  # a tie counts half
    # Friedman's chi square with its correction for the one tie, two degrees of freedom
    n, k = scores.shape
    square = 12 * n / (k * (k + 1)) * (ranks - (k + 1) / 2).pow(2).sum()
    square /= 1 - (2**3 - 2) / (n * (k**3 - k))
    assert p == pytest.approx(np.exp(-square / 2))
    assert tables.not_told_apart(ranks, 0.7) == [("b", "c")]
    assert tables.not_told_apart(ranks, 0.1) == []
    assert tables.not_told_apart(ranks, 2.0) == [("a", "c")]


def test_ranks_refuse_what_cannot_be_ranked():
    with pytest.raises(ValueError, match="scores"):
        tables.mean_ranks(pd.DataFrame({"a": [1.0, 2.0], "b": [2.0, 1.0]}))


def test_who_is_better_and_what_could_have_been_seen():
    made = tables.relative_gain(
        errors({"alone": (0.2, 0.4), "equal": (0.2, 0.4), "a": (0.15, 0.35), "b": (0.2, 0.4)}, 0.01)
    )
    table = tables.against(made, "equal", "delta_m", higher=True).set_index("contender")
    assert table.loc["a", "verdict"] == "better" and table.loc["b", "verdict"] == "not decided"
    assert (table["p_holm"] >= table["p"]).all()
    assert table.loc["b", "detectable"] > table.loc["b", "high"] - table.loc["b", "difference"]
    reverse = tables.against(made, "equal", "delta_m", higher=False).set_index("contender")
    assert reverse.loc["a", "verdict"] == "worse"


def test_the_detectable_difference_is_found_four_times_in_five():
    rng, found, wanted = np.random.default_rng(1), [], []
    for _ in range(400):
        noise = rng.normal(size=20)
        wanted.append(tables.paired(noise)["detectable"])
    difference = float(np.mean(wanted))
    for _ in range(2000):
        found.append(tables.paired(rng.normal(difference, 1, 20))["p"] < 0.05)
    assert np.mean(found) == pytest.approx(0.8, abs=0.04)


# ---- a record ----------------------------------------------------------------------------------

STUDY = Study(
    data={"lines": lines},
    model=shared,
    single=single,
    losses=losses,
    metric=losses,
    contenders=(Contender("alone", network="alone"), Contender("equal"), Contender("slow")),
    widths=(4,),
    epochs=(10,),
    rates={"adam": Knob("rate", 0.1)},
    batch_size=6,
    picking=(100,),
    reporting=(0, 1),
)


def record(alone_picks):
    """Two trials of everybody; alone has a pick a task, which may be the same."""
    cell = {"data": "lines", "optimiser": "adam", "width": 4, "epochs": 10}
    rows = []
    for name in ("alone", "equal", "slow"):
        for place, rate in enumerate((0.1, 0.2)):
            val = [[0.5, 0.5]] if name != "alone" else [[1.0, 1.0]]
            if name == "alone":
                val = [[0.0 if alone_picks[k] == place else 1.0 for k in range(2)]]
            elif place == 1:
                val = [[0.9, 0.9]]
            rows.append({**cell, "contender": name, "stage": "pick", "trial": {"rate": rate}})
            rows[-1] |= {"val": val, "trials": [{"rate": 0.1}, {"rate": 0.2}], "run_seconds": 360.0}
    for name in ("alone", "equal", "slow"):
        for place in sorted(set(alone_picks)) if name == "alone" else [0]:
            test = [[place + 0.1, place + 0.2], [place + 0.3, place + 0.4]]
            kept = [[1.0, 1.0], [0.5, 0.6], [0.3, 0.4]]
            trial = {"rate": (0.1, 0.2)[place]}
            report = {"contender": name, "stage": "report", "trial": trial, "trials": [trial]}
            report |= {"run_seconds": 180.0, "curve": [1.0, 0.6, 0.5]}
            rows.append({**cell, **report, "test": test, "kept": kept, "at": [0, 5, 10]})
    return pd.DataFrame(rows)


@pytest.mark.parametrize("alone_picks", [(0, 1), (1, 0), (1, 1)])
def test_results_take_each_task_alone_from_its_own_pick(alone_picks):
    table = tables.results([STUDY], record(alone_picks)).set_index(["contender", "seed", "task"])
    assert len(table) == 3 * 2 * 2
    assert table.loc[("alone", 0, 0), "error"] == pytest.approx(alone_picks[0] + 0.1)
    assert table.loc[("alone", 1, 1), "error"] == pytest.approx(alone_picks[1] + 0.4)
    assert table.loc[("equal", 1, 0), "error"] == pytest.approx(0.3)


def test_a_cell_that_is_not_complete_is_left_out():
    runs = record((0, 1))
    missing = runs[~((runs["contender"] == "slow") & (runs["stage"] == "report"))]
    assert len(tables.results([STUDY], missing)) == 0


def test_at_equal_time_a_slow_rule_has_fewer_epochs():
    costs = {("lines", "alone"): 1.0, ("lines", "equal"): 1.0, ("lines", "slow"): 2.0}
    table = tables.at_equal_time([STUDY], record((0, 1)), costs)
    table = table.set_index(["contender", "seed"])
    assert table.loc[("equal", 0), ["epochs", "error"]].tolist() == [10, 0.3]
    assert table.loc[("slow", 1), ["epochs", "error"]].tolist() == [5, 0.6]
    half = tables.at_equal_time([STUDY], record((0, 1)), costs, share=0.5)
    assert half.set_index(["contender", "seed"]).loc[("slow", 0), "epochs"] == 0
    noisy = {key: 1.3 * cost for key, cost in costs.items()}  # plain is plain all the same
    again = tables.at_equal_time([STUDY], record((0, 1)), noisy, between=True)
    again = again.set_index(["contender", "seed"])
    assert again.loc[("equal", 0), ["epochs", "error"]].tolist() == [10, 0.3]
    assert again.loc[("slow", 1), "epochs"] == pytest.approx(10 / 2.6)
    assert again.loc[("slow", 1), "error"] > 0.6


def test_what_is_complete_of_a_record_and_its_hours():
    runs = record((0, 1))
    (row,) = tables.complete([STUDY], runs).to_dict("records")
    assert (row["data"], row["optimiser"], row["contenders"], row["trials"]) == (
        "lines",
        "adam",
        3,
        2,
    )
    assert row["hours"] == pytest.approx(3 * 0.1 + 4 * 0.05)  # three blocks of picks, four reports
    assert row["at_edge"] == 3  # two trials: the best one is always at an end
    missing = runs[~((runs["contender"] == "slow") & (runs["stage"] == "report"))]
    assert len(tables.complete([STUDY], missing)) == 0


def test_how_far_a_pick_can_be_trusted():
    table = tables.picked([STUDY], record((0, 1))).set_index("contender")
    assert table.loc["equal", "outermost"] == table.loc["equal", "untried"] == "rate"
    # evaluations at the start, in the middle, at the end: 0.1 of 0.5 came last
    assert table.loc["equal", "late"] == pytest.approx(20.0)
    runs = record((0, 1))
    equal = runs[(runs["contender"] == "equal") & (runs["stage"] == "pick")].iloc[:1]
    lower = equal.assign(trial=[{"rate": 0.05}], val=[[[0.9, 0.9]]])
    wider = tables.picked([STUDY], pd.concat([runs, lower], ignore_index=True))
    assert (wider.set_index("contender").loc["equal", ["outermost", "untried"]] == "").all()


def test_the_end_of_what_is_sensible_is_no_edge():
    ended = Knob("rate", 0.1, least=0.1, because="nothing below")
    rows = [{"trial": {"rate": rate}} for rate in (0.1, 0.2)]
    assert not tables._is_outermost(ended, {"rate": 0.1}, rows)
    assert tables._is_outermost(ended, {"rate": 0.2}, rows)


def test_settings_are_counted():
    (row,) = tables.settings([STUDY]).to_dict("records")
    data = lines(0)
    rows = len(data.train[0])
    assert (row["data"], row["tasks"], row["rows"]) == ("lines", data.n_tasks, rows)
    assert row["steps"] == 10 * -(-rows // 6)
    assert row["parameters"] == sum(p.numel() for p in shared(data, 4).parameters())


def test_mean_errors_are_hundredths_and_their_table_has_stars():
    made = errors({"alone": (0.1, 0.2), "equal": (0.2, 0.4), "a": (0.2, 0.4)}, spread=0.005)
    mean = tables.mean_error(made)
    assert mean.groupby("contender")["error"].mean()["equal"] == pytest.approx(30, abs=0.3)
    shown = tables.overview(tables.against(mean, "equal", "error"))
    assert list(shown.index) == ["alone", "a"] and list(shown) == ["d"]
    assert shown.loc["alone", "d"].endswith(" *") and not shown.loc["a", "d"].endswith("*")
    assert shown.loc["alone", "d"].startswith("-1")


def test_a_report_is_trained_again_and_a_set_that_is_not_complete_is_refused():
    with pytest.raises(ValueError, match="lines with sgd is not complete"):
        tables.once_more([STUDY], record((0, 1)), "lines", "sgd", "equal")
    again, recorded = tables.once_more([STUDY], record((0, 1)), "lines", "adam", "equal")
    assert recorded.tolist() == [[0.1, 0.2], [0.3, 0.4]] and again.shape == recorded.shape
    fresh, _ = tables.once_more([STUDY], record((0, 1)), "lines", "adam", "equal")
    assert (again == fresh).all() and np.isfinite(again).all()


def test_costs_are_read_from_the_rows_that_have_them():
    costs = pd.DataFrame([{"data": "lines", "contender": "slow", "ratio": 2.5}])
    runs = pd.concat([record((0, 1)), costs], ignore_index=True)
    assert tables.step_ratios(runs) == {("lines", "slow"): 2.5}
    assert tables.step_ratios(runs, ["a", "b"]) == {("a", "slow"): 2.5, ("b", "slow"): 2.5}
    assert len(tables.results([STUDY], runs)) == 12  # and they disturb nothing


def test_a_data_set_is_one_block_whatever_the_optimisers():
    levels = {"alone": (0.2, 0.4), "a": (0.1, 0.4), "b": (0.2, 0.6)}
    worse = {"alone": (0.2, 0.4), "a": (0.15, 0.4), "b": (0.1, 0.4)}
    both = [errors(levels), errors(worse, optimiser="sgd"), errors(levels, data="e")]
    gains = tables.relative_gain(pd.concat(both))
    best = tables.blocks(gains)
    assert best.loc["d", "a"] == pytest.approx(-25) and best.loc["d", "b"] == pytest.approx(-25)
    assert tables.blocks(gains, "adam").loc["d", "b"] == pytest.approx(25)
    assert list(best.index) == ["d", "e"]


def test_published_rows_give_the_published_number():
    rows = cityscapes.table()
    assert len(rows) == 16
    assert np.abs(rows["printed"] + rows["delta_m"]).max() < 0.105


# ---- hypervolume of all trials -------------------------------------------------------------------


def test_the_hypervolume_of_trials_by_hand():
    runs = record((0, 1))
    runs["val"] = runs["val"].astype(object)
    here = (runs["stage"] == "pick") & (runs["contender"] == "equal")
    for place, val in zip(runs.index[here], ([[0.5, 0.2]], [[0.1, 0.6]]), strict=True):
        runs.at[place, "val"] = val
    table = tables.trial_hypervolume([STUDY], runs).set_index("contender")
    assert table.loc["equal", "hypervolume"] == pytest.approx(0.5 * 0.8 + 0.9 * 0.4 - 0.5 * 0.4)
    assert table.loc["equal", "points"] == 2
    assert table.loc["slow", "hypervolume"] == pytest.approx(0.25)  # (0.5, 0.5) beats (0.9, 0.9)
    assert table.loc["slow", "points"] == 1
    assert table.loc["alone", ["hypervolume", "points"]].tolist() == [1.0, 1]  # (0, 0)


def test_the_hypervolume_agrees_with_our_own_for_two_and_with_counting_for_many_tasks():
    rng = np.random.default_rng(0)
    pairs = rng.random((12, 2))
    assert moocore.hypervolume(pairs, ref=1.0) == pytest.approx(hypervolume(pairs, (1, 1)))
    points, thrown = rng.random((8, 5)), rng.random((200_000, 5))
    share = (points[:, None] <= thrown).all(-1).any(0).mean()
    assert moocore.hypervolume(points, ref=1.0) == pytest.approx(share, abs=0.005)


def test_what_another_optimiser_changes_is_paired_by_seed():
    seeds = np.arange(20)
    noise = np.random.default_rng(0).normal(size=(2, 20))
    rows = []
    for optimiser, gain in (("sgd", 0.5), ("adam", 0.2)):
        for name, lead in (("equal", 0.0), ("upgrad", gain), ("mgda", 0.3)):
            error = 30 + noise[0] + (optimiser == "sgd") * noise[1] - lead + 0.01 * (-1) ** seeds
            rows += [
                {"data": "d", "optimiser": optimiser, "contender": name, "seed": s, "error": e}
                for s, e in zip(seeds, error, strict=True)
            ]
    table = tables.between_optimisers(pd.DataFrame(rows), "sgd", "adam", "error")
    found = table.set_index("contender")
    # noise that contender and baseline have in common is gone
    assert found.loc["upgrad", "difference"] == pytest.approx(-0.3)
    assert found.loc["mgda", "difference"] == pytest.approx(0.0, abs=1e-12)
    assert found["verdict"].to_dict() == {"upgrad": "differs", "mgda": "not decided"}


def test_the_mean_over_sets_counts_them_alike():
    rng = np.random.default_rng(0)
    rows = []
    for data, level in (("small", 1.0), ("large", 100.0)):
        common = rng.normal(0, 0.05 * level, 20)
        for name, share in (("equal", 0.0), ("upgrad", -0.1), ("mgda", 0.0)):
            own = rng.normal(0, 0.01 * level, 20) * (name != "equal")
            error = level + common + share * level * (1 + (data == "large")) + own
            rows += [
                {"data": data, "contender": name, "seed": s, "error": e}
                for s, e in enumerate(error)
            ]
    scores = pd.DataFrame(rows)
    found = tables.over_sets(scores, "equal", "error").set_index("contender")
    # 10 % of the one and 20 % of the other, but for what the seeds move the level
    assert found.loc["upgrad", "difference"] == pytest.approx(-15, rel=0.04)
    assert found["verdict"].to_dict() == {"upgrad": "better", "mgda": "not decided"}
    # whatever the order of the seeds of one set, and as scipy does it for two
    other = scores.assign(seed=scores["seed"].where(scores["data"] == "small", -scores["seed"]))
    again = tables.over_sets(other, "equal", "error").set_index("contender")
    assert again.loc["mgda", "p"] == pytest.approx(found.loc["mgda", "p"])
    wide = scores.pivot(index="seed", columns=["data", "contender"], values="error")
    small, large = (100 * (wide[d]["mgda"] - wide[d]["equal"]) / wide[d]["equal"].mean()
                    for d in ("small", "large"))  # fmt: skip
    welch = stats.ttest_ind(small, -large, equal_var=False).pvalue
    assert found.loc["mgda", "p"] == pytest.approx(welch)
    missing = scores[(scores["contender"] != "mgda") | (scores["data"] == "small")]
    assert list(tables.over_sets(missing, "equal", "error")["contender"]) == ["upgrad"]
