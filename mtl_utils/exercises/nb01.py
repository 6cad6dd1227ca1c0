"""Exercises of notebook 01."""

from mtl_utils.exercises import Exercise

NOISE = 4 / 50  # sigma^2 / n of 01.1
DELTA = 0.2
POOLED = (NOISE / 2 + DELTA**2 / 4) / NOISE

EXERCISES = {
    "01.1": Exercise(
        answer=[POOLED, 2 * NOISE / DELTA**2],
        hint="Pooling halves the variance and adds a bias: formula (1). And (3) gives lambda.",
        formula="Put a = 1/2 and a = 0 into (1) and divide; lambda is 2 (sigma^2 / n) / delta^2.",
        praise="pooling saves 37.5 % of the error, and the best lambda, 4, comes close to pooling",
        mistakes=(
            ([0.5, 2 * NOISE / DELTA**2], "0.5 is the variance alone. Pooling also has a bias."),
            (
                [(NOISE / 2 + DELTA**2) / NOISE, 2 * NOISE / DELTA**2],
                "The bias is a delta = delta / 2, and it is squared.",
            ),
            ([POOLED, NOISE / DELTA**2], "There is a factor of 2 in (3): two tasks."),
        ),
    ),
    "01.2": Exercise(
        answer=[0.6 * 0.6, -0.8 * 0.6],
        hint="The row keeps its direction and loses length. How long is it, and how much goes?",
        formula="The row has length 1 and loses t = 0.5 * 0.8 of it: multiply it by 1 - 0.4.",
        praise="a row of length 1 is shortened by 0.4, and keeps its direction",
        mistakes=(
            ([0.2, -0.4], "That shortens each entry (the Lasso). Here the row is shortened."),
            ([0.6 * 0.2, -0.8 * 0.2], "That is t = lambda. Multiply by the step length."),
        ),
    ),
    "01.3": Exercise(
        answer=lambda lr: 5 * lr,
        at=((0.01,), (0.3,)),
        hint="What else changes in the trunk's step when there are five tasks in place of one?",
        formula="The trunk gets the sum of five equal gradients, a step five times as long.",
        praise="if the gain is gone after that, it was the learning rate",
        mistakes=(
            (lambda lr: lr, "At the same rate the trunk of the five tasks still moves further."),
            (lambda lr: lr / 5, "Turn it round: the single task has to catch up with the five."),
            (lambda lr: 25 * lr, "The gradients add; their length grows by 5, not by 5^2."),
        ),
    ),
}
