"""Exercises of notebook 10."""

import math

import numpy as np

from mtl_utils.exercises import Exercise


def _alone(points: np.ndarray, beats) -> np.ndarray:
    """Which points no other one beats [N]."""
    return np.array([not any(beats(q, p) for q in points) for p in points])


def _dominates(q: np.ndarray, p: np.ndarray) -> bool:
    return bool((q <= p).all() and (q < p).any())


_rng = np.random.default_rng(10)  # points with ties and copies
_POINTS = [
    (_rng.integers(0, 5, size).astype(float),)
    for size in ((1, 2), (8, 2), (20, 2), (20, 3))
    for _ in range(5)
]

_LOWEST = math.degrees(math.atan2(1, 2 - math.exp(-4)))  # of the end that was at (0.98, 0)

EXERCISES = {
    "10.1": Exercise(
        answer=round(math.degrees(math.atan2(1.0, 3.0)) / 22.5),
        hint="At which angle do the losses stand, and which vector is nearest?",
        formula="The angle of (3, 1) is atan(1 / 3) = 18.4 degrees; rows count from 0.",
        praise="the nearest angle, and the length of L does not matter",
        mistakes=(
            (2, "Count from 0, as the rows of an array."),
            (22.5, "That is the angle of its vector; give its row."),
            (1 / 3, "That is the tangent of the angle of the losses; which vector is nearest?"),
            (0, "18.4 degrees is nearer to 22.5 than to 0."),
            (3, "That is the cone of (1, 3)."),
        ),
    ),
    "10.2": Exercise(
        answer=[0.6 - 0.0, 0.8 - 1.0],
        hint="In phase 1 the violated constraint alone gives the coefficients: (5).",
        formula="(5) with beta = 1 and no lambda: u_j - u_k, where k is the run and j the violated "
        "constraint.",
        praise="task 1 down, task 2 up: the losses turn towards (0, 1)",
        mistakes=(
            ([-0.6, 0.2], "That is u_k - u_j; the constraint is (u_j - u_k)'L <= 0."),
            ([0.5, 0.5], "Those are the weights of MGDA; in phase 1 the gradients are left out."),
            ([1.0, -1.0], "The difference of the vectors, not its signs."),
        ),
    ),
    "10.3": Exercise(
        answer=(0.4 - 0.2) * (1 - 0.7) + (0.7 - 0.4) * (1 - 0.3) + (1 - 0.7) * (1 - 0.1),
        hint="Draw the points: one of them adds nothing. Cut the area of the others into slabs.",
        formula="Sort the three by the first loss; each slab is 1 minus the first loss wide, and "
        "reaches down from the lowest second loss so far to its own.",
        praise="the dominated (0.5, 0.5) adds nothing",
        mistakes=(
            (
                0.8 * 0.3 + 0.6 * 0.7 + 0.3 * 0.9,
                "The three rectangles overlap; count each piece once.",
            ),
            (1 - 0.54, "That is what is not dominated."),
        ),
    ),
    "10.4": Exercise(
        answer=lambda points: _alone(points, _dominates),
        at=tuple(_POINTS),
        hint="When does one point dominate another? Think of ties, and of copies.",
        formula="A point is dominated if another has no loss larger and at least one smaller; a "
        "copy does not dominate. Return a boolean array [N].",
        praise="for any number of tasks",
        mistakes=(
            (
                lambda points: ~_alone(points, _dominates),
                "Those are the dominated ones; return the others.",
            ),
            (
                lambda points: _alone(points, lambda q, p: bool((q < p).all())),
                "One smaller loss is enough, if no other is larger.",
            ),
            (
                lambda points: np.flatnonzero(_alone(points, _dominates)),
                "Those are their places; return a boolean for each point.",
            ),
            (
                lambda points: np.zeros(len(points), bool),
                "A point does not dominate itself, nor a copy of itself.",
            ),
        ),
    ),
    "10.5": Exercise(
        answer=round((90 - _LOWEST) / 10) - round(_LOWEST / 10) + 1,
        hint="The two ends become (1, 1.98) and (1.98, 1). At which angles do they stand?",
        formula="atan(1 / 1.98) = 26.8 and atan(1.98 / 1) = 63.2 degrees; count the multiples of "
        "10 that are nearest to an angle between the two.",
        praise="six of the ten runs would have nowhere to go",
        mistakes=(
            (10, "That is the front as it was; its ends move to 26.8 and 63.2 degrees."),
            (2, "Those are the two cones that are left with 9 in place of 1."),
            (3, "26.8 degrees belongs to the cone of 30, 63.2 to that of 60."),
            (5, "26.8 degrees belongs to the cone of 30, 63.2 to that of 60."),
        ),
    ),
}
