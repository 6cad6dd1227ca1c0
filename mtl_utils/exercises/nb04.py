"""Exercises of notebook 04."""

import math

from mtl_utils.exercises import Exercise

EXERCISES = {
    "04.1": Exercise(
        answer=10**2 / (2 * 0.1**2),
        hint="Solve sigma / sqrt(2 N) = 0.1 for N, with sigma = 10.",
        praise="5000: fifty times as many as the published toy has",
        mistakes=(
            (10**2 / 0.1**2, "That is N for sigma / sqrt(N), the standard error of a mean."),
        ),
    ),
    "04.2": Exercise(
        answer=math.log(10**2) / 0.001 / 5,
        hint="The way is log(100); a step covers at most 0.001; an epoch has 5 steps.",
        praise="and that is with full-length steps; they shorten as the gradient fades",
        mistakes=(
            (math.log(10**2) / 0.001, "Those are steps. An epoch has 5 of them."),
            (math.log(10) / 0.001 / 5, "What is learned is the log of sigma squared."),
        ),
        rtol=0.01,
    ),
    "04.3": Exercise(
        answer=1 / (2 * 6**2),
        hint="At the optimum sigma squared is the loss, here the squared RMSE; the weight is "
        "1 / (2 sigma^2).",
        praise="nearly three times the weight that noise of 10 gives: over-fitting feeds itself",
        mistakes=(
            (1 / 6**2, "Regression has a factor 1/2: the weight is 1 / (2 sigma^2)."),
            (1 / (2 * 10**2), "The weighting knows the training error only, not the true noise."),
            (1 / (2 * 6), "The loss is the mean squared error: square the RMSE."),
        ),
    ),
    "04.4": Exercise(
        answer=lambda given: all(math.isclose(given(c), c) for c in (0.1, 2.0, 1000.0)),
        hint="sigma is the root mean square of the errors. What does it do if every error is "
        "multiplied by c? Answer with a function of c.",
        praise="sigma has the unit of the target, so w L does not change with the unit",
    ),
}
