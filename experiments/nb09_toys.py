"""Notebook 09: the small problems on which the lesson and the report look at MGDA."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from experiments import nb06_dwa
from experiments.small import cross_entropies
from mtl_utils import make_weighting
from mtl_utils.datasets import MultiTaskData
from mtl_utils.gradients import jacobian
from mtl_utils.models import HardSharing, digit_model, mlp
from mtl_utils.solvers import min_norm_point

Rule = tuple[str, dict[str, Any]]  # a name and its options


def descend(
    losses: Callable[[Tensor], Tensor], start: Any, rate: float, steps: int
) -> tuple[Tensor, Tensor]:
    """MGDA with exact gradients.

    Args:
        losses: function of the parameters that returns the task losses, [K].
        start: of the parameters, a number or a vector [P].
        rate, steps: of the descent.

    Returns:
        the path [steps + 1, ...], and the task gradients [K, P] of the last step.
    """
    path = [torch.as_tensor(start)]
    for _ in range(steps):
        rows = torch.func.jacrev(losses)(path[-1])
        rows = rows.reshape(len(rows), -1)
        alpha = torch.as_tensor(min_norm_point((rows @ rows.T).numpy())).to(rows)
        path.append(path[-1] - rate * (alpha @ rows).reshape(path[-1].shape))
    return torch.stack(path), rows


def easy_and_hard(seed: int) -> MultiTaskData:
    """Two regressions of the same scale: a linear one, and the signs of one; five outputs each."""
    own = torch.Generator().manual_seed(seed)
    maps = torch.randn(2, 10, 5, generator=own) / math.sqrt(10)
    splits = []
    for count in (1280, 500, 1000):
        x = torch.randn(count, 10, generator=own)
        splits.append((x, x @ maps[0], torch.sign(x @ maps[1])))  # both of variance about 1
    return MultiTaskData("easy and hard", ("easy", "hard"), *splits)


def _network(data: MultiTaskData, width: int) -> HardSharing:
    return HardSharing(mlp(10, width, width, last=True), [nn.Linear(width, 5) for _ in data.tasks])


EASY_AND_HARD = replace(
    nb06_dwa.STUDY, data={"easy and hard": easy_and_hard}, model=_network, batch_size=64
)


def after(
    rule: Rule, start: Sequence[float], steps: int = 30, rate: float = 0.2, unit: float = 1.0
) -> Tensor:
    """Losses theta_k^2 / 2 after gradient descent from `start`; the rule sees loss 2 times `unit`,
    the losses returned are in the unit of before."""
    theta = torch.tensor(start, requires_grad=True)
    weighting = make_weighting(rule[0], 2, **rule[1])
    factors = torch.tensor([1.0, unit])
    for _ in range(steps):
        theta.grad = None
        weighting.backward(factors * theta.square() / 2, shared=[theta])
        assert theta.grad is not None
        with torch.no_grad():
            theta -= rate * theta.grad
    return theta.detach().square() / 2


def batch_weights(sizes: Sequence[int], draws: int = 1000) -> tuple[pd.DataFrame, float]:
    """MGDA's weight of a clean task beside a noisy one, from batches.

    Two linear regressions with the same five parameters; the labels of the second have 30 times
    the noise.

    Args:
        sizes: of the batches.
        draws: batches of each size.

    Returns:
        a row for each size: the mean `weight` of the clean task, where 90 % of them lie (`from`,
        `to`), its `bias` (mean, `low`, `high`: weight minus that on all rows, 95 % interval), the
        weight from the `expected` Gramian, and how far the mean Gramian is from that (`off`, of its
        largest entry); and the weight on all rows.
    """
    stream = torch.Generator().manual_seed(3)
    count, width = 4000, 5
    x = torch.randn(count, width, generator=stream)
    goals = torch.eye(2, width)
    y = x @ goals.T + torch.randn(count, 2, generator=stream) * torch.tensor([0.1, 3.0])
    theta = torch.tensor([-0.2, -0.2, 0.3, 0.3, 0.3])
    samples = ((x @ theta)[:, None] - y).T[:, :, None] * x  # [K, N, P], a gradient a row
    full = samples.mean(1)
    exact = float(min_norm_point((full @ full.T).numpy())[0])
    centred = samples - full[:, None]
    covariances = torch.einsum("knp,lnp->kl", centred, centred) / count
    rows = []
    for size in sizes:
        pick = torch.randint(0, count, (draws, size), generator=stream)
        means = samples[:, pick].mean(2).transpose(0, 1)  # [draws, K, P]
        grams = means @ means.transpose(1, 2)
        expected = full @ full.T + covariances / size
        found = np.array([min_norm_point(g)[0] for g in grams.numpy()])
        low, high = np.quantile(found, [0.05, 0.95])
        half = 1.96 * found.std() / math.sqrt(draws)
        rows.append(
            {"batch": size, "weight": found.mean(), "from": low, "to": high}
            | {"expected": min_norm_point(expected.numpy())[0], "bias": found.mean() - exact}
            | {"low": found.mean() - exact - half, "high": found.mean() - exact + half}
            | {"off": ((grams.mean(0) - expected).abs().max() / expected.abs().max()).item()}
        )
    return pd.DataFrame(rows), exact


# ---- a network on digits ---------------------------------------------------------------------


def angle(u: Tensor, v: Tensor) -> float:
    """Between two vectors, in degrees."""
    return math.degrees(torch.acos((u @ v / u.norm() / v.norm()).clamp(-1, 1)).item())


def both_directions(model: HardSharing, batch: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Task gradients of the trunk [K, P], and the weights of MGDA and of MGDA-UB, [K] each."""
    outputs, features = model.forked(batch[0])
    losses = torch.stack(
        [
            nn.functional.cross_entropy(out, classes)
            for out, classes in zip(outputs, batch[1:], strict=True)
        ]
    )
    at_z = torch.autograd.grad(losses.sum(), features, retain_graph=True)
    h = torch.stack([part.flatten() for part in at_z])
    rows = jacobian(losses, model.trunk.parameters(), features)
    exact, bound = (torch.as_tensor(min_norm_point((m @ m.T).numpy())) for m in (rows, h))
    return rows, exact, bound


