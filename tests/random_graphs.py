"""Random graphs of K losses: ties, skips, detached parts, changes in place, heads in common.

python -m tests.random_graphs 5000    compares them with K plain passes, and writes
                                      results/16_random_graphs.csv
"""

from __future__ import annotations

import csv
import random
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional

from mtl_utils.engine import layers
from mtl_utils.gradients import task_gradients

FILE = Path(__file__).resolve().parents[1] / "results" / "16_random_graphs.csv"
B, D = 3, 4  # rows, and width of every tensor
ASK = ("gramian", "jacobian", "last layer", "nothing")
METHODS = ("auto", "loop", "batched")
FORMULAS = ("always", "never", "where cheaper")


@dataclass
class RandomGraph:
    """What was drawn.

    Attributes:
        losses: [K].
        shared, others: leaves that learn.
        features: what the graph has in it, in words.
    """

    losses: Tensor
    shared: list[Tensor]
    others: list[Tensor]
    features: Counter


def draw(seed: int) -> RandomGraph:
    """A graph of layers between two inputs and K losses."""
    pick = random.Random(seed)
    own = torch.Generator().manual_seed(seed)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=own, dtype=torch.float64)

    weights = [nn.Parameter(numbers(D, D) / 2) for _ in range(pick.randint(2, 6))]
    biases = [nn.Parameter(numbers(D) / 2) for _ in range(3)]
    table = nn.Parameter(numbers(6, D))
    words = torch.randint(6, (B,), generator=own)
    features: Counter = Counter()
    pool = [numbers(B, D), functional.embedding(words, table)]
    used: Counter = Counter()

    def layer(x: Tensor) -> Tensor:
        kind = pick.choice(["linear", "matmul", "cat", "gate", "skip", "scale", "in place"])
        w, b = pick.choice(weights), pick.choice(biases)
        features[kind] += 1
        if kind in ("linear", "matmul", "in place"):
            features["tie"] += used[w] > 0
            used[w] += 1
        if kind == "linear":
            return torch.tanh(functional.linear(x, w, b if pick.random() < 0.8 else None))
        if kind == "matmul":
            return torch.tanh(x @ w)
        if kind == "cat":
            return torch.cat([x[:, : D // 2], pick.choice(pool)[:, D // 2 :]], 1)
        if kind == "gate":
            return x * torch.sigmoid(pick.choice(pool))
        if kind == "skip":
            return x + pick.choice(pool)
        if kind == "scale":
            return x * b
        out = functional.linear(x, w, b)
        return out.relu_() if pick.random() < 0.5 else out.mul_(0.5)

    for _ in range(pick.randint(1, 6)):  # the common part
        x = pick.choice(pool[-3:])
        if pick.random() < 0.1:
            features["detach"] += 1
            x = x.detach()
        pool.append(layer(x))
    heads = [(nn.Parameter(numbers(D)), nn.Parameter(numbers(1))) for _ in range(3)]
    losses: list[Tensor] = []
    for _ in range(pick.randint(1, 4)):
        x = pick.choice(pool[-4:])
        for _ in range(pick.randint(0, 2)):
            x = layer(x)
        v, c = pick.choice(heads)
        loss = (x @ v + c - 1).square().mean()
        if pick.random() < 0.15:
            features["penalty"] += 1
            loss = loss + 0.1 * pick.choice([*weights, *biases]).square().sum()
        if losses and pick.random() < 0.15:
            features["loss in a loss"] += 1
            loss = loss + 0.5 * pick.choice(losses)
        if losses and pick.random() < 0.05:
            features["the same loss twice"] += 1
            loss = losses[-1]
        losses.append(loss)
    stacked = torch.stack(losses)
    after = pick.choice(["stack", "stack", "divided", "log", "mixed"])
    features[after] += 1
    if after == "divided":
        stacked = stacked / 4
    elif after == "log":
        stacked = torch.log(stacked + 1)
    elif after == "mixed":
        stacked = numbers(len(losses), len(losses)) @ stacked
    leaves = [*weights, *biases, table, *(p for pair in heads for p in pair)]
    is_shared = [pick.random() < 0.5 for _ in leaves]
    shared = [p for p, chosen in zip(leaves, is_shared, strict=True) if chosen]
    others = [p for p, chosen in zip(leaves, is_shared, strict=True) if not chosen]
    return RandomGraph(stacked, shared, others, features)


def compare(seed: int, ask: str, method: str, formulas: str) -> tuple[str, Counter]:
    """Compare one graph with K plain passes: "right", "unreached" or what is wrong."""
    graph = draw(seed)
    n_tasks = len(graph.losses)
    rows = [
        torch.autograd.grad(
            loss, [*graph.shared, *graph.others], retain_graph=True, allow_unused=True
        )
        for loss in graph.losses.unbind()
        if loss.requires_grad
    ]
    if not any(g is not None for row in rows for g in row[: len(graph.shared)]):
        return "unreached", graph.features
    own = torch.Generator().manual_seed(seed)
    alpha = torch.randn(n_tasks, generator=own, dtype=torch.float64)
    alpha[torch.rand(n_tasks, generator=own) < 0.2] = 0.0
    weights = torch.rand(n_tasks, generator=own, dtype=torch.float64) + 0.5
    value = {"always": {"return_value": 1e18}, "never": {"return_value": -1.0}}
    wraps = value.get(formulas, {"side_effect": layers._saved})
    with mock.patch.object(layers, "_saved", **wraps):
        found = task_gradients(graph.losses, graph.shared, method=method, head_weights=weights)
        flat = [
            torch.cat(
                [
                    (torch.zeros_like(p) if g is None else g).flatten()
                    for p, g in zip(graph.shared, row, strict=False)
                ]
            )
            for row in rows
        ]
        jacobian = torch.stack(flat)
        if ask == "gramian" and not close(found.gramian(), jacobian @ jacobian.T):
            return "Gramian", graph.features
        if ask == "jacobian" and not close(found.jacobian, jacobian):
            return "Jacobian", graph.features
        if ask == "last layer":
            try:
                found.gramian(last_layer=True)
            except ValueError:
                return "unreached", graph.features
        found.fill(alpha)
    for i, p in enumerate([*graph.shared, *graph.others]):
        is_shared = i < len(graph.shared)
        factors = alpha if is_shared else weights
        parts = [f * row[i] for f, row in zip(factors, rows, strict=True) if row[i] is not None]
        if not parts:
            if p.grad is not None:
                return "a gradient where there is none", graph.features
        elif p.grad is None or not close(p.grad, sum(parts)):
            return "shared gradient" if is_shared else "other gradient", graph.features
    return "right", graph.features


def close(a: Tensor, b: Tensor) -> bool:
    return bool(torch.allclose(a, b, rtol=1e-9, atol=1e-11 * max(1.0, float(b.abs().max()))))


def main(count: int) -> None:
    outcomes: Counter = Counter()
    features: Counter = Counter()
    for seed in range(count):
        pick = random.Random(-seed - 1)
        settings = pick.choice(ASK), pick.choice(METHODS), pick.choice(FORMULAS)
        outcome, seen = compare(seed, *settings)
        outcomes[outcome] += 1
        features.update(key for key, number in seen.items() if number)
        if outcome not in ("right", "unreached"):
            print(f"seed {seed} {settings}: {outcome}", flush=True)
    with FILE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["what", "graphs"])
        writer.writerows(
            [*outcomes.most_common(), *(("with " + k, n) for k, n in features.items())]
        )
    print(dict(outcomes))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5000)
