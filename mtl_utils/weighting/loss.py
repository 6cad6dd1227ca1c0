"""Rules that read loss values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtl_utils.weighting.base import (
    ConstantWeighting,
    LossWeighting,
    check_generator,
    register,
)


@register("equal")
class Equal(ConstantWeighting):
    """Plain sum of the losses (unitary scalarisation): every weight is 1.

    Source: Kurin et al., NeurIPS 2022, arXiv 2201.04122, show how strong this baseline is.
    """

    def weights_now(self) -> Tensor:
        return torch.ones(self.n_tasks)


@register("fixed")
class Fixed(ConstantWeighting):
    """Constant weights: sum_k weights[k] L_k (linear scalarisation).

    Args:
        weights: K finite numbers of at least 0, not all 0; used as given, not normalised.
    """

    def __init__(self, n_tasks: int, weights: Sequence[float] | Tensor) -> None:
        super().__init__(n_tasks)
        self.constant: Tensor
        constant = self._check_vector("weights", weights)
        if bool((constant < 0).any()) or not bool((constant > 0).any()):
            raise ValueError(
                f"weights: expected values of at least 0, not all 0, got {constant.tolist()}"
            )
        self.register_buffer("constant", constant.clone())

    def weights_now(self) -> Tensor:
        return self.constant


@register("random")
class RandomWeights(ConstantWeighting):
    """Random loss weighting: new weights each step, K softmax(z) with z ~ N(0, I).

    The weights sum to K (the paper's sum to 1), so that the step is as long as that of `equal`.
    A method that claims to help has to beat this one.

    Args:
        generator: a `torch.Generator` on the CPU. Without one, a generator of its own is seeded
            from torch's global one, so that `torch.manual_seed` governs it.

    Source: Lin, Ye, Zhang, Tsang, TMLR 2022, arXiv 2111.10603.
    """

    def __init__(self, n_tasks: int, generator: torch.Generator | None = None) -> None:
        super().__init__(n_tasks)
        self.generator = check_generator(generator)

    def weights_now(self) -> Tensor:
        z = torch.randn(self.n_tasks, generator=self.generator, dtype=torch.float64)
        return self.n_tasks * torch.softmax(z, 0)


FORMS = ("regression", "classification", "laplace")


@register("uncertainty")
class Uncertainty(LossWeighting):
    """Homoscedastic uncertainty weighting, with s = log sigma^2 learned for each task.

    regression:      exp(-s) L / 2 + s / 2    L = mean squared error; Gaussian likelihood
    classification:  exp(-s) L     + s / 2    L = cross-entropy; the approximation of the paper
    laplace:         exp(-s/2) L   + s / 2    L = mean absolute error; Laplace scale b = sigma

    Each is a negative log-likelihood up to a constant, for a loss that is a mean over output
    dimensions. The effective weights are the factors of L above. Where L reaches 0 a weight grows
    without end.

    Args:
        forms: one of `FORMS` for all tasks, or a sequence of K of them.

    Attributes:
        log_vars: parameter, [K], log sigma^2 of each task, starts at 0. Give it to the optimiser,
            without weight decay.

    Source: Kendall, Gal, Cipolla, CVPR 2018, arXiv 1705.07115, section 3.
    """

    needs_nonnegative = True

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
        self.factor: Tensor
        self.rate: Tensor
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


@register("liebel")
class Liebel(LossWeighting):
    """Uncertainty weighting with another regulariser: sum_k L_k / (2 c_k^2) + log(1 + c_k^2).

    The objective stays at or above 0, but a task's share weights[k] * L_k at the optimum is no
    longer 1/2 for every task: it goes to 0 for small losses and to 1 for large ones. Optimum:
    c^2 = (L + sqrt(L^2 + 8 L)) / 4.

    Attributes:
        c: parameter, [K], starts at 1. Give it to the optimiser, without weight decay.

    Source: Liebel, Koerner, 2018, arXiv 1805.06334.
    """

    needs_nonnegative = True

    def __init__(self, n_tasks: int) -> None:
        super().__init__(n_tasks)
        self.c = nn.Parameter(torch.ones(n_tasks))

    def objective(self, losses: Tensor) -> Tensor:
        c2 = self.c**2
        return (losses / (2 * c2) + torch.log1p(c2)).sum()
