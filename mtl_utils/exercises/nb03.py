"""Exercises of notebook 03."""

import math

from mtl_utils.exercises import Exercise


def _liebel_weight(loss: float) -> float:
    c2 = (loss + math.sqrt(loss**2 + 8 * loss)) / 4
    return 1 / (2 * c2)


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
        praise="9.21: at least 9210 steps of 0.001, and in practice more (the figure in Scale)",
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
        praise="yet the pull on the residuals is the same for Laplace and regression: see Laplace",
        mistakes=(
            ([0.5, 0.5, 0.5], "Two are right. The Laplace form has weight 1/b and no 1/2."),
            ([0.5, 1.0, 1.0], "For classification the optimum is sigma^2 = 2 CE, not CE."),
            ([1.0, 1.0, 1.0], "The Gaussian's 1/2 is missing in the first two."),
        ),
    ),
    "03.4": Exercise(
        answer=_liebel_weight(0.5) * 0.5,
        hint="First c^2 at the optimum, then the weight, then times the loss.",
        formula="c^2 = (L + sqrt(L^2 + 8 L)) / 4, weight 1 / (2 c^2), share weight * L.",
        praise="below 1/2: for small losses this regulariser gives a task less than its share",
        mistakes=(
            (_liebel_weight(0.5), "That is the weight. The share is weight times loss."),
            (0.5, "That is the share under uncertainty weighting, whose regulariser is log sigma."),
        ),
    ),
}
