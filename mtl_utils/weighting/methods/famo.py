"""FAMO: all losses shall fall at the same relative rate; it looks once more after each step."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_utils.weighting.adam import adam
from mtl_utils.weighting.base import register
from mtl_utils.weighting.batch import Batch
from mtl_utils.weighting.checks import check_number, check_vector, log_of, refuse_tasks
from mtl_utils.weighting.kinds import LossWeighting

PATIENCE = 100  # calls of backward without observe; LBFGS makes 25 a step by default
UNOBSERVED = (
    f"losses_after_step: famo has observed none in {PATIENCE} calls of backward(), so its weights "
    "do not learn; call weighting.observe(losses_after_step=[...]) after each optimizer.step()"
)


@register(
    "famo",
    title="FAMO",
    year=2023,
    reads="losses",
    notebook="13",
    source="arXiv 2306.03792",
)
class Famo(LossWeighting):
    """Fast adaptive multi-task optimisation.

    Formula:
        D = L - lower + eps above 0,   z = softmax(logits)
        objective  c sum_k z_k log D_k,   c = 1 / sum_k (z_k / D_k) held constant
        weights    c z / D, positive, sum to 1
        after the step, on the same batch:
        gradient = z * (delta - sum_k z_k delta_k) + gamma logits,   delta = log D - log D(after)
        logits <- Adam(logits, gradient)    less weight for a task whose loss fell relatively faster

    Needs `weighting.observe(losses_after_step=...)`, [K], after each optimiser step, with the
    losses of the same batch: one more forward pass. Where the optimiser calls `backward` several
    times a step (LBFGS, SAM), delta is counted from the first call, where the step begins. A task
    that was absent from the step keeps its logit, whatever is observed of it.

    Losses have to stay above lower - eps; a loss at `lower` takes nearly the whole weight. The
    first step has z = 1 / K; with one task the weight is 1. Multiplying a loss and its bound by a
    constant leaves direction and logits as they are (up to eps).

    Args:
        lr: of Adam for the logits (beta 0.025 in the paper), above 0.
        gamma: weight decay of the logits, at least 0; large ones keep z near 1 / K.
        lower: lower bound of each loss, K numbers; default 0.
        eps: at least 0, keeps the logarithm finite.

    Example:
        >>> losses = torch.tensor([1.0, 3.0], requires_grad=True)
        >>> weighting = make_weighting("famo", 2)
        >>> weighting.backward(losses)  # z = 1/2, c = 3/2
        tensor([0.7500, 0.2500])
        >>> weighting.observe(losses_after_step=[0.9, 1.0])  # the second fell faster
        >>> weighting.z
        tensor([0.5125, 0.4875])

    Deviations:
        paper: gamma is 0.001 in algorithm 1, as here. Adam for the logits as in its experiments.
        official code: gamma is 0.01 on its command line, 1e-5 in its class and 0 for the toy; only
            with 0 do all five starts of the toy reach the front. Its trainer clips the gradients
            before they are there, so that for this method the clipping does nothing.

    Source: Liu, Feng, Stone, Liu, NeurIPS 2023, arXiv 2306.03792, algorithm 1.
    """

    observes = ("losses_after_step",)
    lower: Tensor
    logits: Tensor
    first_moment: Tensor
    second_moment: Tensor
    updates: Tensor
    waited: Tensor
    log_gaps: Tensor

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
        lower = torch.zeros(n_tasks) if lower is None else check_vector("lower", lower, n_tasks)
        self.register_buffer("lower", lower.clone(), persistent=False)
        for name in ("logits", "first_moment", "second_moment"):
            self.register_buffer(name, torch.zeros(n_tasks))
        for name in ("updates", "waited"):  # steps of Adam; calls of backward since the last
            self.register_buffer(name, torch.zeros(n_tasks, dtype=torch.int64))
        self.register_buffer("log_gaps", torch.full((n_tasks,), torch.nan))  # log D of the step

    @property
    def z(self) -> Tensor:
        """Share of each task in the rate of descent, [K], sums to 1: softmax of the logits."""
        return torch.softmax(self.logits, 0)

    def objective(self, losses: Tensor) -> Tensor:
        z = self.z.to(losses)
        log_gaps = self._log_gaps("losses", losses)
        c = 1 / (z / log_gaps.detach().exp()).sum()
        return c * (z * log_gaps).sum()

    def _backward(self, batch: Batch) -> Tensor:
        weights = super()._backward(batch)
        log_gaps = self._log_gaps("losses", batch.values).to(self.log_gaps)
        first = self.log_gaps.isnan()  # where the optimiser's step begins
        self.log_gaps = torch.where(first, log_gaps, self.log_gaps)
        self.waited = self.waited + 1
        if bool((self.waited == PATIENCE).any()):
            warnings.warn(UNOBSERVED, UserWarning, stacklevel=4)
        return weights

    def _observe(self, key: str, values: Tensor) -> None:
        waiting = ~self.log_gaps.isnan().cpu()
        if not waiting.all() and waiting.any():  # the other tasks were absent
            self._observe_on(waiting, key, values)
            return
        if not waiting.any():
            raise RuntimeError(
                f"{key}: famo has no step to compare them with; call backward() first, and observe "
                "once a step"
            )
        delta = self.log_gaps - self._log_gaps(key, values)
        z = self.z
        gradient = z * (delta - (z * delta).sum()) + self.gamma * self.logits
        self.waited = torch.zeros_like(self.waited)
        self.updates = self.updates + 1
        change, self.first_moment, self.second_moment = adam(
            gradient, self.first_moment, self.second_moment, self.updates
        )
        self.logits = self.logits - self.lr * change
        self.log_gaps = torch.full_like(self.log_gaps, torch.nan)

    def _check_measured(self, key: str, measured: Tensor) -> None:
        lacking = ~self.log_gaps.isnan().cpu() & ~measured
        values = torch.full((self.n_tasks,), torch.nan)
        refuse_tasks(key, values, lacking, "famo needs that of every task of the step")

    def _log_gaps(self, key: str, losses: Tensor) -> Tensor:
        gaps = losses - self.lower.to(losses) + self.eps
        return log_of(
            key, gaps, "famo", " of loss - lower + eps (shown); is `lower` a lower bound?"
        )

    def extra_repr(self) -> str:
        return f"n_tasks={self.n_tasks}, lr={self.lr:g}, gamma={self.gamma:g}"
