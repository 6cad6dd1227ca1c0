"""Metrics that scikit-learn does not have under the name that the field uses."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from mtl_utils.extras import extra


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
    with extra("notebooks"):
        from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

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


def delta_m(values: ArrayLike, baseline: ArrayLike, higher: ArrayLike) -> float:
    """Mean relative gain over a baseline, in percent: above 0 the values are better.

        delta_m = 100 / K * sum of s_k (M_k - B_k) / B_k,    s_k = 1 where higher is better, else -1

    Args:
        values: M, what the multi-task model reaches, one metric for each task, [K].
        baseline: B, what single-task models of the same budget reach, [K], above 0.
        higher: for which tasks a higher value is better, booleans, [K].

    Raises:
        ValueError: shapes that differ, numbers that are not finite, or a baseline of 0 or less,
            where a relative gain means nothing.

    Source: Maninis, Radosavovic, Kokkinos, CVPR 2019, arXiv 1904.08918. The papers and code of
    Nash-MTL and FAMO print the opposite sign, so that lower is better there. A task with several
    metrics counts once: take the mean of its terms first.

    >>> round(delta_m([0.88, 3.0], [0.80, 2.5], [True, False]), 3)  # +10 % and -20 %
    -5.0
    """
    reached, single = np.asarray(values, dtype=float), np.asarray(baseline, dtype=float)
    up = np.asarray(higher)
    if reached.ndim != 1 or not reached.shape == single.shape == up.shape or up.dtype != bool:
        raise ValueError(
            "values, baseline, higher: expected K numbers, K numbers and K booleans, got shapes "
            f"{reached.shape}, {single.shape} and {up.shape} of {up.dtype}"
        )
    if not (np.isfinite(reached).all() and np.isfinite(single).all() and (single > 0).all()):
        raise ValueError(
            f"values, baseline: expected finite numbers and a baseline above 0, got {values!r} "
            f"and {baseline!r}"
        )
    return float(100 * (np.where(up, 1, -1) * (reached - single) / single).mean())


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """Area that a set of trade-offs between two losses dominates; higher is better.

    The area of all (a, b) below the reference for which some point has neither loss larger. Exact:
    a sum of rectangles. A point that is not below the reference in both losses adds nothing, nor
    does one that another point dominates.

    Args:
        points: [N, 2], both to be minimised (turn an accuracy into an error first). N may be 0.
        reference: [2], the worst losses that count; the value depends on it, so state it.

    Source: Zitzler, Thiele, IEEE Transactions on Evolutionary Computation 3, 1999.
    """
    points, corner = np.asarray(points, dtype=float), np.asarray(reference, dtype=float)
    if points.size == 0:
        points = points.reshape(0, 2)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"points: expected two losses in each row, [N, 2], got {points.shape}")
    if corner.shape != (2,):
        raise ValueError(f"reference: expected two numbers, got {reference!r}")
    if not (np.isfinite(points).all() and np.isfinite(corner).all()):
        raise ValueError("points, reference: expected finite numbers, got NaN or infinity")
    inside = points[(points < corner).all(1)]
    inside = inside[inside[:, 0].argsort()]
    widths = np.diff(np.append(inside[:, 0], corner[0]))  # from each point to the next
    lowest = np.minimum.accumulate(inside[:, 1])  # the second loss at best, up to here
    return float(widths @ (corner[1] - lowest))


def _pair(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.ndim != 2 or scores.shape != labels.shape:
        raise ValueError(
            f"labels: expected the shape of scores [N, K], {scores.shape}, got {labels.shape}"
        )
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels: expected only 0 and 1")
    return scores, labels
