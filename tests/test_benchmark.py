"""The benchmark of notebook 14: its protocol on a tiny study, its rules, its task sets."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from torch import nn

from experiments import benchmark, nb14_again, nb14_benchmark, nb14_sets
from experiments.benchmark import InParts, at_edge, run_cell, step_time, train_block
from experiments.nb14_tables import complete_cells
from experiments.protocol import Contender, Study
from experiments.search import Knob
from mtl_utils import available_weightings, make_weighting, records
from mtl_utils.models import HardSharing, mlp
from tests.test_protocol import lines, losses, shared, single, unexplained

STUDY = Study(
    data={"lines": lines},
    model=shared,
    single=single,
    losses=losses,
    metric=unexplained,
    contenders=(
        Contender("alone", network="alone"),
        Contender("equal"),
        Contender("standardised", standardise=True),
        Contender("dtp", "dtp", knobs=(Knob("gamma", 1.0),)),
        Contender("loss_trend", "loss_trend", {"window": 2}),
        Contender("sdmgrad", "sdmgrad"),
        Contender("modo", "modo"),
    ),
    widths=(4,),
    epochs=(6,),
    rates={"adam": Knob("rate", 0.1)},
    batch_size=6,
    trials=3,
    picking=(100, 101),
    reporting=(0, 1, 2),
    evaluations=3,
)


def block(data, optimiser, width, epochs, contender, trials, stage):
    return train_block(STUDY, data, optimiser, width, epochs, contender, trials, stage)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    path = tmp_path_factory.mktemp("results") / "tiny.jsonl"
    for cell in STUDY.cells():
        run_cell(STUDY, cell, block, path, n_jobs=1, progress=False)
    return records.read(path)


def test_everybody_has_the_same_number_of_trials_and_a_report(runs):
    picking = runs[runs["stage"] == "pick"].groupby("contender").size()
    assert picking.nunique() == 1 and 9 <= picking.iloc[0] <= 15 and len(picking) == 7
    reports = runs[runs["stage"] == "report"].groupby("contender").size()
    assert reports["alone"] in (1, 2)  # one, if both tasks have the same pick
    assert (reports.drop("alone") == 1).all()


def test_rounds_end_when_all_picks_lie_inside_or_after_the_last(runs):
    (cell,) = STUDY.cells()
    picking = runs[runs["stage"] == "pick"]
    found = [
        at_edge(STUDY, cell, c.name, picking[picking["contender"] == c.name].to_dict("records"))
        for c in STUDY.contenders
    ]
    rounds = len(picking) // 7 // 3
    assert rounds == benchmark.MOST_ROUNDS or not any(found)
    assert all(set(names) <= {"rate", "gamma"} for names in found)


def test_who_has_a_pick_at_the_edge_searches_on_and_reports_anew(runs, tmp_path):
    (cell,) = STUDY.cells()
    first = runs[runs["stage"] == "pick"].groupby("contender").head(3)  # one round: picks at edges
    known = pd.concat([first, runs[runs["stage"] == "report"]])
    path = tmp_path / "wider.jsonl"
    benchmark.widen(STUDY, cell, block, known, path, 12, n_jobs=1, progress=False)
    more = records.read(path)
    together = pd.concat([known, more])
    for name in (c.name for c in STUDY.contenders):
        before, after = (
            part[(part["contender"] == name) & (part["stage"] == "pick")].to_dict("records")
            for part in (known, together)
        )
        was = at_edge(STUDY, cell, name, before)
        assert (len(after) > 3) == bool(was)  # nobody else searched on
        assert not at_edge(STUDY, cell, name, after) or len(after) == 3 * 13
    assert len(more) and len(complete_cells([STUDY], together)) == 1  # a report of every pick
    again = records.read(path)
    benchmark.widen(STUDY, cell, block, known, path, 12, n_jobs=1, progress=False)
    assert len(records.read(path)) == len(again)


def test_kept_is_what_stopping_there_would_have_given(runs):
    for row in runs[runs["stage"] == "report"].to_dict("records"):
        kept, test = torch.tensor(row["kept"]), torch.tensor(row["test"])
        assert kept.shape == (len(row["at"]), 3)
        torch.testing.assert_close(kept[-1], test.mean(1), atol=1e-3, rtol=1e-3)
        assert len(row["weights"]) == 2


def test_kept_by_hand():
    val = torch.tensor([[[3.0]], [[1.0]], [[2.0]]])
    trained = type("T", (), {"curves": {"val": val, "test": 10 * val + 1}})()
    (kept,) = benchmark._kept(trained, 1, False)
    assert kept[:, 0].tolist() == [31.0, 11.0, 11.0]


@pytest.mark.parametrize("name", ["sdmgrad", "modo"])
def test_in_parts_is_the_rule_on_one_batch_after_the_other(name):
    def network():
        torch.manual_seed(0)
        return HardSharing(mlp(3, 4, last=True), [nn.Linear(4, 1) for _ in range(2)])

    ours, plain = network(), network()
    rule, wrapped = make_weighting(name, 2), InParts(make_weighting(name, 2))
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):  # the shares go on from step to step
        batches = []
        for _ in range(rule.batches):
            x = torch.randn(5, 3, generator=generator)
            batches.append((x, *(torch.randn(5, 1, generator=generator) for _ in range(2))))
        for model in (ours, plain):
            model.zero_grad()
        for batch in batches:
            rule.backward(losses(plain, *batch), shared=plain.trunk.parameters())
        together = torch.cat([losses(ours, *batch) for batch in batches])
        weights = wrapped.backward(together, shared=ours.trunk.parameters())
        assert weights.shape == (2 * rule.batches,)
        for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad)


def test_a_rule_that_wants_validation_losses_gets_validation_rows():
    sets = benchmark.drawn(lines, (0, 1))
    tensors, own_losses, observe = benchmark.fed(STUDY, make_weighting("loss_trend", 2), sets)
    rows = [t[0] for t in tensors]
    model = shared(sets[0], 4)
    torch.testing.assert_close(own_losses(model, *rows), losses(model, *sets[0].train))
    expected = losses(model, *(t[:30] for t in sets[0].val))
    torch.testing.assert_close(observe(model, *rows)["val_losses"], expected)


def test_standardising_leaves_classes_and_uses_training_rows():
    (data,) = benchmark.drawn(nb14_sets.stones, (0,), benchmark._standardised)
    (raw,) = benchmark.drawn(nb14_sets.stones, (0,))
    assert abs(data.train[1].mean()) < 1e-5 and data.train[1].std() == pytest.approx(1, abs=1e-5)
    expected = (raw.test[1] - raw.train[1].mean()) / raw.train[1].std()
    torch.testing.assert_close(data.test[1], expected)
    assert torch.equal(data.train[3], raw.train[3])


def test_a_step_costs_something():
    for name in ("equal", "sdmgrad", "alone"):
        found = step_time(STUDY, "lines", 4, name, 3)
        assert found["step"] > 0 and found["ratio"] == pytest.approx(found["step"] / found["plain"])


# ---- the study -------------------------------------------------------------------------------


@pytest.mark.parametrize("study", nb14_benchmark.ONE_SET.values(), ids=nb14_benchmark.ONE_SET)
def test_every_rule_of_the_collection_competes(study):
    names = {c.name for c in study.contenders}
    assert set(available_weightings()) <= names and "alone" in names
    (data,) = study.data
    n_tasks = study.data[data](0).n_tasks
    for contender in study.contenders:
        knobs = study.knobs(contender, data, "adam")
        for place in (-2, 2):  # any trial makes a rule
            trial = {k.name: k.value(min(max(place, k.ends[0]), k.ends[1])) for k in knobs}
            assert contender.make(n_tasks, trial).n_tasks == n_tasks


def test_parts_of_the_record_come_in_the_order_that_is_told():
    order = [cell[:2] for study in nb14_benchmark.STUDIES for cell in study.cells()]
    sets = list(nb14_benchmark.ONE_SET)
    assert order[:5] == [(name, "adam") for name in sets]
    both = [(name, way) for name in sets[:2] for way in ("sgd", "momentum")]
    assert order[5:] == both + [(name, "momentum") for name in sets[2:]]
    plain, momentum = nb14_benchmark.STUDIES[5:7]
    assert len(plain.contenders) < len(momentum.contenders)  # rules on gradients alone


def test_a_block_of_a_set_is_trained():
    small = replace(nb14_benchmark.ONE_SET["films"], picking=(100,), evaluations=1)
    for name in ("equal", "upgrad"):
        (row,) = train_block(small, "films", "sgd", 16, 1, name, [{"rate": 0.1}], "pick")
        assert row["failed"] == 0 and len(row["val"][0]) == 8


@pytest.mark.parametrize("name", nb14_benchmark.ONE_SET)
def test_errors_of_a_perfect_answer_are_none(name):
    study = nb14_benchmark.ONE_SET[name]
    data = study.data[name](0)
    x, *targets = data.test
    perfect = {
        "diamonds": lambda: [
            *targets[:2],
            *(
                nn.functional.one_hot(t, n).float()
                for t, n in zip(targets[2:], (5, 8), strict=True)
            ),
        ],
        "digits": lambda: [nn.functional.one_hot(t, 10).float() for t in targets],
        "films": lambda: [t[:, None] for t in targets],
        "glyphs": lambda: [t[:, None] for t in targets],
        "rooms": lambda: [
            nn.functional.one_hot(targets[0], 5).permute(0, 3, 1, 2).float(),
            *targets[1:],
        ],
    }[name]()
    found = study.metric(lambda _: perfect, x, *targets)
    torch.testing.assert_close(found, torch.zeros(data.n_tasks), atol=2e-3, rtol=0)


def test_out_of_order_is_one_minus_the_area_under_the_curve():
    from sklearn.metrics import roc_auc_score

    generator = torch.Generator().manual_seed(0)
    score = torch.randint(0, 5, (200, 1), generator=generator).float()  # with ties
    answer = (torch.rand(200, generator=generator) < 0.3).float()
    (found,) = nb14_sets.out_of_order(lambda _: [score], score, answer)
    assert found.item() == pytest.approx(1 - roc_auc_score(answer, score[:, 0]), abs=1e-5)


def test_a_batch_of_one_class_has_the_performance_of_chance():
    metric = torch.tensor([0.25, float("nan"), 1.5])
    assert benchmark._performance(metric).tolist() == [0.75, 0.5, 0.0]


def test_the_longer_trainings_are_the_reports_of_the_record():
    configs = nb14_again.configs()
    found = {(c["data"], c["contender"]) for c in configs}
    assert found == {(d, n) for d in nb14_again.STUDIES for n in nb14_again.CONTENDERS}
    shorter = nb14_benchmark.ONE_SET["digits"].epochs[0]
    assert {c["epochs"] for c in configs if c["data"] == "digits"} == {4 * shorter}
    known = nb14_again.with_picks(pd.DataFrame({"epochs": []}))
    (fixed,) = (c for c in configs if (c["data"], c["contender"]) == ("rooms", "fixed"))
    rows = known[(known["data"] == "rooms") & (known["contender"] == "fixed")]
    assert fixed["trials"][0] in rows["trial"].to_list() and set(rows["epochs"]) == {60}
