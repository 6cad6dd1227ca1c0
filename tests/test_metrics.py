"""Metrics against counting by hand."""

import doctest

import numpy as np
import pytest
import sklearn.metrics  # noqa: F401  (else in the first example, which then takes too long)
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_utils import metrics
from mtl_utils.metrics import delta_m, hypervolume, multi_label_metrics, one_error


def by_counting(scores, labels, threshold):
    rows = []
    for score, label in zip(scores, labels, strict=True):
        predicted, true = set(np.flatnonzero(score > threshold)), set(np.flatnonzero(label))
        both = len(predicted & true)
        precision = both / len(predicted) if predicted else 0
        recall = both / len(true) if true else 0
        rows.append(
            {
                "accuracy": both / len(predicted | true) if predicted | true else 0,
                "precision": precision,
                "recall": recall,
                "f1": 2 * both / (len(predicted) + len(true)) if predicted or true else 0,
                "one_error": float(label[int(np.argmax(score))] == 0),
            }
        )
    return {key: np.mean([row[key] for row in rows]) for key in rows[0]}


@settings(deadline=None)  # the machine may be busy
@given(st.integers(1, 6), st.integers(2, 5), st.integers(0, 10_000))
def test_against_counting(n, k, seed):
    rng = np.random.default_rng(seed)
    scores, labels = rng.normal(size=(n, k)), (rng.random((n, k)) < 0.4).astype(float)
    found, wanted = multi_label_metrics(scores, labels, 0.1), by_counting(scores, labels, 0.1)
    assert found.keys() == wanted.keys()
    for key in wanted:
        assert found[key] == pytest.approx(wanted[key]), key


def test_a_label_is_predicted_where_its_probability_is_above_a_half():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(40, 5)), (rng.random((40, 5)) < 0.4).astype(float)
    probabilities = 1 / (1 + np.exp(-scores))
    assert multi_label_metrics(scores, labels) == multi_label_metrics(probabilities, labels, 0.5)
    undecided = multi_label_metrics(np.array([[0.0, 1.0]]), np.array([[1, 1]]))
    assert undecided["recall"] == 0.5 and undecided["precision"] == 1


def test_one_error_sees_the_order_only():
    labels = np.array([[0, 1], [1, 0]])
    scores = np.array([[0.2, 0.3], [5.0, 9.0]])
    assert one_error(scores, labels) == one_error(np.exp(scores), labels) == 0.5


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"labels: expected the shape of scores \[N, K\]"):
        one_error(np.zeros((3, 2)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="labels: expected only 0 and 1"):
        one_error(np.zeros((1, 2)), np.array([[0.5, 1]]))


def test_hypervolume_by_hand():
    assert hypervolume([[1, 3], [2, 1]], (4, 4)) == 1 * 1 + 2 * 3
    assert hypervolume([[1, 3], [2, 1], [3, 3]], (4, 4)) == 7  # a dominated point adds nothing
    assert hypervolume([[1, 3], [2, 1], [1, 3], [0, 4]], (4, 4)) == 7  # nor a copy, nor the border
    assert hypervolume([[5, 0]], (4, 4)) == hypervolume([], (4, 4)) == 0
    assert hypervolume([[-1, -1]], (0, 0)) == 1


grid = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=9)


@settings(deadline=None)
@given(grid, st.tuples(st.integers(1, 8), st.integers(1, 8)))
def test_hypervolume_against_counting_unit_squares(points, reference):
    squares = [(a, b) for a in range(reference[0]) for b in range(reference[1])]
    covered = sum(any(x <= a and y <= b for x, y in points) for a, b in squares)
    assert hypervolume(points, reference) == covered


@settings(deadline=None)
@given(grid, st.floats(0.1, 10), st.randoms())
def test_hypervolume_does_not_depend_on_order_and_scales_with_a_loss(points, factor, random):
    points = np.array(points, dtype=float)
    shuffled = points[random.sample(range(len(points)), len(points))]
    whole = hypervolume(points, (7.5, 7.5))
    assert hypervolume(shuffled, (7.5, 7.5)) == pytest.approx(whole)
    assert hypervolume(points[:, ::-1], (7.5, 7.5)) == pytest.approx(whole)
    scaled = hypervolume(points * [factor, 1], (7.5 * factor, 7.5))
    assert scaled == pytest.approx(factor * whole)


def test_hypervolume_refuses_bad_input():
    with pytest.raises(ValueError, match=r"points: expected two losses in each row, \[N, 2\]"):
        hypervolume([[1, 2, 3]], (1, 1))
    with pytest.raises(ValueError, match="reference: expected two numbers"):
        hypervolume([[1, 2]], (1, 1, 1))
    with pytest.raises(ValueError, match="expected finite numbers"):
        hypervolume([[np.nan, 2]], (1, 1))


# A published table (Cityscapes, two tasks with two metrics each; baseline, then methods with the
# delta_m that they print, in the opposite sign), from the repository of LDC-MTL.
CITYSCAPES = ([74.01, 93.16, 0.0125, 27.77], [True, True, False, False])
PUBLISHED = [
    ([75.18, 93.49, 0.0155, 46.77], 22.60),
    ([70.95, 91.73, 0.0161, 33.83], 14.11),
    ([72.02, 92.85, 0.0140, 30.13], 5.89),
    ([68.84, 91.54, 0.0309, 33.50], 44.14),
    ([74.53, 93.42, 0.0128, 26.79], -0.57),
]


@pytest.mark.parametrize(("values", "printed"), PUBLISHED)
def test_delta_m_of_a_published_table(values, printed):
    """To a tenth of a point, which is what the three digits of 0.0125 leave open."""
    assert delta_m(values, *CITYSCAPES) == pytest.approx(-printed, abs=0.1)


def test_delta_m_by_hand():
    assert delta_m([0.88, 3.0], [0.80, 2.5], [True, False]) == pytest.approx((10 - 20) / 2)
    assert delta_m([2.0], [2.0], np.array([False])) == 0
    turned = delta_m([0.88, 3.0], [0.80, 2.5], [False, True])
    assert turned == pytest.approx(5)


@pytest.mark.parametrize(
    ("values", "baseline", "higher", "message"),
    [
        ([1.0], [1.0, 2.0], [True], "expected K numbers, K numbers and K booleans"),
        ([1.0], [1.0], [1], "expected K numbers, K numbers and K booleans"),
        ([1.0], [0.0], [True], "a baseline above 0"),
        ([1.0], [-1.0], [True], "a baseline above 0"),
        ([np.nan], [1.0], [True], "expected finite numbers"),
    ],
)
def test_delta_m_refuses(values, baseline, higher, message):
    with pytest.raises(ValueError, match=message):
        delta_m(values, baseline, higher)


def test_examples():
    assert doctest.testmod(metrics).failed == 0
