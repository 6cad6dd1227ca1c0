"""What every data set looks like, the two regressions, and the overlapping digits."""

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d

from mtl_utils.datasets import MultiTaskData, digits, overlapping_digits, two_regressions
from mtl_utils.datasets.base import as_float, check_count


@pytest.fixture(autouse=True)
def _float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


# ---- MultiTaskData -------------------------------------------------------------


def data(**changes):
    parts = {
        "name": "made up",
        "tasks": ("a", "b"),
        "train": (torch.zeros(4, 2), torch.zeros(4), torch.zeros(4, dtype=torch.long)),
    }
    return MultiTaskData(**{**parts, **changes})


def test_data_checks_its_splits():
    with pytest.raises(ValueError, match=r"train: expected 3 tensors .*, got 2"):
        data(train=(torch.zeros(4), torch.zeros(4)))
    with pytest.raises(ValueError, match=r"test: lengths differ: \[4, 4, 3\]"):
        data(test=(torch.zeros(4), torch.zeros(4), torch.zeros(3)))
    assert data().n_tasks == 2 and data().val == () == data().test


def test_data_in_one_line():
    text = repr(data(source="nowhere", test=(torch.zeros(3),) * 3))
    assert text == "made up: 2 tasks (a, b); train 4, test 3; nowhere"


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((torch.float32,), {}), ((), {"dtype": torch.float32}), (("cpu", torch.float32), {})],
)
def test_data_to_another_number_type_leaves_classes_alone(args, kwargs):
    original = data(info={"names": ["x"]})
    moved = original.to(*args, **kwargs)
    assert [t.dtype for t in moved.train] == [torch.float32, torch.float32, torch.long]
    assert original.train[0].dtype == torch.float64 and moved.info == {"names": ["x"]}
    moved.info["more"] = 1
    assert "more" not in original.info


def test_data_to_another_device():
    moved = data().to("meta")
    assert {t.device.type for t in moved.train} == {"meta"}
    assert data().to(device="meta", dtype=torch.float32).train[0].dtype == torch.float32


def test_helpers():
    assert as_float(np.arange(3)).dtype == torch.float64
    for bad in (0, -1, 1.0, True, "2"):
        with pytest.raises(ValueError, match=f"n: expected an integer of at least 1, got {bad!r}"):
            check_count("n", bad)
    check_count("n", 0, least=0)


# ---- two regressions -------------------------------------------------------------


def test_two_regressions_are_the_published_numbers():
    found = two_regressions()
    x, y1, y2 = (t.numpy() for t in found.train)
    # the first draws of NumPy's legacy generator with seed 0, as printed everywhere
    assert x[:5, 0] == pytest.approx(
        [1.76405235, 0.40015721, 0.97873798, 2.2408932, 1.86755799], abs=1e-8
    )
    rng = np.random.RandomState(0)
    wanted, e1, e2 = (rng.randn(100, 1) for _ in range(3))
    np.testing.assert_allclose(x, wanted, rtol=0)
    np.testing.assert_allclose(y1, 2 * wanted + 8 + 10 * e1, rtol=1e-14)
    np.testing.assert_allclose(y2, 3 * wanted + 3 + e2, rtol=1e-14)


def test_two_regressions_residuals_of_least_squares():
    x, *targets = (t.numpy() for t in two_regressions().train)
    design = np.c_[x, np.ones(len(x))]
    found = []
    for y in targets:
        _, squared, _, _ = np.linalg.lstsq(design, y, rcond=None)
        found.append(np.sqrt(squared[0] / len(x)))
    assert found == pytest.approx([10.28188628, 0.94924083], abs=5e-9)


def test_two_regressions_test_points_leave_the_training_points_alone():
    plain, more = two_regressions(50, seed=3), two_regressions(50, seed=3, n_test=2000)
    assert all(map(torch.equal, plain.train, more.train)) and plain.test == ()
    assert [tuple(t.shape) for t in more.test] == [(2000, 1)] * 3
    x, y1, _ = more.test
    assert (y1 - 2 * x - 8).std().item() == pytest.approx(10, rel=0.1)
    quiet = two_regressions(50, sigma=(0, 0))
    torch.testing.assert_close(quiet.train[2], 3 * quiet.train[0] + 3)
    assert not torch.equal(two_regressions(50, seed=4).train[0], plain.train[0])


