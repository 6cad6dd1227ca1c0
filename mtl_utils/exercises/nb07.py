"""Exercises of notebook 07."""

import math

from mtl_utils.exercises import Exercise


def _weight(kpi: float, gamma: float) -> float:
    """Formula (1) of the notebook."""
    return -((1 - kpi) ** gamma) * math.log(kpi)


EXERCISES = {
    "07.1": Exercise(
        answer=_weight(0.6, 1) / _weight(0.8, 1),
        hint="Formula (1) for both, then the second over the first.",
        formula="(1) with gamma = 1 is -(1 - KPI) log KPI.",
        praise="4.6 times, for a KPI that is a quarter lower",
        mistakes=(
            (_weight(0.8, 1) / _weight(0.6, 1), "Upside down: the second task's weight on top."),
            (math.log(0.6) / math.log(0.8), "That is with gamma = 0."),
            (_weight(0.6, 2) / _weight(0.8, 2), "That is with gamma = 2."),
        ),
    ),
    "07.2": Exercise(
        answer=0.1 * 0.05 / 2.0,
        hint="Under SGD only a product counts. Which one has to stay the same?",
        formula="Learning rate x total weight: 0.1 x 0.05 = new rate x 2.",
        praise="40 times smaller: the schedule that DTP hides",
        mistakes=(
            (0.1 * 2.0 / 0.05, "Upside down: DTP's own weights have become smaller, not larger."),
            (0.1 * 0.05, "The normalised weights sum to 2, not to 1."),
            (0.1, "Under SGD the total weight acts as a learning rate; only Adam may cancel it."),
        ),
    ),
    "07.3": Exercise(
        answer=[_weight(1 / 2, 2), _weight(1 / 10, 2)],
        hint="How often is a guess among C classes right?",
        formula="The KPIs are 1/2 and 1/10; put both into (1) with gamma = 2.",
        praise="10.8 times the weight for knowing just as little",
        mistakes=(
            ([_weight(1 / 10, 2), _weight(1 / 2, 2)], "In the other order: 2 classes first."),
            ([math.log(2), math.log(10)], "That is with gamma = 0."),
            ([_weight(1 / 2, 1), _weight(1 / 10, 1)], "That is with gamma = 1."),
        ),
    ),
    "07.4": Exercise(
        answer=lambda p, kappa: _weight(1 - p, 2) / _weight(kappa, 2),
        at=((0.4, 0.9), (0.1, 0.5), (0.7, 0.99)),
        hint="Which KPI does a task end with whose labels are wrong in a share p of the cases?",
        formula="The KPI of task 1 is 1 - p. Put both KPIs into (1) with gamma = 2 and divide.",
        praise="it has no bound as kappa goes to 1",
        mistakes=(
            (
                lambda p, kappa: _weight(p, 2) / _weight(kappa, 2),
                "The KPI of task 1 is 1 - p: that share of the labels it gets right.",
            ),
            (
                lambda p, kappa: _weight(kappa, 2) / _weight(1 - p, 2),
                "Upside down: task 1 over task 2.",
            ),
            (
                lambda p, kappa: _weight(1 - p, 1) / _weight(kappa, 1),
                "That is with gamma = 1.",
            ),
        ),
    ),
}
