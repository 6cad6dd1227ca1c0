"""Exercises of notebook 04."""

import math

from mtl_utils.exercises import Exercise

STEPS = math.log(10**2) / 0.001

EXERCISES = {
    "04.1": Exercise(
        answer=10**2 / (2 * 0.1**2),
        hint="Turn the formula round: what has N to be for an error of 0.1?",
        formula="Solve sigma / sqrt(2 N) = 0.1 for N, with sigma = 10.",
        praise="5000: fifty times as many as the published toy has",
        mistakes=(
            (10**2 / 0.1**2, "That is N for sigma / sqrt(N), the standard error of a mean."),
            (10 / (2 * 0.1), "N stands under a root: square both sides."),
        ),
    ),
    "04.2": Exercise(
        answer=math.ceil(STEPS / 5),
        hint="How long is the way, how far does a step go, and how many steps has an epoch?",
        formula="The way is log(100); a step covers at most 0.001; an epoch has 5 steps; round up.",
        praise="and that is with full-length steps; they shorten as the gradient fades",
        mistakes=(
            (STEPS / 5, "After 921 epochs it is not quite there: round up."),
            (STEPS, "Those are steps. An epoch has 5 of them."),
            (math.log(10) / 0.001 / 5, "What is learned is the log of sigma squared."),
            (5 * STEPS, "An epoch has 5 steps, so it takes fewer epochs than steps."),
        ),
        rtol=1e-4,
    ),
    "04.3": Exercise(
        answer=1 / (2 * 6**2),
        hint="Which sigma does the weighting learn: that of the noise, or that of the errors?",
        formula="sigma^2 is the loss, here the squared RMSE; the weight is 1 / (2 sigma^2).",
        praise="nearly three times the weight that noise of 10 gives: over-fitting feeds itself",
        mistakes=(
            (1 / 6**2, "Regression has a factor 1/2: the weight is 1 / (2 sigma^2)."),
            (1 / (2 * 10**2), "The weighting knows the training error only, not the true noise."),
            (1 / (2 * 6), "The loss is the mean squared error: square the RMSE."),
        ),
    ),
    "04.4": Exercise(
        answer=lambda c: c,
        at=((0.1,), (2.0,), (1000.0,)),
        hint="In which unit is sigma?",
        formula="sigma is the root mean square of the errors, and each error is multiplied by c.",
        praise="sigma has the unit of the target, so w L does not change with the unit",
        mistakes=(
            (lambda c: c**2, "That is the factor of the loss, sigma squared."),
            (lambda c: 1 / c**2, "That is the factor of the weight."),
            (lambda c: 2 * math.log(c), "That is what is added to s = log sigma^2."),
            (lambda c: 1.0, "It has learned the errors, and these have grown."),
        ),
    ),
}