def test_two_regressions_refuses_counts():
    for changes, name in [({"n": 0}, "n"), ({"n_test": -1}, "n_test")]:
        with pytest.raises(ValueError, match=f"^{name}: expected an integer"):
            two_regressions(**changes)


# ---- overlapping digits -------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield overlapping_digits(300, 100, 100)
    torch.set_default_dtype(before)


def pairs_of(seed, sizes):
    """The originals' numbers as the generator draws them, split by split."""
    rng = np.random.default_rng(seed)
    borders = [(0, 3500), (3500, 4000), (4000, 5000)]
    return [rng.integers(*ends, (2, n)) for ends, n in zip(borders, sizes, strict=True)]


def test_digits_are_the_maximum_of_two_shifted_originals(small):
    images, classes = digits._originals()
    for split, (left, right) in zip(
        (small.train, small.val, small.test), pairs_of(0, (300, 100, 100)), strict=True
    ):
        x, first, second = split
        assert first.tolist() == classes[left].tolist()
        assert second.tolist() == classes[right].tolist()
        for row in range(20):
            upper = np.zeros((36, 36))
            lower = np.zeros((36, 36))
            upper[0:28, 0:28] = images[left[row]]
            lower[8:36, 8:36] = images[right[row]]
            wanted = torch.as_tensor(np.maximum(upper, lower) / 255)
            torch.testing.assert_close(x[row, 0], wanted, rtol=1e-14, atol=0)


def test_digits_shapes_types_and_range(small):
    x, left, right = small.train
    assert x.shape == (300, 1, 36, 36) and x.dtype == torch.float64
    assert left.shape == right.shape == (300,) and left.dtype == right.dtype == torch.long
    assert x.min() == 0 and x.max() == 1
    assert set(left.tolist()) == set(right.tolist()) == set(range(10))
    assert small.tasks == ("left", "right")
    assert repr(small).startswith("overlapping digits: 2 tasks (left, right); train 300, val 100")
    # where nothing can be: the corners that neither digit covers
    assert bool((x[:, 0, :8, 28:] == 0).all()) and bool((x[:, 0, 28:, :8] == 0).all())


def test_digits_small_are_the_large_ones_averaged(small):
    half = overlapping_digits(300, 100, 100, size=18)
    assert half.train[0].shape == (300, 1, 18, 18)
    torch.testing.assert_close(half.train[0], avg_pool2d(small.train[0], 2), rtol=1e-12, atol=0)
    assert torch.equal(half.train[1], small.train[1])


def test_digits_splits_share_no_original():
    images, classes = digits._originals()
    assert images.shape == (5000, 28, 28) and np.bincount(classes).tolist() == [500] * 10
    borders = [images[:3500], images[3500:4000], images[4000:]]
    prints = [{image.tobytes() for image in split} for split in borders]
    assert not prints[0] & prints[1] and not prints[0] & prints[2] and not prints[1] & prints[2]
    for drawn, (first, last) in zip(
        pairs_of(1, (4000, 900, 2000)), [(0, 3500), (3500, 4000), (4000, 5000)], strict=True
    ):
        assert drawn.min() >= first and drawn.max() < last
    shares = [np.bincount(split, minlength=10) / len(split) for split in (classes[:3500],)]
    assert abs(shares[0] - 0.1).max() < 0.02  # shuffled, not sorted by class


def test_digits_are_deterministic(small):
    again = overlapping_digits(300, 100, 100)
    for split in ("train", "val", "test"):
        assert all(map(torch.equal, getattr(again, split), getattr(small, split)))
    other = overlapping_digits(300, 100, 100, seed=1)
    assert not torch.equal(other.train[1], small.train[1])
    images, _ = digits._originals()
    assert images.max() == 255  # the merging left the originals alone
    assert images[pairs_of(0, (300, 100, 100))[0][0][0]].sum() > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 28}, "size: expected 36 or 18, got 28"),
        ({"n_train": 0}, "n_train: expected an integer of at least 1, got 0"),
        ({"n_val": 2.5}, "n_val: expected an integer of at least 1, got 2.5"),
        ({"n_test": True}, "n_test: expected an integer of at least 1, got True"),
    ],
)
def test_digits_refuse(changes, message):
    with pytest.raises(ValueError, match=message):
        overlapping_digits(**changes)
