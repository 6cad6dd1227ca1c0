"""Optimisers for members side by side: each member has a learning rate and weight decay of its own.

The steps are those of torch.optim, entry by entry; only the rate and the decay are vectors. Every
parameter is stacked: its first axis is the member.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

KINDS = ("sgd", "momentum", "adam", "adamw")

# share of the learning rate that is left when the share t of all steps is done
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda t: 1.0,
    "linear": lambda t: 1 - t,
    "cosine": lambda t: (1 + math.cos(math.pi * t)) / 2,
}


class ManySGD(torch.optim.Optimizer):
    """SGD, with momentum if wished, as `torch.optim.SGD`.

    Args:
        params: stacked parameters [M, ...], or groups of them.
        lr, weight_decay: a number, or one for each member, [M].
        momentum: in [0, 1).
    """

    def __init__(
        self,
        params: Any,
        lr: Tensor | float,
        weight_decay: Tensor | float = 0.0,
        momentum: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step of every member."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                update = p.grad + _spread(group["weight_decay"], p) * p
                if group["momentum"]:
                    state = self.state[p]
                    if "buffer" in state:
                        update = update.add_(state["buffer"], alpha=group["momentum"])
                    state["buffer"] = update
                p.sub_(_spread(group["lr"], p) * update)


class ManyAdam(torch.optim.Optimizer):
    """Adam and AdamW, as `torch.optim.Adam` and `torch.optim.AdamW`.

    Args:
        params: stacked parameters [M, ...], or groups of them.
        lr, weight_decay: a number, or one for each member, [M].
        decoupled: the decay shrinks the parameters themselves (AdamW), instead of being added to
            the gradient (Adam).
        betas, eps: as there.
    """

    def __init__(
        self,
        params: Any,
        lr: Tensor | float,
        weight_decay: Tensor | float = 0.0,
        decoupled: bool = False,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        options = {"lr": lr, "weight_decay": weight_decay, "decoupled": decoupled}
        super().__init__(params, options | {"betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step of every member."""
        for group in self.param_groups:
            beta_1, beta_2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                rate, decay = _spread(group["lr"], p), _spread(group["weight_decay"], p)
                gradient = p.grad
                if group["decoupled"]:
                    p.mul_(1 - rate * decay)
                else:
                    gradient = gradient + decay * p
                state = self.state[p]
                if not state:
                    state |= {"steps": 0, "m": torch.zeros_like(p), "v": torch.zeros_like(p)}
                state["steps"] += 1
                m, v = state["m"], state["v"]
                m.lerp_(gradient, 1 - beta_1)
                v.mul_(beta_2).addcmul_(gradient, gradient, value=1 - beta_2)
                root = v.sqrt().div_(math.sqrt(1 - beta_2 ** state["steps"])).add_(group["eps"])
                p.sub_(rate / (1 - beta_1 ** state["steps"]) * m / root)


def many_optimizer(
    kind: str,
    lr: Tensor | float,
    own_lr: Tensor | float | None = None,
    weight_decay: Tensor | float = 0.0,
) -> Callable[[Mapping[str, Tensor]], torch.optim.Optimizer]:
    """What `train_many` takes as `optimizer`.

    Args:
        kind: one of `KINDS`; "momentum" is SGD with momentum 0.9.
        lr: of the network, a number or one for each member, [M].
        own_lr: of the parameters that a rule learns (uncertainty's log-variances); default `lr`.
        weight_decay: of the network, a number or one for each member, [M]; a rule's own parameters
            have none. AdamW decouples it, the others add it to the gradient.

    Raises:
        ValueError: unknown kind.

    >>> optimizer = many_optimizer("adam", torch.tensor([0.01, 0.1]))
    >>> optimizer({"weight": torch.zeros(2, 3, requires_grad=True)}).param_groups[0]["lr"]
    tensor([0.0100, 0.1000])
    """
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")

    def make(parameters: Mapping[str, Tensor]) -> torch.optim.Optimizer:
        own = [p for name, p in parameters.items() if name.startswith("weighting.")]
        network = [p for name, p in parameters.items() if not name.startswith("weighting.")]
        groups: list[dict[str, Any]] = [{"params": network, "weight_decay": weight_decay}]
        if own:
            groups.append({"params": own, "lr": lr if own_lr is None else own_lr})
        if kind in ("sgd", "momentum"):
            return ManySGD(groups, lr, momentum=0.9 if kind == "momentum" else 0.0)
        return ManyAdam(groups, lr, decoupled=kind == "adamw")

    return make


def _spread(values: Tensor | float, like: Tensor) -> Tensor | float:
    """A value for each member, [M], in a shape that multiplies a stacked parameter [M, ...]."""
    if not isinstance(values, Tensor) or values.dim() == 0:
        return values
    return values.to(like).reshape(-1, *[1] * (like.dim() - 1))
