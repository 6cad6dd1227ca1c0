"""What rules have in common, by what they read.

LossWeighting           minimises a function of the losses of this step
  ConstantWeighting     a weighted sum of them, with weights that are constants of the step
    HistoryWeighting    which follow from what the rule observed before
GradientWeighting       combines the task gradients of the shared parameters
  GramianWeighting      with coefficients that follow from their inner products
  CoordinateWeighting   coordinate by coordinate
  BatchesWeighting      with coefficients that follow from independent batches
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Self

import numpy as np
import torch
from torch import Tensor

from mtl_utils import gradients, solvers
from mtl_utils.engine import TaskGradients, landing
from mtl_utils.solvers import Array
from mtl_utils.weighting.base import Weighting
from mtl_utils.weighting.batch import Batch, Found
from mtl_utils.weighting.checks import all_finite, refuse_tasks
from mtl_utils.weighting.state import at_least_single

PIECE = 4096  # coordinates, of K gradients


class LossWeighting(Weighting):
    """Rules that read loss values: one weighted backward pass, whatever K is.

    A rule gives its `objective`, a function of the K losses and of its own parameters. Its
    derivative with respect to each loss is the effective weight, so that the gradient of the
    objective in any model parameter is sum_k weights[k] * dL_k.
    """

    plan: str | None = "one backward pass"

    def objective(self, losses: Tensor) -> Tensor:
        """What the rule minimises: a scalar, from losses [K]."""
        raise NotImplementedError

    def _backward(self, batch: Batch) -> Tensor:
        leaf = batch.values.clone().requires_grad_()
        own = [p for p in self.parameters() if p.requires_grad]
        with torch.enable_grad():
            objective = self.objective(leaf)
        weights, *own_gradients = torch.autograd.grad(objective, [leaf, *own])
        reason = f"the weights of {self.name} are no longer finite; its losses or parameters are"
        reason += " out of range"
        if not all_finite(weights):
            refuse_tasks("weights", weights, ~torch.isfinite(weights), reason)
        if not all(all_finite(gradient) for gradient in own_gradients):
            raise ValueError(
                f"losses: the gradient in the parameters of {self.name} is not finite; its losses "
                f"or parameters are out of range, got losses {leaf.tolist()}"
            )
        batch.backward(weights)
        landing.onto_leaves(own, [batch.scale * gradient for gradient in own_gradients])
        return weights


class ConstantWeighting(LossWeighting):
    """Rules whose weights are constants of a step: they minimise sum_k weights[k] L_k."""

    def weights_now(self) -> Tensor:
        """Weights of the next step, [K]."""
        raise NotImplementedError

    def objective(self, losses: Tensor) -> Tensor:
        return (self.weights_now().to(losses) * losses).sum()

    def _backward(self, batch: Batch) -> Tensor:
        weights = self.weights_now().to(batch.values)  # the derivative needs no autograd
        batch.backward(weights)
        return weights


class HistoryWeighting(ConstantWeighting):
    """Rules whose weights follow from what they observed, whatever the losses of this step are."""


class GradientWeighting(Weighting):
    """Rules that read task gradients of the shared parameters.

    The shared parameters get sum_k alpha_k g_k; every other parameter gets the gradient of its own
    loss(es), unweighted, as in the methods' official code.
    """

    needs_shared = True
    engine_options: tuple[str, ...] = ("gramian", "every")
    calls: Tensor
    kept_alpha: Tensor

    def __init__(self, n_tasks: int) -> None:
        super().__init__(n_tasks)
        if "every" in self.engine_options:
            self.register_buffer("calls", torch.tensor(0))
            self.register_buffer("kept_alpha", torch.full((n_tasks,), torch.nan))

    def on(self, tasks: Tensor) -> Self:
        part = super().on(tasks)
        if "every" in self.engine_options:
            came_from = ~self.kept_alpha.isnan().cpu()
            if not torch.equal(came_from, tasks):  # another set of tasks has other coefficients
                part.kept_alpha.fill_(torch.nan)
        return part

    def take(self, part: Self, tasks: Tensor) -> None:
        super().take(part, tasks)
        if "every" in self.engine_options:
            away = ~tasks.to(self.kept_alpha.device)
            self.kept_alpha = self.kept_alpha.masked_fill(away, torch.nan)

    def coefficients(self, gramian: Tensor) -> Tensor:
        """alpha, [K], from the Gramian of the task gradients, [K, K], entry (k, l) = <g_k, g_l>."""
        raise NotImplementedError

    def _combine(self, gramian: Tensor, losses: Tensor) -> Tensor:
        """alpha, [K], for rules that read the losses too."""
        return self.coefficients(gramian)

    def _backward(self, batch: Batch) -> Tensor:
        found = batch.gradients()
        new = self.calls % self.every == 0 or not all_finite(self.kept_alpha)
        if not new:
            alpha = self.kept_alpha.to(batch.values)
        else:
            alpha = self._combine(self._gramian(found, batch), batch.values)
            reason = f"{self.name} found no finite coefficients"
            refuse_tasks("weights", alpha, ~torch.isfinite(alpha), reason)
        found.fill(alpha)
        batch.plan = found.plan + ("" if new else "; coefficients of an earlier call")
        if self.every > 1:
            self.calls = self.calls + 1
            self.kept_alpha = alpha.detach().to(self.kept_alpha, copy=True)
        return alpha

    def _gramian(self, found: Found, batch: Batch) -> Tensor:
        if self.gramian == "representation":
            gramian = found.representation_gramian()
        else:
            gramian = found.gramian(last_layer=self.gramian == "last_layer")
        reason = "the gradient in the shared parameters is not finite (squared norm shown)"
        batch.check_finite(gramian.diagonal(), reason)
        return gramian


class GramianWeighting(GradientWeighting):
    """Rules whose coefficients are a function of the Gramian.

    A rule gives alpha in float64, whatever the type of the gradients is. With one task every rule
    is plain training.
    """

    def rule(self, gramian: Array) -> Array:
        """alpha, [K], from a Gramian [K, K] in float64, K > 1."""
        raise NotImplementedError

    def coefficients(self, gramian: Tensor) -> Tensor:
        """alpha, [K], from the Gramian of the task gradients, [K, K], entry (k, l) = <g_k, g_l>.

        Raises:
            ValueError: not a symmetric [K, K] matrix of finite numbers.
        """
        array = solvers.check_gramian(gramian.detach().cpu().double().numpy())
        if len(array) != self.n_tasks:
            raise ValueError(f"gramian: expected K = {self.n_tasks} tasks, got {len(array)}")
        alpha = self.rule(array) if self.n_tasks > 1 else np.ones(1)
        return torch.as_tensor(alpha).to(gramian)


def in_pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Views of a few coordinates (the last dimension) of several tensors at a time.

    They stay in the processor's cache: arithmetic on K long gradients is several times as fast.
    """
    return zip(*(tensor.split(PIECE, -1) for tensor in tensors), strict=True)


