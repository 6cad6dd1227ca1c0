"""CR-MOGM: the coefficients of another rule, averaged over the steps."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from mtl_utils.weighting.base import make_weighting, register
from mtl_utils.weighting.checks import check_number
from mtl_utils.weighting.kinds import GradientWeighting, GramianWeighting


@register(
    "cr_mogm",
    title="CR-MOGM",
    year=2022,
    reads="gramian",
    notebook="12",
    source="NeurIPS 2022",
)
class CRMOGM(GradientWeighting):
    """Correlation-reduced stochastic multi-objective gradient manipulation: a moving average.

    Formula:
        average <- alpha average + (1 - alpha) c,   c: coefficients that the other rule finds
        update   = sum_k average_k g_k,   beginning with average = c

    A rule that solves for its coefficients on one batch makes them depend on the noise of the very
    gradients that they multiply; the average depends on the last batch by 1 - alpha only. The
    averages of tasks that are absent from a batch stay as they are.

    Args:
        rule: whose coefficients: the name of a rule that takes them from the Gramian, or such a
            rule, made with options of its own: `rule=make_weighting("cagrad", 3, c=0.2)`.
        alpha: in [0, 1), share of the past.

    Example:
        >>> rule = make_weighting("cr_mogm", 2, rule="mgda", alpha=0.5)
        >>> rule.coefficients(torch.tensor([[4.0, 0.0], [0.0, 1.0]]))
        tensor([0.2000, 0.8000])
        >>> rule.coefficients(torch.tensor([[1.0, 0.0], [0.0, 4.0]]))  # MGDA: 0.8, 0.2
        tensor([0.5000, 0.5000])

    Deviations:
        paper: not read but for its abstract. By TorchJD's documentation its alpha grows towards 1
            as the learning rate falls; here it is constant.
        popular code: TorchJD has alpha 0.9 and the same start, as here, and allows alpha = 1.

    Source: Zhou, Zhang, Jiang, Zhong, Gu, Zhu, NeurIPS 2022, On the Convergence of Stochastic
    Multi-Objective Gradient Manipulation and Beyond.
    """

    average: Tensor

    def __init__(
        self, n_tasks: int, rule: str | GramianWeighting = "mgda", alpha: float = 0.9
    ) -> None:
        super().__init__(n_tasks)
        inner = make_weighting(rule, n_tasks) if isinstance(rule, str) else rule
        if not isinstance(inner, GramianWeighting) or inner.n_tasks != n_tasks:
            raise ValueError(
                "rule: expected a rule that takes its coefficients from the Gramian, such as mgda, "
                f"with n_tasks={n_tasks}, got {rule!r}"
            )
        self.inner, self.rule = inner, inner.name
        self.needs_nonnegative = inner.needs_nonnegative
        self.generator = inner.generator  # one source, whoever draws
        self.alpha = check_number("alpha", alpha, "[0, 1)")
        self.register_buffer("average", torch.full((n_tasks,), torch.nan))

    def coefficients(self, gramian: Tensor) -> Tensor:
        return self._averaged(self.inner.coefficients(gramian))

    def _combine(self, gramian: Tensor, losses: Tensor) -> Tensor:
        return self._averaged(self.inner._combine(gramian, losses))

    def _averaged(self, found: Tensor) -> Tensor:
        now = found.to(self.average)
        before = torch.where(self.average.isnan(), now, self.average)
        self.average = self.alpha * before + (1 - self.alpha) * now
        return self.average.to(found)

    def on(self, tasks: Tensor) -> Self:
        part = super().on(tasks)
        part._modules = {"inner": self.inner.on(tasks)}
        return part

    def take(self, part: Self, tasks: Tensor) -> None:
        super().take(part, tasks)
        self.inner.take(part.inner, tasks)

    def extra_repr(self) -> str:
        return f"n_tasks={self.n_tasks}, alpha={self.alpha:g}"
