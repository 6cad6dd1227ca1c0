"""GradNorm: weights that level the gradient norms, faster for tasks that lag behind."""

from __future__ import annotations

import torch
from torch import Tensor

from mtl_utils.weighting.adam import adam
from mtl_utils.weighting.base import register
from mtl_utils.weighting.batch import Batch
from mtl_utils.weighting.checks import check_number, refuse_tasks
from mtl_utils.weighting.kinds import GradientWeighting


@register(
    "gradnorm",
    title="GradNorm",
    year=2018,
    reads="gradients",
    notebook="08",
    source="arXiv 1711.02257",
)
class GradNorm(GradientWeighting):
    """Gradient normalisation.

    Formula:
        n_k     = |gradient of L_k in the last shared layer|
        r_k     = (L_k / L_k(0)) / mean_j (L_j / L_j(0))           relative inverse training rate
        target  = mean_j (w_j n_j) r_k^alpha
        w_k    <- w_k - Adam's step for the slope  sign(w_k n_k - target_k) n_k

    then weights below `floor` are raised to it and all are scaled to sum to K. The slope is that of
    sum_j |w_j n_j - target_j| in w_k with the target held constant: no second derivative. The step
    of this iteration uses the weights from before the change. Unlike those of the other rules on
    gradients, the weights act on the heads too.

    L_k(0) is the loss of the first call, above 0. A task whose gradient is zero keeps its weight
    (up to the scaling). A step in which tasks are absent shares out among the others what they have
    together: used are their weights scaled to a sum of K', the number of those present.

    Args:
        alpha: at least 0. 0 gives equal norms; larger values pull slow tasks harder.
        lr: rate of the Adam steps on the weights, above 0.
        floor: smallest weight, in (0, 1).

    Example:
        >>> trunk = torch.ones(1, 1, requires_grad=True)
        >>> losses = torch.stack([trunk.sum() * 4, trunk.sum()])  # norms 4 and 1
        >>> weighting = make_weighting("gradnorm", 2)
        >>> weighting.backward(losses, shared=[trunk])
        tensor([1., 1.])
        >>> weighting.backward(torch.stack([trunk.sum() * 4, trunk.sum()]), shared=[trunk])
        tensor([0.9750, 1.0250])

    Deviations:
        paper: the floor is ours, as a weight may step over 0. The last shared layer is taken to be
            the last tensor in `shared` with two or more dimensions and what follows it. The paper
            has alpha 0.12 for its toy and 1.5 for larger networks.
        popular code: differentiates twice, which changes nothing. LibMTL has K softmax weights,
            norms of all shared parameters and L(0) from the whole first epoch; one port makes a new
            Adam in each step (every step is then as long as its rate), one scales the weights once
            an epoch only, one for the norms but not for the losses.

    Source: Chen, Badrinarayanan, Lee, Rabinovich, ICML 2018, arXiv 1711.02257, algorithm 1.
    """

    needs_nonnegative = True
    engine_options: tuple[str, ...] = ()
    w: Tensor
    start: Tensor
    first: Tensor
    second: Tensor
    steps: Tensor

    def __init__(
        self, n_tasks: int, alpha: float = 1.5, lr: float = 0.025, floor: float = 1e-4
    ) -> None:
        super().__init__(n_tasks)
        self.alpha = check_number("alpha", alpha, "[0, inf)")
        self.lr = check_number("lr", lr, "(0, inf)")
        self.floor = check_number("floor", floor, "(0, 1)")
        self.register_buffer("w", torch.ones(n_tasks))
        self.register_buffer("start", torch.full((n_tasks,), torch.nan))  # L(0)
        self.register_buffer("first", torch.zeros(n_tasks))
        self.register_buffer("second", torch.zeros(n_tasks))
        self.register_buffer("steps", torch.zeros(n_tasks, dtype=torch.int64))

    def _backward(self, batch: Batch) -> Tensor:
        values = batch.values.to(self.w)
        first = self.start.isnan()
        reason = "gradnorm divides by the losses of the first call; expected them above 0"
        refuse_tasks("losses", values, first & (values <= 0), reason)
        w = self.weights_now()
        found = batch.gradients(head_weights=w)
        norms = found.gramian(last_layer=True).diagonal().clamp_min(0).sqrt().to(w)
        reason = "the gradient in the last shared layer is not finite (norm shown)"
        batch.check_finite(norms, reason)
        found.fill(w)
        batch.plan = found.plan
        self.start = torch.where(first, values, self.start)
        if self.n_tasks > 1:
            self._learn(values, norms)
        return w

    def weights_now(self) -> Tensor:
        """Weights of the next step, [K], sum K."""
        return self.n_tasks * self.w / self.w.sum()

    def _learn(self, losses: Tensor, norms: Tensor) -> None:
        """One step on the weights."""
        self.steps = self.steps + 1
        change, self.first, self.second = adam(
            self.slope(losses, norms), self.first, self.second, self.steps
        )
        w = (self.weights_now() - self.lr * change).clamp_min(self.floor)
        self.w = self.w.sum() * w / w.sum()  # keeps the share that these tasks have together

    def slope(self, losses: Tensor, norms: Tensor) -> Tensor:
        """Derivative of the objective of the weights, [K].

        Args:
            losses: [K].
            norms: of the unweighted gradients in the last shared layer, [K].
        """
        weighted = self.weights_now() * norms
        progress = losses / self.start
        rate = progress / progress.mean() if progress.mean() > 0 else torch.ones_like(progress)
        return torch.sign(weighted - weighted.mean() * rate**self.alpha) * norms

    def coefficients(self, gramian: Tensor) -> Tensor:
        """The present weights, [K]: they do not follow from one Gramian."""
        return self.weights_now().to(gramian)

    def extra_repr(self) -> str:
        return f"n_tasks={self.n_tasks}, alpha={self.alpha:g}, lr={self.lr:g}"
