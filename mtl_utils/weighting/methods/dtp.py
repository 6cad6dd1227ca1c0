"""Dynamic task prioritisation: a task whose performance is low gets more weight."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_utils.weighting.base import register
from mtl_utils.weighting.checks import check_number, check_vector, refuse_tasks
from mtl_utils.weighting.kinds import HistoryWeighting


@register(
    "dtp",
    title="Dynamic task priority (DTP)",
    year=2018,
    reads="history",
    notebook="07",
    source="ECCV 2018",
)
class DynamicTaskPriority(HistoryWeighting):
    """Dynamic task prioritisation.

    Formula:
        mean <- momentum mean + (1 - momentum) kpi           moving average, begun by the first kpi
        weights[k] = -(1 - mean_k)^gamma_k log(mean_k)       focal weight, mean_k held above kpi_min

    A key performance indicator (KPI) lies in [0, 1], 1 is best: accuracy, average precision, or the
    fraction of errors below a threshold, which you choose. Needs `weighting.observe(kpis=...)`,
    [K], before the first `backward`, then as often as you like (a batch, an epoch). NaN leaves a
    task's average as it is.

    The weights are at least 0 and at most -log(kpi_min) and fall with the KPI: 0 where it is 1.
    They are not normalised, so steps shorten as all tasks improve. They do not depend on the
    losses.

    Args:
        gamma: focusing exponent of at least 0, one number or K; larger ones ignore good tasks more.
        momentum: share of the past in the moving average, in [0, 1); 0 takes the last KPI alone.
        kpi_min: the average is held in [kpi_min, 1], as its logarithm has no end at 0.

    Example:
        >>> weighting = make_weighting("dtp", 2)
        >>> weighting.observe(kpis=[0.5, 0.9])
        >>> weighting.weights_now()
        tensor([0.1733, 0.0011])

    Deviations:
        paper: says nothing of an average of 0, whose weight is infinite; kpi_min is ours. Its
            example level, the focal loss, is `mtl_utils.losses.focal_loss`.
        popular code: a third-party port holds the KPI in [0.1, 0.99].

    Source: Guo, Haque, Huang, Yeung, Fei-Fei, ECCV 2018.
    """

    observes = ("kpis",)
    gamma: Tensor
    mean: Tensor

    def __init__(
        self,
        n_tasks: int,
        gamma: float | Sequence[float] = 2.0,
        momentum: float = 0.9,
        kpi_min: float = 0.01,
    ) -> None:
        super().__init__(n_tasks)
        each = gamma if isinstance(gamma, (Sequence, Tensor)) else [gamma] * n_tasks
        exponents = check_vector("gamma", each, n_tasks).clone()
        refuse_tasks("gamma", exponents, exponents < 0, "expected exponents of at least 0")
        self.register_buffer("gamma", exponents, persistent=False)
        self.momentum = check_number("momentum", momentum, "[0, 1)")
        self.kpi_min = check_number("kpi_min", kpi_min, "(0, 1)")
        self.register_buffer("mean", torch.full((n_tasks,), torch.nan))  # of the KPIs

    def _observe(self, key: str, values: Tensor) -> None:
        refuse_tasks(key, values, (values < 0) | (values > 1), "dtp needs values in [0, 1]")
        mean = torch.where(self.mean.isnan(), values, self.mean)
        self.mean = torch.lerp(mean, values, 1 - self.momentum)

    def weights_now(self) -> Tensor:
        if bool(self.mean.isnan().any()):
            raise RuntimeError(
                "kpis: dtp has observed none; call weighting.observe(kpis=[...]) with K values in "
                "[0, 1] before the first backward()"
            )
        kpi = self.mean.clamp(self.kpi_min, 1)
        return (1 - kpi) ** self.gamma * kpi.log().abs()

    def extra_repr(self) -> str:
        return f"n_tasks={self.n_tasks}, gamma={self.gamma.tolist()}, momentum={self.momentum:g}"
