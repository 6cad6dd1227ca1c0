"""Exercises of notebook 07."""

import math

from mtl_utils.exercises import Exercise


def _weight(kpi: float, gamma: float) -> float:
    """Formula (1) of the notebook."""
    return -((1 - kpi) ** gamma) * math.log(kpi)


def _ratio(p: float, kpi: float) -> float:
    """Weight of a finished task with a share p of wrong labels, over that of a clean one."""
    return _weight(1 - p, 2) / _weight(kpi, 2)


EXERCISES = {
    "07.1": Exercise(
        answer=_weight(0.6, 1) / _weight(0.8, 1),
        hint="(1) with gamma = 1: -(1 - KPI) log KPI, for both, then divide.",
        praise="4.6 times, for a KPI that is a quarter lower",
        mistakes=(
            (
                _weight(0.8, 1) / _weight(0.6, 1),
                "Upside down: the weight of the second task on top.",
            ),
            (math.log(0.6) / math.log(0.8), "That is with gamma = 0."),
            (_weight(0.6, 2) / _weight(0.8, 2), "That is with gamma = 2."),
        ),
    ),
    "07.2": Exercise(
        answer=0.1 * 0.05 / 2.0,
        hint="Under SGD only the product of weight and learning rate counts.",
        praise="40 times smaller: the schedule that DTP hides",
        mistakes=(
            (0.1 * 2.0 / 0.05, "Upside down: DTP's own weights have become smaller, not larger."),
            (0.1 * 0.05, "The normalised weights sum to 2, not to 1."),
            (0.1, "Under SGD the total weight acts as a learning rate; only Adam may cancel it."),
        ),
    ),
    "07.3": Exercise(
        answer=[_weight(1 / 2, 2), _weight(1 / 10, 2)],
        hint="Guessing among C classes is right in one of C cases; put 1/2 and 1/10 into (1).",
        praise="10.8 times the weight for knowing just as little",
        mistakes=(
            ([_weight(1 / 10, 2), _weight(1 / 2, 2)], "In the other order: 2 classes first."),
            ([math.log(2), math.log(10)], "That is with gamma = 0."),
            (_weight(1 / 10, 2) / _weight(1 / 2, 2), "Both weights, not their ratio."),
        ),
    ),
    "07.4": Exercise(
        answer=lambda given: all(
            math.isclose(given(p, kpi), _ratio(p, kpi))
            for p, kpi in ((0.4, 0.9), (0.1, 0.5), (0.7, 0.99))
        ),
        hint="The KPI of task 1 is 1 - p. Put both KPIs into (1) with gamma = 2 and divide; answer "
        "with a function of p and kappa.",
        praise="it has no bound as kappa goes to 1",
    ),
}
