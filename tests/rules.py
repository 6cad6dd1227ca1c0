"""What the tests of the weighting rules share."""

from __future__ import annotations

import io
from inspect import signature

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from mtl_utils.weighting import (
    GradientWeighting,
    LossWeighting,
    available_weightings,
    make_weighting,
)
from mtl_utils.weighting.base import weighting_class
from mtl_utils.weighting.kinds import BatchesWeighting, GramianWeighting

few = settings(max_examples=50, deadline=None)


def of_kind(kind: type) -> list[str]:
    """Names of the rules of a kind."""
    return [name for name in NAMES if issubclass(weighting_class(name), kind)]


NAMES = available_weightings()
LOSS_RULES = of_kind(LossWeighting)
GRADIENT_RULES = of_kind(GradientWeighting)
GRAMIAN_RULES = of_kind(GramianWeighting)
BATCHES_RULES = of_kind(BatchesWeighting)  # these take several independent batches a step
RANDOM_RULES = [
    name for name in NAMES if "generator" in signature(weighting_class(name)).parameters
]


@pytest.fixture(autouse=True, scope="module")
def float64():
    """In a module that imports it, every tensor is made in double precision."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


class HalfSum(GradientWeighting):
    """The simplest rule on gradients: half of each."""

    name = "half_sum"

    def coefficients(self, gramian: Tensor) -> Tensor:
        return torch.full((self.n_tasks,), 0.5).to(gramian)


def vector(values) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def attached(values) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True) * 1.0


def step(weighting, values) -> tuple[Tensor, Tensor]:
    """Weights of one backward call, and the gradient that arrives at each loss."""
    leaf = torch.as_tensor(values, dtype=torch.float64).clone().requires_grad_()
    weights = weighting.backward(leaf * 1.0)
    assert torch.equal(weights, leaf.grad)
    return weights, leaf.grad


def saved_and_loaded(weighting, fresh):
    """`fresh` with the state of `weighting`, by way of a file read with weights_only=True."""
    file = io.BytesIO()
    torch.save(weighting.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    return fresh


def same_state(a, b) -> bool:
    """Whether two state dicts are equal bit for bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_state(a[key], b[key]) for key in a)
    if not isinstance(a, Tensor):
        return a == b
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return bool(((a == b) | ((a != a) & (b != b))).all())  # NaN is equal to NaN


@st.composite
def tables(draw, rows: int, low: float = 1e-3, high: float = 1e3, max_tasks: int = 5) -> Tensor:
    """A table [rows, K] of positive numbers over many orders of magnitude, K drawn too."""
    n_tasks = draw(st.integers(1, max_tasks))
    exponents = st.floats(np.log10(low), np.log10(high))
    numbers = draw(st.lists(exponents, min_size=rows * n_tasks, max_size=rows * n_tasks))
    return 10 ** vector(numbers).reshape(rows, n_tasks)


def permutation(n_tasks: int, seed: int) -> Tensor:
    return torch.randperm(n_tasks, generator=torch.Generator().manual_seed(seed))


def needed_options(name: str, n_tasks: int) -> dict:
    """The options that a rule cannot do without, and a generator with a fixed seed."""
    if name == "fixed":
        return {"weights": torch.arange(1.0, n_tasks + 1)}
    if name == "pareto_mtl":
        return {"preferences": torch.eye(n_tasks) + 0.1, "index": 0}
    return {"generator": torch.Generator().manual_seed(3)} if name in RANDOM_RULES else {}


class _OneBatch:
    """For rules that take independent batches: each call hands them the same one so many times.
    With that they are functions of one batch, as all others are."""

    def backward(self, losses, shared=None, *args, retain_graph=False, **options):
        shared = None if shared is None else list(shared)
        for _ in range(self.accumulate - 1):
            super().backward(losses, shared, *args, retain_graph=True, **options)
        return super().backward(losses, shared, *args, retain_graph=retain_graph, **options)


def make(name: str, n_tasks: int, **options):
    """A rule as `fresh` makes it; one that takes independent batches gets each several times."""
    return on_one_batch(fresh(name, n_tasks, **options))


def on_one_batch(weighting):
    """The rule itself, which is given each batch several times if it takes independent ones."""
    if weighting.batches > 1:
        kind = type(weighting)
        weighting.__class__ = type(kind.__name__, (_OneBatch, kind), {})
    return weighting


def fresh(name: str, n_tasks: int, **options):
    """A rule in float64, with something observed."""
    weighting = make_weighting(name, n_tasks, **{**needed_options(name, n_tasks), **options})
    weighting = weighting.double()
    for quantity in weighting.observes:
        if quantity != "losses_after_step":
            weighting.observe(**{quantity: torch.linspace(0.2, 0.8, n_tasks)})
            weighting.observe(**{quantity: torch.linspace(0.5, 0.7, n_tasks)})
    return weighting


class Problem:
    """K positive losses of one shared vector and of a head number for each task."""

    def __init__(self, n_tasks, dtype=torch.float64, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.a = torch.randn(n_tasks, 3, generator=generator, dtype=torch.float64).to(dtype)
        self.theta = torch.ones(3, dtype=dtype, requires_grad=True)
        self.heads = [torch.tensor(0.3 + k, dtype=dtype).requires_grad_() for k in range(n_tasks)]

    def losses(self):
        each = zip(self.a, self.heads, strict=True)
        return torch.stack([(a @ self.theta - head) ** 2 + 0.1 for a, head in each])

    def gradients(self):
        """Each loss's gradient in theta [K, 3] and in its own head [K], by autograd."""
        found = [torch.autograd.grad(loss, [self.theta, h]) for loss, h in self.pairs()]
        return torch.stack([g for g, _ in found]), torch.stack([h for _, h in found])

    def pairs(self):
        each = zip(self.a, self.heads, strict=True)
        return [((a @ self.theta - head) ** 2 + 0.1, head) for a, head in each]

    def backward(self, weighting, losses=None):
        """A step with everything that any rule wants."""
        losses = self.losses() if losses is None else losses
        weights = weighting.backward(losses, shared=[self.theta])
        if "losses_after_step" in weighting.observes:
            weighting.observe(losses_after_step=losses.detach() * 0.9)
        return weights

    def untouched(self):
        return all(p.grad is None for p in (self.theta, *self.heads))


def run(weighting, steps: int, seed: int) -> Tensor:
    """Weights of some steps of training, parameters and histories moving along."""
    problem = Problem(3, seed=seed)
    seen = []
    for number in range(steps):
        scaled = problem.losses() * (1 + 0.1 * number)
        seen.append(problem.backward(weighting, torch.stack(scaled.unbind())).clone())
        for quantity in weighting.observes:
            if quantity != "losses_after_step":
                weighting.observe(**{quantity: scaled.detach() / scaled.detach().sum()})
        with torch.no_grad():
            for parameter in weighting.parameters():
                parameter -= 0.01 * parameter.grad
                parameter.grad = None
    return torch.stack(seen)
