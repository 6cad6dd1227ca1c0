"""Exercises of notebook 06."""

import math

from mtl_utils.exercises import Exercise


def _weights(ratios: tuple[float, ...], temperature: float = 2.0) -> list[float]:
    """Formula (2) of the notebook."""
    scores = [math.exp(r / temperature) for r in ratios]
    return [len(ratios) * score / sum(scores) for score in scores]


def _pair(n: float, temperature: float = 2.0) -> list[float]:
    """Weights of a task that halves every 1000 steps, and of one that stands still."""
    return _weights((0.5 ** (n / 1000), 1.0), temperature)


def _from_losses(before: list[float], last: list[float], temperature: float) -> list[float]:
    """Weights after two epochs; a task whose earlier loss is 0 counts as unchanged."""
    pairs = zip(before, last, strict=True)
    return _weights(tuple(now / then if then > 0 else 1.0 for then, now in pairs), temperature)


EXERCISES = {
    "06.1": Exercise(
        answer=_weights((0.5, 0.9, 1.0)),
        hint="First by how much each loss fell in the last epoch, as a ratio; then (2).",
        formula="Last loss over the one before: 0.5, 0.9, 1. Then 3 exp(r / 2) / sum.",
        praise="the size of the losses does not matter, 0.4 and 0.4 is a ratio of 1",
        mistakes=(
            (_weights((2.0, 1 / 0.9, 1.0)), "Upside down: the later loss over the earlier one."),
            (_weights((0.5, 0.9, 1.0), 1.0), "That is with T = 1."),
            ([w / 3 for w in _weights((0.5, 0.9, 1.0))], "The weights sum to K = 3, not to 1."),
        ),
    ),
    "06.2": Exercise(
        answer=1 / math.log(10),
        hint="If no loss rises, how large and how small can a ratio be? Which weights are these?",
        formula="By (3) the largest ratio of two weights is exp(1 / T).",
        praise="0.434: below it (3) allows more than a factor of 10",
        mistakes=(
            (math.log(10), "Upside down: exp(1 / T) = 10."),
            (1 / math.log10(10), "exp is to the base e: natural logarithm."),
        ),
    ),
    "06.3": Exercise(
        answer=_weights((4.5 / 5.0, 1.0))[0],
        hint="Which numbers does DWA see, the learnable part or the whole loss?",
        formula="The loss that DWA sees is the sum: it fell from 5.0 to 4.5.",
        praise="without the noise it would be 0.876: a floor hides speed",
        mistakes=(
            (_weights((0.5, 1.0))[0], "DWA cannot see the learnable part; add the noise to both."),
            (_weights((4.5 / 5.0, 1.0))[1], "That is the weight of the other task."),
        ),
    ),
    "06.4": Exercise(
        answer=lambda n: _pair(n)[1],
        at=((1,), (250,), (1000,), (9000,)),
        hint="What has become of the fast loss after n steps? The slow one has a ratio of 1.",
        formula="The ratios are 0.5 ** (n / 1000) and 1. Put both into (2), with K = 2 and T = 2.",
        praise="from 1 for short epochs to 1.245 for long ones: the length of an epoch is a second "
        "temperature",
        mistakes=(
            (lambda n: _pair(n)[0], "That is the weight of the fast task."),
            (lambda n: _pair(n, 1.0)[1], "That is with T = 1."),
            (lambda n: _pair(n)[1] / 2, "The weights sum to K = 2, not to 1."),
        ),
    ),
    "06.5": Exercise(
        answer=_from_losses,
        at=(
            ([2.0, 1.0], [1.0, 0.9], 2.0),
            ([1.0, 3.0, 0.5], [0.5, 3.0, 0.4], 0.5),
            ([0.0, 1.0], [0.5, 0.9], 1.0),
        ),
        hint="First (1), with a ratio of 1 where the earlier loss is 0; then (2).",
        formula="r = last / before, or 1 if before is 0. Then K exp(r / T) over the sum of "
        "all exp(r / T).",
        praise="and that is the whole method",
        mistakes=(
            (
                lambda before, last, temperature: [
                    w / len(before) for w in _from_losses(before, last, temperature)
                ],
                "The weights sum to K, not to 1.",
            ),
            (
                lambda before, last, temperature: _from_losses(before, last, 1 / temperature),
                "Divide the ratio by T, do not multiply.",
            ),
        ),
    ),
    "06.6": Exercise(
        answer=_weights((1.0, 0.5), 0.2)[1],
        hint="To which two numbers do the ratios of the two tasks go?",
        formula="The ratios go to 1 and 0.5. Put both into (2), with T = 0.2.",
        praise="the finished task ends with nearly all the weight",
        mistakes=(
            (_weights((1.0, 0.5), 0.2)[0], "That is the weight of task 1."),
            (_weights((1.0, 0.5))[1], "That is with T = 2."),
            (1.0, "The ratio of task 2 stays at 0.5 while that of task 1 goes to 1."),
            (_weights((1.0, 0.5), 0.2)[1] / 2, "The weights sum to K = 2, not to 1."),
        ),
    ),
}
