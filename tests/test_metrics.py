"""Multi-label metrics against counting by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl_utils.metrics import multi_label_metrics, one_error


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


@given(st.integers(1, 6), st.integers(2, 5), st.integers(0, 10_000))
def test_against_counting(n, k, seed):
    rng = np.random.default_rng(seed)
    scores, labels = rng.normal(size=(n, k)), (rng.random((n, k)) < 0.4).astype(float)
    found, wanted = multi_label_metrics(scores, labels, 0.1), by_counting(scores, labels, 0.1)
    assert found.keys() == wanted.keys()
    for key in wanted:
        assert found[key] == pytest.approx(wanted[key]), key


def test_one_error_sees_the_order_only():
    labels = np.array([[0, 1], [1, 0]])
    scores = np.array([[0.2, 0.3], [5.0, 9.0]])
    assert one_error(scores, labels) == one_error(np.exp(scores), labels) == 0.5


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"labels: expected the shape of scores \[N, K\]"):
        one_error(np.zeros((3, 2)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="labels: expected only 0 and 1"):
        one_error(np.zeros((1, 2)), np.array([[0.5, 1]]))
