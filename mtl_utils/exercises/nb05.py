"""Exercises of notebook 05."""

import math
from collections.abc import Sequence

from mtl_utils.exercises import Exercise

LEVEL = math.sqrt(0.1**2 + 0.1 * 0.5 * 3 + 0.25 * 3)  # mean square of 0.1 + 0.5 |x| up to 3
X, Z = (3.0, 1.0, 4.0, 2.0, 6.0, 5.0), (1.0, 0.5, -1.0, 1.5, -2.0, 3.0)


def _bin_means(x: Sequence[float], z: Sequence[float], n_bins: int) -> list[float]:
    """Mean of z in bins of equal size, by x."""
    by_x = [value for _, value in sorted(zip(x, z, strict=True))]
    size = len(by_x) // n_bins
    return [sum(by_x[k * size : (k + 1) * size]) / size for k in range(n_bins)]


def _squared_bin_means(x: Sequence[float], z: Sequence[float], n_bins: int) -> float:
    return sum(mean**2 for mean in _bin_means(x, z, n_bins)) / n_bins


EXERCISES = {
    "05.1": Exercise(
        answer=(2 / 0.5) ** 2,
        hint="Which of the two weighs more, and how does the weight depend on sigma?",
        formula="The weight is exp(-s) / 2 = 1 / (2 sigma^2). Divide the two.",
        praise="16: four times the sigma, a sixteenth of the weight",
        mistakes=(
            (2 / 0.5, "The weight goes with sigma squared."),
            ((0.5 / 2) ** 2, "That is the second one's factor. The quieter sample weighs more."),
        ),
    ),
    "05.2": Exercise(
        answer=math.sqrt(0.25),
        hint="z is too small. Is the predicted sigma too small or too large?",
        formula="z = (y - f) / sigma: if sigma is multiplied by c, z squared is divided by c^2.",
        praise="the head was too modest: half its sigma would do",
        mistakes=(
            (0.25, "That is the factor for sigma squared."),
            (2.0, "The other way round: z is too small, so sigma is too large."),
            (4.0, "z is too small, so sigma is too large; and z squared goes with 1 / sigma^2."),
        ),
    ),
    "05.3": Exercise(
        answer=math.sqrt(9) * 0.2,
        hint="Nine squares are summed, and log sigma is there once. What is L, and what is sigma?",
        formula="The best sigma^2 of exp(-s) L / 2 + s / 2 is L, and L = 9 * 0.2^2.",
        praise="three times too large, so the task gets a ninth of its weight",
        mistakes=(
            (0.2, "That needs 9 log sigma, or the mean of the squares."),
            (9 * 0.2, "sigma squared is 9 times too large, not sigma."),
            (9 * 0.2**2, "That is sigma squared."),
        ),
    ),
    "05.4": Exercise(
        answer=lambda beta: 100 ** (2 - 2 * beta),
        at=((0.0,), (0.25,), (0.5,), (1.0,)),
        hint="With which power of sigma does the pull on f go?",
        formula="The pull is (y - f) sigma^(2 beta - 2). Take the ratio for sigma 0.1 and 10.",
        praise="10000 under the likelihood, 100 at beta = 0.5, 1 at beta = 1",
        mistakes=(
            (
                lambda beta: 100 ** (1 - beta),
                "For beta = 0 the pull is (y - f) / sigma^2: the ratio is 100 squared.",
            ),
            (lambda beta: 100 ** (2 * beta - 2), "Upside down: the quieter one pulls harder."),
            (lambda beta: 100**2, "That is the likelihood, beta = 0."),
        ),
    ),
    "05.5": Exercise(
        answer=_squared_bin_means,
        at=((X, Z, 1), (X, Z, 2), (X, Z, 3), (X, Z, 6)),
        hint="Three steps: sort z by x, cut, and average twice. Where does the square belong?",
        formula="np.array(z)[np.argsort(x)].reshape(n_bins, -1), then .mean(1), square, .mean().",
        praise="0.62 for the trapped network, 0.13 for the good one, in twelve bins",
        mistakes=(
            (
                lambda x, z, n_bins: sum(v**2 for v in z) / len(z),
                "That is the mean of z squared. Average within a bin before you square.",
            ),
            (
                lambda x, z, n_bins: _squared_bin_means(range(len(x)), z, n_bins),
                "Sort by x before you cut: a bin is a neighbourhood.",
            ),
            (
                lambda x, z, n_bins: sum(_bin_means(x, z, n_bins)) / n_bins,
                "Square the mean of each bin: without, bins of both signs cancel.",
            ),
        ),
    ),
    "05.6": Exercise(
        answer=(LEVEL - 0.1) / 0.5,
        rtol=0.01,
        hint="First the height of the line: the root of the mean of (0.1 + 0.5 |x|) squared.",
        formula="The mean square is 0.01 + 0.1 * 1.5 + 0.25 * 3; set 0.1 + 0.5 |x| to its root.",
        praise="beyond it the constant head is too sure of itself, below it too modest",
        mistakes=(
            (1.5, "That is where the mean of the noise lies; its root mean square is larger."),
            (LEVEL, "That is the height of the line. At which |x| is the noise as large?"),
        ),
    ),
}
