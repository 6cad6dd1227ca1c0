"""Many seeds at once: the same small training S times over, in one vectorised run.

The S members share nothing. Their parameters are stacked, `torch.func` runs them side by side, and
the sum of their objectives gives each member its own gradient. Optimisers that work entry by entry
(SGD, Adam and kin) then do for each member exactly what they would do for it alone.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.modules.batchnorm import _BatchNorm
from tqdm.auto import tqdm

from mtl_utils.datasets.base import check_count
from mtl_utils.weighting import LossWeighting
from mtl_utils.weighting.kinds import HistoryWeighting
from mtl_utils.weighting.methods.fixed import Fixed

STATELESS = ("equal", "fixed", "uncertainty", "liebel", "imtl_l", "uncertainty_soft")
EPOCHWISE = ("dwa",)  # constant weights within an epoch, from the mean losses of earlier ones
STEPWISE = ("dtp", "loss_trend")  # constant weights within a step, from what `observe` returns


class Member(nn.Module):
    """A model, its weighting rule and its task losses as one module.

    Args:
        model: the network.
        weighting: a rule that reads losses and keeps no memory, such as "equal" or "uncertainty".
            (`train_many` also takes "dwa", "dtp" and "loss_trend", which it keeps outside: the
            member gets their weights as fixed ones.)
        losses: function of (model, *batch) that returns the K task losses, [K].
    """

    def __init__(
        self, model: nn.Module, weighting: LossWeighting, losses: Callable[..., Tensor]
    ) -> None:
        super().__init__()
        self.model = model
        self.weighting = weighting
        self.losses = losses

    def forward(self, *batch: Tensor) -> tuple[Tensor, Tensor]:
        """The rule's objective, a scalar, and the task losses, [K]."""
        losses = self.losses(self.model, *batch)
        return self.weighting.objective(losses), losses


@dataclass
class Ensemble:
    """S trained members.

    Attributes:
        parameters: name -> stacked parameter, [S, ...]; names as in `Member`.
        losses: mean task losses of each epoch, [epochs, S, K].
        history: name -> a recorded parameter after each epoch, [epochs, S, ...]; also what
            `observe` returned, such as "kpis", and the "weights" of rules that remember: means
            over the steps of each epoch, [epochs, S, K].
        predict: function of (inputs [N, ...] or [S, N, ...]) that returns the K outputs of all
            members, each [S, N, ...].
    """

    parameters: dict[str, Tensor]
    losses: Tensor
    history: dict[str, Tensor]
    predict: Callable[[Tensor], Sequence[Tensor]]


