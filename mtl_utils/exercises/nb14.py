"""Exercises of notebook 14."""

import math

from mtl_utils.exercises import Exercise
from mtl_utils.extras import extra

with extra("notebooks"):
    from scipy import stats


def _with(law, spread: float, seeds: int) -> float:
    """Formula (4) of the notebook, with the quantiles of a distribution."""
    return float((law.ppf(0.975) + law.ppf(0.8)) * spread / math.sqrt(seeds))


def _detectable(spread: float, seeds: int) -> float:
    return _with(stats.t(seeds - 1), spread, seeds)


def _holm(p: list[float]) -> list[float]:
    """The smallest times their number, the next times one less, and so on, never falling."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    corrected, largest = [0.0] * len(p), 0.0
    for place, i in enumerate(order):
        largest = max(largest, (len(p) - place) * p[i])
        corrected[i] = min(1.0, largest)
    return corrected


def _largest(p: list[float], value: float) -> float:
    """Holm's for one of the values, not cut off at 1."""
    up_to = sorted(v for v in p if v <= value)
    return max((len(p) - place) * v for place, v in enumerate(up_to))


EXERCISES = {
    "14.1": Exercise(
        answer=-5.0,
        hint="One relative gain for each metric, with its sign, then the mean.",
        formula="The accuracy gains 10 %, the error loses 20 %; their mean.",
        praise="the loss in one metric is twice the gain in the other",
        mistakes=(
            (15.0, "A larger error is a loss: its sign is turned round."),
            (5.0, "That is the sign of the papers in which less is better; here more is better."),
            (-10.0, "Divide by the number of metrics."),
            (-0.05, "In per cent."),
        ),
    ),
    "14.2": Exercise(
        answer=[1.5, 1.75, 2.75],
        hint="Rank the rules within each data set, the least error first; then the mean by rule.",
        formula="Ranks 1 2 3, 2 1 3, 1 3 2 and 2 1 3 of A, B and C.",
        praise="and these are four data sets: the critical difference is 1.66",
        mistakes=(
            ([2.5, 2.25, 1.25], "Rank 1 is the least error."),
            ([1.0, 2.0, 3.0], "That is the rank of the mean error, not the mean of the ranks."),
        ),
    ),
    "14.3": Exercise(
        answer=2,
        hint="Sort them. By how many is the smallest multiplied, and by how many the next?",
        formula="5 x 0.004, 4 x 0.011, 3 x 0.02, ...; count those below 0.05, in order.",
        praise="without the correction there were four",
        mistakes=(
            (4, "Those are below 0.05 before the correction."),
            (1, "That is Bonferroni: every p times 5. Holm multiplies the next one by 4."),
            (3, "The third is multiplied by 3."),
        ),
    ),
    "14.4": Exercise(
        answer=_detectable,
        at=((1.0, 5), (0.02, 20), (3.0, 100)),
        hint="`stats.t(seeds - 1).ppf(...)` is a quantile of Student's t; (4) has two.",
        formula="(ppf(0.975) + ppf(0.8)) times the spread over the root of the seeds.",
        praise="four times the seeds see about half the difference",
        mistakes=(
            (
                lambda spread, seeds: float(
                    stats.t(seeds - 1).ppf(0.975) * spread / math.sqrt(seeds)
                ),
                "That is half of the interval: a difference of this size is found half of the time "
                "only.",
            ),
            (
                lambda spread, seeds: _with(stats.norm, spread, seeds),
                "The normal distribution knows the spread; yours is measured on few seeds, so take "
                "Student's t.",
            ),
            (
                lambda spread, seeds: _with(stats.t(seeds), spread, seeds),
                "Of n differences, n - 1 degrees of freedom are left.",
            ),
            (
                lambda spread, seeds: _detectable(spread, seeds) * math.sqrt(seeds),
                "The mean of n differences scatters less than one: divide by the root of n.",
            ),
        ),
    ),
    "14.5": Exercise(
        answer=0.5 * 0.5 * 0.5 + 0.8 * 0.2 * 0.5 - 0.5 * 0.2 * 0.5,
        hint="The box of each point, minus what both hold.",
        formula="Boxes of 0.5 x 0.5 x 0.5 and 0.8 x 0.2 x 0.5; they share 0.5 x 0.2 x 0.5.",
        praise="the second point adds 0.03, though its own box has 0.08",
        mistakes=(
            (0.125 + 0.08, "What lies in both boxes counts once."),
            (0.125, "The second point is not beaten in the first loss, so it adds something."),
        ),
    ),
    "14.6": Exercise(
        answer=_holm,
        at=(([0.01, 0.04, 0.03],), ([0.2, 0.001, 0.6, 0.02, 0.02],), ([0.9, 0.5, 0.6],)),
        hint="Sort, multiply by K, K - 1, ..., and let none fall below the one before it.",
        formula="In order of p: max of the value before and (K - place) p, at most 1.",
        praise="a table of thirty rules needs it before you believe one line of it",
        mistakes=(
            (
                lambda p: sorted(_holm(p)),
                "In the order in which they were given.",
            ),
            (
                lambda p: [_largest(p, v) for v in p],
                "A p-value is at most 1.",
            ),
            (
                lambda p: [min(1.0, len(p) * v) for v in p],
                "That is Bonferroni's: every p times their number.",
            ),
            (
                lambda p: [min(1.0, (len(p) - sum(other < v for other in p)) * v) for v in p],
                "A larger p may not come out smaller: keep the largest value so far.",
            ),
        ),
    ),
}
