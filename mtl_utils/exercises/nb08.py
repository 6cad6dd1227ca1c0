"""Exercises of notebook 08."""

import torch

from mtl_utils.exercises import Exercise


def _settled(norms: tuple[float, ...], left: tuple[float, ...], alpha: float) -> list[float]:
    """Formula (4) of the notebook, from norms and shares of the losses that are left."""
    mean = sum(left) / len(left)
    raw = [(v / mean) ** alpha / n for n, v in zip(norms, left, strict=True)]
    return [len(raw) * v / sum(raw) for v in raw]


def _is_repaired(given) -> bool:
    """Targets in proportion to r^alpha, with the sum of the weighted norms."""
    w, norms, r = (torch.tensor(v) for v in ([0.5, 1.5], [3.0, 1.0], [0.4, 1.6]))
    for alpha in (0.0, 0.5, 1.0, 2.5):
        targets = torch.as_tensor(given(w, norms, r, alpha))
        wanted = r**alpha / (r**alpha).sum() * (w * norms).sum()
        if targets.shape != wanted.shape or not torch.allclose(targets.to(wanted), wanted):
            return False
    return True


EXERCISES = {
    "08.1": Exercise(
        answer=_settled((2.0, 3.0), (0.3, 0.9), 1.0),
        hint="r is 0.3 and 0.9 divided by their mean; the weights are in the proportions r / n and "
        "sum to 2.",
        praise="the task that lags gets twice the weight, though its gradient is the longer one",
        mistakes=(
            (_settled((2.0, 3.0), (0.3, 0.9), 0.0), "That is alpha = 0: equal weighted norms."),
            (_settled((0.5, 1 / 3), (0.3, 0.9), 1.0), "Divide by the norms, do not multiply."),
            ([1 / 3, 2 / 3], "The weights sum to K = 2, not to 1."),
        ),
    ),
    "08.2": Exercise(
        answer=40,
        hint="The way is 1 - 0.0198, a step covers at most 0.025; steps are whole.",
        praise="and each step is longer than the weight that it should reach",
        mistakes=((39, "After 39 steps it has gone 0.975; the way is 0.9802."),),
        rtol=1e-6,
    ),
    "08.3": Exercise(
        answer=_is_repaired,
        hint="The targets have to sum to what the weighted norms sum to: divide r^alpha by its "
        "mean.",
        praise="now the objective is 0 where (4) says, for every alpha",
    ),
}
