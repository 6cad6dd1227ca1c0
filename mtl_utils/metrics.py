"""Metrics that scikit-learn does not have under the name that the field uses."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score


def one_error(scores: np.ndarray, labels: np.ndarray) -> float:
    """Share of samples whose top-scored label is wrong, in [0, 1]; lower is better.

    Args:
        scores: a score for each label, [N, K]; any increasing function of probability will do.
        labels: 0 or 1, [N, K].

    Source: Schapire, Singer, Machine Learning 39, 2000.
    """
    scores, labels = _pair(scores, labels)
    return float(1 - labels[np.arange(len(labels)), scores.argmax(1)].mean())


def multi_label_metrics(
    scores: np.ndarray, labels: np.ndarray, threshold: float = 0.0
) -> dict[str, float]:
    """The five usual metrics of multi-label classification, averaged over samples.

    Args:
        scores: logits, [N, K].
        labels: 0 or 1, [N, K].
        threshold: a label is predicted where its logit is above it.

    Returns:
        accuracy (size of intersection over union of the label sets), precision, recall, f1, and
        one_error; all in [0, 1]. A sample without predicted labels counts as precision 0.
    """
    scores, labels = _pair(scores, labels)
    predicted = (scores > threshold).astype(int)
    labels = labels.astype(int)
    options = {"average": "samples", "zero_division": 0}
    return {
        "accuracy": float(jaccard_score(labels, predicted, **options)),
        "precision": float(precision_score(labels, predicted, **options)),
        "recall": float(recall_score(labels, predicted, **options)),
        "f1": float(f1_score(labels, predicted, **options)),
        "one_error": one_error(scores, labels),
    }


def _pair(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.ndim != 2 or scores.shape != labels.shape:
        raise ValueError(
            f"labels: expected the shape of scores [N, K], {scores.shape}, got {labels.shape}"
        )
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels: expected only 0 and 1")
    return scores, labels
