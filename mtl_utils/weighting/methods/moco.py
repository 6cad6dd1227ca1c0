"""MoCo: MGDA on gradients that are tracked over the steps, so that batch noise averages out."""

from __future__ import annotations

import torch
from torch import Tensor

from mtl_utils import solvers
from mtl_utils.weighting.base import register
from mtl_utils.weighting.checks import check_number
from mtl_utils.weighting.kinds import CoordinateWeighting
from mtl_utils.weighting.shares import closed, opened


@register(
    "moco",
    title="MoCo",
    year=2023,
    reads="gradients",
    notebook="09",
    source="arXiv 2210.12624",
)
class MoCo(CoordinateWeighting):
    """Multi-objective gradient correction.

    Formula:
        y_k    <- y_k + b (g_k - y_k),   beginning with 0
        shares <- onto the simplex:  shares - c (Y Y' + rho I) shares,   beginning with 1 / K
        update  = sum_k shares_k y_k,   b = beta / step^decay,   c = gamma / step^decay

    MGDA solves for the shares on one batch, and so takes noise for conflict. Here they, and the
    update, follow from averages. The first updates are short, as y begins with 0. Where gradients
    stay as they are, the shares go to those of MGDA (rho = 0). A step on the shares is as long as
    the gradients squared: rescale the losses or choose gamma accordingly.

    It keeps K gradients of the trunk in memory. The weights returned are the coefficients of the
    present gradients in the update, b shares_k.

    Args:
        beta: in (0, 1], step of the tracked gradients.
        gamma: above 0, step of the shares, in units of one over a squared gradient.
        decay: at least 0; how fast both steps fall.
        rho: at least 0, draws the shares towards 1 / K; in units of a squared gradient.

    Example:
        >>> rule = make_weighting("moco", 2, beta=1.0, gamma=0.1, decay=0.0)
        >>> rule.merge(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.ones(2))
        (tensor([0.8500, 0.5750]), tensor([0.4250, 0.5750]))

    Deviations:
        paper: not read; the formula is that of its authors' code.
        official code: in that of the paper (beta 0.1, gamma 0.1, both falling with powers of their
            own, 0.5, no rho) a step on the shares is twice as long; in its authors' later
            comparison both steps are constant and rho is 0.1.
        popular code: LibMTL rescales each g_k to the size of its loss, and takes a softmax where
            this projects; beta is 0.5 there. TorchJD has none.

    Source: Fernando, Shen, Liu, Chaudhury, Murugesan, Chen, ICLR 2023, arXiv 2210.12624.
    """

    kept = "tracked"
    steps: Tensor
    shares: Tensor
    tracked: Tensor

    def __init__(
        self,
        n_tasks: int,
        beta: float = 0.1,
        gamma: float = 0.1,
        decay: float = 0.5,
        rho: float = 0.0,
    ) -> None:
        super().__init__(n_tasks)
        self.beta = check_number("beta", beta, "(0, 1]")
        self.gamma = check_number("gamma", gamma, "(0, inf)")
        self.decay = check_number("decay", decay, "[0, inf)")
        self.rho = check_number("rho", rho, "[0, inf)")
        self.register_buffer("steps", torch.zeros(n_tasks, dtype=torch.int64))
        self.register_buffer("shares", torch.full((n_tasks,), 1 / n_tasks))
        self.register_buffer("tracked", torch.zeros(n_tasks, 0))  # [K, P] from the first call on

    def merge(self, jacobian: Tensor, losses: Tensor) -> tuple[Tensor, Tensor]:
        self.steps = self.steps + 1
        fall = self.steps.to(jacobian) ** self.decay
        b, c = self.beta / fall, self.gamma / fall.max()
        y = torch.lerp(self._kept_as(jacobian), jacobian, b[:, None])
        shares = torch.as_tensor(opened(self.shares)).to(y)
        slope = y @ y.T @ shares + self.rho * shares
        found = solvers.onto_simplex((shares - c * slope).double().cpu().numpy())
        self.tracked, self.shares = y, closed(found, self.shares)
        shares = torch.as_tensor(found).to(y)
        return shares @ y, (b * shares).to(losses)
