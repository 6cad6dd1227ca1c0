"""Exercises of notebook 00."""

from mtl_utils.exercises import Exercise

EXERCISES = {
    "00.1": Exercise(
        answer=[2.0, 0.5],
        hint="The returned weight of a task is the derivative of the objective in its loss.",
        praise="a fixed weight is its own effective weight, whatever the losses are",
        mistakes=(
            ([0.8, 0.2], "Fixed weights are used as given: they are not divided by their sum."),
            ([8.0, 0.5], "That is weight times loss. The weight is the factor alone."),
        ),
    ),
    "00.2": Exercise(
        answer="gramian",
        hint="Look at the column `reads` of the table behind the map.",
        praise="MGDA needs the inner product of every pair of task gradients",
        mistakes=(
            ("gradients", "Close: but it needs how the gradients lie to each other, not one each."),
        ),
    ),
    "00.3": Exercise(
        answer=[2.0, 4.0],
        hint="The gradient of the weighted sum is 2 theta + 2 * 2 (theta - 3). Where is it 0?",
        praise="at theta = 2, nearer to the optimum of the task with the larger weight",
        mistakes=(
            ([1.5, 2.25], "That is the optimum for equal weights."),
            (
                [2.0, 1.0],
                "theta is right. Give the first loss, theta^2.",
            ),
        ),
    ),
}
