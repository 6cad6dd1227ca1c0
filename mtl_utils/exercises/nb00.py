"""Exercises of notebook 00."""

from mtl_utils.exercises import Exercise

EXERCISES = {
    "00.1": Exercise(
        answer=[2.0, 0.5],
        hint="The weight is what a loss is multiplied by. Does it depend on the losses here?",
        formula="Fixed weights are returned as they are given: [2, 0.5].",
        praise="a fixed weight is its own effective weight, whatever the losses are",
        mistakes=(
            ([0.8, 0.2], "Fixed weights are used as given: they are not divided by their sum."),
            ([8.0, 0.5], "That is weight times loss. The weight is the factor alone."),
        ),
    ),
    "00.2": Exercise(
        answer=("gramian", "gram matrix"),
        hint="Look for MGDA on the map: above its box stands what it reads.",
        formula="table[table.name == 'mgda'] shows the row of MGDA; its column is `reads`.",
        praise="MGDA needs the inner product of every pair of task gradients",
        mistakes=(
            ("gradients", "Close: but it needs how the gradients lie to each other, not one each."),
            ("losses", "MGDA never looks at the size of a loss, only at gradients."),
        ),
    ),
    "00.3": Exercise(
        answer=[2.0, 4.0],
        hint="Where it ends, the gradient of the weighted sum is 0.",
        formula="The gradient of the weighted sum is 2 theta + 2 * 2 (theta - 3).",
        praise="at theta = 2, nearer to the optimum of the task with the larger weight",
        mistakes=(
            ([1.5, 2.25], "That is the optimum for equal weights."),
            ([2.0, 1.0], "theta is right. Give the first loss, theta^2."),
            ([1.0, 1.0], "That is with the weights exchanged: the second task has weight 2."),
        ),
    ),
}
