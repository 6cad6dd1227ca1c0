"""Rules that put the losses into one number in another way than by a weighted sum.

log, geometric, imtl_l and uncertainty at their optimum, and famo with equal logits all step in the
one direction sum_k g_k / L_k; they differ in length, in lag and in what they add to it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtl_utils.weighting.base import LossWeighting, _refuse_tasks, check_number, register


@register("log")
class LogSum(LossWeighting):
    """Sum of logarithms, called scale-invariant (SI) in benchmarks: sum_k log(L_k + eps).

    weights[k] = 1 / (L_k + eps), positive. With eps = 0 the gradient does not change when a loss is
    multiplied by a constant.

    Needs losses with L_k + eps above 0; others are refused. With one task the step is
    gradient / loss, not the plain gradient.

    Args:
        eps: at least 0, in units of the losses. A small one allows a loss of 0, with the large
            weight 1 / eps.

    Source: the baseline "SI" of Navon et al., ICML 2022, arXiv 2202.01017.
    """

    def __init__(self, n_tasks: int, eps: float = 0.0) -> None:
        super().__init__(n_tasks)
        self.eps = check_number("eps", eps, "[0, inf)")

    def objective(self, losses: Tensor) -> Tensor:
        return _log("losses", losses + self.eps, "log", EPS_HINT).sum()


@register("geometric")
class GeometricMean(LossWeighting):
    """Geometric mean of the losses (geometric loss strategy, GLS): (prod_k L_k)^(1/K).

    weights[k] = M / (K (L_k + eps)) with M = exp(mean_k log(L_k + eps)), the geometric mean: the
    direction of `log`, with a length that shrinks with the losses. Positive; one task has weight 1.
    With eps = 0, multiplying a loss by c multiplies the gradient by c^(1/K).

    Needs losses with L_k + eps above 0; others are refused.

    Args:
        eps: at least 0, in units of the losses, as for `log`.

    Source: Chennupati, Sistu, Yogamani, Rawashdeh, CVPR workshops 2019.
    """

    def __init__(self, n_tasks: int, eps: float = 0.0) -> None:
        super().__init__(n_tasks)
        self.eps = check_number("eps", eps, "[0, inf)")

    def objective(self, losses: Tensor) -> Tensor:
        # by logarithms, as the plain product of many losses over- or underflows
        return _log("losses", losses + self.eps, "geometric", EPS_HINT).mean().exp()


@register("imtl_l")
class ImtlL(LossWeighting):
    """IMTL-L, the loss balance of impartial multi-task learning: sum_k exp(s_k) L_k - s_k.

    weights = exp(s), positive. At the optimum exp(s_k) L_k = 1 for every task. This is twice
    `uncertainty` (regression form) with s = -log_vars; so it lags as that does, and is scale
    invariant at the optimum only. A loss that stays at 0 makes its weight grow without end;
    negative losses are refused.

    Attributes:
        log_weights: parameter s, [K], starts at 0. Give it to the optimiser, without weight decay.

    Source: Liu et al., ICLR 2021, "Towards Impartial Multi-Task Learning".
    """

    needs_nonnegative = True

    def __init__(self, n_tasks: int) -> None:
        super().__init__(n_tasks)
        self.log_weights = nn.Parameter(torch.zeros(n_tasks))

    def objective(self, losses: Tensor) -> Tensor:
        return (torch.exp(self.log_weights) * losses - self.log_weights).sum()


@register("uncertainty_soft")
class SoftUncertainty(LossWeighting):
    """Soft optimal uncertainty weighting (UW-SO): a softmax of the inverse losses.

    weights = K softmax((1 / L) / temperature), treated as constants in the backward pass

    Uncertainty weighting at its optimum has weights proportional to 1 / L; the softmax bounds them.
    They are at least 0 and sum to K (the paper's sum to 1), so that the step is as long as that of
    `equal`. They depend on the units of the losses, and so does the temperature, which has to be
    tuned. A task whose loss is 0 takes the whole weight, shared with others at 0; negative losses
    are refused.

    Args:
        temperature: above 0; large ones give equal weights.

    Source: Kirchdorfer et al., GCPR 2024, arXiv 2408.07985.
    """

    needs_nonnegative = True

    def __init__(self, n_tasks: int, temperature: float = 1.0) -> None:
        super().__init__(n_tasks)
        self.temperature = check_number("temperature", temperature, "(0, inf]")

    def objective(self, losses: Tensor) -> Tensor:
        inverse = 1 / losses.detach().clamp_min(torch.finfo(losses.dtype).tiny)
        # softmax is the same after a shift; this one keeps inverse / temperature from overflowing
        weights = torch.softmax((inverse - inverse.max()) / self.temperature, 0)
        return self.n_tasks * (weights * losses).sum()

    def extra_repr(self) -> str:
        return f"n_tasks={self.n_tasks}, temperature={self.temperature:g}"


@register("stch")
class SmoothTchebycheff(LossWeighting):
    """Smooth Tchebycheff: a soft maximum, which also reaches the concave parts of a Pareto front.

    plain form:  K mu log sum_k exp(preference_k (L_k - ideal_k) / mu)
    log form:    K mu log sum_k exp(preference_k log(L_k / nadir_k) / mu)

    mu -> 0 gives K max_k preference_k (L_k - ideal_k), mu -> infinity (up to a constant)
    sum_k preference_k L_k. K keeps the step as long as that of `equal`. The weights are at least 0;
    in the plain form, sum_k weights[k] / preference_k = K (preferences above 0), and they depend on
    the scale of the losses; in the log form they go as 1 / scale, so that the direction does not.

    The log form minimises sum_k log L_k for `warm_up` epochs and takes the mean losses of the last
    of these as nadir. It needs `weighting.observe(train_losses=...)` at the end of each epoch, [K],
    above 0 (without it the warm-up never ends), and losses above 0; others are refused. The plain
    form takes losses of any sign and observes nothing.

    Args:
        mu: smoothing, above 0, in units of the losses (plain form).
        preference: K numbers of at least 0, not all 0; default all 1. Fixes the point of the front.
        ideal: K numbers below any loss that can be reached; default 0. Plain form only.
        warm_up: number of epochs before the log form begins, at least 1; None for the plain form.

    Source: Lin, Zhang, Yang, Liu, Wang, Zhang, ICML 2024, arXiv 2402.19078; log form and factor K
    as in the authors' multi-task experiments (warm_up=4, mu=1).
    """

    preference: Tensor
    ideal: Tensor

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
        preference = self._check_vector("preference", preference)
        if bool((preference < 0).any()) or not bool((preference > 0).any()):
            raise ValueError(
                f"preference: expected values of at least 0, not all 0, got {preference.tolist()}"
            )
        if warm_up is not None:
            if isinstance(warm_up, bool) or not isinstance(warm_up, int) or warm_up < 1:
                raise ValueError(
                    f"warm_up: expected an integer of at least 1 or None, got {warm_up!r}"
                )
            if ideal is not None:
                raise ValueError("ideal: the log form (warm_up given) has none; leave one out")
            self.observes = ("train_losses",)
            self.memory["epochs"] = 0
        self.warm_up = warm_up
        ideal = torch.zeros(n_tasks) if ideal is None else self._check_vector("ideal", ideal)
        self.register_buffer("preference", preference.clone())
        self.register_buffer("ideal", ideal.clone())

    def _observe(self, key: str, values: Tensor) -> None:
        if "nadir" in self.memory:
            return
        _refuse_tasks(key, values, values <= 0, "stch with warm_up needs losses above 0")
        self.memory["epochs"] += 1
        if self.memory["epochs"] == self.warm_up:
            self.memory["nadir"] = values.clone()

    def objective(self, losses: Tensor) -> Tensor:
        if self.warm_up is None:
            gap = losses - self.ideal.to(losses)
        else:
            gap = _log("losses", losses, "stch with warm_up")
            if "nadir" not in self.memory:
                return gap.sum()
            gap = gap - torch.log(self.memory["nadir"].to(losses))
        terms = self.preference.to(losses) * gap / self.mu
        return self.n_tasks * self.mu * torch.logsumexp(terms, 0)

    def extra_repr(self) -> str:
        return f"n_tasks={self.n_tasks}, mu={self.mu:g}, warm_up={self.warm_up}"


@register("famo")
class Famo(LossWeighting):
    """FAMO, fast adaptive multi-task optimisation: all losses shall fall at the same relative rate.

    D = L - lower + eps,   z = softmax(logits)
    objective  c sum_k z_k log D_k,   c = 1 / sum_k (z_k / D_k) held constant
    weights    c z / D, positive, sum to 1
    after the step, on the same batch:
    gradient = z * (delta - sum_k z_k delta_k) + gamma logits,   delta = log D - log D(after)
    logits <- Adam(logits, gradient)    less weight for a task whose loss fell relatively faster

    Needs `weighting.observe(losses_after_step=...)`, [K], after each optimiser step, with the
    losses of the same batch, which costs one more forward pass; a second `backward` without it
    raises. Losses have to stay above lower - eps; others are refused. A loss at `lower` takes
    nearly the whole weight. With one task the weight is 1. The first step has z = 1 / K.
    Multiplying a loss and its bound by a constant leaves direction and logits as they are (up to
    eps).

    Args:
        lr: of Adam for the logits (beta 0.025 in the paper), above 0.
        gamma: weight decay of the logits, at least 0; large ones keep z near 1 / K.
        lower: lower bound of each loss, K numbers; default 0.
        eps: at least 0, keeps the logarithm finite.

    Source: Liu, Feng, Stone, Liu, NeurIPS 2023, arXiv 2306.03792, algorithm 1; Adam as in the
    authors' experiments.
    """

    observes = ("losses_after_step",)
    lower: Tensor

    def __init__(
        self,
        n_tasks: int,
        lr: float = 0.025,
        gamma: float = 0.001,
        lower: Sequence[float] | Tensor | None = None,
        eps: float = 1e-8,
    ) -> None:
        super().__init__(n_tasks)
        self.lr = check_number("lr", lr, "(0, inf)")
        self.gamma = check_number("gamma", gamma, "[0, inf)")
        self.eps = check_number("eps", eps, "[0, inf)")
        lower = torch.zeros(n_tasks) if lower is None else self._check_vector("lower", lower)
        self.register_buffer("lower", lower.clone())
        self.memory |= {
            "logits": torch.zeros(n_tasks),
            "first_moment": torch.zeros(n_tasks),
            "second_moment": torch.zeros(n_tasks),
            "updates": 0,
        }

    @property
    def z(self) -> Tensor:
        """Share of each task in the rate of descent, [K], sums to 1: softmax of the logits."""
        return torch.softmax(self.memory["logits"], 0)

    def objective(self, losses: Tensor) -> Tensor:
        z = self.z.to(losses)
        log_gaps = self._log_gaps("losses", losses)
        c = 1 / (z / log_gaps.detach().exp()).sum()
        return c * (z * log_gaps).sum()

    def _backward(self, losses, shared, features) -> Tensor:
        if "log_gaps" in self.memory:
            raise RuntimeError(
                "losses_after_step: famo has not observed those of the last step; call "
                "weighting.observe(losses_after_step=[...]) after each optimizer.step()"
            )
        weights = super()._backward(losses, shared, features)
        self.memory["log_gaps"] = self._log_gaps("losses", losses.detach())
        return weights

    def _observe(self, key: str, values: Tensor) -> None:
        if "log_gaps" not in self.memory:
            raise RuntimeError(
                f"{key}: famo has no step to compare them with; call backward() first, and observe "
                "once a step"
            )
        delta = self.memory["log_gaps"].to(values) - self._log_gaps(key, values)
        del self.memory["log_gaps"]
        z = self.z.to(values)
        self._adam(z * (delta - (z * delta).sum()) + self.gamma * self.memory["logits"].to(values))

    def _log_gaps(self, key: str, losses: Tensor) -> Tensor:
        gaps = losses - self.lower.to(losses) + self.eps
        return _log(key, gaps, "famo", " of loss - lower + eps (shown); is `lower` a lower bound?")

    def _adam(self, gradient: Tensor, betas=(0.9, 0.999), eps: float = 1e-8) -> None:
        """One step of Adam (Kingma, Ba, ICLR 2015, algorithm 1) on the logits."""
        t = self.memory["updates"] + 1
        first = self.memory["first_moment"].to(gradient)
        second = self.memory["second_moment"].to(gradient)
        first = betas[0] * first + (1 - betas[0]) * gradient
        second = betas[1] * second + (1 - betas[1]) * gradient**2
        rise = (first / (1 - betas[0] ** t)) / ((second / (1 - betas[1] ** t)).sqrt() + eps)
        self.memory["logits"] = self.memory["logits"].to(gradient) - self.lr * rise
        self.memory |= {"first_moment": first, "second_moment": second, "updates": t}

    def extra_repr(self) -> str:
        return f"n_tasks={self.n_tasks}, lr={self.lr:g}, gamma={self.gamma:g}"


EPS_HINT = "; eps=1e-8 would allow a loss of 0"


def _log(key: str, values: Tensor, rule: str, hint: str = "") -> Tensor:
    """Logarithm of values that have to be above 0."""
    _refuse_tasks(key, values.detach(), values <= 0, f"{rule} needs values above 0{hint}")
    return torch.log(values)
