"""Dynamic weight average: a task whose loss falls more slowly gets more weight."""

from __future__ import annotations

import torch
from torch import Tensor

from mtl_utils.weighting.base import register
from mtl_utils.weighting.checks import check_number, refuse_tasks
from mtl_utils.weighting.kinds import HistoryWeighting


@register(
    "dwa",
    title="Dynamic weight average (DWA)",
    year=2019,
    reads="history",
    notebook="06",
    source="arXiv 1803.10704",
)
class DynamicWeightAverage(HistoryWeighting):
    """Dynamic weight average.

    Formula:
        weights = K softmax(r / temperature),  r_k = L_k(e - 1) / L_k(e - 2)

    L_k(e) is the mean training loss of task k in epoch e. Needs
    `weighting.observe(train_losses=...)` at the end of each epoch, [K], at least 0; the weights are
    1 until two epochs were observed, and stay 1 if none ever is. NaN leaves a task's epochs as they
    are: its ratio is that of the last two in which it was measured, 1 until there are two.

    The weights are positive, sum to K, and do not change when a loss is multiplied by a constant,
    so the rule does not balance losses of different size. While no loss grows, r lies in [0, 1],
    and no weight is more than exp(1 / temperature) times another: 1.65 for temperature 2.

    Args:
        temperature: above 0; large ones give equal weights.

    Example:
        >>> weighting = make_weighting("dwa", 2)
        >>> weighting.observe(train_losses=[9.0, 1.0])
        >>> weighting.observe(train_losses=[3.0, 0.9])  # r = 1/3, 0.9
        >>> weighting.weights_now()
        tensor([0.8593, 1.1407])

    Deviations:
        paper: says nothing of an earlier loss of 0; here a task whose ratio is not finite counts as
            unchanged, r_k = 1.
        popular code: the code of Nash-MTL and of FAMO works on iterations, with a window of 25 that
            it fills with ones at first, so that it compares real losses with made-up ones until
            iteration 50.

    Source: Liu, Johns, Davison, CVPR 2019, arXiv 1803.10704, the section on dynamic weight average.
    """

    observes = ("train_losses",)
    epochs: Tensor

    def __init__(self, n_tasks: int, temperature: float = 2.0) -> None:
        super().__init__(n_tasks)
        self.temperature = check_number("temperature", temperature, "(0, inf]")
        self.register_buffer("epochs", torch.full((n_tasks, 2), torch.nan))  # the last two

    def _observe(self, key: str, values: Tensor) -> None:
        refuse_tasks(key, values, values < 0, "dwa needs losses of at least 0")
        self.epochs = torch.stack([self.epochs[:, 1], values], 1)

    def weights_now(self) -> Tensor:
        ratio = self.epochs[:, 1] / self.epochs[:, 0]
        ratio = torch.where(torch.isfinite(ratio), ratio, 1.0)
        # softmax is the same after a shift; this one keeps ratio / temperature from overflowing
        return self.n_tasks * torch.softmax((ratio - ratio.max()) / self.temperature, 0)

    def extra_repr(self) -> str:
        return f"n_tasks={self.n_tasks}, temperature={self.temperature:g}"
