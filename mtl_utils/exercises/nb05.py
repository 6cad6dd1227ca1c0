"""Exercises of notebook 05."""

import math

from mtl_utils.exercises import Exercise

EXERCISES = {
    "05.1": Exercise(
        answer=(2 / 0.5) ** 2,
        hint="The weight is exp(-s) / 2 = 1 / (2 sigma^2). Divide the two.",
        praise="16: four times the sigma, a sixteenth of the weight",
        mistakes=(
            (2 / 0.5, "The weight goes with sigma squared."),
            (
                (0.5 / 2) ** 2,
                "That is the second one's factor. The quieter sample weighs more.",
            ),
        ),
    ),
    "05.2": Exercise(
        answer=math.sqrt(0.25),
        hint="z = (y - f) / sigma. If sigma is multiplied by c, what becomes of z squared?",
        praise="the head was too modest: half its sigma would do",
        mistakes=(
            (0.25, "That is the factor for sigma squared."),
            (2.0, "The other way round: z is too small, so sigma is too large."),
            (4.0, "z is too small, so sigma is too large; and z squared goes with 1 / sigma^2."),
        ),
    ),
    "05.3": Exercise(
        answer=math.sqrt(9) * 0.2,
        hint="The best sigma^2 of exp(-s) L / 2 + s / 2 is L. What is L, the sum of 9 squares?",
        praise="three times too large, so the task gets a ninth of its weight",
        mistakes=(
            (0.2, "That needs 9 log sigma, or the mean of the squares."),
            (9 * 0.2, "sigma squared is 9 times too large, not sigma."),
            (9 * 0.2**2, "That is sigma squared."),
        ),
    ),
    "05.4": Exercise(
        answer=lambda given: all(
            math.isclose(given(beta), 100 ** (2 - 2 * beta), rel_tol=1e-6)
            for beta in (0.0, 0.25, 0.5, 1.0)
        ),
        hint="The pull is (y - f) sigma^(2 beta - 2). Take the ratio for sigma 0.1 and 10.",
        praise="10000 under the likelihood, 100 at beta = 0.5, 1 at beta = 1",
        mistakes=(
            (
                lambda given: math.isclose(given(0.0), 100, rel_tol=1e-6),
                "For beta = 0 the pull is (y - f) / sigma^2: the ratio is 100 squared.",
            ),
        ),
    ),
}
