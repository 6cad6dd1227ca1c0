"""Weights chosen beforehand or by chance: equal, fixed, random."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given

from mtl_utils.weighting import make_weighting
from tests.rules import (
    few,
    float64,  # noqa: F401
    make,
    step,
    tables,
)


@given(table=tables(rows=2))
@few
def test_equal_and_fixed_are_what_they_say(table):
    losses, constants = table
    assert torch.equal(step(make("equal", len(losses)), losses)[0], torch.ones_like(losses))
    fixed = make_weighting("fixed", len(losses), weights=constants)
    assert torch.equal(step(fixed, losses)[0], constants)
    constants_before = constants.clone()
    constants.zero_()  # the rule keeps its own copy
    assert torch.equal(step(fixed, losses)[0], constants_before)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, -1.0], r"weights: expected values of at least 0, not all 0, got \[1.0, -1.0\]"),
        ([0.0, 0.0], "weights: expected values of at least 0, not all 0"),
        ([1.0], r"weights: expected a 1-D tensor of K = 2 values, got shape \(1,\)"),
        ([1.0, math.inf], "weights: expected finite values, got: task 1 is inf"),
        ("ab", "weights: expected 2 numbers, got 'ab'"),
    ],
)
def test_fixed_refuses(weights, message):
    with pytest.raises(ValueError, match=message):
        make_weighting("fixed", 2, weights=weights)


def test_fixed_zero_weight_switches_a_task_off():
    weights, _ = step(make_weighting("fixed", 2, weights=[0, 1]), [1.0, 1.0])
    assert weights.tolist() == [0.0, 1.0]


def draws(weighting, count):
    return torch.stack([step(weighting, torch.ones(weighting.n_tasks))[0] for _ in range(count)])


def test_random_mean_sum_and_law():
    found = draws(make("random", 3), 4000)
    torch.testing.assert_close(found.sum(1), torch.full((4000,), 3.0, dtype=torch.float64))
    error = found.std(0) / math.sqrt(4000)
    assert bool(((found.mean(0) - 1).abs() < 4 * error).all())
    # log-ratios of softmax weights are differences of two standard normals
    ratio = torch.log(found[:, 0] / found[:, 1])
    assert abs(ratio.mean().item()) < 4 * math.sqrt(2 / 4000)
    assert ratio.var().item() == pytest.approx(2, rel=0.1)


def test_random_is_governed_by_its_generator():
    first, second = (
        make_weighting("random", 2, generator=torch.Generator().manual_seed(5)) for _ in "ab"
    )
    assert torch.equal(draws(first, 5), draws(second, 5))
    other = make_weighting("random", 2, generator=torch.Generator().manual_seed(6))
    assert not torch.equal(draws(first, 5), draws(other, 5))


def test_random_by_default_follows_manual_seed_and_leaves_it_alone():
    torch.manual_seed(4)
    first = make_weighting("random", 2)
    torch.manual_seed(4)
    second = make_weighting("random", 2)
    state = torch.get_rng_state()
    assert torch.equal(draws(first, 3), draws(second, 3))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(
        draws(make_weighting("random", 2), 3), draws(make_weighting("random", 2), 3)
    )


@pytest.mark.parametrize("generator", [3, np.random.default_rng(0)])
def test_random_refuses_other_generators(generator):
    with pytest.raises(ValueError, match=r"^generator: expected a torch.Generator on the CPU, got"):
        make_weighting("random", 2, generator=generator)
