"""What the tests of the weighting rules share."""

from __future__ import annotations

import io

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from mtl_utils.weighting import (
    GradientWeighting,
    history,  # noqa: F401  (registers its rules)
    scalarisation,  # noqa: F401
)

few = settings(max_examples=50, deadline=None)


class HalfSum(GradientWeighting):
    """The simplest rule on gradients: half of each."""

    name = "half_sum"

    def coefficients(self, gramian: Tensor) -> Tensor:
        return torch.full((self.n_tasks,), 0.5).to(gramian)


def vector(values) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


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
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return a == b


@st.composite
def tables(draw, rows: int, low: float = 1e-3, high: float = 1e3, max_tasks: int = 5) -> Tensor:
    """A table [rows, K] of positive numbers over many orders of magnitude, K drawn too."""
    n_tasks = draw(st.integers(1, max_tasks))
    exponents = st.floats(np.log10(low), np.log10(high))
    numbers = draw(st.lists(exponents, min_size=rows * n_tasks, max_size=rows * n_tasks))
    return 10 ** vector(numbers).reshape(rows, n_tasks)


def permutation(n_tasks: int, seed: int) -> Tensor:
    return torch.randperm(n_tasks, generator=torch.Generator().manual_seed(seed))
