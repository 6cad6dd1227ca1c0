"""M weighting rules, one for each member of an ensemble, asked for their weights in every step.

The network is vectorised over the members; the rules are ordinary objects of `make_weighting` that
stay outside. A rule needs little: the K losses of its member, and some the K task gradients of the
trunk. Each gets them as a small graph of its own, on which its ordinary `backward` runs:

    losses + J p + h        J: task gradients [K, P], p and h: zeros that ask for a gradient

What arrives in p.grad is the update of the trunk, what arrives in h.grad are the weights of the
heads. So any rule works that works in a training loop. Three kinds have a shorter way, which the
tests hold to the same numbers: the simplest rules on losses run as one vectorised objective
(`SIMPLE`), rules on the Gramian alone are given that (`ON_GRAMIAN`), and GradNorm gets the
gradients of the last shared layer only (`ON_LAST_LAYER`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from mtl_utils.weighting import Weighting

SIMPLE = ("equal", "fixed", "uncertainty", "liebel", "imtl_l")
CONSTANT = ("equal", "fixed")
ON_GRAMIAN = (
    "mgda",
    "pcgrad",
    "gradvac",
    "cagrad",
    "imtl_g",
    "nash_mtl",
    "aligned_mtl",
    "upgrad",
    "dualproj",
    "config",
    "fairgrad",
)
ON_LAST_LAYER = ("gradnorm",)


class Rules:
    """The rules of M members.

    Args:
        rules: one for each member.
        device: where the members are trained.

    Attributes:
        parameters: what the rules learn, stacked: "weighting.<name>" -> [M, ...], zeros for members
            whose rule has no such parameter.
        observes: names of all quantities that any of them observes.
        reads: "losses", "last layer" or "gradients": what the rules have to be given.
        failures: member -> what its rule said when it refused to go on. Such a member is asked no
            more; its weights are 0.
    """

    def __init__(self, rules: Sequence[Weighting], device: torch.device | str) -> None:
        self.rules = [rule.to(device) for rule in rules]
        self.n_tasks = rules[0].n_tasks
        if any(rule.n_tasks != self.n_tasks for rule in rules):
            raise ValueError("make: expected weightings with the same number of tasks")
        self.observes = {key for rule in rules for key in rule.observes}
        self.failures: dict[int, str] = {}
        self.steps = 0
        kinds = {_reads(rule) for rule in rules}
        self.reads = "losses"
        if "gradients" in kinds or kinds == {"losses", "last layer"}:
            self.reads = "gradients"
        elif "last layer" in kinds:
            self.reads = "last layer"
        self._own: dict[str, list[tuple[int, nn.Parameter]]] = {}
        self.parameters = self._stack(device)
        inner = [_inner(rule) for rule in self.rules]
        alike = all(type(r) is type(self.rules[0]) for r in self.rules)
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

    # ---- rules on losses ---------------------------------------------------------------------

    def weigh(self, losses: Tensor) -> Tensor:
        """Weights of the losses, [M, K]; fills `.grad` of the rules' own parameters."""
        self.steps += 1
        if self._together is not None:
            return self._together.weigh(losses)
        asked = self._asked(losses)
        leaves = [row.requires_grad_() for row in losses.detach().clone().unbind()]
        for member in asked:
            self._try(member, self.rules[member].backward, leaves[member])
        self._collect_own_gradients()
        zeros = torch.zeros_like(losses[0])
        grads = [zeros if m in self.failures else leaf.grad for m, leaf in enumerate(leaves)]
        return torch.stack([zeros if g is None else g for g in grads])

    # ---- rules on gradients ------------------------------------------------------------------

    def combine(
        self, losses: Tensor, jacobian: Tensor, shapes: Sequence[torch.Size]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Ask the rules with the task gradients of the trunk.

        Args:
            losses: [M, K].
            jacobian: [M, K, P], the gradients of the shared parameters.
            shapes: of the shared parameters of one member, in the order of the P columns.

        Returns:
            updates of the shared parameters [M, P], weights of the heads' losses [M, K], and the
            weights that the rules returned [M, K].
        """
        self.steps += 1
        updates = torch.zeros_like(jacobian[:, 0])
        heads, weights = torch.zeros_like(losses), torch.zeros_like(losses)
        for m in self._asked(losses):
            found = self._try(m, _ask, self.rules[m], losses[m], jacobian[m], shapes)
            if found is not None:
                updates[m], heads[m], weights[m] = found
        self._collect_own_gradients()
        return updates, heads, weights

    # ---- observing ---------------------------------------------------------------------------

    def observe(self, quantities: dict[str, Tensor]) -> None:
        """Hand each rule what it observes, out of name -> [M, K]."""
        if not self.observes & set(quantities):
            return
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
            parameter.grad = gradient
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


def _inner(rule: Any) -> Weighting:
    """The rule itself, or what a rescaling wrapper has around it."""
    return rule.rule if hasattr(rule, "rescale") else rule


def _is_registered(rule: Weighting, names: Sequence[str]) -> bool:
    """Whether the rule is of a class registered under one of these names, not of a subclass."""
    return rule.name in names and "name" in vars(type(rule))


def _reads(rule: Weighting) -> str:
    if not rule.needs_shared:
        return "losses"
    return "last layer" if _is_registered(rule, ON_LAST_LAYER) else "gradients"


def _on_gramian(rule: Weighting) -> bool:
    """Whether the coefficients follow from the Gramian alone, anew in each step."""
    as_usual = getattr(rule, "every", 1) == 1 and getattr(rule, "gramian", "exact") == "exact"
    return as_usual and not rule.needs_nonnegative and _is_registered(rule, ON_GRAMIAN)


def _ask(
    rule: Weighting, losses: Tensor, jacobian: Tensor, shapes: Sequence[torch.Size]
) -> tuple[Tensor, Tensor, Tensor]:
    """Update of the trunk [P], weights of the heads [K] and weights [K] of one rule."""
    if _on_gramian(rule):
        gramian = jacobian @ jacobian.T
        if not bool(torch.isfinite(gramian).all()):
            raise ValueError("losses: the gradient in the shared parameters is not finite")
        alpha = rule.coefficients(gramian)  # type: ignore[operator]
        return alpha @ jacobian, torch.ones_like(losses), alpha
    shared = [jacobian.new_zeros(shape, requires_grad=True) for shape in shapes]
    heads = torch.zeros_like(losses, requires_grad=True)
    small = losses + jacobian @ torch.cat([p.flatten() for p in shared]) + heads
    weights = rule.backward(small, shared=shared)
    assert heads.grad is not None
    update = [torch.zeros_like(p) if p.grad is None else p.grad for p in shared]
    return torch.cat([part.flatten() for part in update]), heads.grad, weights
