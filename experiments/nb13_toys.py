"""Notebook 13: five losses in five units, a front that bulges, and FAMO's walk in the valleys.

What a comparison is based on is `nb13_scalarisations`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from benchmarks.scalarisations import BATCH, DATA, ROWS, STEPS, WIDTH, units
from experiments.nb12_paths import FIVE, FLOOR, valley
from mtl_utils import make_weighting, records
from mtl_utils.models import HardSharing, mlp
from mtl_utils.training import batches, train
from mtl_utils.weighting import Weighting

# ---- five regressions at one moment ----------------------------------------------------------

K = 5
UNITS = (1e-2, 1e-1, 1.0, 1e1, 1e2)


class Five:
    """Five regressions in units from 0.01 to 100 on one small trunk; nothing is trained.

    Args:
        generator: draws 64 rows of inputs and targets.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self.x = torch.randn(64, 6, generator=generator)
        self.y = torch.randn(64, K, generator=generator)
        trunk = mlp(6, 12, activation=nn.Tanh, last=True)
        self.net = HardSharing(trunk, [nn.Linear(12, 1) for _ in range(K)])
        self.trunk = list(self.net.trunk.parameters())

    def losses(self, factor: Tensor | float = 1.0) -> Tensor:
        """Mean squared errors in their units, [K], once more rescaled by `factor`."""
        errors = torch.cat(self.net(self.x), 1) - self.y
        return factor * torch.tensor(UNITS) ** 2 * errors.square().mean(0)

    def gradient(self, objective: Tensor) -> Tensor:
        """Gradient in the trunk, [P]."""
        found = torch.autograd.grad(objective, self.trunk, retain_graph=True)
        return torch.cat([g.flatten() for g in found])

    def gradients(self) -> Tensor:
        """A row for each loss, [K, P]."""
        return torch.stack([self.gradient(loss) for loss in self.losses()])

    def update(self, rule: Weighting | str, factor: Tensor | float = 1.0) -> tuple[Tensor, Tensor]:
        """What a rule leaves in the trunk.

        Args:
            rule: a weighting, or the name of one; weights that it learns start at their optimum.
            factor: rescales the losses.

        Returns:
            weights [K], gradient in the trunk [P].
        """
        weighting = make_weighting(rule, n_tasks=K) if isinstance(rule, str) else rule
        losses = self.losses(factor)
        for own, optimum in (("log_weights", -losses.log()), ("log_vars", losses.log())):
            if hasattr(weighting, own):
                getattr(weighting, own).data = optimum.detach()
        self.net.zero_grad()
        weights = weighting.backward(losses, shared=self.trunk)
        return weights, torch.cat([p.grad.flatten() for p in self.trunk])


def one_minus_cosine(a: Tensor, b: Tensor) -> float:
    """0 for the same direction, 2 for opposite ones; as a square, so that no digit is lost."""
    return (a / a.norm() - b / b.norm()).square().sum().item() / 2


# ---- a learned weight behind a falling loss --------------------------------------------------


def learned_shares(name: str, eta: float, r: float = 0.02) -> np.ndarray:
    """Weight times loss over its value at the optimum, [700], for weights learned by plain gradient
    descent with rate `eta`; the loss is multiplied by exp(-r) in steps 100 to 350."""
    weighting = make_weighting(name, n_tasks=1)
    optimizer = torch.optim.SGD(weighting.parameters(), lr=eta)
    found = []
    for step in range(700):
        optimizer.zero_grad()
        loss = math.exp(-r * min(max(step - 100, 0), 250))
        weight = weighting.backward(torch.tensor([loss], requires_grad=True))
        found.append(weight.item() * loss * (2 if name == "uncertainty" else 1))
        optimizer.step()
    return np.array(found)


# ---- a front that bulges (Pareto MTL, Lin et al., NeurIPS 2019, equation 19) -----------------

N = 20  # parameters


def bulging_losses(x: Tensor) -> Tensor:
    """Both losses [..., 2] of parameters x [..., n]."""
    centre = 1 / math.sqrt(x.shape[-1])
    gap = torch.stack([x - centre, x + centre], -2)
    return 1 - torch.exp(-gap.square().sum(-1))


def bulging_front(s: Tensor) -> Tensor:
    """Losses [..., 2] at positions s of the line that has the whole Pareto set, -1 <= s <= 1."""
    return 1 - torch.exp(-((s[..., None] + torch.tensor([-1.0, 1.0])) ** 2))


