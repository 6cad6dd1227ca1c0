"""Exercises of notebook 07."""

import math

from mtl_utils.exercises import Exercise


def _weight(kpi: float, gamma: float) -> float:
    """Formula (1) of the notebook."""
    return -((1 - kpi) ** gamma) * math.log(kpi)


def _weight_now(kpis: list[float], gamma: float, m: float) -> float:
    """Formula (1) of the moving average (2)."""
    mean = kpis[0]
    for kpi in kpis:
        mean = m * mean + (1 - m) * kpi
    return _weight(mean, gamma)


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
    "07.5": Exercise(
        answer=_weight_now,
        at=(
            ([0.3], 2.0, 0.9),
            ([0.2, 0.6, 0.7], 2.0, 0.9),
            ([0.5, 0.1], 0.0, 0.5),
            ([0.9, 0.4, 0.6, 0.8], 1.0, 0.7),
        ),
        hint="First the moving average of all KPIs, which begins with the first; then (1).",
        formula="mean = kpis[0]; for each kpi: mean = m mean + (1 - m) kpi. Then "
        "-(1 - mean)^gamma log(mean).",
        praise="seven lines for K tasks, five for one",
        mistakes=(
            (
                lambda kpis, gamma, m: _weight_now(kpis, gamma, 1 - m),
                "m is the share of the past, not of the new KPI.",
            ),
            (
                lambda kpis, gamma, m: _weight(kpis[-1], gamma),
                "That is the weight of the last KPI alone: (2) is missing.",
            ),
            (
                lambda kpis, gamma, m: _weight(sum(kpis) / len(kpis), gamma),
                "That is the weight of the plain mean: use (2).",
            ),
        ),
    ),
    "07.6": Exercise(
        answer=8.0,
        rtol=0.01,
        hint="Both factors of (1) shrink with the error. By how much does each differ?",
        formula="For small e the weight is e^gamma times e. So the quotient is 2^(gamma + 1).",
        praise="twice the error, eight times the weight, however good both are",
        mistakes=(
            (4.0, "That is (1 - KPI)^2 alone; the logarithm doubles, too."),
            (2.0, "That is the logarithm alone; (1 - KPI)^2 is there, too."),
            (1 / 8, "Upside down: the first task's weight on top."),
            (1.0, "Both go to 0, but not at the same pace."),
        ),
    ),
}
