"""Exercises of notebook 12."""

import numpy as np

from mtl_utils.exercises import Exercise

EXERCISES = {
    "12.1": Exercise(
        answer=(1 + 1.6 / 4, 1 + 1.6 / 1),
        hint="They conflict, so each gradient loses its part along the other.",
        formula="g_1' g_2 = -0.8 * 2 * 1 = -1.6; alpha_k = 1 - g_1' g_2 / |g_k|^2.",
        praise="the short gradient gets the larger coefficient",
        mistakes=(
            ((1 + 1.6, 1 + 0.4), "Swapped: what g_2 loses is a multiple of g_1, with 1 / |g_1|^2."),
            ((1.4 / 2, 2.6 / 2), "That is UPGrad, the mean: PCGrad adds."),
            ((1.0, 1.0), "The cosine is negative: they conflict."),
            ((1 - 0.4, 1 - 1.6), "The inner product is negative, so the coefficients grow."),
            ((1.2, 1.8), "An inner product is the cosine times both lengths, -1.6."),
        ),
    ),
    "12.2": Exercise(
        answer=lambda r: -1 / r,
        at=((1.0,), (2.0,), (5.0,)),
        hint="Which of the two is harmed first, and when is its product with the sum 0?",
        formula="Take |g_2| = 1 and |g_1| = r: g_2' (g_1 + g_2) = 1 + r times the cosine.",
        praise="with equal lengths the sum harms no one; a dominant gradient harms early",
        mistakes=(
            (
                lambda r: -r,
                "That is when task 1 is harmed, which no cosine brings about for r > 1.",
            ),
            (lambda r: 1 / r, "Mind the sign: 1 + r times the cosine is 0."),
            (lambda r: 0.0, "A conflict alone does not harm: the own gradient is in the sum, too."),
        ),
    ),
    "12.3": Exercise(
        answer=1 / np.sqrt(2 * float(np.finfo(np.float32).eps)),
        hint="What are the eigenvalues of the Gramian of two gradients at right angles?",
        formula="They are the squared lengths, in a ratio of 1 / r^2; set that to the tolerance.",
        praise="2048: output and target in millimetres instead of metres is half of the way there "
        "for an absolute error, and far beyond for a squared one",
        mistakes=(
            (1 / (2 * 2.0**-23), "Eigenvalues are squared lengths: take the root."),
            (1 / np.sqrt(2.0**-23), "The tolerance is twice 2^-23, as there are two tasks."),
        ),
    ),
}
