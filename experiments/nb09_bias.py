"""Notebook 09: how far off is a weighting on average, because it is found on one noisy batch?

python -m experiments.nb09_bias    writes results/09_bias.jsonl

Two regressions share a small trunk; the labels of the second have ten times the noise. The
network is trained for a while with equal weights and then held still, so that there is one right
answer: what MGDA gives on all rows. Every rule then makes many steps on random batches, which are
not carried out. Its mean weights and its mean update are compared with the right ones. All rules
see equally many rows a step: those with two or three batches get smaller ones.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mtl_utils import make_weighting, sweep
from mtl_utils.gradients import jacobian
from mtl_utils.models import HardSharing, mlp
from mtl_utils.weighting import Weighting

ROWS, INPUTS = 4096, 8
NOISE = (0.1, 1.0)
RULES = ("mgda", "cr_mogm", "moco", "modo", "sdmgrad")
SIZES = (24, 96, 384)  # rows a step
SEEDS = range(3)


def frozen(seed: int) -> tuple[nn.Module, Tensor, Tensor]:
    """A network after twenty steps of Adam with equal weights; inputs [ROWS, INPUTS] and targets
    [ROWS, 2]."""
    own = torch.Generator().manual_seed(seed)
    x = torch.randn(ROWS, INPUTS, generator=own)
    y = torch.tanh(x @ torch.randn(INPUTS, 2, generator=own))
    y = y + torch.randn(ROWS, 2, generator=own) * torch.tensor(NOISE)
    torch.manual_seed(seed)
    heads = [nn.Linear(16, 1) for _ in NOISE]
    model = HardSharing(mlp(INPUTS, 16, last=True, activation=nn.Tanh), heads)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(20):
        optimizer.zero_grad()
        losses_of(model, x, y).sum().backward()
        optimizer.step()
    return model, x, y


def losses_of(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Mean squared errors, [2]."""
    return torch.stack([(o[:, 0] - y[:, k]).square().mean() for k, o in enumerate(model(x))])


def contender(name: str, gramian: Tensor) -> Weighting:
    """The rule, aimed at what MGDA aims at; steps on shares in units of the true gradients."""
    step = 0.05 / gramian.diagonal().sum().item()
    options = {
        "cr_mogm": {"rule": "mgda", "alpha": 0.9},
        "moco": {"beta": 0.05, "gamma": step, "decay": 0.0},
        "modo": {"gamma": step, "rho": 0.0},
        "sdmgrad": {"lam": 0.0},
    }
    return make_weighting(name, 2, **options.get(name, {}))


def bias(rule: str, size: int, seed: int, steps: int = 500) -> dict[str, float]:
    """Mean weights and update of a rule over many steps that are not carried out.

    Args:
        rule: one of `RULES`.
        size: rows a step.
        seed: of data, initial weights and batches.
        steps: of which the first quarter is left out, as some rules begin with equal weights.

    Returns:
        clean: mean weight of the task with hardly any noise; its `spread` over the steps; `exact`,
        what MGDA gives it on all rows; `off`, distance of the mean update from the exact one, in
        lengths of that; `error`, the same for the update of one step, in the root mean square;
        `angle` of the mean update to the exact one, in degrees.
    """
    model, x, y = frozen(seed)
    shared = list(model.trunk.parameters())
    full = jacobian(losses_of(model, x, y), shared)
    alpha = make_weighting("mgda", 2).coefficients(full @ full.T)
    wanted = alpha @ full
    weighting = contender(rule, full @ full.T)
    own = torch.Generator().manual_seed(1000 + seed)
    weights, updates = [], []
    for step in range(steps):
        model.zero_grad()
        for _ in range(weighting.batches):
            pick = torch.randint(0, ROWS, (size // weighting.batches,), generator=own)
            found = weighting.backward(losses_of(model, x[pick], y[pick]), shared=shared)
        if step >= steps // 4:
            weights.append(weighting.shares[0] if rule == "moco" else found[0])
            updates.append(torch.cat([p.grad.flatten() for p in shared]))
    mean, clean = torch.stack(updates).mean(0), torch.stack(weights)
    errors = torch.stack(updates) - wanted
    length = wanted.norm()
    cosine = (mean @ wanted / (mean.norm() * length)).clamp(-1, 1)
    return {
        "clean": clean.mean().item(),
        "spread": clean.std().item(),
        "exact": alpha[0].item(),
        "off": ((mean - wanted).norm() / length).item(),
        "error": (errors.square().sum(1).mean().sqrt() / length).item(),
        "angle": math.degrees(math.acos(cosine.item())),
    }


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    configs = sweep.grid(rule=RULES, size=SIZES, seed=SEEDS)
    sweep.run(bias, configs, record="09_bias", **sweep.options(__doc__))