def descend(
    objective: Callable[[Tensor], Tensor], runs: int, seeds: int = 10, steps: int = 3000
) -> Tensor:
    """Losses at the end of plain gradient descent, rate 0.1, [seeds, runs, 2].

    Args:
        objective: from losses [seeds, runs, 2] to what is minimised, [seeds, runs].
        runs: as many for each seed, such as one a preference.
        seeds: starting points, uniform in [-1/2, 1/2]^20.
        steps: of descent.
    """
    own = torch.Generator().manual_seed(0)
    x = (torch.rand(seeds, runs, N, generator=own) - 0.5).requires_grad_()
    for _ in range(steps):
        (g,) = torch.autograd.grad(objective(bulging_losses(x)).sum(), x)
        x.data -= 0.1 * g
    return bulging_losses(x.detach())


def ends_table(found: dict[str, Tensor]) -> pd.DataFrame:
    """Points [runs, 2] of each objective as rows with the columns f1, f2, objective; along f1."""
    tables = [
        pd.DataFrame(points.numpy(), columns=["f1", "f2"]).sort_values("f1").assign(objective=name)
        for name, points in found.items()
    ]
    return pd.concat(tables, ignore_index=True)


# ---- FAMO ------------------------------------------------------------------------------------


def forward_passes(name: str) -> int:
    """How often four steps with a rule go through the trunk of a small network."""
    net = HardSharing(nn.Linear(6, 3), [nn.Linear(3, 1), nn.Linear(3, 1)])
    calls: list[int] = []
    net.trunk.register_forward_hook(lambda *_: calls.append(1))
    rows = (torch.randn(64, 6), torch.randn(64, 1))

    def losses(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return torch.stack([(output - y).square().mean() for output in model(x)])

    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    rule = make_weighting(name, n_tasks=2)
    train(net, losses, batches(rows, 16), rule, optimizer, 1, progress=False)
    return len(calls)


SCALE = (0.1, 1.0)  # of the two losses in the toy with two valleys, as published


def heights(x1: float, x2: float) -> tuple[float, float]:
    """The two scaled losses at one point; `nb12_toys.valley` has them for many."""
    c1, c2 = max(math.tanh(0.5 * x2), 0.0), max(math.tanh(-0.5 * x2), 0.0)
    steep, found = math.tanh(x2), []
    for a, centre in ((-0.5 * (x1 + 7) + steep, 7.0), (0.5 * (3 - x1) - steep + 2, -7.0)):
        bowl = ((x1 - centre) ** 2 + 0.1 * (x2 + 8) ** 2) / 10 - 20
        found.append(c1 * (math.log(max(abs(a), FLOOR)) + 6) + c2 * bowl)
    return SCALE[0] * found[0], SCALE[1] * found[1]


class PlainAdam:
    """Adam for a list of two numbers; tensors would take ten times as long."""

    def __init__(self, rate: float) -> None:
        self.rate, self.steps = rate, 0
        self.m, self.v = [0.0, 0.0], [0.0, 0.0]

    def step(self, p: list[float], g: tuple[float, float]) -> None:
        """Move p in place."""
        self.steps += 1
        a, b = 1 - 0.9**self.steps, 1 - 0.999**self.steps
        for i in range(2):
            self.m[i] = 0.9 * self.m[i] + 0.1 * g[i]
            self.v[i] = 0.999 * self.v[i] + 0.001 * g[i] ** 2
            p[i] -= self.rate * self.m[i] / a / (math.sqrt(self.v[i] / b) + 1e-8)


def famo_walk(
    start: tuple[float, float], gamma: float | None, steps: int = 50_000
) -> tuple[list[float], list[float]]:
    """FAMO on the toy of notebook 12, with lower bounds of -2.1 and -21, Adam at 0.001.

    Args:
        start: where it begins.
        gamma: of FAMO; None holds both shares at 1/2.
        steps: of Adam; the shares' own Adam has a rate of 0.025.

    Returns:
        the last point, and |z_1 - 1/2| of each step.
    """
    p, logits = list(start), [0.0, 0.0]
    network, shares = PlainAdam(1e-3), PlainAdam(0.025)
    gap = [loss - low for loss, low in zip(heights(*p), (-2.1, -21.0), strict=True)]
    strayed = []
    for _ in range(steps):
        z = 1 / (1 + math.exp(logits[1] - logits[0]))
        strayed.append(abs(z - 0.5))
        u, v = SCALE[0] * z / gap[0], SCALE[1] * (1 - z) / gap[1]
        c = 1 / (z / gap[0] + (1 - z) / gap[1])
        a1, a2, b1, b2 = valley(*p)
        network.step(p, (c * (u * a1 + v * b1), c * (u * a2 + v * b2)))
        before = gap
        gap = [loss - low for loss, low in zip(heights(*p), (-2.1, -21.0), strict=True)]
        if gamma is not None:
            fell = [math.log(was / now) for was, now in zip(before, gap, strict=True)]
            pull = z * (1 - z) * (fell[0] - fell[1])
            shares.step(logits, (pull + gamma * logits[0], gamma * logits[1] - pull))
    return p, strayed


def famo_walks(gammas: dict[str, float | None], steps: int = 50_000) -> pd.DataFrame:
    """A row for each setting and published start: where it ends (`x1`, `x2`), and how far a share
    is from 1/2 on average (`mean`) and at most (`most`)."""
    rows = []
    for name, gamma in gammas.items():
        for start in FIVE:
            (x1, x2), strayed = famo_walk(start, gamma, steps)
            away = {"mean": float(np.mean(strayed)), "most": max(strayed)}
            rows.append({"setting": name, "start": start, "x1": x1, "x2": x2} | away)
    return pd.DataFrame(rows)


# ---- the first record, results/13_scalarisations.csv -----------------------------------------


def first_record() -> pd.Series:
    """Error of each data set, optimiser, rule and seed: the share of the variance that stays
    unexplained, mean of three tasks."""
    table = records.read("13_scalarisations")
    table = table.set_index(["data", "optimiser", "rule", "seed"]).sort_index()
    return table[["error 1", "error 2", "error 3"]].mean(axis=1)


def log_ratio(error: pd.Series, data: str, optimiser: str, rule: str, base: str) -> pd.Series:
    """Logarithm of an error over that of another rule, paired by seed."""
    return np.log(error[data, optimiser, rule] / error[data, optimiser, base])


def recorded(rule: str, kind: str, seed: int) -> tuple[float, Tensor]:
    """Learning rate and errors on test rows, [3], of a training on units in the record."""
    table = records.read("13_scalarisations")
    table = table.set_index(["data", "optimiser", "rule", "seed"]).sort_index()
    row = table.loc[("units", kind, rule, seed)]
    return float(row["rate"]), torch.tensor(row[["error 1", "error 2", "error 3"]].to_numpy(float))


def trained_again(rule: str, kind: str, seed: int) -> Tensor:
    """The same training with the package's rule and torch's optimiser: errors on test rows, [3]."""
    x, y = units(seed)
    torch.manual_seed(seed)
    trunk = mlp(x.shape[1], WIDTH, activation=nn.Tanh, last=True)
    model = HardSharing(trunk, [nn.Linear(WIDTH, 1) for _ in range(3)])
    optimizer = getattr(torch.optim, kind)(model.parameters(), lr=recorded(rule, kind, seed)[0])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / STEPS)
    options = {"famo": {"eps": 0.0}, "db_mtl": {"beta": 0.9, "sigma": 0.0, "eps": 0.0}}
    weighting = make_weighting(rule, n_tasks=3, **options.get(rule, {}))
    own = torch.Generator().manual_seed(seed)
    per_epoch, unit = ROWS[0] // BATCH, DATA["units"][1]

    def squares(rows: Tensor | slice) -> Tensor:
        return (torch.cat(model(x[rows]), 1) - y[rows]).square().mean(0)

    for step in range(STEPS):
        if step % per_epoch == 0:
            order = torch.randperm(ROWS[0], generator=own)
        rows = order[step % per_epoch * BATCH :][:BATCH]
        optimizer.zero_grad()
        weighting.backward(unit**2 * squares(rows), shared=model.trunk.parameters())
        optimizer.step()
        if rule == "famo":
            weighting.observe(losses_after_step=unit**2 * squares(rows).detach())
        schedule.step()
    test = slice(-ROWS[2], None)
    return squares(test).detach() / y[test].var(0)
