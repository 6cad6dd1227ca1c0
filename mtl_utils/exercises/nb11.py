"""Exercises of notebook 11."""

import math

import numpy as np

from mtl_utils.exercises import Exercise

_BEFORE, _NOW = np.array([0.40, 0.75, 0.50]), np.array([0.30, 0.80, 0.50])
_TREND = abs(_NOW - _BEFORE) / _NOW
_LOSSES = np.random.default_rng(0).uniform(0.2, 1.0, (11, 3))
_NOISE = 2 / math.sqrt(math.pi) * 0.12  # at a window of 1


def _moves(now, before):
    moved = abs(now - before)
    return moved / moved.mean()


def _weights_now(losses, k):
    n = len(losses) // k  # complete windows
    if n < 2:
        return np.ones(losses.shape[1])
    means = losses[: n * k].reshape(n, k, -1).mean(1)
    return _moves(means[-1], means[-2])


def _sliding(losses, k):
    if len(losses) < 2 * k:
        return np.ones(losses.shape[1])
    return _moves(losses[-k:].mean(0), losses[-2 * k : -k].mean(0))


def _weights_always(losses, k):
    return np.stack([_weights_now(losses[: t + 1], k) for t in range(len(losses))])


EXERCISES = {
    "11.1": Exercise(
        answer=[2.0, 1.0, 0.0],
        hint="By how much did each loss move? How large the losses are does not matter.",
        formula="By (1): the moves are 0.10, 0.05 and 0; divide them by their mean.",
        praise="the task whose loss rose gets weight 1, the one that stands still none",
        mistakes=(
            (_TREND / _TREND.mean(), "That is n alone; v takes the division by c away again."),
            ([2.0, -1.0, 0.0], "The paper takes the absolute value of the move."),
            ([0.10, 0.05, 0.0], "Those are the moves; divide them by their mean."),
            ([2 / 3, 1 / 3, 0.0], "The weights have mean 1, so they sum to K = 3."),
        ),
    ),
    "11.2": Exercise(
        answer=[20 / 13, 6 / 13],
        hint="Which loss moves by another number now, and by which?",
        formula="The moves are 10 times 0.1, and 0.3; divide them by their mean, 0.65.",
        praise="the unit alone turned the order round",
        mistakes=(
            ([0.5, 1.5], "That was before the change of unit; (1) is in units of loss."),
            ([1.0, 0.3], "Those are the moves; divide them by their mean."),
            ([10 / 13, 3 / 13], "The weights have mean 1, so they sum to K = 2."),
            ([2 / 31, 60 / 31], "In smaller units the number of the same error is larger."),
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
        hint="Which output is best if yes has the probability q? Formula (3), turned round.",
        formula="By (3) the best output is 2 q - 1; solve for q.",
        praise="and outputs beyond -1 or 1 stand for no probability at all",
        mistakes=(
            (1 / (1 + math.exp(0.6)), "That reads the output as a logit, as cross-entropy would."),
            (0.4, "Halve it: q = (1 + f) / 2."),
            (0.8, "That is the probability of no."),
            (20, "As a number between 0 and 1."),
        ),
    ),
    "11.6": Exercise(
        answer=_weights_now,
        at=tuple((_LOSSES[:t], k) for t, k in ((3, 2), (4, 2), (5, 2), (7, 1), (9, 3), (11, 4))),
        hint="How many windows are complete? The last two of them count, the rest waits.",
        formula="Mean over the last complete window minus mean over the one before, absolute "
        "value, divided by its mean over the tasks; ones while there are fewer than two.",
        praise="that is the whole method",
        mistakes=(
            (
                lambda losses, k: _moves(losses[-k:].mean(0), losses[-2 * k : -k].mean(0)),
                "Windows do not slide: the weights change every k iterations only, and before "
                "two windows are full they are 1.",
            ),
            (
                _sliding,
                "Windows do not slide: iterations of a window that is not full wait.",
            ),
            (
                _weights_always,
                "Those are the weights of all iterations; return the last ones.",
            ),
            (
                lambda losses, k: _weights_now(losses, k) / _weights_now(losses, k).sum(),
                "The weights have mean 1, so they sum to K.",
            ),
        ),
    ),
    "11.7": Exercise(
        answer=2.0,
        hint="Which of the two moves is the larger one late in the training?",
        formula="The moves go with the losses: exp(-t / 10) / 10 against exp(-t / 40) / 40. Their "
        "quotient goes to 0, and the two weights sum to 2.",
        praise="the slow one has it all in the end, after the fast one had 1.6 at the start",
        mistakes=(
            (0.0, "That is where the weight of the first one ends."),
            (1.0, "Both stand still in the end, but the first one much earlier."),
            (0.5, "That is the quotient of nothing here: compare the moves for large t."),
        ),
    ),
}
