"""What notebook 12 calls: against closed forms, autograd and limits that are known."""

import numpy as np
import pandas as pd
import pytest
import torch

from experiments import nb12_conflict, nb12_noise, nb12_paths, nb12_properties, nb12_toys
from experiments.nb12_rules import RULES, arrows, closed_forms, cosines, title, update
from mtl_utils import available_weightings

PAIR = np.array([[4.0, 0.0], [-1.0, 1.0]])


@pytest.fixture(autouse=True)
def float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def test_rules_by_hand():
    np.testing.assert_allclose(update("equal", PAIR), [1.5, 0.5])
    np.testing.assert_allclose(update("pcgrad", PAIR), [2, 3])
    np.testing.assert_allclose(update("cagrad", PAIR, c=0.5), [0.940983, 1.059017], rtol=1e-6)
    np.testing.assert_allclose(cosines(PAIR, update("nash_mtl", PAIR)), 2 * [np.cos(np.pi * 3 / 8)])
    assert set(RULES) <= set(available_weightings())
    assert [title(name) for name in ("equal", "pcgrad")] == ["mean", "PCGrad"]


def test_rules_that_draw_draw_by_seed_and_rules_that_remember_remember():
    J = nb12_properties.random_gradients(1)[0]
    for name in RULES:
        np.testing.assert_array_equal(update(name, J), update(name, J))
    assert not np.allclose(update("graddrop", J), update("graddrop", J, seed=1))
    assert not np.allclose(update("gradvac", J), update("gradvac", J, before=J[::-1] + 1))


def test_arrows():
    table = arrows(PAIR, "pcgrad", length=2.0)
    assert list(table["kind"]) == ["gradient", "gradient", "update"]
    np.testing.assert_allclose(table.iloc[2, :2].astype(float), 2 / 13**0.5 * np.array([2, 3]))
    assert len(arrows(PAIR)) == 2


def test_closed_forms():
    dice = np.random.default_rng(0)
    pairs = dice.standard_normal((30, 2, 4)) * 10 ** dice.uniform(-1, 1, (30, 2, 1))
    for name, d in closed_forms(pairs).items():
        np.testing.assert_allclose(d, [update(name, P) for P in pairs], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("losses", "gradients", "one_point"),
    [
        (nb12_toys.valley, nb12_toys.valley_gradients, nb12_paths.valley),
        (nb12_toys.ravine, nb12_toys.ravine_gradients, nb12_paths.ravine),
    ],
)
def test_gradients_of_the_toys(losses, gradients, one_point):
    points = np.random.default_rng(1).uniform(-8, 8, (20, 2))
    wanted = [torch.autograd.functional.jacobian(losses, torch.tensor(p)) for p in points]
    np.testing.assert_allclose(gradients(points), torch.stack(wanted), rtol=1e-7, atol=1e-9)
    one_by_one = np.reshape([one_point(*p) for p in points], (-1, 2, 2))
    np.testing.assert_allclose(gradients(points), one_by_one, rtol=1e-9, atol=1e-12)


def test_the_pareto_set_and_who_arrived_on_it():
    front = nb12_toys.pareto_set(5)
    g = nb12_toys.valley_gradients(front.to_numpy())
    w = (front[[nb12_toys.X]].to_numpy() + 7) / 14
    np.testing.assert_allclose(w * g[:, 0] + (1 - w) * g[:, 1], 0, atol=1e-6)
    ends = front.assign(rule="a", start=range(5))
    ends.loc[0, nb12_toys.Y] = 3.0  # up in the valley
    assert nb12_toys.arrived(ends, front, (1.0, 1.0)).tolist() == [False] + 4 * [True]


def test_records_of_paths():
    paths = nb12_toys.recorded("L1 x 0.1", "pcgrad", "equal")
    assert list(paths["rule"].unique()) == ["pcgrad", "equal"]
    array = nb12_toys.positions(paths)
    assert array.shape == (71, 2, 5, 2)
    np.testing.assert_array_equal(array[0, 1], nb12_toys.STARTS)
    last = nb12_toys.ends(paths)
    assert (last["step"] == 35_000).all() and len(last) == 10
    assert nb12_toys.places(paths).loc["mean", "start 1"].startswith("(-5.67, ")


def test_a_short_walk_of_the_record_is_reproduced():
    setting = nb12_paths.SETTINGS["L1 x 0.1"]
    short = setting._replace(steps=500)
    now = nb12_toys.walk(
        lambda x: np.array([[0.1], [1.0]]) * nb12_toys.valley_gradients(x),
        nb12_toys.STARTS,
        steps=500,
        keep=500,
    )
    for rule in ("pcgrad", "nash_mtl"):
        (*_, (_, *end)) = nb12_paths.path(short, rule, start=1)
        k = list(closed_forms(PAIR)).index(rule)
        np.testing.assert_allclose(now[0, k, 1], end, atol=1e-3)


