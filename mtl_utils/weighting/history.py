"""Rules that remember: weights from how losses or metrics changed.

Each minimises sum_k weights[k] L_k. The weights are constants of a step: only `observe` moves them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_utils.weighting.base import ConstantWeighting, _refuse_tasks, check_number, register


class HistoryWeighting(ConstantWeighting):
    """Rules whose weights follow from what they observed, whatever the losses of this step are."""


@register("dwa")
class DynamicWeightAverage(HistoryWeighting):
    """Dynamic weight average: a task whose loss falls more slowly gets more weight.

    weights = K softmax(r / temperature),  r_k = L_k(e - 1) / L_k(e - 2)

    L_k(e) is the mean training loss of task k in epoch e. Needs
    `weighting.observe(train_losses=...)` at the end of each epoch, [K], at least 0; the weights are
    1 until two epochs were observed, and stay 1 if none ever is.

    The weights are positive, sum to K, and do not change when a loss is multiplied by a constant,
    so the rule does not balance losses of different size. While no loss grows, r lies in [0, 1],
    and no weight is more than exp(1 / temperature) times another: 1.65 for temperature 2.

    Where r_k is not finite (the earlier loss is 0), the task counts as unchanged, r_k = 1.

    Args:
        temperature: above 0; large ones give equal weights.

    Source: Liu, Johns, Davison, CVPR 2019, arXiv 1803.10704, the section on dynamic weight average.
    """

    observes = ("train_losses",)

    def __init__(self, n_tasks: int, temperature: float = 2.0) -> None:
        super().__init__(n_tasks)
        self.temperature = check_number("temperature", temperature, "(0, inf]")
        self.memory["train_losses"] = torch.empty(0, n_tasks)  # of the last two epochs at most

    def _observe(self, key: str, values: Tensor) -> None:
        _refuse_tasks(key, values, values < 0, "dwa needs losses of at least 0")
        epochs = torch.cat([self.memory["train_losses"].to(values), values[None]])
        self.memory["train_losses"] = epochs[-2:].clone()

    def weights_now(self) -> Tensor:
        epochs = self.memory["train_losses"]
        if len(epochs) < 2:
            return torch.ones(self.n_tasks)
        ratio = epochs[1] / epochs[0]
        ratio = torch.where(torch.isfinite(ratio), ratio, 1.0)
        # softmax is the same after a shift; this one keeps ratio / temperature from overflowing
        return self.n_tasks * torch.softmax((ratio - ratio.max()) / self.temperature, 0)

    def extra_repr(self) -> str:
        return f"n_tasks={self.n_tasks}, temperature={self.temperature:g}"


@register("dtp")
class DynamicTaskPriority(HistoryWeighting):
    """Dynamic task prioritisation: a task whose performance is low gets more weight.

    mean <- momentum mean + (1 - momentum) kpi           moving average, begun by the first kpi
    weights[k] = -(1 - mean_k)^gamma_k log(mean_k)       focal weight, mean_k held above kpi_min

    A key performance indicator (KPI) lies in [0, 1], 1 is best: accuracy, average precision, or the
    fraction of errors below a threshold, which you choose. Needs `weighting.observe(kpis=...)`,
    [K], before the first `backward`, then as often as you like (a batch, an epoch).

    The weights are at least 0 and at most -log(kpi_min) and fall with the KPI: 0 where it is 1.
    They are not normalised, so steps shorten as all tasks improve. They do not depend on the
    losses.
    Examples: KPI 0.5 with gamma 2 gives 0.173, 0.9 gives 0.00105.

    Args:
        gamma: focusing exponent of at least 0, one number or K; larger ones ignore good tasks more.
        momentum: share of the past in the moving average, in [0, 1); 0 takes the last KPI alone.
        kpi_min: the average is held in [kpi_min, 1], as its logarithm has no end at 0.

    Source: Guo, Haque, Huang, Yeung, Fei-Fei, ECCV 2018. Its example level is
    `mtl_utils.losses.focal_loss`. The range of the average is ours.
    """

    observes = ("kpis",)

    def __init__(
        self,
        n_tasks: int,
        gamma: float | Sequence[float] = 2.0,
        momentum: float = 0.9,
        kpi_min: float = 0.01,
    ) -> None:
        super().__init__(n_tasks)
        exponents = list(gamma) if isinstance(gamma, (Sequence, Tensor)) else [gamma] * n_tasks
        self._check_vector("gamma", exponents)
        self.gamma = tuple(check_number("gamma", float(g), "[0, inf)") for g in exponents)
        self.momentum = check_number("momentum", momentum, "[0, 1)")
        self.kpi_min = check_number("kpi_min", kpi_min, "(0, 1)")

    def _observe(self, key: str, values: Tensor) -> None:
        _refuse_tasks(key, values, (values < 0) | (values > 1), "dtp needs values in [0, 1]")
        mean = self.memory.get("mean_kpis", values).to(values)
        self.memory["mean_kpis"] = torch.lerp(mean, values, 1 - self.momentum)

    def weights_now(self) -> Tensor:
        if "mean_kpis" not in self.memory:
            raise RuntimeError(
                "kpis: dtp has observed none; call weighting.observe(kpis=[...]) with K values in "
                "[0, 1] before the first backward()"
            )
        kpi = self.memory["mean_kpis"].clamp(self.kpi_min, 1)
        gamma = torch.tensor(self.gamma, dtype=kpi.dtype, device=kpi.device)
        return (1 - kpi) ** gamma * kpi.log().abs()

    def extra_repr(self) -> str:
        return f"n_tasks={self.n_tasks}, gamma={self.gamma}, momentum={self.momentum:g}"


@register("loss_trend")
class LossTrend(HistoryWeighting):
    """Validation-loss trend: a task whose validation loss moves more gets more weight.

    With c and p, [K], the mean validation losses of the last and of the previous `window`
    iterations, the paper's weights are

    trend = |c - p| / c,   weights = n v / mean(n v),   n = trend / mean(trend),   v = c / mean(c)

    The c of the trend and the c of v cancel, so that this is  weights = |c - p| / mean(|c - p|),
    which is computed here: no division by a loss, and any sign of the losses will do.

    Needs `weighting.observe(val_losses=...)` once an iteration, [K], of a validation batch. The
    weights are 1 until 2 `window` iterations were observed, then new every `window` iterations.
    A `backward` that finds none observed after 2 `window` steps raises.

    The weights are at least 0 and sum to K. A plateaued task gets 0; where all tasks plateau (0/0)
    all get 1. A rising loss counts as a falling one. Not invariant: a loss multiplied by 100 draws
    100 times the weight relative to the others.

    Args:
        window: iterations that one mean covers, at least 1.

    Source: He, Wang, Fu, Feng, Jiang, Xue, ACM Multimedia 2017, doi 10.1145/3123266.3123424. The
    fallback for 0/0 is ours.
    """

    observes = ("val_losses",)

    def __init__(self, n_tasks: int, window: int = 200) -> None:
        super().__init__(n_tasks)
        if isinstance(window, bool) or not isinstance(window, int) or window < 1:
            raise ValueError(f"window: expected an integer of at least 1, got {window!r}")
        self.window = window
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
