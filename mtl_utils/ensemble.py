"""Many seeds at once: the same small training S times over, in one vectorised run.

The S members share nothing. Their parameters are stacked, `torch.func` runs them side by side, and
the sum of their objectives gives each member its own gradient. Optimisers that work entry by entry
(SGD, Adam and kin) then do for each member exactly what they would do for it alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.modules.batchnorm import _BatchNorm
from tqdm.auto import tqdm

from mtl_utils.datasets.base import check_count
from mtl_utils.weighting import LossWeighting

STATELESS = ("equal", "fixed", "uncertainty", "liebel", "imtl_l", "uncertainty_soft")


class Member(nn.Module):
    """A model, its weighting rule and its task losses as one module.

    Args:
        model: the network.
        weighting: a rule that reads losses and keeps no memory, such as "equal" or "uncertainty".
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
        history: name -> a recorded parameter after each epoch, [epochs, S, ...].
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
    record: Sequence[str] = (),
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> Ensemble:
    """Train S members that differ in their initial weights and, if wished, in their data.

    Args:
        make: returns a fresh model and weighting; called once a seed, after `torch.manual_seed`.
        losses: function of (model, *batch) that returns the K task losses, [K].
        tensors: inputs and targets, each [N, ...], or [S, N, ...] with `own_data`.
        seeds: one for each of the S members.
        epochs, batch_size: as in `mtl_utils.training.train`.
        optimizer: from the stacked parameters by name to an optimiser that works entry by entry.
        generator: draws a new order of the rows each epoch, one for each member; None keeps the
            order of the rows.
        own_data: each member has rows of its own.
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
    if name not in STATELESS:
        raise ValueError(
            f"make: the weighting {name!r} remembers or draws something, which members that run "
            f"side by side cannot; expected one of {', '.join(STATELESS)}"
        )
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

    epoch_losses: list[Tensor] = []
    history: dict[str, list[Tensor]] = {name: [] for name in record}
    epoch_range = range(epochs)
    for _ in tqdm(epoch_range, disable=not progress, leave=False):
        order = torch.arange(n_rows).expand(n_members, n_rows)
        if generator is not None:
            order = torch.rand(n_members, n_rows, generator=generator).argsort(1)
        order = order.to(device)
        total = torch.zeros((), device=device)
        for first in range(0, n_rows, batch_size):
            index = order[:, first : first + batch_size]
            objective, found = run(parameters, buffers, *(t[pick, index] for t in rows))
            optim.zero_grad()
            objective.sum().backward()
            optim.step()
            total = total + found.detach() * index.shape[1]
        epoch_losses.append(total / n_rows)
        for name in record:
            history[name].append(parameters[name].detach().clone())

    def predict(inputs: Tensor) -> Sequence[Tensor]:
        inputs = inputs.to(device)
        if inputs.dim() == rows[0].dim() - 1:  # [N, ...], the same for all members
            inputs = inputs.expand(n_members, *inputs.shape)
        prefix = "model."
        model_state = {
            name.removeprefix(prefix): value
            for name, value in (parameters | buffers).items()
            if name.startswith(prefix)
        }
        with torch.no_grad():
            return vmap(lambda p, x: functional_call(template.model, p, (x,)))(model_state, inputs)

    return Ensemble(
        {name: value.detach() for name, value in parameters.items()},
        torch.stack(epoch_losses),
        {name: torch.stack(values) for name, values in history.items()},
        predict,
    )
