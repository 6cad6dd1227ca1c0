"""Gradient Vaccine: raise the cosine of two gradients to what it usually is."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mtl_utils import solvers
from mtl_utils.solvers import Array
from mtl_utils.weighting.base import register
from mtl_utils.weighting.checks import check_generator, check_number
from mtl_utils.weighting.kinds import GramianWeighting
from mtl_utils.weighting.methods import pcgrad


@register(
    "gradvac",
    title="GradVac",
    year=2021,
    reads="gramian",
    notebook="12",
    source="arXiv 2010.05874",
)
class GradVac(GramianWeighting):
    """Gradient Vaccine.

    As PCGrad, but the other gradient is added whenever the cosine phi of h_i and g_j lies below a
    moving average t_ij of it, both in [-1, 1].

    Formula:
        h_i <- h_i + |h_i| (t sqrt(1 - phi^2) - phi sqrt(1 - t^2)) / (|g_j| sqrt(1 - t^2)) g_j

    which makes it t_ij. Then t_ij <- (1 - decay) t_ij + decay phi. With averages of 0, where they
    begin, this is PCGrad.

    Args:
        decay: in [0, 1], share of the present in the moving average.
        generator: a `torch.Generator` on the CPU for the order; by default one of its own.

    Example:
        >>> make_weighting("gradvac", 2).coefficients(torch.tensor([[4.0, -1.0], [-1.0, 1.0]]))
        tensor([1.2500, 2.0000])

    Deviations:
        paper: works on groups of parameters (a layer, a model); here all shared ones are one group.
        popular code: decay is 0.5 in LibMTL and TorchJD, as here, and 0.01 in other ports.

    Source: Wang, Tsvetkov, Firat, Cao, ICLR 2021, arXiv 2010.05874, equation 3 and algorithm 1.
    """

    task_dims: ClassVar = {"average": (0, 1)}
    average: Tensor

    def __init__(
        self,
        n_tasks: int,
        decay: float = 0.5,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(n_tasks)
        self.decay = check_number("decay", decay, "[0, 1]")
        self.generator = check_generator(generator)
        self.register_buffer("average", torch.zeros(n_tasks, n_tasks))

    def rule(self, gramian: Array) -> Array:
        assert self.generator is not None
        norms, cosine = solvers.cosines(gramian)
        n_tasks = len(gramian)
        h, tasks = np.eye(n_tasks), np.arange(n_tasks)
        average = self.average.cpu().double().numpy().copy()
        for j in pcgrad.orders(n_tasks, self.generator).T:
            length = np.sqrt(np.maximum(((h @ cosine) * h).sum(1), 0.0))
            product = (h * cosine[j]).sum(1)
            phi = np.clip(product / np.where(length > 0, length, 1.0), -1.0, 1.0)
            target = average[tasks, j]
            sine = np.sqrt(np.maximum(1 - target**2, 1e-16))
            add = length * (target * np.sqrt(1 - phi**2) - phi * sine) / sine
            below = (phi < target) & (norms > 0) & (norms[j] > 0)
            h[tasks, j] += np.where(below, add, 0.0)
            average[tasks, j] = (1 - self.decay) * target + self.decay * phi
        self.average = torch.as_tensor(average).to(self.average)
        return norms @ h / np.where(norms > 0, norms, 1.0) + (norms == 0)
