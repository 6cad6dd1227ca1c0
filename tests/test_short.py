"""Short trainings for the notebooks (`experiments.short`) do what the ordinary loop does."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from experiments import nb06_dwa, nb06_noise, nb07_dtp
from experiments.short import minus, watch
from mtl_utils import make_weighting


@pytest.fixture(autouse=True)
def _float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(scope="module")
def table():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    rules = {"equal": make_weighting("equal", 2), "dwa": make_weighting("dwa", 2)}
    rules["fixed"] = [make_weighting("fixed", 2, weights=w) for w in ([1.0, 1.0], [0.5, 1.5])]
    found = watch(nb06_dwa.STUDY, "both learnable", rules, 4, 4, seeds=(3, 5), test_every=2)
    torch.set_default_dtype(before)
    return found


def test_one_row_for_each_rule_seed_epoch_and_task(table):
    assert len(table) == 3 * 2 * 4 * 2
    keys = ["rule", "seed", "epoch", "task"]
    assert not table[keys].duplicated().any()
    assert table["error"].isna().sum() == len(table) / 2  # no look after epochs 1 and 3
    assert set(table["seed"]) == {3, 5} and set(table["task"]) == {"easy", "hard"}


def test_a_run_is_that_of_an_ordinary_loop(table):
    study, data = nb06_dwa.STUDY, nb06_dwa.both_learnable(5)
    torch.manual_seed(5)
    model, rule = study.model(data, 4), make_weighting("dwa", 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    order = torch.Generator().manual_seed(5)
    losses, weights = [], []
    for _ in range(4):
        total = torch.zeros(2)
        for index in torch.randperm(500, generator=order).split(50):
            optimizer.zero_grad()
            now = study.losses(model, *(t[index] for t in data.train))
            used = rule.backward(now)
            optimizer.step()
            total += now.detach() / 10
        rule.observe(train_losses=total)
        losses += total.tolist()
        weights += used.tolist()
    mine = table[(table["rule"] == "dwa") & (table["seed"] == 5)]
    np.testing.assert_allclose(mine["loss"], losses, rtol=1e-8)
    np.testing.assert_allclose(mine["weight"], weights, rtol=1e-8)
    with torch.no_grad():
        errors = study.metric(model, *data.test)
    np.testing.assert_allclose(mine[mine["epoch"] == 4]["error"], errors, rtol=1e-8)


def test_one_rule_for_each_seed(table):
    fixed = table[(table["rule"] == "fixed") & (table["epoch"] == 1)]
    assert fixed["weight"].tolist() == pytest.approx([1.0, 1.0, 0.5, 1.5])
    same = minus(table[table["seed"] == 3], "fixed", "equal")
    assert same.to_numpy() == pytest.approx([0.0], abs=1e-12)
    assert abs(minus(table, "fixed", "equal", "hard")[5]) > 1e-6


def test_kpis_are_recorded_where_a_rule_observes_them():
    small = replace(nb07_dtp.STUDY, data={"small": few_digits})
    found = watch(small, "small", {"dtp": make_weighting("dtp", 2)}, 3, 2, seeds=(0, 1))
    assert found["kpi"].between(0, 1).all()
    blind = watch(small, "small", {"equal": make_weighting("equal", 2)}, 3, 2, seeds=(0, 1))
    assert "kpi" not in blind


def few_digits(seed):
    data = nb07_dtp.clean(seed)
    splits = {s: tuple(t[:100] for t in getattr(data, s)) for s in ("train", "val", "test")}
    return replace(data, **splits)


def test_the_squared_errors_of_held_out_rows():
    losses, rows = nb06_noise.losses_of_rows(seeds=range(2), width=3, epochs=2)
    assert losses.shape == (2, 2, 2) and rows.shape == (2, 2000, 2)
    assert rows.min() >= 0 and 0.2 < rows.mean() < 5
