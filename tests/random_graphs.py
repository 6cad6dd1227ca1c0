"""Random graphs of K losses: ties, skips, views, changes in place, hooks, heads in common.

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
from torch.utils.checkpoint import checkpoint

from mtl_utils.engine import layers
from mtl_utils.engine.task_gradients import last_layer_of
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
        tolerance: relative, of what is compared.
    """

    losses: Tensor
    shared: list[Tensor]
    others: list[Tensor]
    features: Counter
    tolerance: float


class Halved(torch.autograd.Function):
    """The identity, whose gradient is halved in a way that no vectorised pass can take."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return torch.from_numpy(gradient.numpy() / 2)


class Drawing:
    """Leaves, tensors made of them, and the ways to make more, each [B, D]."""

    def __init__(self, seed: int) -> None:
        self.pick = random.Random(seed)
        self.own = torch.Generator().manual_seed(seed)
        self.features: Counter = Counter()
        self.weights = [self.leaf(D, D) for _ in range(self.pick.randint(2, 6))]
        self.biases = [self.leaf(D) for _ in range(3)]
        self.number = self.leaf()
        self.table = self.leaf(6, D)
        self.spectrum = nn.Parameter(torch.complex(self.numbers(D, D), self.numbers(D, D)) / 2)
        self.cell = nn.LSTMCell(D, D).double()
        for p in self.cell.parameters():
            p.data = self.numbers(*p.shape) / 2
        self.words = torch.randint(6, (B,), generator=self.own)
        self.transposes: dict[int, Tensor] = {}
        self.used: Counter = Counter()
        self.pool = [self.numbers(B, D), functional.embedding(self.words, self.table)]
        self.heads = [(self.leaf(D), self.leaf(1)) for _ in range(3)]

    def numbers(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.own, dtype=torch.float64)

    def leaf(self, *shape: int) -> nn.Parameter:
        return nn.Parameter(self.numbers(*shape) / 2)

    @property
    def leaves(self) -> list[Tensor]:
        of_heads = [p for pair in self.heads for p in pair]
        singles = [self.number, self.table, self.spectrum, *self.cell.parameters()]
        return [*self.weights, *self.biases, *singles, *of_heads]

    def chance(self, share: float, feature: str) -> bool:
        """Whether something happens; it is counted if so."""
        happens = self.pick.random() < share
        self.features[feature] += happens
        return happens

    def weight(self) -> Tensor:
        w = self.pick.choice(self.weights)
        self.features["a weight used again"] += self.used[w] > 0
        self.used[w] += 1
        return w

    def bias(self) -> Tensor:
        return self.pick.choice(self.biases)

    def other(self) -> Tensor:
        """An earlier tensor."""
        return self.pick.choice(self.pool)

    def layer(self, x: Tensor) -> Tensor:
        """Something new made of x."""
        if self.chance(0.05, "detach"):
            x = x.detach()
        if self.chance(0.05, "checkpoint"):
            w = self.weight()
            return checkpoint(lambda y: torch.tanh(y @ w), x, use_reentrant=False)
        kind = self.pick.choice(LAYERS)
        self.features[kind.__name__.replace("_", " ")] += 1
        x = kind(self, x)
        if x.requires_grad and self.chance(0.05, "hook on an activation"):
            x.register_hook(lambda gradient: 0.7 * gradient)
        return x


# ---- layers --------------------------------------------------------------------------------------


def linear(own: Drawing, x: Tensor) -> Tensor:
    bias = own.bias() if own.pick.random() < 0.8 else None
    return torch.tanh(functional.linear(x, own.weight(), bias))


def matrix_product(own: Drawing, x: Tensor) -> Tensor:
    return torch.tanh(x @ own.weight())


def product_from_the_left(own: Drawing, x: Tensor) -> Tensor:
    return torch.tanh((own.weight() @ x.T).T)


def transpose_made_once(own: Drawing, x: Tensor) -> Tensor:
    """Trunk and heads read one and the same transposed weight."""
    w = own.weight()
    wt = own.transposes.setdefault(id(w), w.t())
    return torch.tanh(x @ wt) if own.pick.random() < 0.7 else x * wt[:B]


def halves_put_together(own: Drawing, x: Tensor) -> Tensor:
    return torch.cat([x[:, : D // 2], own.other()[:, D // 2 :]], 1)


def gate(own: Drawing, x: Tensor) -> Tensor:
    return x * torch.sigmoid(own.other())


def skip(own: Drawing, x: Tensor) -> Tensor:
    return x + own.other()


def scaled_by_a_vector(own: Drawing, x: Tensor) -> Tensor:
    return x * own.bias()


def scaled_by_a_number(own: Drawing, x: Tensor) -> Tensor:
    return x * torch.exp(own.number)


def broadcast(own: Drawing, x: Tensor) -> Tensor:
    """A row of a common tensor, read by all rows."""
    return x + torch.tanh(own.other()[:1]).expand(B, D)


def mean_over_rows(own: Drawing, x: Tensor) -> Tensor:
    return x - own.other().mean(0)


def changed_in_place(own: Drawing, x: Tensor) -> Tensor:
    out = functional.linear(x, own.weight(), own.bias())
    return out.relu_() if own.pick.random() < 0.5 else out.mul_(0.5)


def view_changed_in_place(own: Drawing, x: Tensor) -> Tensor:
    out = functional.linear(x, own.weight(), own.bias())
    half = out[:, : D // 2]
    half *= 0.5
    out.view(-1)[1::2].add_(1.0)
    return out


def written_into(own: Drawing, x: Tensor) -> Tensor:
    out = torch.zeros(B, D, dtype=torch.float64)
    out[:, 1:] = x[:, 1:]
    out[0] = own.other()[1]
    return out


def chunks(own: Drawing, x: Tensor) -> Tensor:
    """Several outputs of one node, used apart."""
    first, second = (x @ own.weight()).chunk(2, 1)
    own.pool.append(torch.cat([first, first], 1))
    return torch.cat([torch.tanh(second), second], 1)


def unbound(own: Drawing, x: Tensor) -> Tensor:
    rows = x.unbind(0)
    return torch.stack([rows[0], rows[-1], rows[0] * rows[1]])


def sorted_values(own: Drawing, x: Tensor) -> Tensor:
    values, places = x.sort(1)
    return values + x.gather(1, places.flip(1))


def recurrent(own: Drawing, x: Tensor) -> Tensor:
    """Both states of a cell, one of which others may read too."""
    h, c = own.cell(x, (own.other(), own.other()))
    own.pool.append(c)
    return h


def in_frequencies(own: Drawing, x: Tensor) -> Tensor:
    z = torch.fft.fft(x)
    z = z @ own.spectrum if own.pick.random() < 0.5 else z * own.spectrum[0]
    return z.abs() if own.pick.random() < 0.3 else torch.fft.ifft(z).real


def normalised(own: Drawing, x: Tensor) -> Tensor:
    return functional.layer_norm(x, (D,), own.bias(), own.bias())


def attention(own: Drawing, x: Tensor) -> Tensor:
    return torch.softmax(x @ own.other().T, 1) @ own.other()


def words_again(own: Drawing, x: Tensor) -> Tensor:
    padding = own.pick.choice([None, 0, 3])
    return x + functional.embedding(own.words.flip(0), own.table, padding)


def table_as_weight(own: Drawing, x: Tensor) -> Tensor:
    return torch.softmax(x @ own.table.T, 1) @ own.table


def larger_of_two(own: Drawing, x: Tensor) -> Tensor:
    return torch.maximum(x, own.other())


def dropout(own: Drawing, x: Tensor) -> Tensor:
    return functional.dropout(x, 0.3)


def derivative(own: Drawing, x: Tensor) -> Tensor:
    """A backward pass inside the forward pass."""
    at = x if x.requires_grad else x.clone().requires_grad_()
    energy = torch.tanh(at @ own.weight()).square().sum()
    return torch.autograd.grad(energy, at, create_graph=True)[0]


def function_of_ones_own(own: Drawing, x: Tensor) -> Tensor:
    return Halved.apply(x)


def single_precision(own: Drawing, x: Tensor) -> Tensor:
    return torch.tanh(x.float()).double()


LAYERS = (
    linear,
    linear,
    matrix_product,
    product_from_the_left,
    transpose_made_once,
    halves_put_together,
    gate,
    skip,
    scaled_by_a_vector,
    scaled_by_a_number,
    broadcast,
    mean_over_rows,
    changed_in_place,
    view_changed_in_place,
    written_into,
    chunks,
    unbound,
    sorted_values,
    recurrent,
    in_frequencies,
    normalised,
    attention,
    words_again,
    table_as_weight,
    larger_of_two,
    dropout,
    derivative,
    function_of_ones_own,
    single_precision,
)


# ---- losses --------------------------------------------------------------------------------------


def draw_loss(own: Drawing, losses: list[Tensor]) -> Tensor:
    """One more loss, of a head that reads one or two tensors of the pool."""
    x = own.pick.choice(own.pool[-4:])
    if own.chance(0.3, "a head that reads two depths"):
        x = torch.tanh(x) * own.other()
    for _ in range(own.pick.randint(0, 2)):
        x = own.layer(x)
    v, c = own.pick.choice(own.heads)
    loss = (x @ v + c - 1).square().mean()
    if own.chance(0.15, "penalty"):
        loss = loss + 0.1 * own.pick.choice([*own.weights, *own.biases]).square().sum()
    if losses and own.chance(0.15, "a loss in a loss"):
        loss = loss + 0.5 * own.pick.choice(losses)
    if losses and own.chance(0.05, "the same loss twice"):
        loss = losses[-1]
    if own.chance(0.05, "a constant loss"):
        loss = loss.detach()
    if own.chance(0.05, "a loss of parameters alone"):
        loss = own.bias().square().sum()
    if own.chance(0.05, "a loss in single precision"):
        loss = loss.float()
    return loss


def join(own: Drawing, losses: list[Tensor]) -> Tensor:
    """The vector of losses."""
    how = own.pick.choice(["stack", "stack", "cat", "two stacks", "divided", "log", "mixed"])
    own.features["joined: " + how] += 1
    stacked = torch.stack(losses)
    if how == "cat":
        return torch.cat([loss.reshape(1) for loss in losses])
    if how == "two stacks":
        return stacked + 0.1 * torch.stack([losses[0], *losses[1:]][::-1])
    if how == "divided":
        return stacked / 4
    if how == "log":
        return torch.log(stacked + 1)
    if how == "mixed":
        return own.numbers(len(losses), len(losses)).to(stacked) @ stacked
    return stacked


def draw(seed: int) -> RandomGraph:
    """A graph of layers between two inputs and K losses."""
    own = Drawing(seed)
    torch.manual_seed(seed)  # of dropout
    for _ in range(own.pick.randint(1, 6)):  # the common part
        own.pool.append(own.layer(own.pick.choice(own.pool[-3:])))
    losses: list[Tensor] = []
    for _ in range(own.pick.randint(1, 4)):
        losses.append(draw_loss(own, losses))
    shared: list[Tensor] = []
    others: list[Tensor] = []
    for leaf in own.leaves:
        (shared if own.pick.random() < 0.5 else others).append(leaf)
        if own.chance(0.03, "hook on a parameter"):
            leaf.register_hook(lambda gradient: 0.3 * gradient)
    single = own.features["single precision"] or own.features["a loss in single precision"]
    return RandomGraph(join(own, losses), shared, others, own.features, 1e-4 if single else 1e-9)


# ---- comparison ----------------------------------------------------------------------------------


def plain_passes(graph: RandomGraph) -> list[list[Tensor | None]]:
    """Of each loss the gradients of all shared and all other leaves."""
    leaves = [*graph.shared, *graph.others]
    if not graph.losses.requires_grad:
        return [[None] * len(leaves) for _ in graph.losses]
    return [
        list(torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True))
        for loss in graph.losses.unbind()
    ]


def flat(parameters: list[Tensor], gradients: list[Tensor | None]) -> Tensor:
    parts = []
    for p, g in zip(parameters, gradients, strict=True):
        g = torch.zeros_like(p) if g is None else g
        parts.append((torch.view_as_real(g) if g.is_complex() else g).flatten())
    return torch.cat(parts)


def compare(seed: int, ask: str, method: str, formulas: str) -> tuple[str, Counter]:
    """Compare one graph with K plain passes: "right", "unreached" or what is wrong."""
    graph = draw(seed)
    rows, n_shared = plain_passes(graph), len(graph.shared)
    if not any(g is not None for row in rows for g in row[:n_shared]):
        return "unreached", graph.features
    value = {"always": {"return_value": 1e18}, "never": {"return_value": -1.0}}
    wraps = value.get(formulas, {"side_effect": layers._saved})
    with mock.patch.object(layers, "_saved", **wraps):
        return _outcome(graph, rows, ask, method, seed), graph.features


def _outcome(
    graph: RandomGraph, rows: list[list[Tensor | None]], ask: str, method: str, seed: int
) -> str:
    n_tasks, n_shared = len(rows), len(graph.shared)
    own = torch.Generator().manual_seed(seed)
    alpha = torch.randn(n_tasks, generator=own, dtype=torch.float64)
    alpha[torch.rand(n_tasks, generator=own) < 0.2] = 0.0
    weights = torch.rand(n_tasks, generator=own, dtype=torch.float64) + 0.5
    found = task_gradients(graph.losses, graph.shared, method=method, head_weights=weights)
    jacobian = torch.stack([flat(graph.shared, row[:n_shared]) for row in rows])
    if ask == "gramian" and not close(found.gramian(), jacobian @ jacobian.T, graph):
        return "Gramian"
    if ask == "jacobian" and not close(found.jacobian, jacobian, graph):
        return "Jacobian"
    if ask == "last layer":
        last = last_layer_of(graph.shared)
        part = torch.stack([flat(last, row[n_shared - len(last) : n_shared]) for row in rows])
        is_reached = any(
            g is not None for row in rows for g in row[n_shared - len(last) : n_shared]
        )
        if is_reached and not close(found.gramian(last_layer=True), part @ part.T, graph):
            return "Gramian of the last layer"
    found.fill(alpha)
    for i, p in enumerate([*graph.shared, *graph.others]):
        factors = alpha if i < n_shared else weights
        parts = [f * row[i] for f, row in zip(factors, rows, strict=True) if row[i] is not None]
        if not parts:
            if p.grad is not None:
                return "a gradient where there is none"
        elif p.grad is None or not close(p.grad, sum(parts), graph):
            return "shared gradient" if i < n_shared else "other gradient"
    return "right"


def close(a: Tensor, b: Tensor, graph: RandomGraph) -> bool:
    size = max(1.0, float(b.abs().max()))
    return bool(torch.allclose(a, b, rtol=graph.tolerance, atol=graph.tolerance / 100 * size))


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