def train_many(
    make: Callable[[], tuple[nn.Module, LossWeighting]],
    losses: Callable[..., Tensor],
    tensors: Sequence[Tensor],
    seeds: Sequence[int],
    epochs: int,
    batch_size: int,
    optimizer: Callable[[dict[str, Tensor]], torch.optim.Optimizer],
    *,
    generator: torch.Generator | None = None,
    own_data: bool = False,
    observe: Callable[..., dict[str, Tensor]] | None = None,
    record: Sequence[str] = (),
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> Ensemble:
    """Train S members that differ in their initial weights and, if wished, in their data.

    Args:
        make: returns a fresh model and weighting; called once a seed, after `torch.manual_seed`.
            The weighting is stateless (see `STATELESS`), "dwa", "dtp" or "loss_trend".
        losses: function of (model, *batch) that returns the K task losses, [K].
        tensors: inputs and targets, each [N, ...], or [S, N, ...] with `own_data`.
        seeds: one for each of the S members.
        epochs, batch_size: as in `mtl_utils.training.train`.
        optimizer: from the stacked parameters by name to an optimiser that works entry by entry.
        generator: draws a new order of the rows each epoch, one for each member; None keeps the
            order of the rows.
        own_data: each member has rows of its own.
        observe: function of (model, *batch) as in `mtl_utils.training.train`, for "dtp" and
            "loss_trend"; called before each step without gradients, for one member at a time, so
            that it has to consist of tensor operations: {"kpis": ...}, [K], and the like.
        record: names of parameters to keep after each epoch, such as "weighting.log_vars".
        device: where to train.
        progress: show a progress bar.
    """
    members = []
    for seed in seeds:
        torch.manual_seed(seed)
        members.append(Member(*make(), losses))
    n_members = len(members)
    if n_members == 0:
        raise ValueError("seeds: expected at least one, got none")
    check_count("epochs", epochs)
    check_count("batch_size", batch_size)
    name = members[0].weighting.name
    if name not in STATELESS + EPOCHWISE + STEPWISE:
        raise ValueError(
            f"make: the weighting {name!r} remembers or draws something, which members that run "
            "side by side cannot; expected one of "
            f"{', '.join(STATELESS + EPOCHWISE + STEPWISE)}"
        )
    rules: dict[int, HistoryWeighting] = {}  # they stay outside, the members get their weights
    for place, member in enumerate(members):
        rule = member.weighting
        if isinstance(rule, HistoryWeighting):
            if rule.name in STEPWISE and observe is None:
                raise ValueError(f"observe: {rule.name} needs it, to return {rule.observes[0]}")
            rules[place] = rule
            member.weighting = Fixed(rule.n_tasks, torch.ones(rule.n_tasks))
    if any(isinstance(module, _BatchNorm) for module in members[0].modules()):
        raise ValueError("make: batch normalisation keeps statistics, which members cannot")
    if own_data and any(len(t) != n_members for t in tensors):
        raise ValueError(f"tensors: with own_data expected [{n_members}, N, ...] each")
    state, buffers = stack_module_state(members)
    parameters = {name: value.detach().to(device) for name, value in state.items()}
    for value in parameters.values():
        value.requires_grad_()
    buffers = {name: value.to(device) for name, value in buffers.items()}
    if unknown := set(record) - set(parameters):
        raise ValueError(f"record: no parameter {unknown.pop()!r}; there are {sorted(parameters)}")
    template = members[0].to("meta")
    rows = [t.to(device) if own_data else t.to(device).expand(n_members, *t.shape) for t in tensors]
    n_rows = rows[0].shape[1]
    pick = torch.arange(n_members, device=device)[:, None]
    run = vmap(lambda p, b, *batch: functional_call(template, (p, b), batch))
    optim = optimizer(parameters)

    def hand_over(quantities: dict[str, Tensor]) -> None:
        """Let the rules outside observe, and the members have their new weights."""
        for place, rule in rules.items():
            rule.observe(**{key: values[place] for key, values in quantities.items()})
            buffers["weighting.constant"][place] = rule.weights_now()

    def look(p: dict[str, Tensor], b: dict[str, Tensor], *batch: Tensor) -> dict[str, Tensor]:
        assert observe is not None
        return observe(lambda x: functional_call(template.model, _of_model(p | b), (x,)), *batch)

    epoch_losses: list[Tensor] = []
    history: dict[str, list[Tensor]] = defaultdict(list)
    epoch_range = range(epochs)
    for _ in tqdm(epoch_range, disable=not progress, leave=False):
        order = torch.arange(n_rows).expand(n_members, n_rows)
        if generator is not None:
            order = torch.rand(n_members, n_rows, generator=generator).argsort(1)
        order = order.to(device)
        total = torch.zeros((), device=device)
        means: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=device))
        n_steps = math.ceil(n_rows / batch_size)
        for first in range(0, n_rows, batch_size):
            index = order[:, first : first + batch_size]
            batch = [t[pick, index] for t in rows]
            if observe is not None:
                with torch.no_grad():
                    seen = vmap(look)(parameters, buffers, *batch)
                hand_over(seen)
                for key, values in seen.items():
                    means[key] = means[key] + values / n_steps
            if rules:
                means["weights"] = means["weights"] + buffers["weighting.constant"] / n_steps
            objective, found = run(parameters, buffers, *batch)
            optim.zero_grad()
            objective.sum().backward()
            optim.step()
            total = total + found.detach() * index.shape[1]
        epoch_losses.append(total / n_rows)
        hand_over({"train_losses": epoch_losses[-1]})
        for key, values in means.items():
            history[key].append(values)
        for name in record:
            history[name].append(parameters[name].detach().clone())

    def predict(inputs: Tensor) -> Sequence[Tensor]:
        inputs = inputs.to(device)
        if inputs.dim() == rows[0].dim() - 1:  # [N, ...], the same for all members
            inputs = inputs.expand(n_members, *inputs.shape)
        model_state = _of_model(parameters | buffers)
        with torch.no_grad():
            return vmap(lambda p, x: functional_call(template.model, p, (x,)))(model_state, inputs)

    return Ensemble(
        {name: value.detach() for name, value in parameters.items()},
        torch.stack(epoch_losses),
        {name: torch.stack(values) for name, values in history.items()},
        predict,
    )


def _of_model(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The entries of a member's state that belong to its model, named as there."""
    prefix = "model."
    return {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
