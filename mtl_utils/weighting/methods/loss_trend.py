"""Validation-loss trend: a task whose validation loss moves more gets more weight."""

from __future__ import annotations

import torch
from torch import Tensor

from mtl_utils.weighting.base import register
from mtl_utils.weighting.batch import Batch
from mtl_utils.weighting.checks import check_count
from mtl_utils.weighting.kinds import HistoryWeighting


@register(
    "loss_trend",
    title="Validation-loss trend",
    year=2017,
    reads="history",
    notebook="11",
    source="ACM MM 2017",
)
class LossTrend(HistoryWeighting):
    """Validation-loss trend.

    Formula:
        weights = |c - p| / mean(|c - p|)

    with c and p, [K], the mean validation losses of the last and of the previous `window`
    iterations.

    Needs `weighting.observe(val_losses=...)` once an iteration, [K], of a validation batch. The
    weights are 1 until 2 `window` iterations were observed, then new every `window` iterations.
    A `backward` that finds none observed after 2 `window` steps raises. NaN leaves a task's window
    as it is: the windows of a task hold `window` measurements each, and until it has two of them
    its change counts as the mean of the others' changes.

    The weights are at least 0 and sum to K. A plateaued task gets 0; where all tasks plateau (0/0)
    all get 1. A rising loss counts as a falling one. Not invariant: a loss multiplied by 100 draws
    100 times the weight relative to the others.

    Args:
        window: iterations that one mean covers, at least 1.

    Example:
        >>> weighting = make_weighting("loss_trend", 3, window=1)
        >>> weighting.observe(val_losses=[0.5, 0.5, 0.5])
        >>> weighting.observe(val_losses=[0.4, 0.6, 0.5])  # better, worse, unchanged
        >>> weighting.weights_now()
        tensor([1.5000, 1.5000, 0.0000])

    Deviations:
        paper: trend = |c - p| / c, weights = n v / mean(n v), n = trend / mean(trend),
            v = c / mean(c). The two c cancel, so this divides by no loss and takes any sign. The
            fallback for 0/0 is ours.
        official code: window 200, as here, with 10 training and 10 validation images in each batch.
        popular code: a port has window 100 and reports accuracy on the data that steer the weights.

    Source: He, Wang, Fu, Feng, Jiang, Xue, ACM Multimedia 2017, doi 10.1145/3123266.3123424.
    """

    observes = ("val_losses",)
    steps: Tensor
    observed: Tensor
    total: Tensor
    previous: Tensor
    change: Tensor

    def __init__(self, n_tasks: int, window: int = 200) -> None:
        super().__init__(n_tasks)
        self.window = check_count("window", window)
        self.register_buffer("steps", torch.zeros(n_tasks, dtype=torch.int64))  # of backward
        self.register_buffer("observed", torch.zeros(n_tasks, dtype=torch.int64))
        self.register_buffer("total", torch.zeros(n_tasks))  # of the unfinished window
        self.register_buffer("previous", torch.full((n_tasks,), torch.nan))  # p of the next change
        self.register_buffer("change", torch.full((n_tasks,), torch.nan))  # |c - p|

    def _observe(self, key: str, values: Tensor) -> None:
        self.observed, self.total = self.observed + 1, self.total + values
        ended = self.observed % self.window == 0
        current = self.total / self.window
        second = ended & ~self.previous.isnan()
        self.change = torch.where(second, self.moved(current, self.previous), self.change)
        self.previous = torch.where(ended, current, self.previous)
        self.total = torch.where(ended, 0.0, self.total)

    def moved(self, current: Tensor, previous: Tensor) -> Tensor:
        """How far each loss moved from one window to the next, [K], at least 0."""
        return (current - previous).abs()

    def weights_now(self) -> Tensor:
        overdue = (self.observed == 0) & (self.steps >= 2 * self.window)
        if bool(overdue.any()):
            raise RuntimeError(
                f"val_losses: loss_trend has observed none in {int(self.steps.max())} steps; call "
                "weighting.observe(val_losses=[...]) once an iteration"
            )
        known = ~self.change.isnan()
        weights = torch.ones_like(self.change)
        largest = self.change[known].max() if bool(known.any()) else 0.0
        if largest > 0:
            change = self.change[known] / largest  # keeps the mean from over- and underflowing
            weights[known] = change / change.mean()
        return weights

    def _backward(self, batch: Batch) -> Tensor:
        weights = super()._backward(batch)
        self.steps = self.steps + 1
        return weights

    def extra_repr(self) -> str:
        return f"n_tasks={self.n_tasks}, window={self.window}"
