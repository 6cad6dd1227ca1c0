"""The study of notebook 15: its noise, its errors, its options, and the table of its record."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from experiments import nb15_again, nb15_sweep, nb15_tables
from experiments import nb15_rooms as study
from experiments.search import first_round
from experiments.verdicts import results

DATA = study.draw(3, images=(6, 2, 4))


def test_noise_is_laplace_in_training_and_validation_depth_alone():
    noisy = study.with_depth_noise(DATA, 0.7, seed=3)
    noise = (noisy.train[2] - DATA.train[2]).double()
    assert noise.abs().mean().item() == pytest.approx(0.7, rel=0.1)
    assert noise.square().mean().sqrt().item() == pytest.approx(0.7 * math.sqrt(2), rel=0.1)
    assert not torch.equal(noisy.val[2], DATA.val[2])
    assert torch.equal(noisy.test[2], DATA.test[2])
    for split in ("train", "val", "test"):
        for task in (0, 1, 3):
            assert torch.equal(getattr(noisy, split)[task], getattr(DATA, split)[task])


def test_standard_depth():
    scaled = study.standard_depth(DATA)
    assert scaled.train[2].mean().item() == pytest.approx(0, abs=1e-5)
    assert scaled.train[2].std().item() == pytest.approx(1, rel=1e-5)
    spread, mean = DATA.train[2].std(), DATA.train[2].mean()
    torch.testing.assert_close(scaled.test[2] * spread + mean, DATA.test[2])


class Constant(torch.nn.Module):
    """Says the same of every pixel."""

    def __init__(self, label, depth, normal):
        super().__init__()
        self.scores, self.depth, self.normal = torch.eye(5)[label], depth, torch.tensor(normal)

    def forward(self, x):
        shape = (len(x), -1, *x.shape[-2:])
        answers = self.scores, torch.tensor([self.depth]), self.normal
        return [a[:, None, None].expand(shape) for a in answers]


def test_errors_of_a_constant():
    _, classes, depth, normals = DATA.test
    found = study.errors(Constant(1, 3.0, [0.0, 2.0, 0.0]), *DATA.test)
    up = normals[:, 1].clamp(-1, 1).double().numpy()
    wanted = [
        (classes != 1).float().mean().item(),
        (depth - 3).abs().mean().item(),
        np.degrees(np.arccos(up)).mean(),
    ]
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_no_constant_is_better_than_the_best_in_class_and_depth():
    best = study.of_a_constant(*DATA.test[1:])
    tried = [
        study.errors(Constant(label, depth, [0.0, 1.0, 0.0]), *DATA.test)
        for label, depth in zip(range(5), (1.0, 2.0, 3.0, 4.0, 5.0), strict=True)
    ]
    assert (torch.stack(tried).amin(0)[:2] >= best[:2] - 1e-5).all()
    assert study.left(Constant(0, 0.0, [0.0, 0.0, 1.0]), *DATA.test).min() > 0.9


def test_weights_relative_to_the_classes():
    weights = study.by_task(3, depth=0.25, normals=2.0).weights_now()
    torch.testing.assert_close(weights, 3 * torch.tensor([1.0, 0.25, 2.0]) / 3.25)


@pytest.fixture
def small(monkeypatch):
    """The study on few images, few looks."""
    few = {"metres": lambda seed: study.draw(seed, images=(6, 2, 4))}
    monkeypatch.setattr(
        study, "STUDY", replace(study.STUDY, data=few, evaluations=2, reporting=(0, 1))
    )
    return study.STUDY


@pytest.mark.parametrize("name", [c.name for c in study.STUDY.contenders])
def test_a_block_of_each_contender(small, name):
    contender = small.contender(name)
    trial = first_round(small.knobs(contender, "metres", "adam"), 1)
    (row,) = study.block("metres", "adam", 4, 1, name, trial, "report")
    assert row["failed"] == 0 and np.shape(row["test"]) == (2, 3)
    assert (np.array(row["test"], dtype=float) > 0).all()
    assert contender.untuned(3, trial[0]) == []


@pytest.fixture
def made_up(small):
    """A record of two contenders, each with two trials: "fixed" is 0.1 better in depth."""
    rng = np.random.default_rng(0)
    equal = rng.uniform(0.3, 0.5, (2, 3))
    rows = []
    for name, test in (("equal", equal), ("fixed", equal - [0, 0.1, 0])):
        contender = small.contender(name)
        trials = first_round(small.knobs(contender, "metres", "adam"), 2)
        row = {"data": "metres", "optimiser": "adam", "width": 6, "epochs": 20, "contender": name}
        for worse, trial in zip((0.0, 0.1), trials, strict=True):
            rows.append(row | {"stage": "pick", "trial": trial, "val": (test + worse).tolist()})
        rows.append(row | {"stage": "report", "trial": trials[0], "test": test.tolist()})
    return pd.DataFrame(rows)


def test_the_table_pairs_by_seed(small, made_up):
    table = study.against(made_up, study=small).set_index("task")
    assert table.loc["depth", "difference"] == pytest.approx(-0.1)
    assert table.loc["class", "difference"] == pytest.approx(0)
    assert table.loc["mean", "difference"] == pytest.approx(-0.1 / 3)


def test_tables_of_the_record(small, made_up):
    table = study.against(made_up, study=small)
    (text,) = nb15_tables.overview(table, "depth")["metres"]
    assert text.startswith("-10.0 [-10.0, -10.0]")
    gaps = nb15_tables.differences(made_up, study=small)
    np.testing.assert_allclose(gaps[nb15_tables.GAP], -10 / 3)
    assert gaps["decided"].all()  # the same in both seeds
    two = replace(small, contenders=(small.contender("equal"), small.contender("fixed")))
    rows = nb15_tables.picked(made_up, two).set_index("contender")
    assert rows["trials"].tolist() == [2, 2]
    assert rows.loc["equal", "at the edge"] == "rate"
    assert "depth" in rows.loc["fixed", "picked"]


def test_two_tasks_alone_with_one_pick_have_one_report(small):
    """The sweep trains no setting twice: with picks a, b, a there are reports of a and of b."""
    contender = small.contender("alone")
    a, b = first_round(small.knobs(contender, "metres", "adam"), 2)
    row = {"data": "metres", "optimiser": "adam", "width": 6, "epochs": 20, "contender": "alone"}
    good, bad = [0.1, 0.9, 0.1], [0.9, 0.1, 0.9]
    picked = [row | {"stage": "pick", "trial": t, "val": [v] * 2} for t, v in ((a, good), (b, bad))]
    report = {"stage": "report", "val": [good] * 2}
    reports = [row | report | {"trial": t, "test": [v] * 2} for t, v in ((a, good), (b, bad))]
    alone = replace(small, contenders=(contender,), data={"metres": small.data["metres"]})
    for runs in (pd.DataFrame(picked + reports), pd.DataFrame(picked + reports[::-1])):
        found = results(alone, runs)
        assert found.groupby("task")["error"].agg(["size", "mean"]).to_numpy().tolist() == [
            [2, pytest.approx(0.1)] for _ in range(3)
        ]
    assert results(alone, pd.DataFrame(picked + reports[:1])).empty


def test_what_trains_for_longer_are_the_picks_of_the_record():
    configs = nb15_again.configs()
    names = [c["contender"] for c in configs]
    assert {*names} == {*nb15_again.CONTENDERS} and names.count("alone, standardised") == 2
    assert {c["epochs"] for c in configs} == {80}
    (learned,) = (c for c in configs if c["contender"] == "uncertainty, standardised")
    assert learned["trials"] == [{"rate": 0.01, "own_rate": 0.03}]


# ---- the sweep ---------------------------------------------------------------------------------


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(nb15_sweep, "IMAGES", (6, 2, 4))


@pytest.mark.parametrize("unit", nb15_sweep.UNITS)
def test_errors_are_in_metres_whatever_the_unit(few, unit):
    """Untrained networks say nearly 0, or nearly the mean, in their unit."""
    row = nb15_sweep.train("fixed", 1.0, unit, (0.0, 0.5, 0.0), 1, 2)[0]
    _, _, depth, _ = nb15_sweep.draw(0).test
    zero, mean = depth.mean().item(), (depth - depth.mean()).abs().mean().item()
    assert row["metres"] == pytest.approx(mean if unit == "standardised" else zero, rel=0.5)
    assert row["sigma"] is None and 0 < row["miou"] < 1


def test_noise_goes_into_the_labels_that_are_named(few):
    clean, noisy = nb15_sweep.draw(0), nb15_sweep.draw(0, noise=(0.3, 0.0, 0.5))
    same = [torch.equal(a, b) for a, b in zip(clean.train, noisy.train, strict=True)]
    assert same == [True, False, True, False]
    changed = (clean.train[1] != noisy.train[1]).double().mean().item()
    assert changed == pytest.approx(0.3 * 0.8, abs=0.03)


def test_mean_iou_by_hand():
    """Half of the pixels are class 0, the guess is always 0: IoU 1/2 and four times 0."""
    classes = torch.tensor([[[0, 1]]])
    found = nb15_sweep.miou(Constant(0, 0.0, [0.0, 0.0, 1.0]), torch.zeros(1, 3, 1, 2), classes)
    assert found.item() == pytest.approx(0.5 / 5)


def test_every_setting_of_the_sweep_is_another():
    settings = [str(sorted(config.items())) for config in nb15_sweep.configs()]
    assert len(set(settings)) == len(settings) == 29
