"""Exercises of notebook 13."""

import math

import numpy as np

from mtl_utils.exercises import Exercise


def _smooth(losses: list[float], preference: list[float], mu: float) -> list[float]:
    """K preference_k softmax(preference L / mu)_k."""
    exponents = np.array(preference) * np.array(losses) / mu
    raw = np.exp(exponents - exponents.max())
    return list(len(losses) * np.array(preference) * raw / raw.sum())


FALL = -math.log(0.97)  # r, the rate at which the loss of 13.2 falls

EXERCISES = {
    "13.1": Exercise(
        answer=np.sqrt(4 * 0.25) / (2 * np.array([4, 0.25])),
        hint="The weight is the derivative of sqrt(L_1 L_2) in each loss.",
        formula="The weight is the geometric mean over K times the loss.",
        praise="weight times loss is 1/2 for both, as the geometric mean is 1",
        mistakes=(
            ([1 / 4, 1 / 0.25], "Those are the weights of the sum of logs. Divide by K."),
            ([2, 0.125], "That is the wrong formula of *Four lengths*: it favours large losses."),
        ),
    ),
    "13.2": Exercise(
        answer=1 - FALL / 0.05,
        hint="The weight runs after a moving target, and stays behind by a constant part.",
        formula="Formula (2), 1 - r / eta, with e^(-r) = 0.97.",
        praise="the task is heard at 39 % of its share for as long as its loss falls",
        mistakes=(
            (1 - 0.03 / 0.05, "Nearly: r is -log 0.97, which is not quite 0.03."),
            (1 - 2 * FALL / 0.05, "That is the share under uncertainty weighting."),
            (1.0, "It would be 1 if the loss stood still."),
        ),
    ),
    "13.3": Exercise(
        answer=[0.8, 0.2],
        hint="Which shares does FAMO start with, and which weights are these?",
        formula="The shares start equal, z = (1/2, 1/2); the weights are c z / L and sum to 1.",
        praise="in the ratio of 1/L, like the whole family",
        mistakes=(
            ([0.5, 0.5], "Those are the shares z. The weights are c z / L."),
            ([1, 0.25], "That is 1/L. FAMO's weights sum to 1."),
            ([0.2, 0.8], "In the other order: the larger loss gets the smaller weight."),
        ),
    ),
    "13.4": Exercise(
        answer=lambda eta: eta,
        at=((0.01,), (0.5,)),
        hint="How long is the step of gradient descent on log L, and how long has it to be?",
        formula="The gradient of log(theta^2) is 2 / theta. Solve theta - 2 eta / theta = -theta "
        "for theta^2.",
        praise="without a falling learning rate, a sum of logs does not fit below the rate itself",
        mistakes=(
            (lambda eta: eta**0.5, "That is theta; the loss is theta^2."),
            (lambda eta: 2 * eta, "There the step ends at 0. It has to reach -theta."),
            (lambda eta: eta / 2, "The derivative of log(theta^2) is 2 / theta."),
        ),
    ),
    "13.5": Exercise(
        answer=_smooth,
        at=(
            ([1.0, 0.7, 2.0], [0.2, 0.5, 0.3], 0.4),
            ([3.0, 1.0], [1.0, 1.0], 1.0),
            ([30.0, 1.0], [1.0, 0.5], 0.02),
        ),
        hint="The exponents are preference times loss over mu. Divide the exponentials by their "
        "sum, then multiply by what stands before the softmax.",
        formula="e_k = lambda_k L_k / mu; w_k = K lambda_k exp(e_k - max e) / sum_j exp(e_j - "
        "max e).",
        praise="the largest loss, times its preference, is the one that is heard",
        mistakes=(
            (
                lambda losses, preference, mu: [
                    v / len(losses) for v in _smooth(losses, preference, mu)
                ],
                "Those are the derivatives of (4). The package multiplies them by K.",
            ),
            (
                lambda losses, preference, mu: [
                    v / p for v, p in zip(_smooth(losses, preference, mu), preference, strict=True)
                ],
                "The chain rule gives one more factor, the preference.",
            ),
        ),
    ),
    "13.6": Exercise(
        answer=0.25,
        hint="Weight times loss is the geometric mean over K, for every task. How does it answer "
        "if one of four losses is multiplied by c?",
        formula="The length is multiplied by c^(1/K), so the slope is 1/K.",
        praise="and the direction does not turn at all",
        mistakes=(
            (0.2, "That is with five tasks, as in *Four lengths*. Here are four."),
            (1.0, "That is if all losses are multiplied by c."),
            (0.0, "That is the sum of logs, whose step does not grow with the losses."),
        ),
    ),
}
