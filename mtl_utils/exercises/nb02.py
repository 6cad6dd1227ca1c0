"""Exercises of notebook 02."""

import math

from mtl_utils.exercises import Exercise

EXERCISES = {
    "02.1": Exercise(
        answer=1.6,
        hint="For SGD a coefficient on the loss and a factor on the learning rate are the same.",
        praise="0.08 x 20: with SGD a coefficient is nothing but a learning rate",
        mistakes=(
            (0.1 / 0.08, "Turn it round: the smaller the coefficient, the larger the rate."),
        ),
    ),
    "02.2": Exercise(
        answer="adamw",
        hint="Which of them adds the decay to the gradient, before the division, and which takes "
        "it off the parameter afterwards?",
        praise="decoupled decay never meets the loss, so the coefficient cannot change its share",
        mistakes=(
            ("adam", "With coupled decay the coefficient changes the ratio of loss to decay."),
        ),
    ),
    "02.3": Exercise(
        answer=[1 / 0.5, 1 / 8.0],
        hint="Minimise sum a_k L_k - sum log a_k over a_k: set the derivative in a_k to 0.",
        praise="a_k = 1 / L_k: twice the weights of uncertainty weighting",
        mistakes=(([1 / (2 * 0.5), 1 / (2 * 8.0)], "No 1/2 here: d/da (a L - log a) = L - 1/a."),),
    ),
    "02.4": Exercise(
        answer=lambda given: math.isclose(given(7), 1 / 7) and math.isclose(given(28), 1 / 28),
        hint="One-error is the share of samples whose top label is wrong. By how much does it "
        "change if one more sample is wrong?",
        praise="with 28 samples that is 3.57 %, the whole difference that the post reports",
    ),
}
