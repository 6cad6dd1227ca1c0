"""Exercises of notebook 02."""

import math

from mtl_utils.exercises import Exercise

# v at step t is (10 q + 1 - q) / (1 - q) after a gradient of 100 and then ones, with q = 0.999^t,
# and it has to be 4: q = 3 / 13
HALF_A_STEP = math.log(3 / 13) / math.log(0.999)


def _as_good(curve: list, point: tuple) -> int:
    """How many points of a curve are at least as good in both errors."""
    return sum(left <= point[0] and right <= point[1] for left, right in curve)


CURVE = [(0.11, 0.40), (0.14, 0.25), (0.18, 0.18), (0.30, 0.15)]

EXERCISES = {
    "02.1": Exercise(
        answer=1.6,
        hint="What does SGD do with the gradient? Only a product counts.",
        formula="A step is learning rate x coefficient x gradient: keep 20 x 0.08 the same.",
        praise="0.08 x 20: with SGD a coefficient is nothing but a learning rate",
        mistakes=(
            (20 / 0.08, "Turn it round: the smaller the coefficient, the smaller the steps."),
            (20, "With SGD the coefficient matters: this one makes every step 12.5 times shorter."),
        ),
    ),
    "02.2": Exercise(
        answer="adamw",
        hint="One of them puts the decay through the division by its running root mean square.",
        formula="Adam adds the decay to the gradient, before the division; AdamW takes it off the "
        "parameter afterwards.",
        praise="decoupled decay never meets the loss, so the coefficient cannot change its share",
        mistakes=(
            ("adam", "With coupled decay the coefficient changes the ratio of loss to decay."),
            ("both", "Only one of them: with the other, decay and loss meet in one gradient."),
        ),
    ),
    "02.3": Exercise(
        answer=[1 / 0.5, 1 / 8.0],
        hint="At the minimum the derivative in each weight is 0.",
        formula="The derivative of a L - log a in a is L - 1/a.",
        praise="a_k = 1 / L_k: twice the weights of uncertainty weighting",
        mistakes=(
            ([1 / (2 * 0.5), 1 / (2 * 8.0)], "No 1/2 here: d/da (a L - log a) = L - 1/a."),
            ([0.5, 8.0], "Upside down: the larger loss gets the smaller weight."),
        ),
    ),
    "02.4": Exercise(
        answer=lambda n: 1 / n,
        at=((7,), (28,)),
        hint="By how much does one-error change if one more sample is wrong?",
        formula="One-error is the share of samples whose top label is wrong: k of n.",
        praise="with 28 documents that is 0.0357, the whole difference that the post reports",
        mistakes=(
            (lambda n: 100 / n, "In per cent, yes; give it as a share."),
            (lambda n: 2 / n, "One sample more or less is enough."),
            (lambda n: 1 / n**0.5, "That is how noise falls. This is about a single sample."),
        ),
    ),
    "02.5": Exercise(
        answer=HALF_A_STEP,
        rtol=0.1,
        hint="m is 1 long before. How large has v to be, and what is left in it of 100^2?",
        formula="v = (10 q + 1 - q) / (1 - q) has to be 4, so q = 3 / 13 and t = ln q / ln 0.999.",
        praise="nearly 1500 steps, for a gradient that was there once",
        mistakes=(
            (1000, "By then it is 0.38. 1 / (1 - 0.999) is how long v remembers, about."),
            (math.log(0.5) / math.log(0.999), "That is where 0.999^t is a half, not the step."),
            (50, "There the step is shortest. It has to come back up."),
        ),
    ),
    "02.6": Exercise(
        answer=_as_good,
        at=((CURVE, (0.2, 0.2)), (CURVE, (0.13, 0.2)), (CURVE, (0.5, 0.5)), (CURVE, (0.14, 0.3))),
        hint="Go through the pairs; a pair counts if both its errors are at most those of `point`.",
        formula="Count the pairs with left <= point[0] and right <= point[1].",
        praise="a method that comes out at 0 lies beyond the curve of the weights that were tried",
        mistakes=(
            (
                lambda curve, point: sum(a <= point[0] or b <= point[1] for a, b in curve),
                "Both errors have to be at least as good, not one of them.",
            ),
            (
                lambda curve, point: sum(a >= point[0] and b >= point[1] for a, b in curve),
                "These are errors: less is better.",
            ),
            (
                lambda curve, point: sum(a < point[0] and b < point[1] for a, b in curve),
                "At least as good: a pair with the same error counts too.",
            ),
        ),
    ),
}
