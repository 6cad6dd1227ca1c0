"""Micro-batches that are taken together give what the whole batch gives, for every rule."""

import copy

import pytest
import torch
from torch import nn

from mtl_utils.models import HardSharing, mlp
from tests.rules import NAMES, make, same_state

K, PARTS = 3, 4


def problem():
    torch.manual_seed(0)
    trunk = mlp(4, 6, 5, last=True, activation=nn.Tanh)
    model = HardSharing(trunk, [mlp(5, 1) for _ in range(K)])
    return model.double(), torch.randn(16, 4).double(), torch.randn(K, 16, 1).double()


def losses_of(model, x, y):
    pairs = zip(model(x), y, strict=True)
    return torch.stack([(out - t).square().mean() + 0.1 for out, t in pairs])


@pytest.mark.parametrize("name", NAMES)
def test_micro_batches_are_as_the_whole_batch(name):
    start, x, y = problem()
    results = []
    for parts in (1, PARTS):
        model, rule = copy.deepcopy(start), make(name, K)
        rule.use(accumulate=parts)
        optimizer = torch.optim.SGD([*model.parameters(), *rule.parameters()], lr=0.05)
        for _ in range(3):
            optimizer.zero_grad()
            pieces = zip(x.chunk(parts), y.chunk(parts, 1), strict=True)
            weights = [
                rule.backward(losses_of(model, a, b), shared=model.trunk.parameters())
                for a, b in pieces
            ]
            assert all(w.tolist() == [0] * K for w in weights[:-1])
            optimizer.step()
            if "losses_after_step" in rule.observes:
                rule.observe(losses_after_step=losses_of(model, x, y).detach())
        results.append((model.state_dict(), rule.state_dict(), weights[-1]))
    for a, b in zip(results[0][0].values(), results[1][0].values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(results[0][2], results[1][2], rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-8, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("name", NAMES)
def test_before_the_last_micro_batch_nothing_lands(name):
    model, x, y = problem()
    rule = make(name, K)
    rule.use(accumulate=2)
    before = copy.deepcopy(rule.state_dict())
    rule.backward(losses_of(model, x, y), shared=model.trunk.parameters())
    assert all(p.grad is None for p in [*model.parameters(), *rule.parameters()])
    assert same_state(rule.state_dict(), before)


def test_a_task_without_labels_in_some_micro_batches():
    """Its mean is over those where it has some."""
    model, x, y = problem()
    twin = copy.deepcopy(model)
    rule, other = make("mgda", K), make("mgda", K)
    rule.use(accumulate=2)
    first, second = losses_of(model, x[:8], y[:, :8]), losses_of(model, x[8:], y[:, 8:])
    second = torch.stack([second[0], second[1] * torch.nan, second[2]])
    shared = list(model.trunk.parameters())
    rule.backward(first, shared)
    rule.backward(second, shared, present=[True, False, True])
    whole, half = losses_of(twin, x, y), losses_of(twin, x[:8], y[:, :8])
    losses = torch.stack([whole[0], half[1], whole[2]])
    other.backward(losses, twin.trunk.parameters())
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-12)


def test_the_representation_has_no_mean():
    model, x, y = problem()
    rule = make("mgda", K)
    rule.use(accumulate=2, gramian="representation")
    shared = list(model.trunk.parameters())
    rule.backward(losses_of(model, x, y), shared)
    with pytest.raises(ValueError, match=r"^gramian: 'representation' does not go with accumulate"):
        rule.backward(losses_of(model, x, y), shared)
