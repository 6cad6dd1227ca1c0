"""The fair comparison of notebook 13: scalarisations, fixed weights and single tasks.

python -m benchmarks.scalarisations    writes results/13_scalarisations.csv (about 2 minutes)

Two data sets, two optimisers, 20 seeds. A seed is a whole repetition: it draws the data and the
initial weights, makes TRIALS trainings, picks one by its validation error and reports that one's
test error. All trainings of a rule run side by side. A record that is there is completed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from benchmarks.record import Record
from mtl_utils.datasets import diamonds
from mtl_utils.models import HardSharing, SeparateModels, mlp

FILE = Path(__file__).resolve().parents[1] / "results" / "13_scalarisations.csv"
SEEDS, TRIALS, STEPS, BATCH, WIDTH, K = range(20), 12, 300, 50, 6, 3
ROWS = (150, 150, 1000)  # train, validation, test
WARM_UP = 30  # steps before stch takes the losses as nadir
GRID = {
    "SGD": torch.logspace(-1.7, 1, TRIALS, dtype=torch.float64),
    "Adam": torch.logspace(-2.7, -0.6, TRIALS, dtype=torch.float64),
}


# ---- data: inputs [N, D], targets [N, K] of spread about 1, and the unit of each loss ------------


def units(seed: int) -> tuple[Tensor, Tensor]:
    """Three related regressions, the targets mixtures of the same four hidden features."""
    own = torch.Generator().manual_seed(seed)
    x = torch.randn(sum(ROWS), 10, generator=own)
    hidden = torch.tanh(x @ torch.randn(10, 4, generator=own) / 2)
    y = hidden @ torch.randn(4, K, generator=own)
    noise = 0.4 * torch.randn(sum(ROWS), K, generator=own)
    return x, (y - y.mean(0)) / y.std(0) + noise


def gems(seed: int) -> tuple[Tensor, Tensor]:
    """The diamonds, standardised."""
    data = diamonds(n_train=ROWS[0], n_test=ROWS[1] + ROWS[2], seed=seed)
    x, *targets = (torch.cat(pair) for pair in zip(data.train, data.test, strict=True))
    return x, torch.cat(targets, 1)


DATA = {
    "units": (units, torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)),
    "diamonds": (gems, torch.ones(K, dtype=torch.float64)),
}


# ---- rules: losses [M, K] of M members to objectives [M] -----------------------------------------


def random_weights(L: Tensor, state: SimpleNamespace) -> Tensor:
    return K * (torch.softmax(torch.randn(L.shape, generator=state.generator), -1) * L).sum(-1)


def smooth_tchebycheff(L: Tensor, state: SimpleNamespace) -> Tensor:
    if state.step < WARM_UP:
        state.nadir = L.detach()
        return L.log().sum(-1)
    mu = state.option
    return K * mu[:, 0] * torch.logsumexp((L / state.nadir).log() / mu, -1)


def famo(L: Tensor, state: SimpleNamespace) -> Tensor:
    z = state.s.detach().softmax(-1)
    return (z * L.log()).sum(-1) / (z / L.detach()).sum(-1)


def soft_uncertainty(L: Tensor, state: SimpleNamespace) -> Tensor:
    return K * (torch.softmax(1 / (L.detach() * state.option), -1) * L).sum(-1)


OBJECTIVES: dict[str, Callable[[Tensor, SimpleNamespace], Tensor]] = {
    "alone": lambda L, state: L.sum(-1),
    "equal": lambda L, state: L.sum(-1),
    "random": random_weights,
    "log of the sum": lambda L, state: L.sum(-1).log(),  # direction of equal, length of log
    "fixed": lambda L, state: (state.option * L).sum(-1),
    "uncertainty": lambda L, state: (torch.exp(-state.s) * L + state.s).sum(-1) / 2,
    "imtl_l": lambda L, state: (state.s.exp() * L - state.s).sum(-1),
    "imtl_l from 1/L": lambda L, state: (state.s.exp() * L - state.s).sum(-1),
    "log": lambda L, state: L.log().sum(-1),
    "geometric": lambda L, state: L.log().mean(-1).exp(),
    "famo": famo,
    "stch": smooth_tchebycheff,
    "uncertainty_soft": soft_uncertainty,
    "db_mtl": lambda L, state: L.log().sum(-1),
    "log, averaged": lambda L, state: L.log().sum(-1),
}


def uniform(count: int, width: int, stream: int) -> Tensor:
    """Numbers in [0, 1), [S, count, width]; each seed draws its own."""
    own = [torch.Generator().manual_seed(1000 * stream + seed) for seed in SEEDS]
    return torch.stack([torch.rand(count, width, generator=generator) for generator in own])


def pick(grid: Tensor, count: int, stream: int) -> Tensor:
    """Random entries of a grid, [S, count]."""
    return grid[torch.floor(uniform(count, 1, stream) * len(grid)).long()[..., 0]]


# ---- training ------------------------------------------------------------------------------------


def make_model(rule: str, n_inputs: int) -> nn.Module:
    if rule == "alone":
        sizes = (n_inputs, WIDTH, 1)
        return SeparateModels([mlp(*sizes, activation=nn.Tanh) for _ in range(K)])
    trunk = mlp(n_inputs, WIDTH, activation=nn.Tanh, last=True)
    return HardSharing(trunk, [nn.Linear(WIDTH, 1) for _ in range(K)])


class Optimizer:
    """SGD or Adam with a learning rate for each member."""

    def __init__(self, kind: str) -> None:
        self.kind, self.steps = kind, 0
        self.moments: dict[int, tuple] = {}

    def step(self, parameters: list[Tensor], gradients: Sequence[Tensor], rate: Tensor) -> None:
        self.steps += 1
        for i, (p, g) in enumerate(zip(parameters, gradients, strict=True)):
            if self.kind == "Adam":
                first, second = self.moments.get(i, (0.0, 0.0))
                first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
                self.moments[i] = first, second
                spread = (second / (1 - 0.999**self.steps)).sqrt() + 1e-8
                g = first / (1 - 0.9**self.steps) / spread
            p.data -= rate.reshape(-1, *[1] * (p.dim() - 1)) * g


def log_gradients(L: Tensor, parameters: dict[str, Tensor], state: SimpleNamespace) -> list[Tensor]:
    """Gradients of the log losses; those of the trunk averaged over steps and, for db_mtl, each
    task's scaled to the length of the longest."""
    rows = [
        torch.autograd.grad(L[:, k].log().sum(), list(parameters.values()), retain_graph=True)
        for k in range(K)
    ]
    combined = [sum(parts) for parts in zip(*rows, strict=True)]
    trunk = [i for i, name in enumerate(parameters) if name.startswith("trunk.")]
    flat = torch.stack([torch.cat([row[i].flatten(1) for i in trunk], 1) for row in rows], 1)
    past = state.average if state.step else 0.0
    state.average = 0.9 * past + 0.1 * flat  # [M, K, P]
    norms = state.average.norm(dim=-1, keepdim=True)
    factor = norms.amax(1, keepdim=True) / norms if state.rule == "db_mtl" else 1.0
    update = (factor * state.average).sum(1)
    sizes = [combined[i][0].numel() for i in trunk]
    for i, part in zip(trunk, update.split(sizes, 1), strict=True):
        combined[i] = part.reshape(combined[i].shape)
    return combined


