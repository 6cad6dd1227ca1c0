"""Exercises of notebook 16."""

import numpy as np

from mtl_utils.exercises import Exercise


def _delta_m(values, baseline, higher):
    """In percent, above 0 is better."""
    gains = (np.asarray(values) - np.asarray(baseline)) / np.asarray(baseline)
    return 100 * np.mean(np.where(higher, gains, -gains))


EXERCISES = {
    "16.1": Exercise(
        answer=4 * 10 + 4 * 0.5,
        hint="What every task reaches is held once for each task, what one task reaches once.",
        formula="K times the trunk, and each of the K heads once: K T + K H.",
        praise="42 million numbers, where plain accumulation in .grad holds 12 million",
        mistakes=(
            (42e6, "That is right in numbers; here count in millions."),
            (10 + 4 * 0.5, "That is what .grad holds after one backward pass of the sum."),
            (4 * (10 + 4 * 0.5), "Each head is reached by its own task only."),
            (8 * (4 * 10 + 4 * 0.5), "Micro-batches are summed as they come, not kept."),
        ),
    ),
    "16.2": Exercise(
        answer=_delta_m,
        at=(
            ([0.9, 2.0, 40.0], [0.8, 2.5, 50.0], [True, False, True]),
            ([3.0, 0.25], [4.0, 0.2], [False, False]),
        ),
        hint="Each task counts its gain relative to the baseline. Which way is a gain for each?",
        formula="The mean over tasks of s_k (M_k - B_k) / B_k, times 100, with s_k = 1 where "
        "higher is better and -1 where lower is.",
        praise="and a positive number is good news, whatever the metrics are",
        mistakes=(
            (lambda v, b, h: -_delta_m(v, b, h), "That is the sign in which lower is better."),
            (lambda v, b, h: _delta_m(v, b, h) / 100, "In percent."),
            (
                lambda v, b, h: 100 * np.mean((np.asarray(v) - b) / np.asarray(b)),
                "For an error, lower is better: its sign turns.",
            ),
            (
                lambda v, b, h: -100 * np.mean((np.asarray(v) - b) / np.asarray(v)),
                "Relative to the baseline, not to the new value.",
            ),
        ),
    ),
    "16.3": Exercise(
        answer=[1.5, 0.5],
        hint="In the mean over many steps, how often does each task move the trunk?",
        formula="Weights are the probabilities, K p_k so that they sum to K.",
        praise="sampling is weighting: a data set three times as large has three times the weight",
        mistakes=(
            ([0.75, 0.25], "Those are the probabilities. Scale them so that they sum to 2."),
            ([0.5, 1.5], "In the other order: the larger set is drawn more often."),
            ([1.0, 1.0], "These are the weights if each task is drawn equally often."),
        ),
    ),
}
