"""Exercises of notebook 10."""

import math

import numpy as np

from mtl_utils.exercises import Exercise


def _finds_the_non_dominated(given) -> bool:
    """Accepts the definition, on random points with ties and copies."""
    rng = np.random.default_rng(10)
    for n_points, n_tasks in ((1, 2), (8, 2), (20, 2), (20, 3)):
        for _ in range(5):
            points = rng.integers(0, 5, (n_points, n_tasks)).astype(float)
            wanted = [not any((q <= p).all() and (q < p).any() for q in points) for p in points]
            mask = np.asarray(given(points.copy()))
            if mask.shape != (n_points,) or mask.dtype != bool or mask.tolist() != wanted:
                return False
    return True


EXERCISES = {
    "10.1": Exercise(
        answer=round(math.degrees(math.atan2(1.0, 3.0)) / 22.5),
        hint="The angle of (3, 1) is atan(1 / 3) = 18.4 degrees; the vectors stand at 0, 22.5, 45, "
        "67.5 and 90 degrees.",
        praise="the nearest angle, and the length of L does not matter",
        mistakes=(
            (2, "Count from 0, as the rows of an array."),
            (0, "18.4 degrees is nearer to 22.5 than to 0."),
            (3, "That is the cone of (1, 3)."),
        ),
    ),
    "10.2": Exercise(
        answer=[0.6 - 0.0, 0.8 - 1.0],
        hint="(6) with beta = 1 and no lambda: u_j - u_k, where k is the run and j the violated "
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
        hint="One of the four is dominated. Sort the others by the first loss; each rectangle "
        "reaches to the next one's first loss, the last to 1.",
        praise="the dominated (0.5, 0.5) adds nothing",
        mistakes=(
            (
                0.8 * 0.3 + 0.6 * 0.7 + 0.3 * 0.9,
                "The three rectangles overlap; count each piece once.",
            ),
        ),
    ),
    "10.4": Exercise(
        answer=_finds_the_non_dominated,
        hint="A point is dominated if another has no loss larger and at least one smaller; a copy "
        "of a point does not dominate it. Return a boolean array [N].",
        praise="for any number of tasks",
    ),
}