def train(
    rule: str, kind: str, name: str, rates: Tensor, options: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """T trainings for each of S seeds.

    Args:
        rule: a key of `OBJECTIVES`.
        kind: "SGD" or "Adam".
        name: a key of `DATA`.
        rates: learning rates [S, T], for SGD relative to the first weighted loss.
        options: of the rule, [S, T, K or 1].

    Returns:
        validation and test errors [S, T, K] (share of variance not explained), rates used [S, T].
    """
    make, unit = DATA[name]
    x, y = (torch.stack(t) for t in zip(*(make(seed) for seed in SEEDS), strict=True))
    per_seed = rates.shape[1]
    rates = rates.flatten()
    options = None if options is None else options.flatten(0, 1)
    seed_of = torch.arange(len(SEEDS)).repeat_interleave(per_seed)  # [M]
    models = []
    for seed in SEEDS:
        torch.manual_seed(seed)
        models.append(make_model(rule, x.shape[-1]))
    stacked, _ = stack_module_state(models)
    parameters = {n: p.detach()[seed_of].requires_grad_() for n, p in stacked.items()}
    template = models[0].to("meta")
    run = vmap(lambda p, rows: torch.cat(functional_call(template, p, (rows,)), -1))

    scale = torch.ones(K) if rule == "alone" else unit**2
    state = SimpleNamespace(rule=rule, option=options, generator=torch.Generator().manual_seed(0))
    state.s = torch.zeros(len(seed_of), K, requires_grad=True)
    own = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    optimizer, optimizer_s = Optimizer(kind), Optimizer("Adam")
    per_epoch = ROWS[0] // BATCH
    for state.step in range(STEPS):
        place = state.step % per_epoch
        if place == 0:
            order = torch.stack([torch.randperm(ROWS[0], generator=g) for g in own])
        rows = order[:, place * BATCH : (place + 1) * BATCH, None]
        x_batch = x.gather(1, rows.expand(-1, -1, x.shape[-1]))[seed_of]
        y_batch = y.gather(1, rows.expand(-1, -1, K))[seed_of]
        L = scale * (run(parameters, x_batch) - y_batch).square().mean(1)  # [M, K]
        if state.step == 0 and rule == "imtl_l from 1/L":
            state.s.data = -L.detach().log()
        objective = OBJECTIVES[rule](L, state)
        wanted = [L, *parameters.values()]
        found = torch.autograd.grad(objective.sum(), wanted, retain_graph=True)
        weights, gradients = found[0], list(found[1:])
        if rule in ("db_mtl", "log, averaged"):
            gradients = log_gradients(L, parameters, state)
        if state.step == 0 and kind == "SGD":  # so that one grid suits weights of any size
            rates = rates / (weights * L).sum(-1).detach()
        decay = 1 - state.step / STEPS
        if rule in ("uncertainty", "imtl_l", "imtl_l from 1/L"):
            of_s = list(torch.autograd.grad(objective.sum(), [state.s]))
            optimizer_s.step([state.s], of_s, torch.tensor(0.05 * decay))
        optimizer.step(list(parameters.values()), gradients, rates * decay)
        if rule == "famo":
            with torch.no_grad():
                after = scale * (run(parameters, x_batch) - y_batch).square().mean(1)
                z, delta = state.s.softmax(-1), L.log() - after.log()
                of_s = [z * (delta - (z * delta).sum(-1, keepdim=True)) + 1e-3 * state.s]
            optimizer_s.step([state.s], of_s, torch.tensor(0.025))

    with torch.no_grad():
        errors = (run(parameters, x[seed_of]) - y[seed_of]).square()
        _, val, test = errors.split(ROWS, 1)
        variance = y[seed_of][:, -ROWS[2] :].var(1)
        shape = (len(SEEDS), per_seed, K)
        val, test = ((e.mean(1) / variance).reshape(shape) for e in (val, test))
    return val.nan_to_num(math.inf), test, rates.reshape(shape[:2])


# ---- the comparison ------------------------------------------------------------------------------


def run_trials(rule: str, kind: str, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """All trainings of a row of the comparison: TRIALS a seed, or four times as many.

    Rules without options try the whole grid of learning rates. Those with one draw it, and a rate.
    """
    grid, variance = GRID[kind], DATA[name][1] ** 2
    all_rates = grid.expand(len(SEEDS), TRIALS)
    if rule == "fixed, 1/variance":
        options = (1 / variance).expand(len(SEEDS), TRIALS, K)
        return train("fixed", kind, name, all_rates, options)
    if rule == "fixed, blind x 4":  # four decades, as wide as the losses
        rates, options = pick(grid, 4 * TRIALS, 1), 10 ** (4 * uniform(4 * TRIALS, K, 2) - 2)
        return train("fixed", kind, name, rates, options)
    if rule in ("fixed, tuned", "fixed, tuned x 4"):
        # first the learning rate with weights of 1/variance, then weights around these
        first_rates = all_rates if rule.endswith("4") else all_rates[:, ::2]
        n_first = first_rates.shape[1]
        n_second = (4 * TRIALS if rule.endswith("4") else TRIALS) - n_first
        options = (1 / variance).expand(len(SEEDS), n_first, K)
        first = train("fixed", kind, name, first_rates, options)
        best = first_rates.gather(1, first[0].mean(-1).argmin(1, keepdim=True))
        options = 10 ** (2 * uniform(n_second, K, 3) - 1) / variance
        second = train("fixed", kind, name, best.expand(-1, n_second), options)
        val, test, rates = (torch.cat(pair, 1) for pair in zip(first, second, strict=True))
        return val, test, rates
    if rule == "stch":
        smoothings = pick(torch.tensor([0.1, 0.3, 1.0]), TRIALS, 4)[..., None]
        return train(rule, kind, name, pick(grid, TRIALS, 5), smoothings)
    if rule == "uncertainty_soft":
        temperatures = 10 ** (4 * uniform(TRIALS, 1, 7) - 2)
        return train(rule, kind, name, pick(grid, TRIALS, 6), temperatures)
    return train(rule, kind, name, all_rates)


FIXED = ("fixed, blind x 4", "fixed, 1/variance", "fixed, tuned", "fixed, tuned x 4")
RULES = [rule for rule in OBJECTIVES if rule != "fixed"]
RULES[3:3] = FIXED


def main() -> None:
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    errors = [f"error {k + 1}" for k in range(K)]
    columns = ["data", "optimiser", "rule", "seed", "rate", *errors]
    record = Record(FILE, columns, key=columns[:3])
    settings = [(name, kind, rule) for name in DATA for kind in GRID for rule in RULES]
    for name, kind, rule in settings:
        if (name, kind, rule) in record:
            continue
        val, test, rates = run_trials(rule, kind, name)
        # a network alone is tuned for its own task, the others for the mean over tasks
        best = val.argmin(1) if rule == "alone" else val.mean(-1).argmin(1, keepdim=True)
        chosen = test.gather(1, best[:, None].expand(-1, 1, K))[:, 0]
        lines = []
        for seed in SEEDS:
            rate = rates[seed, best[seed, 0]].item()
            numbers = [f"{value:.6g}" for value in (rate, *chosen[seed].tolist())]
            lines.append([name, kind, rule, seed, *numbers])
        record.add(lines)


if __name__ == "__main__":
    main()
