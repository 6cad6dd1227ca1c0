"""The experiments behind notebook 11."""

import pytest
import torch
from sklearn.metrics import roc_auc_score

from experiments import nb11_loss_trend as nb11
from experiments import nb11_twenty as twenty
from mtl_utils.weighting.methods.loss_trend import LossTrend


@pytest.fixture(scope="module")
def data():
    return nb11.plus_minus(0)


def test_each_training_row_has_a_validation_row_beside_it(data):
    for train, val in zip(data.train, data.val, strict=True):
        assert train.shape == (1000, 2, *val.shape[1:])
        torch.testing.assert_close(train[:, 1], val)
    assert set(data.train[1].unique().tolist()) == {-1.0, 1.0}
    assert set(nb11.zero_one(0).val[2].unique().tolist()) == {0.0, 1.0}


def test_losses_read_the_training_half_and_steering_the_other(data):
    torch.manual_seed(0)
    model, study = nb11.shared(data, 4), nb11.study_of("attributes, squared error")
    batch = [t[:20] for t in data.train]
    for which, found in enumerate(
        (study.losses(model, *batch), study.observe(model, *batch)["val_losses"])
    ):
        x, *labels = (t[:, which] for t in batch)
        outputs = torch.cat(model(x), 1)
        torch.testing.assert_close(found, (outputs - torch.cat(labels, 1)).square().mean(0))


def test_an_output_above_0_is_a_yes_for_both_kinds_of_labels(data):
    torch.manual_seed(0)
    model = nb11.shared(data, 4)
    one, other = (nb11.wrong(model, *d.val) for d in (data, nb11.zero_one(0)))
    torch.testing.assert_close(one, other)


def test_a_window_of_one_pass_sees_each_validation_row_once():
    assert nb11.STEPS * nb11.BATCH == nb11.VAL == nb11.TRAIN


@pytest.mark.parametrize("name", list(nb11.LOSSES))
def test_each_contender_trains(name):
    trial = {"rate": 0.01, "window": 2.0, "ratio 1": 1.0, "ratio 2": 1.0}
    for contender in nb11.STUDY.contenders:
        names = [k.name for k in nb11.STUDY.knobs(contender, name, "adam")]
        chosen = [{name: trial[name] for name in names}]
        (row,) = nb11.block(name, "adam", 4, 2, contender.name, chosen, "report")
        assert row["failed"] == 0 and row["best"][-1] < row["best"][0]
        assert sum(row["weights"]) == pytest.approx(3, rel=1e-3)


# ---- twenty attributes -----------------------------------------------------------------------


@pytest.fixture
def small_twenty(monkeypatch):
    sizes = {"TRAIN": 60, "VAL": 20, "TEST": 40, "EPOCHS": 2, "BATCH": 10, "WINDOW": 2}
    for name, value in sizes.items():
        monkeypatch.setattr(twenty, name, value)
    monkeypatch.setattr(twenty.train, "__defaults__", (range(2), 0.001))
    twenty.draw.cache_clear()
    yield
    twenty.draw.cache_clear()


def test_each_rule_trains_on_twenty_attributes(small_twenty):
    table = twenty.run()
    rules = [*twenty.RULES, "frozen", *twenty.PASSES, *twenty.BOTH_HALVES]
    assert table.groupby("rule", sort=False).size().to_dict() == dict.fromkeys(rules, 2)
    for column in ("auc", "spread", "val_loss", "test_error"):
        assert set(table[column].map(len)) == {20}
    for column in ("val_errors", "test_errors", "val_losses", "weights"):
        assert set(table[column].map(len)) == {2}
    for weights in table["weights"].explode():
        assert sum(weights) == pytest.approx(20)
    one = table.set_index(["rule", "seed"])["weights"]
    for seed in range(2):
        mean = torch.tensor(one["trend", seed]).mean(0)
        torch.testing.assert_close(torch.tensor(one["frozen", seed][0]), mean)


def test_by_lot_hands_out_the_same_weights_to_other_tasks():
    rule = LossTrend(20, 1)
    lot = twenty.ByLot(rule, seed=0)
    for losses in torch.rand(3, 20, generator=torch.Generator().manual_seed(1)):
        rule.observe(val_losses=losses)
    own = rule.weights_now()
    leaf = torch.ones(20, requires_grad=True)
    given = [lot.backward(leaf * 1) for _ in range(2)]
    for weights in given:
        assert not torch.equal(weights, own)
        torch.testing.assert_close(weights.sort().values, own.sort().values)
    assert not torch.equal(*given), "anew in each window"
    torch.testing.assert_close(leaf.grad, given[0] + given[1])


def test_a_whole_pass_shows_each_validation_image_as_often():
    assert set(torch.bincount(twenty.beside(0, passes=True)).tolist()) == {3}
    assert len(set(torch.bincount(twenty.beside(0, passes=False)).tolist())) > 3


def test_the_area_under_the_curve_is_that_of_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    labels = 2.0 * torch.randint(2, (50, 3), generator=generator) - 1
    outputs = torch.randint(9, (50, 3), generator=generator) + labels  # with ties
    found = twenty.area_under_curve(outputs, labels)
    wanted = [roc_auc_score(labels[:, k], outputs[:, k]) for k in range(3)]
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=found.dtype))
