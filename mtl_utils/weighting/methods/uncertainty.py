"""Uncertainty weighting: a task's noise is learned, and weighs it down."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtl_utils.weighting.base import register
from mtl_utils.weighting.kinds import LossWeighting

FORMS = ("regression", "classification", "laplace")


@register(
    "uncertainty",
    title="Uncertainty weighting",
    year=2018,
    reads="losses",
    notebook="03",
    source="arXiv 1705.07115",
)
class Uncertainty(LossWeighting):
    """Homoscedastic uncertainty weighting, with s = log sigma^2 learned for each task.

    Formula:
        regression:      exp(-s) L / 2 + s / 2    L = mean squared error; Gaussian likelihood
        classification:  exp(-s) L     + s / 2    L = cross-entropy; the paper's approximation
        laplace:         exp(-s/2) L   + s / 2    L = mean absolute error; Laplace scale b = sigma

    Each is a negative log-likelihood up to a constant, for a loss of at least 0 that is a mean over
    output dimensions. The effective weights are the factors of L above. Where L reaches 0 a weight
    grows without end.

    Args:
        forms: one of `FORMS` for all tasks, or a sequence of K of them.

    Attributes:
        log_vars: parameter s, [K], log sigma^2 of each task, starts at 0. Give it to the optimiser,
            without weight decay.

    Example:
        >>> losses = torch.tensor([0.5, 4.0], requires_grad=True)
        >>> weighting = make_weighting("uncertainty", 2)
        >>> weighting.backward(losses)
        tensor([0.5000, 0.5000])
        >>> weighting.log_vars.grad  # 1/2 - exp(-s) L / 2
        tensor([ 0.2500, -1.5000])

    Deviations:
        official code: has exp(-s) L + s, twice the likelihood, for every task: the same optimum,
            all weights doubled.
        popular code: LibMTL, TorchJD and MTAN take the regression form for every task; LibMTL and
            MTAN start at s = -1/2. "AutomaticWeightedLoss" is `liebel`.

    Source: Kendall, Gal, Cipolla, CVPR 2018, arXiv 1705.07115, section 3.
    """

    needs_nonnegative = True
    factor: Tensor
    rate: Tensor

    def __init__(self, n_tasks: int, forms: str | Sequence[str] = "regression") -> None:
        super().__init__(n_tasks)
        forms = (forms,) * n_tasks if isinstance(forms, str) else tuple(forms)
        if len(forms) != n_tasks:
            raise ValueError(f"forms: expected one for each of {n_tasks} tasks, got {len(forms)}")
        for k, form in enumerate(forms):
            if form not in FORMS:
                raise ValueError(
                    f"forms: task {k} has {form!r}, expected one of {', '.join(FORMS)}"
                )
        self.forms = forms
        self.log_vars = nn.Parameter(torch.zeros(n_tasks))
        # weight = factor * exp(-rate * s)
        factor = [0.5 if form == "regression" else 1.0 for form in forms]
        rate = [0.5 if form == "laplace" else 1.0 for form in forms]
        self.register_buffer("factor", torch.tensor(factor), persistent=False)
        self.register_buffer("rate", torch.tensor(rate), persistent=False)

    def objective(self, losses: Tensor) -> Tensor:
        data_term = self.factor * torch.exp(-self.rate * self.log_vars) * losses
        return (data_term + 0.5 * self.log_vars).sum()

    @property
    def sigma(self) -> Tensor:
        """Noise scale of each task, [K], detached: exp(log_vars / 2)."""
        return torch.exp(0.5 * self.log_vars.detach())

    def extra_repr(self) -> str:
        return f"n_tasks={self.n_tasks}, forms={self.forms}"
