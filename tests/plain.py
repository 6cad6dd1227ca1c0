"""K plain backward passes, and what each rule makes of them: the reference of the zoo."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mtl_utils.weighting import GradientWeighting
from mtl_utils.weighting.kinds import CoordinateWeighting
from tests.rules import make
from tests.zoo import Situation

Gradients = list[Tensor | None]  # one for each parameter


@dataclass
class Passes:
    """What K passes gave.

    Attributes:
        losses: [K].
        gradients: of each loss in each of `Situation.parameters`, dense.
        is_shared: whether each of these is shared (and learns).
        order: places of the shared parameters, as they were handed over.
        shapes: of the shared parameters.
    """

    losses: Tensor
    gradients: list[Gradients]
    is_shared: list[bool]
    order: list[int]
    shapes: list[Tensor]

    @property
    def n_tasks(self) -> int:
        return len(self.losses)

    @property
    def jacobian(self) -> Tensor:
        """[K, P], in float32 at least, complex numbers as two real ones."""
        rows = []
        for found in self.gradients:
            parts = [zeros if found[i] is None else found[i] for i, zeros in self.blocks()]
            rows.append(torch.cat([real(part).flatten() for part in parts]))
        return torch.stack(rows)

    def blocks(self):
        return list(zip(self.order, self.shapes, strict=True))

    def split(self, flat: Tensor) -> dict[int, Tensor]:
        """A vector [P] as one tensor for each shared parameter, by its place."""
        sizes = [real(zeros).numel() for zeros in self.shapes]
        parts = flat.split(sizes)
        return {
            i: torch.view_as_complex(part.reshape(*zeros.shape, 2))
            if zeros.is_complex()
            else part.reshape(zeros.shape)
            for (i, zeros), part in zip(self.blocks(), parts, strict=True)
        }

    @property
    def last_layer(self) -> Tensor:
        """The Jacobian in the last tensor with two or more dimensions and what follows it."""
        matrices = [j for j, zeros in enumerate(self.shapes) if zeros.dim() >= 2]
        sizes = [real(zeros).numel() for zeros in self.shapes]
        first = sum(sizes[: matrices[-1] if matrices else -1])
        return self.jacobian[:, first:]

    def combined(self, update: Tensor, weights: Tensor) -> Gradients:
        """An update of the shared parameters [P]; weights [K] of the losses for the others."""
        shared = self.split(update)
        result: Gradients = []
        for i, learns in enumerate(self.is_shared):
            each = [
                (w, row[i])
                for w, row in zip(weights, self.gradients, strict=True)
                if row[i] is not None
            ]
            if not each:
                result.append(None)
            else:
                result.append(shared[i] if learns else sum(w * real_or_not(g) for w, g in each))
        return result


def real(tensor: Tensor) -> Tensor:
    if tensor.is_complex():
        return torch.view_as_real(tensor.resolve_conj())
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def passes(build: Callable[[], Situation]) -> Passes:
    """Each loss alone back through a model of its own."""
    values = build().losses().detach()
    gradients: list[Gradients] = []
    for k in range(len(values)):
        model = build()
        loss = model.loss(k)
        if loss.requires_grad:
            loss.backward()
        gradients.append([None if p.grad is None else p.grad.to_dense() for p in model.parameters])
    model = build()
    place = {id(p): i for i, p in enumerate(model.parameters)}
    order = list(dict.fromkeys(place[id(p)] for p in model.shared if p.requires_grad))
    is_shared = [i in order for i in range(len(model.parameters))]
    shapes = [torch.zeros_like(model.parameters[i]).detach() for i in order]
    return Passes(values, gradients, is_shared, order, shapes)


class Reference:
    """A rule's own coefficients of what K plain passes gave."""

    def __init__(self, name: str, found: Passes) -> None:
        self.name, self.found = name, found
        self.rule = make(name, found.n_tasks)
        self.weights = torch.ones(found.n_tasks, dtype=torch.float64, requires_grad=True)
        self.adam = torch.optim.Adam([self.weights], lr=0.025)  # GradNorm's

    def step(self) -> Gradients:
        """The gradient of each parameter after one step; None where no loss reaches."""
        found, rule = self.found, self.rule
        jacobian, losses = found.jacobian, found.losses
        ones = torch.ones(found.n_tasks, dtype=torch.float64)
        if not isinstance(rule, GradientWeighting):
            leaf = losses.clone().requires_grad_()
            rule.backward(leaf * 1.0)
            assert leaf.grad is not None
            if "losses_after_step" in rule.observes:
                rule.observe(losses_after_step=0.9 * losses)
            return found.combined(leaf.grad.to(jacobian) @ jacobian, leaf.grad)
        if self.name == "gradnorm":
            weights = self.weights.detach().clone()
            self.gradnorm()
            return found.combined(weights.to(jacobian) @ jacobian, weights)
        if isinstance(rule, CoordinateWeighting):
            update, _ = rule.merge(jacobian, losses)
            return found.combined(update, 1 / (losses + 1e-8) if self.name == "db_mtl" else ones)
        gramian = jacobian @ jacobian.T
        if self.name == "pareto_mtl":
            alpha = torch.as_tensor(rule.towards(gramian.double().numpy(), losses.double().numpy()))
        else:
            alpha = rule.coefficients(gramian)
        return found.combined(alpha.to(jacobian) @ jacobian, ones)

    def gradnorm(self) -> None:
        """The weights' step: Adam of torch on the paper's objective, by autograd."""
        found = self.found
        if found.n_tasks == 1:
            return
        weighted = self.weights * found.last_layer.double().norm(dim=1)
        # the losses are those of the first step: all rates are 1
        target = weighted.mean().detach()
        self.adam.zero_grad()
        (weighted - target).abs().sum().backward()
        self.adam.step()
        with torch.no_grad():
            self.weights.clamp_(min=1e-4)
            self.weights *= found.n_tasks / self.weights.sum()


def real_or_not(gradient: Tensor) -> Tensor:
    return gradient if gradient.is_complex() else real(gradient)


def compare(model: Situation, wanted: Sequence[Tensor | None]) -> None:
    """Whether `.grad` of every parameter is what is wanted, up to the situation's tolerance.

    Lengths are compared over all shared and over all other parameters: what cancels out in one of
    them is small beside the rest.
    """
    difference = {True: 0.0, False: 0.0}
    length = {True: 0.0, False: 0.0}
    shared = {id(p) for p in model.shared}
    for i, (p, want) in enumerate(zip(model.parameters, wanted, strict=True)):
        if want is None:
            assert p.grad is None, f"parameter {i}: a gradient, but no loss reaches it"
            continue
        assert p.grad is not None, f"parameter {i}: no gradient"
        assert p.grad.dtype == p.dtype and p.grad.shape == p.shape
        got = real(p.grad.to_dense()).double()
        difference[id(p) in shared] += float((got - real(want).double()).square().sum())
        length[id(p) in shared] += float(real(want).double().square().sum())
    for which in (True, False):
        far, whole = difference[which] ** 0.5, length[which] ** 0.5
        kind = "shared" if which else "other"
        assert far <= model.tolerance * whole + 1e-12, f"{kind}: off by {far:.3g} of {whole:.3g}"
