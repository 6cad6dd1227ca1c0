"""Exercises of notebook 11."""

import math

import numpy as np

from mtl_utils.exercises import Exercise

_BEFORE, _NOW = np.array([0.40, 0.75, 0.50]), np.array([0.30, 0.80, 0.50])
_TREND = abs(_NOW - _BEFORE) / _NOW
_NOISE = 2 / math.sqrt(math.pi) * 0.12  # at a window of 1

EXERCISES = {
    "11.1": Exercise(
        answer=[2.0, 1.0, 0.0],
        hint="By how much did each loss move? Most of the formulas cancel: (2) is what is left.",
        formula="By (2): the moves are 0.10, 0.05 and 0; divide them by their mean.",
        praise="the task whose loss rose gets weight 1, the one that stands still none",
        mistakes=(
            (_TREND / _TREND.mean(), "That is n alone; v takes the division by c away again."),
            ([2.0, -1.0, 0.0], "The paper takes the absolute value of the move."),
            ([0.10, 0.05, 0.0], "Those are the moves; divide them by their mean."),
            ([2 / 3, 1 / 3, 0.0], "The weights have mean 1, so they sum to K = 3."),
        ),
    ),
    "11.2": Exercise(
        answer=0.05**2 + 0.95**2,
        hint="In which two ways can they agree?",
        formula="Independent: both yes with probability 0.05 squared, both no with 0.95 squared.",
        praise="90.5 % agreement, and a correlation of 0",
        mistakes=(
            (0.05**2, "That is both yes. They also agree where both say no."),
            (0.95**2, "That is both no. They also agree where both say yes."),
            (90.5, "As a share, please: a number from 0 to 1."),
        ),
    ),
    "11.3": Exercise(
        answer=math.ceil((_NOISE / 0.005) ** 2),
        hint="Turn (4) round: how many iterations until its noise is 0.005?",
        formula="Solve 2 / sqrt(pi) * 0.12 / sqrt(k) = 0.005 for k, and round up.",
        praise="over 700 iterations: small moves need long windows, or larger batches",
        mistakes=(
            (math.ceil((0.12 / 0.005) ** 2), "(4) has the factor 2 / sqrt(pi) before s."),
            (math.ceil(_NOISE / 0.005), "The noise falls with the square root of k: square it."),
            ((_NOISE / 0.005) ** 2, "A window is a whole number: round up."),
            (736, "Rounded too early: 2 / sqrt(pi) is 1.1284, not 1.13."),
        ),
        rtol=1e-4,
    ),
    "11.4": Exercise(
        answer=lambda s: np.asarray(s) / np.mean(s),
        at=tuple((np.array(s),) for s in ([0.1, 0.2, 0.3, 0.2], [1.0, 1.0], [0.02, 0.5, 0.11])),
        hint="A loss that stands still moves by its noise only. How large is that on average?",
        formula="The moves are |z| s with the same distribution of |z| for all tasks; divide by "
        "their mean, which hardly varies over many tasks.",
        praise="weight goes to the loss that trembles most",
        mistakes=(
            (lambda s: np.ones(len(s)), "That would be fair; but larger noise is a larger move."),
            (lambda s: s / np.sum(s), "The weights have mean 1."),
            (lambda s: s**2 / np.mean(s**2), "The moves go with s, not with its square."),
        ),
    ),
    "11.5": Exercise(
        answer=0.2,
        hint="Which output is best if yes has the probability q? Formula (5), turned round.",
        formula="By (5) the best output is 2 q - 1; solve for q.",
        praise="and outputs beyond -1 or 1 stand for no probability at all",
        mistakes=(
            (1 / (1 + math.exp(0.6)), "That reads the output as a logit, as cross-entropy would."),
            (0.4, "Halve it: q = (1 + f) / 2."),
            (0.8, "That is the probability of no."),
        ),
    ),
}
