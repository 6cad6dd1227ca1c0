"""M weighting rules, one for each member of an ensemble, asked for their weights in every step.

The network is vectorised over the members; the rules are ordinary objects of `make_weighting` that
stay outside. A rule needs little: the K losses of its member, and some the K task gradients of the
trunk. It is handed these as a batch whose gradients are known (`Known`), and what it would let land
in the parameters is read off there. The simplest rules on losses (`SIMPLE`) run as one vectorised
objective instead, and GradNorm gets the gradients of the last shared layer only (`ON_LAST_LAYER`).

Anything else that has a `backward`, such as a wrapper around a rule, gets a small graph:

    losses + J p + h        J: task gradients [K, P], p and h: zeros that ask for a gradient

What arrives in p.grad is the update of the trunk, what arrives in h.grad are the weights of the
heads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from mtl_utils.weighting import Weighting
from mtl_utils.weighting.kinds import CoordinateWeighting

SIMPLE = ("equal", "fixed", "uncertainty", "liebel", "imtl_l")
CONSTANT = ("equal", "fixed")
ON_LAST_LAYER = ("gradnorm",)


class Rules:
    """The rules of M members.

    Args:
        rules: one for each member.
        device: where the members are trained.

    Attributes:
        home: where the rules compute.
        parameters: what the rules learn, stacked: "weighting.<name>" -> [M, ...], zeros for members
            whose rule has no such parameter.
        observes: names of all quantities that any of them observes.
        reads: "losses", "last layer" or "gradients": what the rules have to be given.
        representation: whether any of them reads the Gramian of the representation too.
        failures: member -> what its rule said when it refused to go on. Such a member is asked no
            more; its weights are 0.
    """

    def __init__(self, rules: Sequence[Weighting], device: torch.device | str) -> None:
        self.home = _home(rules, device)
        self.rules = [rule.to(self.home) for rule in rules]
        self.n_tasks = rules[0].n_tasks
        if any(rule.n_tasks != self.n_tasks for rule in rules):
            raise ValueError("make: expected weightings with the same number of tasks")
        for rule in rules:
            whose = rule if isinstance(rule, Weighting) else getattr(rule, "rule", rule)
            if isinstance(whose, Weighting) and whose.batches > 1:
                raise ValueError(
                    f"make: {whose.name} takes {whose.batches} independent batches a step, and "
                    "members that run side by side are given one; use mtl_utils.train for each"
                )
        self.observes = {key for rule in rules for key in rule.observes}
        self.failures: dict[int, str] = {}
        self.steps = 0
        kinds = {_reads(rule) for rule in rules}
        self.reads = kinds.pop() if len(kinds) == 1 else "gradients"
        inner = [_inner(rule) for rule in self.rules]
        self.representation = any(
            getattr(rule, "gramian", "exact") == "representation" for rule in inner
        )
        self._own: dict[str, list[tuple[int, nn.Parameter]]] = {}
        self.parameters = self._stack(device)
        alike = all(type(rule) is type(self.rules[0]) for rule in self.rules)
        simple = all(type(r) is type(inner[0]) and _is_registered(r, SIMPLE) for r in inner)
        self._together = _Together(self.rules, self.parameters) if alike and simple else None

    def _stack(self, device: torch.device | str) -> dict[str, Tensor]:
        """The rules' own parameters side by side; those of each rule become views of these."""
        stacked: dict[str, Tensor] = {}
        for member, rule in enumerate(self.rules):
            for name, parameter in rule.named_parameters():
                if not parameter.requires_grad:
                    continue
                key = f"weighting.{name}"
                if key not in stacked:
                    shape = (len(self.rules), *parameter.shape)
                    stacked[key] = torch.zeros(shape, dtype=parameter.dtype, device=device)
                stacked[key][member] = parameter.detach()
                parameter.data = stacked[key][member]
                self._own.setdefault(key, []).append((member, parameter))
        for value in stacked.values():
            value.requires_grad_()
        return stacked

    def weigh(self, losses: Tensor) -> Tensor:
        """Weights of the losses, [M, K], of rules that read losses alone; fills `.grad` of the
        rules' own parameters."""
        self.steps += 1
        if self._together is not None:
            return self._together.weigh(losses)
        values = losses.to(self.home)
        weights = [torch.zeros_like(values[0])] * len(self.rules)
        for member in self._asked(values):
            found = self._try(member, _weights, self.rules[member], values[member])
            if found is not None:
                weights[member] = found
        self._collect_own_gradients()
        return torch.stack(weights).to(losses.device)

    def combine(
        self,
        losses: Tensor,
        jacobian: Tensor,
        shapes: Sequence[torch.Size],
        at_z: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Ask the rules with the task gradients of the trunk.

        Args:
            losses: [M, K].
            jacobian: [M, K, P], the gradients of the shared parameters.
            shapes: of the shared parameters of one member, in the order of the P columns.
            at_z: [M, K, Z], the task gradients at the representation, where a rule reads them.

        Returns:
            updates of the shared parameters [M, P], weights of the heads' losses [M, K], and the
            weights that the rules returned [M, K].
        """
        self.steps += 1
        values = losses.to(self.home)
        updates = torch.zeros_like(jacobian[:, 0])
        heads, weights = torch.zeros_like(values), torch.zeros_like(values)
        for m in self._asked(values):
            known = Known(values[m], jacobian[m], shapes, None if at_z is None else at_z[m])
            found = self._try(m, _update, self.rules[m], known)
            if found is not None:
                updates[m], heads[m], weights[m] = found
        self._collect_own_gradients()
        return updates, heads.to(losses.device), weights.to(losses.device)

    def observe(self, quantities: dict[str, Tensor]) -> None:
        """Hand each rule what it observes, out of name -> [M, K]."""
        if not self.observes & set(quantities):
            return
        quantities = {key: values.to(self.home) for key, values in quantities.items()}
        for member, rule in enumerate(self.rules):
            mine = {key: quantities[key][member] for key in rule.observes if key in quantities}
            if mine and member not in self.failures:
                self._try(member, rule.observe, **mine)

    # ---- members that failed -----------------------------------------------------------------

    @property
    def failed(self) -> Tensor:
        """Which members failed, [M]."""
        failed = torch.zeros(len(self.rules), dtype=torch.bool)
        failed[list(self.failures)] = True
        return failed

    def _asked(self, losses: Tensor) -> list[int]:
        """The members whose rules are asked; those whose losses ended being finite fail here."""
        finite = torch.isfinite(losses).all(1).tolist()
        for member, is_finite in enumerate(finite):
            if not is_finite:
                self._fail(member, f"losses: they are {losses[member].tolist()}")
        return [m for m in range(len(self.rules)) if m not in self.failures]

    def _try(self, member: int, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """What a rule's function returns; where it refuses, its member fails and no other."""
        try:
            return function(*args, **options)
        except ValueError as error:
            self._fail(member, str(error))
            return None

    def _fail(self, member: int, message: str) -> None:
        if self.steps <= 1:  # a training that cannot begin is a mistake, not a divergence
            raise ValueError(f"member {member}: {message}")
        self.failures.setdefault(member, message)

    def _collect_own_gradients(self) -> None:
        """Move the gradients of the rules' own parameters to where these are stacked."""
        for key, stacked in self.parameters.items():
            rows = torch.zeros_like(stacked)
            for member, parameter in self._own[key]:
                if parameter.grad is not None:
                    rows[member] = parameter.grad
                    parameter.grad = None
            stacked.grad = rows


# ---- one rule ------------------------------------------------------------------------------------


class Known:
    """A batch whose losses and task gradients are known, as a rule's `_backward` sees it.

    It stands for both `mtl_utils.weighting.batch.Batch` and the task gradients that this returns.

    Args:
        values: losses, [K], where the rule computes.
        jacobian: task gradients of the shared parameters, [K, P], or None; they stay on the device
            of the network.
        shapes: of the shared parameters, in the order of the P columns.
        at_z: gradients at the representation, [K, Z], or None.

    Attributes:
        update: what the rule makes of the gradients, [P].
        heads: weights of the losses in the gradients of all other parameters, [K].
    """

    scale, plan = 1.0, "known"

    def __init__(
        self,
        values: Tensor,
        jacobian: Tensor | None = None,
        shapes: Sequence[torch.Size] = (),
        at_z: Tensor | None = None,
    ) -> None:
        self.values, self.heads = values, torch.ones_like(values)
        self._jacobian, self.shapes, self.at_z = jacobian, shapes, at_z
        self.update: Tensor | None = None

    @property
    def jacobian(self) -> Tensor:
        """[K, P]."""
        assert self._jacobian is not None
        return self._jacobian

    def backward(self, weights: Tensor) -> None:
        """For rules on losses: sum_k weights[k] dL_k everywhere."""
        self.heads = weights
        if self._jacobian is not None:
            self.update = weights.to(self._jacobian) @ self._jacobian

    def gradients(self, head_weights: Tensor | None = None) -> Known:
        """Itself, with these weights for the heads."""
        if head_weights is not None:
            self.heads = head_weights.to(self.values)
        return self

    def gramian(self, last_layer: bool = False) -> Tensor:
        """[K, K]."""
        rows = self.jacobian
        if last_layer:
            matrices = [i for i, shape in enumerate(self.shapes) if len(shape) >= 2]
            last = self.shapes[matrices[-1] :] if matrices else self.shapes[-1:]
            rows = rows[:, -sum(shape.numel() for shape in last) :]
        return (rows @ rows.T).to(self.values.device)

    def representation_gramian(self) -> Tensor:
        """[K, K]."""
        assert self.at_z is not None
        return (self.at_z @ self.at_z.T).to(self.values.device)

    def fill(self, coefficients: Tensor) -> None:
        """The update is sum_k coefficients[k] g_k."""
        self.update = coefficients.to(self.jacobian) @ self.jacobian

    def fill_with(self, update: Tensor) -> None:
        """The update is this, [P]."""
        self.update = update

    def check_finite(self, numbers: Tensor, reason: str) -> None:
        """ValueError if they are not."""
        if not bool(torch.isfinite(numbers).all()):
            raise ValueError(f"losses: {reason}, got {numbers.tolist()}")


def _weights(rule: Any, losses: Tensor) -> Tensor:
    """Weights of a rule on losses, [K]."""
    inner = _inner(rule)
    if not isinstance(inner, Weighting):
        leaf = losses.clone().requires_grad_()
        rule.backward(leaf)
        assert leaf.grad is not None
        return leaf.grad
    _check_signs(inner, losses)
    known = Known(losses)
    inner._backward(known)  # type: ignore[arg-type]
    return known.heads if inner is rule else rule.rescale(known.heads)


def _update(rule: Any, known: Known) -> tuple[Tensor, Tensor, Tensor]:
    """Update of the trunk [P], weights of the heads [K], and weights [K] of one rule."""
    inner = _inner(rule)
    if isinstance(inner, Weighting):
        _check_signs(inner, known.values)
        weights = inner._backward(known).detach()  # type: ignore[arg-type]
        assert known.update is not None
        if inner is rule:
            return known.update, known.heads, weights
        scaled = rule.rescale(weights)
        factor = (scaled.abs().sum() / weights.abs().sum()).to(known.update)
        return factor * known.update, known.heads, scaled
    losses, jacobian = known.values, known.jacobian
    shared = [jacobian.new_zeros(shape, requires_grad=True) for shape in known.shapes]
    heads = torch.zeros_like(losses, requires_grad=True)
    small = losses + jacobian @ torch.cat([p.flatten() for p in shared]) + heads
    weights = rule.backward(small, shared=shared)
    assert heads.grad is not None
    update = [torch.zeros_like(p) if p.grad is None else p.grad for p in shared]
    return torch.cat([part.flatten() for part in update]), heads.grad, weights


def _check_signs(rule: Weighting, losses: Tensor) -> None:
    if rule.needs_nonnegative and min(losses.tolist()) < 0:
        raise ValueError(f"losses: {rule.name} needs losses of at least 0, got {losses.tolist()}")


# ---- the simplest rules, all at once -------------------------------------------------------------


class _Together:
    """Rules of one simple class, as one vectorised objective; a wrapper that only rescales their
    weights (attributes `rule` and `rescale`) may be around them."""

    def __init__(self, rules: Sequence[Weighting], parameters: dict[str, Tensor]) -> None:
        inner = [_inner(rule) for rule in rules]
        self.example, self.rescale = inner[0], getattr(rules[0], "rescale", None)
        prefix = "weighting." if inner[0] is rules[0] else "weighting.rule."
        self.parameters = {f"rule.{n.removeprefix(prefix)}": p for n, p in parameters.items()}
        _, self.buffers = stack_module_state([_Objective(rule) for rule in inner])
        template = _Objective(inner[0])
        self.objective = vmap(lambda p, b, losses: functional_call(template, (p, b), (losses,)))
        self.constant: Tensor | None = None
        self.begun = False

    def weigh(self, losses: Tensor) -> Tensor:
        """Weights, [M, K]; fills `.grad` of the rules' own parameters."""
        if self.constant is not None:
            return self.constant
        first, self.begun = not self.begun, True
        if first and self.example.needs_nonnegative and bool((losses < 0).any()):
            raise ValueError(f"losses: {self.example.name} needs losses of at least 0")
        leaf = losses.clone().requires_grad_()
        objective = self.objective(self.parameters, self.buffers, leaf).sum()
        weights, *gradients = torch.autograd.grad(objective, [leaf, *self.parameters.values()])
        for parameter, gradient in zip(self.parameters.values(), gradients, strict=True):
            parameter.grad = gradient.contiguous()
        if self.rescale is not None:
            weights = self.rescale(weights)
        if self.example.name in CONSTANT:
            self.constant = weights
        return weights


class _Objective(nn.Module):
    """A rule's objective as what `functional_call` calls."""

    def __init__(self, rule: Weighting) -> None:
        super().__init__()
        self.rule = rule

    def forward(self, losses: Tensor) -> Tensor:
        return self.rule.objective(losses)  # type: ignore[operator]


def _home(rules: Sequence[Weighting], device: torch.device | str) -> torch.device | str:
    """Where the rules compute.

    One after another they handle a few numbers each, which a GPU takes longer to be told of than a
    processor to do. So they stay on the CPU, and losses and Gramians come to them; all but those
    that run together, have parameters (stacked on the device, for the optimiser) or read whole
    gradients.
    """
    if all(_is_registered(_inner(rule), SIMPLE) for rule in rules):
        return device
    for rule in rules:
        learns = any(p.requires_grad for p in rule.parameters())
        if learns or isinstance(rule, CoordinateWeighting) or not isinstance(rule, Weighting):
            return device
    return "cpu"


def _inner(rule: Any) -> Any:
    """The rule itself, or what a rescaling wrapper has around it."""
    return rule.rule if hasattr(rule, "rescale") else rule


def _is_registered(rule: Any, names: Sequence[str]) -> bool:
    """Whether the rule is of a class registered under one of these names, not of a subclass."""
    return rule.name in names and "name" in vars(type(rule))


def _reads(rule: Weighting) -> str:
    if not rule.needs_shared:
        return "losses"
    return "last layer" if _is_registered(rule, ON_LAST_LAYER) else "gradients"
