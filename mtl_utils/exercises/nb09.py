"""Exercises of notebook 09."""

import math

import numpy as np

from mtl_utils.exercises import Exercise
from mtl_utils.solvers import min_norm_point


def _inverse_squares(*lengths: float) -> list[float]:
    """Formula (4) of the notebook: weights for gradients at right angles."""
    raw = [1 / v**2 for v in lengths]
    return [v / sum(raw) for v in raw]


def _in_simplex(G: np.ndarray, alpha: np.ndarray) -> bool:
    return bool(alpha.min() >= 0 and abs(alpha.sum() - 1) < 1e-6)


def _helps_all(G: np.ndarray, alpha: np.ndarray) -> bool:
    """Formula (3), with room for a solver's rounding."""
    square = max(alpha @ G @ alpha, 0.0)
    room = 1e-6 * np.sqrt(square * G.diagonal()) + 1e-13 * (np.abs(G) @ np.abs(alpha)).max()
    return bool((G @ alpha >= square - room).all())


def _cases() -> list[tuple[np.ndarray, np.ndarray]]:
    """Gramians with the exact weights, and with others: too even, one task only, not summing to 1,
    negative, a little of a long gradient."""
    long = np.array([[1.0, 0.0], [1000.0, 1000.0]])
    cases = [(long @ long.T, np.array([0.9995, 0.0005]))]
    rng = np.random.default_rng(9)
    for n_tasks in (2, 3, 5):
        for scale in (1e-3, 1.0, 1e3):
            rows = scale * rng.normal(size=(n_tasks, 8)) * rng.uniform(0.5, 3.0, (n_tasks, 1))
            G = rows @ rows.T
            right, worst = min_norm_point(G), np.eye(n_tasks)[G.diagonal().argmax()]
            free = np.linalg.solve(G, np.ones(n_tasks))  # (3) holds, some weights are negative
            others = [0.9 * right + 0.1 * worst, worst, 0.5 * right, free / free.sum()]
            cases += [(G, alpha) for alpha in (right, *others)]
    return cases


EXERCISES = {
    "09.1": Exercise(
        answer=4 / 10,
        hint="The shortest mixture is the foot of the altitude: formula (2).",
        formula="(2) is (g2 - g1).g2 over |g1 - g2|^2, with g2 - g1 = (-3, 1).",
        praise="the longer gradient gets less; both tasks are helped by |d|^2 = 0.4",
        mistakes=(
            (6 / 10, "That is the weight of g2."),
            (4 / 10**0.5, "The denominator is the squared length."),
            (0.5, "The lengths differ, so the shortest mixture is not the mean."),
        ),
    ),
    "09.2": Exercise(
        answer=_inverse_squares(1.0, 2.0, 5.0),
        hint="At right angles there is a formula, (4). The shortest gradient gets the most.",
        formula="The weights are as 1 / |g|^2, and sum to 1.",
        praise="five times the length, a twenty-fifth of the weight",
        mistakes=(
            ([10 / 17, 5 / 17, 2 / 17], "That is 1 / |g|; the lengths enter squared."),
            ([1.0, 1 / 4, 1 / 25], "Right proportions; now make them sum to 1."),
            (_inverse_squares(5.0, 2.0, 1.0), "The shortest gradient gets the most."),
        ),
    ),
    "09.3": Exercise(
        answer=_inverse_squares(1.0, 1000.0)[1],
        hint="What happens to the loss, and so to the length of its gradient?",
        formula="Loss and gradient grow by 1000; then formula (4).",
        praise="a millionth, and nothing about the task has changed",
        mistakes=(
            (1 / 1001, "The length enters squared, formula (4)."),
            (_inverse_squares(1.0, 1000.0)[0], "That is the weight of the first task."),
            (_inverse_squares(1.0, 1e6)[1], "The absolute error grows by 1000, not by 1000^2."),
            (0.5, "The gradient of an absolute error in a larger unit is as much longer."),
        ),
        rtol=1e-2,
    ),
    "09.4": Exercise(
        answer=lambda G, alpha: _in_simplex(G, alpha) and _helps_all(G, alpha),
        at=tuple(_cases()),
        hint="Two things: are these weights of a mixture, and does (3) hold for each task?",
        formula="Weights of at least 0 that sum to 1, and every (G alpha)_k at least alpha' G "
        "alpha, with a slack that is small beside |d| |g_k|.",
        praise="no solver to compare with is needed: (3) is enough",
        mistakes=(
            (_in_simplex, "That lets every point of the simplex pass; (3) is missing."),
            (_helps_all, "(3) alone lets weights pass that are negative or do not sum to 1."),
        ),
    ),
    "09.5": Exercise(
        answer=60.0,
        hint="The weight of g1 is 1 where g1 alone helps task 2 as much as task 1.",
        formula="That is where g1.g2 = |g1|^2, with g1.g2 = |g1| |g2| cos(angle).",
        praise="2 cos(60) = 1: from there on g1 alone is the shortest mixture",
        mistakes=(
            (90.0, "At a right angle (4) gives g1 four fifths."),
            (math.pi / 3, "In degrees, please."),
            (45.0, "That would be the angle for a g2 of length sqrt(2)."),
        ),
        rtol=3e-3,
    ),
}
