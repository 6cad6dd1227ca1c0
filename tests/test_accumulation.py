"""Micro-batches that are taken together give what the whole batch gives, for every rule."""

import copy

import pytest
import torch
from torch import nn

from mtl_utils.models import HardSharing, mlp
from tests.rules import BATCHES_RULES, NAMES, fresh, make, same_state

K, PARTS = 3, 4


def problem():
    torch.manual_seed(0)
    trunk = mlp(4, 6, 5, last=True, activation=nn.Tanh)
    model = HardSharing(trunk, [mlp(5, 1) for _ in range(K)])
    return model.double(), torch.randn(48, 4).double(), torch.randn(K, 48, 1).double()


def losses_of(model, x, y):
    pairs = zip(model(x), y, strict=True)
    return torch.stack([(out - t).square().mean() + 0.1 for out, t in pairs])


@pytest.mark.parametrize("name", NAMES)
def test_micro_batches_are_as_the_whole_batch(name):
    """Those with independent batches: as so many whole ones."""
    start, x, y = problem()
    results = []
    for parts in (1, PARTS):
        model, rule = copy.deepcopy(start), fresh(name, K)
        parts *= rule.batches
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
    rule = fresh(name, K)
    rule.use(accumulate=2 * rule.batches)
    before = copy.deepcopy(rule.state_dict())
    for _ in range(2 * rule.batches - 1):
        rule.backward(losses_of(model, x, y), shared=model.trunk.parameters())
    assert all(p.grad is None for p in [*model.parameters(), *rule.parameters()])
    assert same_state(rule.state_dict(), before)


@pytest.mark.parametrize("name", ["mgda", "log"])  # gradients, losses
def test_a_task_without_labels_in_some_micro_batches(name):
    """Its mean is over those where it has some."""
    model, x, y = problem()
    twin = copy.deepcopy(model)
    rule, other = make(name, K), make(name, K)
    rule.use(accumulate=2)
    first, second = losses_of(model, x[:24], y[:, :24]), losses_of(model, x[24:], y[:, 24:])
    second = torch.stack([second[0], second[1] * torch.nan, second[2]])
    shared = list(model.trunk.parameters())
    rule.backward(first, shared)
    rule.backward(second, shared, present=[True, False, True])
    whole, half = losses_of(twin, x, y), losses_of(twin, x[:24], y[:, :24])
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


# ---- rules that take independent batches ---------------------------------------------------------


@pytest.mark.parametrize("name", BATCHES_RULES)
@pytest.mark.parametrize("each", [1, 2])
def test_the_update_is_made_of_independent_batches(name, each):
    """The first calls make J_1, the next J_2, and so on; two steps, by autograd."""
    model, x, y = problem()
    shared, rule, twin = list(model.trunk.parameters()), fresh(name, K), fresh(name, K)
    rule.use(accumulate=each * rule.batches)
    for _ in range(2):
        jacobians = []
        for a, b in zip(x.chunk(rule.batches), y.chunk(rule.batches, 1), strict=True):
            rows = [
                torch.autograd.grad(loss, shared, retain_graph=True)
                for loss in losses_of(model, a, b)
            ]
            jacobians.append(torch.stack([torch.cat([g.flatten() for g in row]) for row in rows]))
        parts = zip(x.chunk(rule.accumulate), y.chunk(rule.accumulate, 1), strict=True)
        for a, b in parts:
            weights = rule.backward(losses_of(model, a, b), shared=shared)
        wanted = twin.coefficients(jacobians[0] @ jacobians[1].T)
        torch.testing.assert_close(weights, wanted, rtol=1e-9, atol=1e-12)
        rows = jacobians[2] if name == "sdmgrad" else torch.stack(jacobians).mean(0)
        got = torch.cat([p.grad.flatten() for p in shared])
        torch.testing.assert_close(got, weights @ rows, rtol=1e-9, atol=1e-12)
        for k, head in enumerate(model.heads):  # the mean of all, each its own loss
            own = torch.autograd.grad(losses_of(model, x, y)[k], head.parameters())
            for p, g in zip(head.parameters(), own, strict=True):
                torch.testing.assert_close(p.grad, g, rtol=1e-9, atol=1e-12)
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.1 * p.grad
        model.zero_grad()


@pytest.mark.parametrize(("name", "bad"), [("modo", 1), ("modo", 3), ("sdmgrad", 2)])
def test_another_number_of_batches_is_refused(name, bad):
    message = rf"^accumulate: {name} takes . independent batches a step, .* multiple, got {bad}$"
    with pytest.raises(ValueError, match=message):
        fresh(name, K).use(accumulate=bad)


@pytest.mark.parametrize("name", BATCHES_RULES)
def test_a_task_absent_from_one_of_the_batches_is_absent_from_the_step(name):
    model, x, y = problem()
    twin = copy.deepcopy(model)
    rule, pair = fresh(name, K), fresh(name, 2)
    for number in range(rule.batches):
        present = [True, number != 1, True]
        losses = losses_of(model, x, y + number)
        weights = rule.backward(losses, model.trunk.parameters(), present=present)
        losses = losses_of(twin, x, y + number)
        wanted = pair.backward(torch.stack([losses[0], losses[2]]), twin.trunk.parameters())
    assert weights[1] == 0 and all(p.grad is None for p in model.heads[1].parameters())
    torch.testing.assert_close(weights[[0, 2]], wanted)
    for a, b in zip(model.trunk.parameters(), twin.trunk.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-12)
    assert rule.shares[1] == pytest.approx(1 / K)


@pytest.mark.parametrize("name", BATCHES_RULES)
@pytest.mark.parametrize("optimiser", [torch.optim.SGD, torch.optim.AdamW])
def test_a_plain_loop_steps_once_in_so_many_batches(name, optimiser):
    model, x, y = problem()
    rule, moved = fresh(name, K), []
    optimizer = optimiser(model.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(2 * rule.batches):
        before = copy.deepcopy(model.state_dict())
        optimizer.zero_grad()
        rule.backward(losses_of(model, x, y), shared=model.trunk.parameters())
        optimizer.step()
        moved.append(not same_state(dict(before), dict(model.state_dict())))
    assert moved == ([False] * (rule.batches - 1) + [True]) * 2


def test_a_micro_batch_that_fails_changes_nothing():
    model, x, y = problem()
    twin, rule, other = copy.deepcopy(model), fresh("modo", K), fresh("modo", K)
    used = losses_of(model, x, y)
    used.sum().backward()
    model.zero_grad()
    with pytest.raises(RuntimeError, match="second time"):
        rule.backward(used, model.trunk.parameters())
    for part in (y, y + 1):
        rule.backward(losses_of(model, x, part), model.trunk.parameters())
        other.backward(losses_of(twin, x, part), twin.trunk.parameters())
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
