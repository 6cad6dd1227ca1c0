"""The diamonds: rows, scaling, noise."""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mtl_utils.datasets import diamonds


def test_shapes_and_scaling():
    data = diamonds(n_train=1000, n_test=500)
    assert [tuple(t.shape) for t in data.train] == [(1000, 23), (1000, 1), (1000, 1), (1000, 1)]
    assert [len(t) for t in data.test] == [500] * 4
    for target in data.train[1:]:
        assert abs(target.mean()) < 1e-5 and abs(target.std(unbiased=False) - 1) < 1e-5
    assert data.tasks == ("log price", "length x", "height z")


def test_targets_are_the_columns_they_are_named_for_and_test_rows_follow_the_training_rows():
    """From the file, in plain NumPy: scaled by the training rows alone."""
    folder = Path(importlib.util.find_spec("plotnine").origin).parent
    table = pd.read_csv(folder / "data" / "diamonds.csv").query("x > 0 and y > 0 and z > 0")
    rows = np.random.default_rng(0).permutation(len(table))[:1500]
    columns = [np.log(table["price"]), table["x"], table["z"], table["carat"], table["table"]]
    data = diamonds(n_train=1000, n_test=500)
    found = [*zip(data.train[1:], data.test[1:], strict=True)]
    found += [(data.train[0][:, [k]], data.test[0][:, [k]]) for k in (0, 2)]
    for column, (train, test) in zip(columns, found, strict=True):
        values = column.to_numpy(float)[rows]
        wanted = (values - values[:1000].mean()) / values[:1000].std()
        np.testing.assert_allclose(train[:, 0], wanted[:1000], atol=1e-5)
        np.testing.assert_allclose(test[:, 0], wanted[1000:], atol=1e-5)


def test_noise_is_added_to_the_named_training_target_only():
    clean, noisy = diamonds(2000, 500), diamonds(2000, 500, noise=(0, 0, 3.0))
    assert torch.equal(clean.train[1], noisy.train[1])
    assert torch.equal(clean.train[2], noisy.train[2])
    added = noisy.train[3] - clean.train[3]
    assert abs(added.std() - 3) < 0.15
    for a, b in zip(clean.test, noisy.test, strict=True):
        assert torch.equal(a, b)


def test_raw_price_is_in_dollars():
    log, raw = diamonds(1000, 500), diamonds(1000, 500, raw_price=True)
    assert raw.tasks[0] == "price in dollars"
    assert raw.train[1].min() > 300
    spread = np.log(raw.train[1].double().numpy())
    standardised = (spread - spread.mean()) / spread.std()
    np.testing.assert_allclose(standardised, log.train[1], atol=1e-4)
    assert raw.info["price_std"] == pytest.approx(raw.train[1].std(unbiased=False).item(), rel=1e-4)


def test_it_is_fixed_by_its_seed_and_splits_do_not_overlap():
    first, again, other = diamonds(500, 200), diamonds(500, 200), diamonds(500, 200, seed=1)
    assert torch.equal(first.train[3], again.train[3])
    assert not torch.equal(first.train[3], other.train[3])
    rows = {tuple(row) for row in torch.cat([first.train[0], *first.train[1:]], 1).tolist()}
    assert len(rows) > 495  # a few stones are alike in every column


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"n_train \+ n_test: there are 53920 rows"):
        diamonds(53_000, 10_000)
    with pytest.raises(ValueError, match="noise: expected 3"):
        diamonds(10, 10, noise=(1.0,))
    with pytest.raises(ValueError, match="n_train: expected an integer"):
        diamonds(0)


def test_a_small_sample_has_all_columns():
    assert diamonds(n_train=5, n_test=5).train[0].shape == (5, 23)
