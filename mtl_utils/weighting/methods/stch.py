"""Smooth Tchebycheff: a soft maximum, which also reaches the concave parts of a Pareto front."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_utils.weighting.base import register
from mtl_utils.weighting.checks import (
    check_count,
    check_number,
    check_vector,
    check_weights,
    log_of,
    refuse_tasks,
)
from mtl_utils.weighting.kinds import LossWeighting


@register(
    "stch",
    title="Smooth Tchebycheff",
    year=2024,
    reads="losses",
    notebook="13",
    source="arXiv 2402.19078",
)
class SmoothTchebycheff(LossWeighting):
    """Smooth Tchebycheff scalarisation.

    Formula:
        plain form:  K mu log sum_k exp(preference_k (L_k - ideal_k) / mu)
        log form:    K mu log sum_k exp(preference_k log(L_k / nadir_k) / mu)

    mu -> 0 gives K max_k preference_k (L_k - ideal_k), mu -> infinity (up to a constant)
    sum_k preference_k L_k. The weights are at least 0; in the plain form, sum_k weights[k] /
    preference_k = K (preferences above 0), and they depend on the scale of the losses; in the log
    form they go as 1 / scale, so that the direction does not.

    The log form minimises sum_k log L_k for `warm_up` epochs and takes the mean losses of the last
    of these as nadir. It needs `weighting.observe(train_losses=...)` at the end of each epoch, [K],
    above 0 (without it the warm-up never ends), and losses above 0; others are refused. NaN is an
    epoch in which a task was not measured and does not count for it; the log form begins when all
    tasks of a step have their nadir. The plain form takes losses of any sign and observes nothing.

    Args:
        mu: smoothing, above 0, in units of the losses (plain form).
        preference: K numbers of at least 0, not all 0; default all 1. Fixes the point of the front.
        ideal: K numbers below any loss that can be reached; default 0. Plain form only.
        warm_up: number of epochs before the log form begins, at least 1; None for the plain form.

    Example:
        >>> losses = torch.tensor([3.0, 1.0]).log().requires_grad_()
        >>> make_weighting("stch", 2).backward(losses)  # 2 softmax(losses)
        tensor([1.5000, 0.5000])

    Deviations:
        paper: has no factor K, which keeps the step as long as that of `equal`.
        official code: its multi-task experiments are the log form with warm_up=4, mu=1 and the
            factor K; with mu = 1 that is the logarithm of sum_k L_k / nadir_k.
        popular code: LibMTL has the log form only, and logs ones as its weights.

    Source: Lin, Zhang, Yang, Liu, Wang, Zhang, ICML 2024, arXiv 2402.19078.
    """

    preference: Tensor
    ideal: Tensor
    epochs: Tensor
    nadir: Tensor

    def __init__(
        self,
        n_tasks: int,
        mu: float = 1.0,
        preference: Sequence[float] | Tensor | None = None,
        ideal: Sequence[float] | Tensor | None = None,
        warm_up: int | None = None,
    ) -> None:
        super().__init__(n_tasks)
        self.mu = check_number("mu", mu, "(0, inf)")
        preference = torch.ones(n_tasks) if preference is None else preference
        preference = check_weights("preference", preference, n_tasks)
        if warm_up is not None:
            check_count("warm_up", warm_up)
            if ideal is not None:
                raise ValueError("ideal: the log form (warm_up given) has none; leave one out")
            self.observes = ("train_losses",)
        self.warm_up = warm_up
        ideal = torch.zeros(n_tasks) if ideal is None else check_vector("ideal", ideal, n_tasks)
        self.register_buffer("preference", preference, persistent=False)
        self.register_buffer("ideal", ideal.clone(), persistent=False)
        self.register_buffer("epochs", torch.zeros(n_tasks, dtype=torch.int64))  # of the warm-up
        self.register_buffer("nadir", torch.full((n_tasks,), torch.nan))

    def _observe(self, key: str, values: Tensor) -> None:
        warming = self.nadir.isnan()
        bad = warming & (values <= 0)
        refuse_tasks(key, values, bad, "stch with warm_up needs losses above 0")
        self.epochs = self.epochs + warming
        self.nadir = torch.where(warming & (self.epochs == self.warm_up), values, self.nadir)

    def objective(self, losses: Tensor) -> Tensor:
        if self.warm_up is None:
            gap = losses - self.ideal.to(losses)
        else:
            gap = log_of("losses", losses, "stch with warm_up")
            if bool(self.nadir.isnan().any()):
                return gap.sum()
            gap = gap - torch.log(self.nadir.to(losses))
        terms = self.preference.to(losses) * gap / self.mu
        return self.n_tasks * self.mu * torch.logsumexp(terms, 0)

    def extra_repr(self) -> str:
        return f"n_tasks={self.n_tasks}, mu={self.mu:g}, warm_up={self.warm_up}"
