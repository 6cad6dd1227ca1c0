"""Exercises of notebook 12."""

import numpy as np

from mtl_utils.exercises import Exercise


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def _corrected(a1: np.ndarray, a2: np.ndarray, b1: np.ndarray, b2: np.ndarray) -> float:
    """The cosine of two tasks, each on two batches, without the noise of the batches."""
    measured = (_cosine(a1, b2) + _cosine(a2, b1)) / 2
    return measured / np.sqrt(_cosine(a1, a2) * _cosine(b1, b2))


_BATCHES = (  # a1, a2, b1, b2
    tuple(map(np.array, ([1.0, 0.2, 0.0], [1.0, 0.0, 0.3], [-0.5, 1.0, 0.2], [-0.6, 0.8, 0.0]))),
    tuple(map(np.array, ([2.0, 1.0, 0.5], [1.5, 2.0, 0.0], [1.0, 0.0, 1.0], [2.0, 1.0, 3.0]))),
)

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
        praise="2048. A target alone in millimetres leaves the gradient of an absolute error as it "
        "was; output and target together make it 1000 times as long, and that of a squared error a "
        "million times: far beyond",
        mistakes=(
            (1 / (2 * 2.0**-23), "Eigenvalues are squared lengths: take the root."),
            (1 / np.sqrt(2.0**-23), "The tolerance is twice 2^-23, as there are two tasks."),
        ),
    ),
    "12.4": Exercise(
        answer=0.1,
        hint="Which of |g_1|, the cosine and the direction of d change?",
        formula="alpha_k = beta / |g_k|, and beta = 1 / sqrt(1 + cosine) stays.",
        praise="and alpha_1 g_1, its part of the update, stays as it was",
        mistakes=(
            (10.0, "That is what happens to g_1. The product alpha_1 g_1 stays as it was."),
            (1.0, "The update stays; its coefficient has to make up for the longer gradient."),
            (0.01, "The gradient is 10 times as long, its square 100 times."),
        ),
    ),
    "12.5": Exercise(
        answer=1 / np.sqrt(5),
        hint="All the help goes to task 2, so d = g_0 + c |g_0| g_2 / |g_2|. What is its gain?",
        formula="g_2' g_0 + c |g_0| |g_2| = -1 + c sqrt(2.5) sqrt(2) = 0.",
        praise="a straight line: just above the default of 0.4, and below the 0.5 of the toy",
        mistakes=(
            (1 / np.sqrt(2.5), "The gain of the help is c |g_0| times |g_2|, which is sqrt(2)."),
            (1 / np.sqrt(2), "The radius is a share of |g_0| = sqrt(2.5), not of 1."),
            (0.5, "That is enough; asked is from where on."),
            (0.4, "There the gain of task 2 is -0.106: see the table."),
        ),
    ),
    "12.6": Exercise(
        answer=_corrected,
        at=tuple(_BATCHES),
        hint="Four cosines: a1 with b2, a2 with b1, a1 with a2, b1 with b2. Which divide?",
        formula="(cos(a1, b2) + cos(a2, b1)) / 2 / sqrt(cos(a1, a2) cos(b1, b2)).",
        praise="over many batches take the mean of each cosine first, and the ratio last",
        mistakes=(
            (
                lambda a1, a2, b1, b2: _corrected(a1, a2, b2, b1),
                "You took the tasks on one batch, whose noise is common: a1 goes with b2.",
            ),
            (
                lambda a1, a2, b1, b2: (_cosine(a1, b2) + _cosine(a2, b1)) / 2,
                "That is the measured cosine, without the correction.",
            ),
            (
                lambda a1, a2, b1, b2: (
                    (_cosine(a1, b2) + _cosine(a2, b1)) / 2 / _cosine(a1, a2) / _cosine(b1, b2)
                ),
                "The root is missing: each task's cosine counts half.",
            ),
        ),
    ),
}
