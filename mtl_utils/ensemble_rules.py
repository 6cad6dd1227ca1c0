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

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from mtl_utils.weighting import Weighting

SIMPLE = ("equal", "fixed", "uncertainty", "liebel", "imtl_l")
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
        self.parameters = self._stack(device)
        self._vectorised = None
        if all(type(rule) is type(rules[0]) and _is_registered(rule, SIMPLE) for rule in rules):
            _, self._buffers = stack_module_state([_Objective(rule) for rule in self.rules])
            template = _Objective(self.rules[0])
            self._vectorised = vmap(
                lambda p, b, losses: functional_call(template, (p, b), (losses,))
            )

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
        for value in stacked.values():
            value.requires_grad_()
        return stacked

    # ---- rules on losses ---------------------------------------------------------------------

    def weigh(self, losses: Tensor) -> Tensor:
        """Weights of the losses, [M, K]; fills `.grad` of the rules' own parameters."""
        self.steps += 1
        if self._vectorised is not None:
            return self._weigh_together(losses)
        for parameter in self.parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        weights = torch.zeros_like(losses)
        for member, rule in self._asked(losses):
            leaf = losses[member].clone().requires_grad_()
            with self._refusal(member) as refusal:
                rule.backward(leaf)
            if not refusal.came:
                assert leaf.grad is not None
                weights[member] = leaf.grad
                self._own_gradients(member)
        return weights

    def _weigh_together(self, losses: Tensor) -> Tensor:
        assert self._vectorised is not None
        if self.steps == 1 and self.rules[0].needs_nonnegative and bool((losses < 0).any()):
            raise ValueError(f"losses: {self.rules[0].name} needs losses of at least 0")
        leaf = losses.clone().requires_grad_()
        own = {f"rule.{n.removeprefix('weighting.')}": p for n, p in self.parameters.items()}
        objective = self._vectorised(own, self._buffers, leaf).sum()
        weights, *gradients = torch.autograd.grad(objective, [leaf, *own.values()])
        for parameter, gradient in zip(own.values(), gradients, strict=True):
            parameter.grad = gradient
        return weights

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
        for parameter in self.parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        updates = torch.zeros_like(jacobian[:, 0])
        heads, weights = torch.zeros_like(losses), torch.zeros_like(losses)
        for member, rule in self._asked(losses):
            with self._refusal(member) as refusal:
                found = _ask(rule, losses[member], jacobian[member], shapes)
            if not refusal.came:
                updates[member], heads[member], weights[member] = found
                self._own_gradients(member)
        return updates, heads, weights

    # ---- observing ---------------------------------------------------------------------------

    def observe(self, quantities: dict[str, Tensor]) -> None:
        """Hand each rule what it observes, out of name -> [M, K]."""
        if not self.observes & set(quantities):
            return
        for member, rule in enumerate(self.rules):
            mine = {key: quantities[key][member] for key in rule.observes if key in quantities}
            if mine and member not in self.failures:
                with self._refusal(member):
                    rule.observe(**mine)

    # ---- members that failed -----------------------------------------------------------------

    @property
    def failed(self) -> Tensor:
        """Which members failed, [M]."""
        failed = torch.zeros(len(self.rules), dtype=torch.bool)
        failed[list(self.failures)] = True
        return failed

    def _asked(self, losses: Tensor) -> list[tuple[int, Weighting]]:
        """The members whose rules are asked; those whose losses ended being finite fail here."""
        for member in (~torch.isfinite(losses).all(1)).nonzero().flatten().tolist():
            self._fail(member, f"losses: they are {losses[member].tolist()}")
        return [(m, rule) for m, rule in enumerate(self.rules) if m not in self.failures]

    def _refusal(self, member: int) -> _Refusal:
        return _Refusal(self, member)

    def _fail(self, member: int, message: str) -> None:
        if self.steps <= 1:  # a training that cannot begin is a mistake, not a divergence
            raise ValueError(f"member {member}: {message}")
        self.failures.setdefault(member, message)

    def _own_gradients(self, member: int) -> None:
        """Move the gradients of a rule's own parameters to where they are stacked."""
        for name, parameter in self.rules[member].named_parameters():
            if parameter.grad is not None:
                stacked = self.parameters[f"weighting.{name}"].grad
                assert stacked is not None
                stacked[member] = parameter.grad
                parameter.grad = None


class _Refusal:
    """Takes the ValueError of one member's rule down and lets the others go on."""

    def __init__(self, rules: Rules, member: int) -> None:
        self.rules, self.member, self.came = rules, member, False

    def __enter__(self) -> _Refusal:
        return self

    def __exit__(self, kind, error, trace) -> bool:
        self.came = isinstance(error, ValueError)
        if self.came:
            self.rules._fail(self.member, str(error))
        return self.came


class _Objective(nn.Module):
    """A rule's objective as what `functional_call` calls."""

    def __init__(self, rule: Weighting) -> None:
        super().__init__()
        self.rule = rule

    def forward(self, losses: Tensor) -> Tensor:
        return self.rule.objective(losses)  # type: ignore[operator]


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