class CoordinateWeighting(GradientWeighting):
    """Rules that need the task gradients themselves, not only their inner products.

    Attributes:
        kept: name of a buffer that holds as many numbers as K gradients, [K, P]; "" for none.
            Before the first call it is [K, 0], as P is not known.
    """

    engine_options: tuple[str, ...] = ()
    kept = ""

    def merge(self, jacobian: Tensor, losses: Tensor) -> tuple[Tensor, Tensor]:
        """The update of the shared parameters [P] and weights [K], from J [K, P] and losses [K].

        What is not finite in the Jacobian must not be in the update either. Buffers are replaced
        by new tensors, not changed in place: then they are put back as they were."""
        raise NotImplementedError

    def prepare(self, shared: Iterable[Tensor]) -> Self:
        parameters = gradients.check_shared(shared)
        if self.kept:
            size = sum(p.numel() * (2 if p.is_complex() else 1) for p in parameters)
            self._buffers[self.kept] = at_least_single(
                parameters[0].detach().real.new_zeros(self.n_tasks, size)
            )
        return self

    def _make_room(self, saved: dict[str, Tensor]) -> None:
        if self.kept in saved:
            there, own = saved[self.kept], self._buffers[self.kept]
            assert own is not None
            self._buffers[self.kept] = there.new_zeros(there.shape, device=own.device)

    def _kept_as(self, jacobian: Tensor) -> Tensor:
        """The numbers kept, as the Jacobian [K, P] is; zeros before the first call."""
        own = self._buffers[self.kept]
        assert own is not None
        return own.to(jacobian) if own.shape[1] else torch.zeros_like(jacobian)

    def _refuse_other_size(self, n: int) -> None:
        """What was kept is of as many numbers as the shared parameters have, n."""
        own = self._buffers.get(self.kept)
        if own is not None and own.shape[1] not in (0, n):
            raise ValueError(
                f"shared: {self.name} keeps K gradients of {own.shape[1]} numbers, got {n} numbers "
                "that learn; where some are frozen or unfrozen on the way, make the weighting anew"
            )

    def _head_weights(self, losses: Tensor) -> Tensor | None:
        return None

    def _backward(self, batch: Batch) -> Tensor:
        found = batch.gradients(self._head_weights(batch.values))
        jacobian, undo = found.jacobian, self._remembered()
        self._refuse_other_size(jacobian.shape[1])
        update, weights = self.merge(jacobian, batch.values)
        # one row is looked at instead of K: what is not finite in any of them is not in the update
        if not math.isfinite(update.sum()) and not bool(torch.isfinite(update).all()):
            undo()
            reason = "the gradient in the shared parameters is not finite (norm shown)"
            batch.check_finite(torch.linalg.vector_norm(jacobian, dim=1), reason)
            reason = f"{self.name} found no finite update"
            batch.check_finite(torch.full_like(batch.values, torch.nan), reason)
        found.fill_with(update)
        batch.plan = found.plan
        return weights


