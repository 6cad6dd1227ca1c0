"""Validation-loss trend: a task whose validation loss moves more gets more weight."""

from __future__ import annotations

import torch
from torch import Tensor

from mtl_utils.weighting.base import register
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
    A `backward` that finds none observed after 2 `window` steps raises.

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

    def __init__(self, n_tasks: int, window: int = 200) -> None:
        super().__init__(n_tasks)
        self.window = check_count("window", window)
        self.memory |= {
            "steps": 0,  # calls of backward
            "observed": 0,  # calls of observe
            "sum": torch.zeros(n_tasks),  # of the losses of the unfinished window
            "trend_weights": torch.ones(n_tasks),
        }

    def _observe(self, key: str, values: Tensor) -> None:
        self.memory["observed"] += 1
        self.memory["sum"] = self.memory["sum"].to(values) + values
        if self.memory["observed"] % self.window:
            return
        current = self.memory["sum"] / self.window
        if "previous" in self.memory:
            self.memory["trend_weights"] = self._trend_weights(current, self.memory["previous"])
        self.memory["previous"] = current
        self.memory["sum"] = torch.zeros_like(current)

    def _trend_weights(self, current: Tensor, previous: Tensor) -> Tensor:
        change = (current - previous.to(current)).abs()
        largest = change.max()
        if largest == 0:
            return torch.ones_like(change)
        change = change / largest  # keeps the mean from over- and underflowing
        return change / change.mean()

    def weights_now(self) -> Tensor:
        if self.memory["observed"] == 0 and self.memory["steps"] >= 2 * self.window:
            raise RuntimeError(
                f"val_losses: loss_trend has observed none in {self.memory['steps']} steps; call "
                "weighting.observe(val_losses=[...]) once an iteration"
            )
        return self.memory["trend_weights"]

    def _backward(self, losses, shared, features) -> Tensor:
        weights = super()._backward(losses, shared, features)
        self.memory["steps"] += 1
        return weights

    def extra_repr(self) -> str:
        return f"n_tasks={self.n_tasks}, window={self.window}"
