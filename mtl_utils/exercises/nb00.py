"""Exercises of notebook 00."""

from mtl_utils.exercises import Exercise

EXERCISES = {
    "00.1": Exercise(
        answer=[2.0, 0.5],
        hint="The weight is what a loss is multiplied by. Does it depend on the losses here?",
        formula="Fixed weights are returned as they are given: [2, 0.5].",
        praise="fixed weights stay as you chose them, whatever the losses are",
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
    "00.4": Exercise(
        answer=(3 * 1.691 + 2.964) / 4,
        rtol=5e-3,
        hint="The weights of the losses are the weights of a mean.",
        formula="(3 * 1.69 + 1 * 2.96) / (3 + 1)",
        praise="weighted means again, as for theta",
        mistakes=(
            ((1.691 + 2.964) / 2, "That is with equal weights."),
            ((1.691 + 3 * 2.964) / 4, "That is with the weights exchanged: task 1 has weight 3."),
            (3 * 1.691 + 2.964, "Divide by the sum of the weights."),
        ),
    ),
    "00.5": Exercise(
        answer=lambda w1, w2: 3 * w2 / (w1 + w2),
        at=((1.0, 1.0), (1.0, 2.0), (3.0, 0.5)),
        hint="Start at 0, and in each step: gradients to zero, backward, step. Return a number.",
        formula="In the loop: optimizer.zero_grad(); (w1 * theta**2 + w2 * (theta - 3) ** 2)"
        ".backward(); optimizer.step(). At the end: return theta.item().",
        praise="and it ends at 3 w2 / (w1 + w2), the weighted mean of 0 and 3",
        mistakes=(
            (lambda w1, w2: 3 * w1 / (w1 + w2), "The weights are exchanged."),
            (lambda w1, w2: 1.5, "That does not depend on the weights: are they in the loss?"),
            (
                lambda w1, w2: 0.1 * 3 * w2,
                "That is one step. Is the loop there, and is the gradient set to zero within it?",
            ),
        ),
    ),
}
