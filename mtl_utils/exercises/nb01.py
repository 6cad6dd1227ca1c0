"""Exercises of notebook 01."""

import math

from mtl_utils.exercises import Exercise

NOISE = 4 / 50  # sigma^2 / n of 01.1
DELTA = 0.2

EXERCISES = {
    "01.1": Exercise(
        answer=[(NOISE / 2 + DELTA**2 / 4) / NOISE, 2 * NOISE / DELTA**2],
        hint="Put a = 1/2 and a = 0 into (1) and divide; then formula (3).",
        praise="pooling saves 37.5 % of the error, and the best lambda, 4, comes close to pooling",
        mistakes=(
            ([0.5, 2 * NOISE / DELTA**2], "0.5 is the variance alone. Pooling also has a bias."),
            (
                [(NOISE / 2 + DELTA**2) / NOISE, 2 * NOISE / DELTA**2],
                "The bias is a delta = delta / 2, and it is squared.",
            ),
            (
                [(NOISE / 2 + DELTA**2 / 4) / NOISE, NOISE / DELTA**2],
                "There is a factor of 2 in (3): two tasks.",
            ),
        ),
    ),
    "01.2": Exercise(
        answer=[0.6 * 0.6, -0.8 * 0.6],
        hint="t is the step length times lambda. How long is the row?",
        praise="a row of length 1 is shortened by 0.4, and keeps its direction",
        mistakes=(
            ([0.2, -0.4], "That shortens each entry (the Lasso). Here the row is shortened."),
            ([0.6 * 0.2, -0.8 * 0.2], "That is t = lambda. Multiply by the step length."),
        ),
    ),
    "01.3": Exercise(
        answer=lambda given: all(math.isclose(given(lr), 5 * lr) for lr in (0.01, 0.3)),
        hint="The trunk gets the sum of the task gradients; what is the sum of five equal ones?",
        praise="if the gain is gone after that, it was the learning rate",
    ),
}
