"""Exercises of notebook 09."""

import numpy as np

from mtl_utils.exercises import Exercise
from mtl_utils.solvers import min_norm_point


def _inverse_squares(*lengths: float) -> list[float]:
    """Formula (4) of the notebook: weights for gradients at right angles."""
    raw = [1 / v**2 for v in lengths]
    return [v / sum(raw) for v in raw]


def _tells_right_from_wrong(given) -> bool:
    """Accepts the exact weights, refuses others: too even, one task only, negative, not summing
    to 1, a little of a long gradient."""
    long = np.array([[1.0, 0.0], [1000.0, 1000.0]])
    if given(long @ long.T, np.array([0.9995, 0.0005])):
        return False
    rng = np.random.default_rng(9)
    for n_tasks in (2, 3, 5):
        for scale in (1e-3, 1.0, 1e3):
            rows = scale * rng.normal(size=(n_tasks, 8)) * rng.uniform(0.5, 3.0, (n_tasks, 1))
            gramian = rows @ rows.T
            right = min_norm_point(gramian)
            worst = np.eye(n_tasks)[gramian.diagonal().argmax()]
            too_small = 0.5 * right
            negative = right + 0.5 * (np.eye(n_tasks)[0] - np.eye(n_tasks)[1])
            if right[1] > 0.5:
                negative = right + 0.7 * (np.eye(n_tasks)[1] - np.eye(n_tasks)[0])
            wrong = [0.9 * right + 0.1 * worst, worst, too_small]
            if negative.min() < 0:
                wrong.append(negative)
            if not given(gramian, right) or any(given(gramian, alpha) for alpha in wrong):
                return False
    return True


EXERCISES = {
    "09.1": Exercise(
        answer=4 / 10,
        hint="Formula (2): (g2 - g1).g2 over |g1 - g2|^2, with g2 - g1 = (-3, 1).",
        praise="the longer gradient gets less; both tasks are helped by |d|^2 = 0.4",
        mistakes=(
            (6 / 10, "That is the weight of g2."),
            (4 / 10**0.5, "The denominator is the squared length."),
        ),
    ),
    "09.2": Exercise(
        answer=_inverse_squares(1.0, 2.0, 5.0),
        hint="At right angles the weights are as 1 / |g|^2, formula (4), and sum to 1.",
        praise="five times the length, a twenty-fifth of the weight",
        mistakes=(
            ([10 / 17, 5 / 17, 2 / 17], "That is 1 / |g|; the lengths enter squared."),
            ([1.0, 1 / 4, 1 / 25], "Right proportions; now make them sum to 1."),
            (_inverse_squares(5.0, 2.0, 1.0), "The shortest gradient gets the most."),
        ),
    ),
    "09.3": Exercise(
        answer=_inverse_squares(1.0, 1000.0)[1],
        hint="Loss and gradient grow by 1000; then formula (4).",
        praise="a millionth, and nothing about the task has changed",
        mistakes=(
            (1 / 1001, "The length enters squared, formula (4)."),
            (_inverse_squares(1.0, 1000.0)[0], "That is the weight of the first task."),
            (_inverse_squares(1.0, 1e6)[1], "The absolute error grows by 1000, not by 1000^2."),
        ),
        rtol=1e-2,
    ),
    "09.4": Exercise(
        answer=_tells_right_from_wrong,
        hint="Weights of at least 0 that sum to 1, and (3): every (G alpha)_k at least alpha' G "
        "alpha, with a slack that is small beside |d| |g_k|.",
        praise="no solver to compare with is needed: (3) is enough",
    ),
}
