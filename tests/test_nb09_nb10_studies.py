"""The studies of notebooks 09 and 10, on few rows."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from experiments import nb09_mgda, nb09_toys, nb10_pareto
from experiments.nb07_dtp import clean
from experiments.search import first_round
from mtl_utils.metrics import hypervolume


def few(seed):
    data = clean(seed)
    splits = {s: tuple(t[:40] for t in getattr(data, s)) for s in ("train", "val", "test")}
    return replace(data, **splits)


@pytest.fixture
def study(monkeypatch):
    small = replace(nb10_pareto.STUDY, data={"two digits": few}, reporting=(0, 1))
    monkeypatch.setattr(nb10_pareto, "STUDY", small)
    return small


@pytest.mark.parametrize("name", [c.name for c in nb10_pareto.STUDY.contenders])
def test_a_set_is_judged_by_its_hypervolume(study, name):
    trial = first_round(study.knobs(study.contender(name), "two digits", "adam"), 1)
    (row,) = nb10_pareto.block("two digits", "adam", 4, 2, name, trial, "report")
    points = np.array(row["points"])
    assert points.shape == (2, 5, 2)
    for at, missing in zip(points, row["test"], strict=True):
        area = hypervolume(at, (0.9, 0.9)) / 0.81
        assert missing == [pytest.approx(1 - area, rel=1e-3)]
    assert row["failed"] == 0


def test_all_sets_start_from_the_same_networks(study):
    """With a spread of 1 the five weighted networks are the five equal ones."""
    trial = {"rate": 0.01}
    (equal,) = nb10_pareto.block("two digits", "adam", 4, 2, "equal", [trial], "report")
    same = [trial | {"spread": 1.0}]
    (fixed,) = nb10_pareto.block("two digits", "adam", 4, 2, "fixed", same, "report")
    assert equal["points"] == fixed["points"]


def test_what_the_five_networks_are_asked_for():
    weights = [nb10_pareto.linear(2, 9.0, p).weights_now().tolist() for p in (-1.0, 0.0, 1.0)]
    np.testing.assert_allclose(weights, [[0.2, 1.8], [1.0, 1.0], [1.8, 0.2]])
    vectors = nb10_pareto.towards(2, 45.0, 1.0).preferences
    np.testing.assert_allclose(vectors[[0, 2, 4]], [[1, 0], [0.5**0.5] * 2, [0, 1]], atol=1e-7)


def test_every_option_is_tuned_or_held():
    for module in (nb09_mgda, nb10_pareto):
        for contender in module.STUDY.contenders:
            knobs = module.STUDY.knobs(contender, "two digits", "adam")
            assert contender.untuned(2, first_round(knobs, 1)[0]) == []


def test_batch_weights_go_to_those_on_all_rows():
    table, exact = nb09_toys.batch_weights((8, 512), draws=200)
    bias = (table["weight"] - exact).to_numpy()
    np.testing.assert_allclose(table["bias"], bias)
    assert bias[0] > 5 * abs(bias[1])


def test_descend_follows_the_shortest_mixture():
    centres = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    path, last = nb09_toys.descend(
        lambda p: (p - centres).square().sum(-1) / 2, [1.0, 1.0], rate=0.5, steps=3
    )
    torch.testing.assert_close(path[:, 1], torch.tensor([1.0, 0.5, 0.25, 0.125]))
    assert last.shape == (2, 2)
