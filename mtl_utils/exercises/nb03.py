"""Exercises of notebook 03."""

import math

from mtl_utils.exercises import Exercise


def _liebel_weight(loss: float) -> float:
    c2 = (loss + math.sqrt(loss**2 + 8 * loss)) / 4
    return 1 / (2 * c2)


def _weight_after(loss: float, lr: float, steps: int) -> float:
    s = 0.0
    for _ in range(steps):
        s -= lr * 0.5 * (1 - math.exp(-s) * loss)
    return 0.5 * math.exp(-s)


def _steps_down(s: float, until: float, lr: float) -> int:
    """Steps of gradient descent on (4) with L = 1, from s on, until s is below `until`."""
    steps = 0
    while s >= until:
        s -= lr * 0.5 * (1 - math.exp(-s))
        steps += 1
    return steps


EXERCISES = {
    "03.1": Exercise(
        answer=[1 / (2 * 4.0), 1 / (2 * 0.25)],
        hint="What is s at the optimum of (4), and which weight is that?",
        formula="At the optimum s = log L, so the weight exp(-s)/2 is 1 / (2 L).",
        praise="and weight times loss is 1/2 for both",
        mistakes=(
            ([1 / 4.0, 1 / 0.25], "You have left out the 1/2 of the Gaussian."),
            ([1 / (2 * 16.0), 1 / (2 * 0.0625)], "L is already sigma squared: do not square it."),
            ([2.0, 0.125], "In the other order: the larger loss gets the smaller weight."),
        ),
    ),
    "03.2": Exercise(
        answer=2 * math.log(100),
        hint="By which factor does the squared loss grow, and what is s at the optimum?",
        formula="Errors grow by 100, the squared loss by 100^2, and s = log L.",
        praise="9.21: at least 9210 steps of 0.001, and in practice more: see A new unit",
        mistakes=(
            (math.log(100), "The loss is a squared error: it grows by 100^2."),
            (math.log(100) / 2, "The loss grows by 100^2, and s is the log of the loss."),
            (100**2, "That is the factor of the loss; s is its logarithm."),
            (4, "Natural logarithms, please."),
        ),
    ),
    "03.3": Exercise(
        answer=[0.5, 0.5, 1.0],
        hint="Put each optimum into its weight, then multiply by the loss.",
        formula="sigma^2 = L with weight 1/(2 sigma^2); sigma^2 = 2 CE with weight 1/sigma^2; "
        "b = L with weight 1/b.",
        praise="yet (4) and (6) pull equally hard on the residuals: see the research notebook",
        mistakes=(
            ([0.5, 0.5, 0.5], "Two are right. The Laplace form has weight 1/b and no 1/2."),
            ([0.5, 1.0, 1.0], "For classification the optimum is sigma^2 = 2 CE, not CE."),
            ([1.0, 1.0, 1.0], "The Gaussian's 1/2 is missing in the first two."),
        ),
    ),
    "03.4": Exercise(
        answer=_liebel_weight(0.5) * 0.5,
        hint="The derivative of log(1 + u) is 1 / (1 + u). Solve for u, then weight, then share.",
        formula="2 u^2 - L u - L = 0, so u = (L + sqrt(L^2 + 8 L)) / 4; the share is L / (2 u).",
        praise="below 1/2: for small losses this regulariser gives a task less than its share",
        mistakes=(
            (_liebel_weight(0.5), "That is the weight. The share is weight times loss."),
            (0.5, "That is the share under uncertainty weighting, whose regulariser is log sigma."),
        ),
    ),
    "03.5": Exercise(
        answer=_weight_after,
        at=((4.0, 0.1, 1), (4.0, 0.1, 3), (0.25, 0.5, 3), (1.5, 0.3, 5)),
        hint="Start with s = 0. In each step take the learning rate times the gradient in (4) off.",
        formula="s <- s - lr (1 - exp(-s) L) / 2, `steps` times; then return exp(-s) / 2.",
        praise="and after many steps it returns 1 / (2 L)",
        mistakes=(
            (
                lambda loss, lr, steps: 2 * _weight_after(loss, lr, steps),
                "You have left out the 1/2 of the weight.",
            ),
            (
                lambda loss, lr, steps: -math.log(2 * _weight_after(loss, lr, steps)),
                "That is s. Asked is the weight, exp(-s) / 2.",
            ),
            (
                lambda loss, lr, steps: _weight_after(loss, -lr, steps),
                "You walk uphill: take the gradient off, do not add it.",
            ),
            (
                lambda loss, lr, steps: _weight_after(loss, 2 * lr, steps),
                "The 1/2 in the gradient is missing.",
            ),
        ),
    ),
    "03.6": Exercise(
        answer=_steps_down(10.0, 1.0, 0.1),
        rtol=0.1,
        hint="On the gentle slope the gradient is nearly constant. How long is a step?",
        formula="From 10 to 1 the gradient is near 1/2, so a step is near 0.05: 9 / 0.05.",
        praise="a straight line down, and only at the end a bend: 190 steps",
        mistakes=(
            (90, "The gradient on the slope is 1/2, not 1."),
            (18, "That is for a learning rate of 1."),
            (45, "The slope halves the step, it does not double it."),
        ),
    ),
}
