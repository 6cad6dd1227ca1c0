"""Exercises of notebook 04."""

import itertools
import math
from collections.abc import Iterator

from mtl_utils.exercises import Exercise

STEPS = math.log(10**2) / 0.001


def _adam(loss: float, lr: float, s: float = 0.0, factor: float = 0.5) -> Iterator[float]:
    """s after each step of Adam along factor (1 - exp(-s) loss)."""
    m = v = 0.0
    for t in itertools.count(1):
        g = factor * (1 - math.exp(-s) * loss)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        s -= lr * m / (1 - 0.9**t) / math.sqrt(v / (1 - 0.999**t))
        yield s


def _s_after(loss: float, lr: float, steps: int) -> float:
    return next(itertools.islice(_adam(loss, lr), steps - 1, None))


def _sigma_after(loss: float, lr: float, steps: int) -> float:
    return math.exp(_s_after(loss, lr, steps) / 2)


def _steps_from_above(start: float, until: float, loss: float, lr: float) -> int:
    """Steps of Adam until sigma, which starts too large, is below `until`."""
    path = _adam(loss, lr, 2 * math.log(start))
    return next(t for t, s in enumerate(path, 1) if math.exp(s / 2) < until)


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
    "04.5": Exercise(
        answer=_sigma_after,
        at=((94.0, 0.001, 300), (94.0, 0.001, 2000), (4.0, 0.01, 200), (0.25, 0.01, 100)),
        hint="The steps of notebook 02, with s in the place of the parameter; sigma at the end.",
        formula="In each step g = (1 - exp(-s) L) / 2, then Adam's four lines; return exp(s / 2).",
        praise="with a loss of 94, 0.001 and 10,000 steps it returns 8.88: the lag of the toy",
        mistakes=(
            (_s_after, "That is s. Asked is sigma, exp(s / 2)."),
            (
                lambda loss, lr, steps: math.exp(_s_after(loss, lr, steps)),
                "That is sigma squared: s is its logarithm.",
            ),
            (
                lambda loss, lr, steps: 1 / _sigma_after(loss, lr, steps),
                "Has s gone the wrong way? A step goes against the gradient.",
            ),
        ),
    ),
    "04.6": Exercise(
        answer=_steps_from_above(100.0, 20.0, 94.0, 0.001),
        rtol=0.1,
        hint="Far above its place of rest the gradient hardly changes. What does Adam make of it?",
        formula="Adam's steps have full length there: from log 100^2 to log 20^2, 0.001 a step.",
        praise="from above there is no lag: the gradient stays near 1/2, so the steps stay long",
        mistakes=(
            (2 * math.log(5) / 0.0005, "Adam divides the gradient by its size: 1/2 becomes 1."),
            (math.log(5) / 0.001, "s is the logarithm of sigma squared."),
            (10_000, "That is from below. Which gradient does Adam remember here?"),
        ),
    ),
}
