"""Gramians below their exact price: what they cost, and how far off the update is.

    python -m experiments.nb12_estimates    writes results/12_gramian_estimates.csv (7 minutes)

20 attributes of rendered glyphs, an MLP trunk (576-256-256) with linear heads, batches of 128.
Along 300 steps of plain training, every 15th from the 30th on: the exact update of four rules, the
update that each estimate gives, the cosine of the two, and what the step costs as a ratio to a
plain step (this thread's time, the fastest of three). Three seeds draw the data, the network and
the batches.

    representation   Gramian of dL_k/dz
    last layer       Gramian in the last shared layer
    every n          coefficients of n / 2 steps ago, which is how old they are on average
    sketch m         m random directions v: mean of (J v)(J v)', by forward-mode products
"""

from __future__ import annotations

import time
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp, vmap

from mtl_utils import make_weighting
from mtl_utils.datasets import glyph_attributes
from mtl_utils.gradients import jacobian
from mtl_utils.models import HardSharing, mlp

FILE = Path(__file__).resolve().parents[1] / "results" / "12_gramian_estimates.csv"
RULES = ("mgda", "upgrad", "cagrad", "nash_mtl")
LAGS, SKETCHES = (1, 10), (20, 100)
STEPS, FIRST, APART, BATCH, SIZE = 300, 30, 15, 128, 24


class Run:
    """One seed: data, network, batches."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        data = glyph_attributes(4000, 10, 10, size=SIZE, seed=seed)
        self.x = data.train[0].flatten(1)
        self.y = torch.stack(data.train[1:]).to(self.x)
        self.n_tasks = len(self.y)
        heads = [nn.Linear(256, 1) for _ in range(self.n_tasks)]
        self.model = HardSharing(mlp(SIZE * SIZE, 256, 256, last=True), heads)
        self.shared = list(self.model.trunk.parameters())
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self) -> None:
        rows = torch.randint(len(self.x), (BATCH,), generator=self.generator)
        self.batch, self.targets = self.x[rows], self.y[:, rows]

    def losses(self, forked: bool = False):
        outputs, features = (
            self.model.forked(self.batch) if forked else (self.model(self.batch), None)
        )
        each = nn.functional.binary_cross_entropy_with_logits
        pairs = zip(outputs, self.targets, strict=True)
        return torch.stack([each(o[:, 0], t) for o, t in pairs]), features

    def plain_step(self) -> None:
        self.optimizer.zero_grad()
        self.losses()[0].sum().backward()
        self.optimizer.step()

    def weighted_step(self, weighting) -> None:
        """A step of a rule, without moving the network."""
        self.optimizer.zero_grad()
        losses, features = self.losses(forked=True)
        weighting.backward(losses, self.shared, features)

    def sketch(self, m: int) -> Tensor:
        """Gramian from m random directions in parameter space, [K, K]."""
        names = [name for name, _ in self.model.trunk.named_parameters()]
        values = {f"trunk.{n}": p.detach() for n, p in zip(names, self.shared, strict=True)}
        rest = {n: p.detach() for n, p in self.model.named_parameters() if n not in values}

        def losses(shared: dict[str, Tensor]) -> Tensor:
            outputs = functional_call(self.model, {**shared, **rest}, (self.batch,))
            each = nn.functional.binary_cross_entropy_with_logits
            pairs = zip(outputs, self.targets, strict=True)
            return torch.stack([each(o[:, 0], t) for o, t in pairs])

        def product(tangents: dict[str, Tensor]) -> Tensor:
            return jvp(losses, (values,), (tangents,))[1]

        directions = {
            n: torch.randn(m, *p.shape, generator=self.generator) for n, p in values.items()
        }
        rows = vmap(product)(directions)  # [m, K]
        return rows.T @ rows / m


def seconds(function, repeats: int = 3) -> float:
    taken = []
    for _ in range(repeats):
        start = time.thread_time()
        function()
        taken.append(time.thread_time() - start)
    return min(taken)


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for seed in range(3):
        run = Run(seed)
        past: dict[str, list[Tensor]] = {rule: [] for rule in RULES}
        rules = {rule: make_weighting(rule, run.n_tasks) for rule in RULES}
        for step in range(STEPS):
            run.draw()
            old_enough = step >= FIRST - max(LAGS)
            if old_enough:
                losses, features = run.losses(forked=True)
                j = jacobian(losses, run.shared, features).double()
                exact = {rule: rules[rule].coefficients(j @ j.T) for rule in RULES}
            if step >= FIRST and step % APART == 0:
                rows += measure(run, rules, j, exact, past, seed, step)
                pd.DataFrame(rows).to_csv(FILE, index=False, float_format="%.5g")
            if old_enough:
                for rule in RULES:
                    past[rule].append(exact[rule])
            run.plain_step()
        print(f"seed {seed} done", flush=True)
    table = pd.DataFrame(rows).groupby(["estimate", "rule"])[["cosine", "ratio"]].median()
    print(table.unstack().round(3).to_string())


def measure(run, rules, j, exact, past, seed, step) -> list[dict]:
    state = [p.detach().clone() for p in run.model.parameters()]
    plain = seconds(run.plain_step)
    step_cost = seconds(run.optimizer.step)
    with torch.no_grad():
        for p, value in zip(run.model.parameters(), state, strict=True):
            p.copy_(value)

    def estimate(kind: str, rule: str):
        weighting = make_weighting(rule, run.n_tasks, gramian=kind)
        taken = seconds(lambda: run.weighted_step(weighting))
        return weighting.weights.double(), taken

    rows = []
    sketches = {m: run.sketch(m).double() for m in SKETCHES}
    sketch_costs = {m: seconds(lambda m=m: run.sketch(m), 1) for m in SKETCHES}
    for rule in RULES:
        target = exact[rule] @ j
        found = {"exact": estimate("exact", rule)}
        for kind in ("representation", "last_layer"):
            found[kind.replace("_", " ")] = estimate(kind, rule)
        reuse = make_weighting(rule, run.n_tasks, every=10**6)
        run.weighted_step(reuse)
        cheap = seconds(lambda reuse=reuse: run.weighted_step(reuse))
        exact_cost = found["exact"][1]
        for lag in LAGS:
            period = 2 * lag
            cost = cheap + (exact_cost - cheap) / period
            found[f"every {period}"] = (past[rule][-lag], cost)
        for m in SKETCHES:
            alpha = rules[rule].coefficients(sketches[m])
            found[f"sketch {m}"] = (alpha, cheap + sketch_costs[m])
        for name, (alpha, taken) in found.items():
            d = alpha @ j
            norms = d.norm() * target.norm()
            cosine = float(d @ target / norms) if norms > 0 else float("nan")
            rows.append(
                {
                    "seed": seed,
                    "step": step,
                    "rule": rule,
                    "estimate": name,
                    "cosine": cosine,
                    "ratio": (taken + step_cost) / plain,
                }
            )
    return rows


if __name__ == "__main__":
    main()
