"""Exercises of notebook 05."""

import math

from mtl_utils.exercises import Exercise

EXERCISES = {
    "05.1": Exercise(
        answer=(2 / 0.5) ** 2,
        hint="Which of the two weighs more, and how does the weight depend on sigma?",
        formula="The weight is exp(-s) / 2 = 1 / (2 sigma^2). Divide the two.",
        praise="16: four times the sigma, a sixteenth of the weight",
        mistakes=(
            (2 / 0.5, "The weight goes with sigma squared."),
            ((0.5 / 2) ** 2, "That is the second one's factor. The quieter sample weighs more."),
        ),
    ),
    "05.2": Exercise(
        answer=math.sqrt(0.25),
        hint="z is too small. Is the predicted sigma too small or too large?",
        formula="z = (y - f) / sigma: if sigma is multiplied by c, z squared is divided by c^2.",
        praise="the head was too modest: half its sigma would do",
        mistakes=(
            (0.25, "That is the factor for sigma squared."),
            (2.0, "The other way round: z is too small, so sigma is too large."),
            (4.0, "z is too small, so sigma is too large; and z squared goes with 1 / sigma^2."),
        ),
    ),
    "05.3": Exercise(
        answer=math.sqrt(9) * 0.2,
        hint="Nine squares are summed, and log sigma is there once. What is L, and what is sigma?",
        formula="The best sigma^2 of exp(-s) L / 2 + s / 2 is L, and L = 9 * 0.2^2.",
        praise="three times too large, so the task gets a ninth of its weight",
        mistakes=(
            (0.2, "That needs 9 log sigma, or the mean of the squares."),
            (9 * 0.2, "sigma squared is 9 times too large, not sigma."),
            (9 * 0.2**2, "That is sigma squared."),
        ),
    ),
    "05.4": Exercise(
        answer=lambda beta: 100 ** (2 - 2 * beta),
        at=((0.0,), (0.25,), (0.5,), (1.0,)),
        hint="With which power of sigma does the pull on f go?",
        formula="The pull is (y - f) sigma^(2 beta - 2). Take the ratio for sigma 0.1 and 10.",
        praise="10000 under the likelihood, 100 at beta = 0.5, 1 at beta = 1",
        mistakes=(
            (
                lambda beta: 100 ** (1 - beta),
                "For beta = 0 the pull is (y - f) / sigma^2: the ratio is 100 squared.",
            ),
            (lambda beta: 100 ** (2 * beta - 2), "Upside down: the quieter one pulls harder."),
            (lambda beta: 100**2, "That is the likelihood, beta = 0."),
        ),
    ),
}