def directions(
    data: MultiTaskData,
    seeds: Sequence[int],
    sizes: Sequence[int],
    batches: int,
    warm_up: int = 60,
) -> pd.DataFrame:
    """How far MGDA-UB is off on one batch, and on average over batches.

    `digit_model` at the start and after `warm_up` steps of Adam with equal weights (rate 0.004,
    batches of 64), then held still.

    Args:
        data: two overlapping digits.
        seeds: of initial weights and batches.
        sizes: of the batches that are compared.
        batches: how many of each.

    Returns:
        a row for each seed, stage and size; angles in degrees: `one batch`, MGDA-UB to MGDA on the
        same batch (mean over batches); `another batch`, MGDA on one to MGDA on the next; `mean`,
        the mean update of MGDA-UB to that of MGDA; `halves`, the mean of MGDA over one half of the
        batches to that over the other; `even`, equal weights to MGDA on the same batch; whether
        MGDA-UB's or the equal update harms a task on some batch, to first order; and the spread of
        both weights from batch to batch.
    """
    rows = []
    for seed in seeds:
        torch.manual_seed(seed)
        model, order = digit_model(18), torch.Generator().manual_seed(seed)
        optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
        count = len(data.train[0])
        for stage, steps in (("at the start", 0), (f"after {warm_up} steps", warm_up)):
            for _ in range(steps):
                pick = torch.randint(0, count, (64,), generator=order)
                optimizer.zero_grad()
                cross_entropies(model, *(t[pick] for t in data.train)).sum().backward()
                optimizer.step()
            for size in sizes:
                found = []
                for _ in range(batches):
                    pick = torch.randint(0, count, (size,), generator=order)
                    found.append(both_directions(model, [t[pick] for t in data.train]))
                where = {"seed": seed, "stage": stage, "batch": size}
                rows.append(where | _compared(found))
    return pd.DataFrame(rows)


def _compared(found: list[tuple[Tensor, Tensor, Tensor]]) -> dict[str, float]:
    exact = torch.stack([alpha @ rows for rows, alpha, _ in found])
    bound = torch.stack([alpha @ rows for rows, _, alpha in found])
    even = torch.stack([rows.mean(0) for rows, _, _ in found])

    def harms(updates: Tensor) -> bool:
        pairs = zip(found, updates, strict=True)
        return any(bool((rows @ update).min() < 0) for (rows, _, _), update in pairs)

    half = len(found) // 2
    return {
        "one batch": float(np.mean([angle(u, v) for u, v in zip(exact, bound, strict=True)])),
        "another batch": float(
            np.mean([angle(u, v) for u, v in zip(exact[1:], exact[:-1], strict=True)])
        ),
        "mean": angle(exact.mean(0), bound.mean(0)),
        "halves": angle(exact[:half].mean(0), exact[half:].mean(0)),
        "even": float(np.mean([angle(u, v) for u, v in zip(exact, even, strict=True)])),
        "harms": harms(bound),
        "even harms": harms(even),
        "spread of MGDA": torch.stack([alpha[0] for _, alpha, _ in found]).std().item(),
        "spread of MGDA-UB": torch.stack([alpha[0] for _, _, alpha in found]).std().item(),
    }


def turned(
    data: MultiTaskData, factors: Sequence[float], kinds: Sequence[str], rows: int = 200
) -> pd.DataFrame:
    """How far a direction turns when the second loss is multiplied by a factor, in degrees.

    Args:
        data: two overlapping digits; the first `rows` are the batch.
        factors: of loss 2.
        kinds: of normalisation.

    Returns:
        a row a factor; a column for each kind, the angle to its own direction at a factor of 1; and
        the angles of "none" to g1 and of "loss+" to g2.
    """
    torch.manual_seed(0)
    model, batch = digit_model(18), [t[:rows] for t in data.train]

    def direction(factor: float, kind: str) -> Tensor:
        trained = copy.deepcopy(model)
        losses = cross_entropies(trained, *batch) * torch.tensor([1.0, factor])
        rule = make_weighting("mgda", 2, normalise=kind)
        rule.backward(losses, shared=trained.trunk.parameters())
        return torch.cat([p.grad.flatten() for p in trained.trunk.parameters()])

    table = {
        kind: [angle(direction(f, kind), direction(1.0, kind)) for f in factors] for kind in kinds
    }
    g = jacobian(cross_entropies(model, *batch), list(model.trunk.parameters()))
    table["none to g1"] = [angle(direction(f, "none"), g[0]) for f in factors]
    table["loss+ to g2"] = [angle(direction(f, "loss+"), g[1]) for f in factors]
    return pd.DataFrame(table, index=pd.Index([f"{f:g}" for f in factors], name="factor"))
