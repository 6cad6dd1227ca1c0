"""Exercises of notebook 03."""

import math

from mtl_utils.exercises import Exercise


def _liebel_weight(loss: float) -> float:
    c2 = (loss + math.sqrt(loss**2 + 8 * loss)) / 4
    return 1 / (2 * c2)


EXERCISES = {
    "03.1": Exercise(
        answer=[1 / (2 * 4.0), 1 / (2 * 0.25)],
        hint="At the optimum s = log L, so the weight exp(-s)/2 is 1 / (2 L).",
        praise="and weight times loss is 1/2 for both",
        mistakes=(
            ([1 / 4.0, 1 / 0.25], "You have left out the 1/2 of the Gaussian."),
            ([1 / (2 * 16.0), 1 / (2 * 0.0625)], "L is already sigma squared: do not square it."),
        ),
    ),
    "03.2": Exercise(
        answer=2 * math.log(100),
        hint="Metres to centimetres: errors grow by 100, the squared loss by 100^2. s = log L.",
        praise="9.2: at least 9210 steps of 0.001, and in practice more (the figure in Scale)",
        mistakes=(
            (math.log(100), "The loss is a squared error: it grows by 100^2."),
            (math.log(100) / 2, "The loss grows by 100^2, and s is the log of the loss."),
        ),
    ),
    "03.3": Exercise(
        answer=[0.5, 0.5, 1.0],
        hint="Put each optimum into its weight: sigma^2 = L with weight 1/(2 sigma^2), "
        "sigma^2 = 2 CE with weight 1/sigma^2, b = L with weight 1/b.",
        praise="yet the pull on the residuals is the same for Laplace and regression: see Laplace",
        mistakes=(
            ([0.5, 0.5, 0.5], "Two are right. The Laplace form has weight 1/b and no 1/2."),
            ([0.5, 1.0, 1.0], "For classification the optimum is sigma^2 = 2 CE, not CE."),
        ),
    ),
    "03.4": Exercise(
        answer=_liebel_weight(0.5) * 0.5,
        hint="c^2 = (L + sqrt(L^2 + 8 L)) / 4, weight 1 / (2 c^2), share weight * L.",
        praise="below 1/2: for small losses this regulariser gives a task less than its share",
        mistakes=((_liebel_weight(0.5), "That is the weight. The share is weight times loss."),),
    ),
}
