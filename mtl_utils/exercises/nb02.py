"""Exercises of notebook 02."""

from mtl_utils.exercises import Exercise

EXERCISES = {
    "02.1": Exercise(
        answer=1.6,
        hint="What does SGD do with the gradient? Only a product counts.",
        formula="A step is learning rate x coefficient x gradient: keep 20 x 0.08 the same.",
        praise="0.08 x 20: with SGD a coefficient is nothing but a learning rate",
        mistakes=(
            (20 / 0.08, "Turn it round: the smaller the coefficient, the smaller the steps."),
            (20, "With SGD the coefficient matters: this one makes every step 12.5 times shorter."),
        ),
    ),
    "02.2": Exercise(
        answer="adamw",
        hint="One of them puts the decay through the division by its running root mean square.",
        formula="Adam adds the decay to the gradient, before the division; AdamW takes it off the "
        "parameter afterwards.",
        praise="decoupled decay never meets the loss, so the coefficient cannot change its share",
        mistakes=(
            ("adam", "With coupled decay the coefficient changes the ratio of loss to decay."),
            ("both", "Only one of them: with the other, decay and loss meet in one gradient."),
        ),
    ),
    "02.3": Exercise(
        answer=[1 / 0.5, 1 / 8.0],
        hint="At the minimum the derivative in each weight is 0.",
        formula="The derivative of a L - log a in a is L - 1/a.",
        praise="a_k = 1 / L_k: twice the weights of uncertainty weighting",
        mistakes=(
            ([1 / (2 * 0.5), 1 / (2 * 8.0)], "No 1/2 here: d/da (a L - log a) = L - 1/a."),
            ([0.5, 8.0], "Upside down: the larger loss gets the smaller weight."),
        ),
    ),
    "02.4": Exercise(
        answer=lambda n: 1 / n,
        at=((7,), (28,)),
        hint="By how much does one-error change if one more sample is wrong?",
        formula="One-error is the share of samples whose top label is wrong: k of n.",
        praise="with 28 samples that is 3.57 %, the whole difference that the post reports",
        mistakes=(
            (lambda n: 100 / n, "In per cent, yes; give it as a share."),
            (lambda n: 2 / n, "One sample more or less is enough."),
            (lambda n: 1 / n**0.5, "That is how noise falls. This is about a single sample."),
        ),
    ),
}