class BatchesWeighting(GradientWeighting):
    """Rules whose coefficients follow from the gradients of two independent batches.

    A step takes `batches` calls of `backward`, each with losses of a batch of its own; nothing
    lands before the last of them. A plain training loop that calls `optimizer.step()` after every
    `backward` works as it is: where no gradient has landed, and none is left from before
    (`zero_grad()` drops them), the optimiser does nothing.

    Attributes:
        update_from: which of the batches gives the gradients of the shared parameters, counted
            from 0; None for the mean of all. Heads get the mean.
    """

    engine_options: tuple[str, ...] = ()
    batches = accumulate = 2
    update_from: int | None = None

    def coefficients(self, gramian: Tensor) -> Tensor:
        """alpha, [K], from J_1 J_2', [K, K]: entry (k, l) is the inner product of the gradient of
        task k in the first batch with that of task l in the second.

        Raises:
            ValueError: not a [K, K] matrix of finite numbers.
        """
        array = gramian.detach().cpu().double().numpy()
        if array.shape != (self.n_tasks, self.n_tasks) or not np.isfinite(array).all():
            raise ValueError(
                f"gramian: expected finite inner products of K = {self.n_tasks} tasks, "
                f"got {array.tolist()}"
            )
        alpha = self.rule(array) if self.n_tasks > 1 else np.ones(1)
        return torch.as_tensor(alpha).to(gramian)

    def rule(self, product: Array) -> Array:
        """alpha, [K], from J_1 J_2' in float64, K > 1."""
        raise NotImplementedError

    def _backward(self, batch: Batch) -> Tensor:
        found = batch.gradients()
        assert not isinstance(found, TaskGradients)  # several calls make a step
        product = found.product()
        reason = "the gradient in the shared parameters is not finite (squared norm shown)"
        batch.check_finite(product.diagonal(), reason)
        alpha = self.coefficients(product).to(batch.values)
        found.fill(alpha, self.update_from)
        batch.plan = found.plan
        return alpha