def test_steps_to_the_set_are_those_of_a_walk_that_ends_there():
    found = nb12_toys.steps_to_the_set(rate=0.05, steps=1000, runs=2)
    assert len(found) == 9 * 2 * 2
    arrived = found.query("rule == 'Nash-MTL'")["steps"]
    assert arrived.between(100, 1000).all() and (arrived % 20 == 0).all()
    short = nb12_toys.steps_to_the_set(rate=0.05, steps=20, runs=2)
    assert np.isinf(short["steps"]).all()


def test_two_tasks_near_a_stationary_point():
    """PCGrad, twice UPGrad for two tasks, comes to rest with it; the mean does not."""
    rules = {name: (name, {}) for name in ("pcgrad", "upgrad", "equal")}
    found = nb12_properties.near_stationary(3, (1e-4, 1e-6), rules, tasks=2)
    length = found.pivot(index=["rule", "set"], columns="factor", values="length")
    np.testing.assert_allclose(length.loc["pcgrad"], length.loc["upgrad"], rtol=1e-6)
    fall = length[1e-6] / length[1e-4]
    np.testing.assert_allclose(fall["pcgrad"], 0.01, rtol=0.01)
    np.testing.assert_allclose(fall["equal"], 1.0, rtol=0.05)


def test_cosines_are_corrected_for_noise():
    """Made gradients with a true cosine of -0.6, and noise of twice their length."""
    dice, dim, rows = np.random.default_rng(0), 400, []
    true = np.zeros((2, dim))
    true[0, 0], true[1, :2] = 1.0, [-0.6, 0.8]
    for seed in range(200):
        g = np.tile(true, (2, 1)) + 2 / dim**0.5 * dice.standard_normal((4, dim))
        rows.append([seed, 0, -0.6, *(g @ g.T)[nb12_conflict.UPPER], 1.0, 1.0])
    table = pd.DataFrame(rows, columns=nb12_conflict.COLUMNS)
    found = nb12_conflict.corrected(nb12_conflict.cosines(table))
    assert found["measured"].mean() == pytest.approx(-0.12, abs=0.02)
    assert found["corrected"].mean() == pytest.approx(-0.6, abs=0.06)


def test_harm_of_the_sum():
    table = pd.DataFrame([[0, 10 * k, 0.0, *np.ones(12)] for k in range(4)])
    table.columns = nb12_conflict.COLUMNS
    table.loc[:1, "g0g2"] = -2.0  # the sum harms the first task on the other batch
    table.loc[3, "gain right"] = -1.0  # and the second on all rows
    (row,) = nb12_conflict.harm(table).to_dict("records")
    shares = {"own batch": 0, "other batch": 0.25, "any task": 0.5, "any task, all rows": 0.25}
    assert row == {"seed": 0, **shares, "ratio": 1}


def test_a_training_gives_gramians():
    table = nb12_conflict.train(seed=0, steps=11)
    assert list(table.columns) == nb12_conflict.COLUMNS and len(table) == 2
    assert (table[nb12_conflict.GAINS] > 0).all(axis=None)  # the first steps gain on all rows
    eigenvalues = np.linalg.eigvalsh(nb12_conflict.gramians(table))
    assert (eigenvalues > -1e-12).all()


def test_noise_moves_all_but_the_mean():
    quiet = nb12_noise.descend(0.0, runs=1, steps=200)
    assert np.allclose(quiet["place"], 0.5)
    runs = nb12_noise.descend(0.35, runs=10, steps=400)
    last = runs[runs["step"] == 400].groupby("rule")["place"].mean()
    assert last["mean"] == pytest.approx(0.5, abs=0.02)
    assert (last.drop("mean") < 0.4).all()
    assert nb12_noise.cosine_with_itself(0.35) == pytest.approx(0.29, abs=0.005)


def test_properties_and_limits():
    found = nb12_properties.shares(n=3, first=5)
    assert found.loc["Nash-MTL", ["harms none", "scale-free", "no dice"]].eq(1).all()
    assert found.loc["mean", ["linear", "any order", "Gramian", "mean in peace"]].eq(1).all()
    assert found.loc["PCGrad", "no dice"] < 1 and found.loc["GradDrop", "Gramian"] < 1
    fading = nb12_properties.fading_task(2, (1.0, 1e-4))
    length = fading[fading["factor"] == 1e-4].groupby("rule")["length"].max()
    assert length["MGDA"] < 1e-3 and length["Nash-MTL"] == pytest.approx(1)
    near = nb12_properties.near_stationary(2, (1.0, 1e-4)).query("factor == 1e-4")
    length = near.groupby("rule")["length"].max()
    assert length["UPGrad"] < 1e-2 and length["Nash-MTL"] == pytest.approx(1)
