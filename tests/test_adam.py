"""The Adam of the rules that learn by themselves, against torch's."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from mtl_utils.weighting.adam import adam
from tests.rules import few, vector


@given(seed=st.integers(0, 99), scale=st.floats(-6, 6))
@few
def test_adam_is_that_of_torch(seed, scale):
    generator = torch.Generator().manual_seed(seed)
    gradients = 10**scale * torch.randn(30, 3, generator=generator, dtype=torch.float64)
    theirs = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([theirs], lr=0.1)
    ours, first, second = (torch.zeros(3, dtype=torch.float64) for _ in range(3))
    for step, gradient in enumerate(gradients, start=1):
        theirs.grad = gradient.clone()
        optimizer.step()
        steps = torch.full((3,), step)
        change, first, second = adam(gradient, first, second, steps)
        ours = ours - 0.1 * change
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-9, atol=1e-12)


def test_each_task_has_its_own_count_of_steps():
    gradient, zeros = vector([2.0, 2.0]), vector([0.0, 0.0])
    change, first, second = adam(gradient, zeros, zeros, torch.tensor([1, 3]))
    torch.testing.assert_close(first, vector([0.2, 0.2]))
    torch.testing.assert_close(second, vector([0.004, 0.004]))
    expected = (0.2 / (1 - 0.9**3)) / (0.004 / (1 - 0.999**3)) ** 0.5
    torch.testing.assert_close(change, vector([1.0, expected]), rtol=1e-6, atol=0)


def test_single_precision_is_exact_at_the_first_steps():
    """1 - 0.999 in single precision is 6e-5 off, -expm1(log(0.999)) is not."""
    gradient, zeros = torch.tensor([3.0]), torch.zeros(1)
    change, _, _ = adam(gradient, zeros, zeros, torch.tensor([1]))
    torch.testing.assert_close(change, torch.ones(1), rtol=1e-6, atol=0)
