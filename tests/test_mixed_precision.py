"""Gradient scaler and autocast: every rule sees unscaled losses, outside autocast."""

import copy
import warnings

import pytest
import torch
from torch import nn

from mtl_utils.models import HardSharing, mlp
from mtl_utils.weighting.base import weighting_class
from tests.rules import GRADIENT_RULES, NAMES, make, same_state

K = 3
each_rule = pytest.mark.parametrize("name", NAMES)


def problem():
    torch.manual_seed(0)
    trunk = mlp(4, 6, 5, last=True, activation=nn.Tanh)
    model = HardSharing(trunk, [mlp(5, 1) for _ in range(K)])
    return model.double(), torch.randn(8, 4).double(), torch.randn(K, 8, 1).double()


def losses_of(model, x, y):
    pairs = zip(model(x), y, strict=True)
    return torch.stack([(out - t).square().mean() + 0.1 for out, t in pairs])


def gradients_of(model, rule):
    return [None if p.grad is None else p.grad for p in [*model.parameters(), *rule.parameters()]]


def observe(rule, losses):
    if "losses_after_step" in rule.observes:
        rule.observe(losses_after_step=0.9 * losses.detach())


@each_rule
def test_the_rule_sees_unscaled_losses_and_grad_holds_scaled_gradients(name):
    model, x, y = problem()
    twin, rule = copy.deepcopy(model), make(name, K)
    other = make(name, K)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for _ in range(3):
        model.zero_grad()
        twin.zero_grad()
        rule.zero_grad()
        other.zero_grad()
        losses = losses_of(model, x, y)
        weights = rule.backward(losses, shared=model.trunk.parameters(), scaler=scaler)
        again = losses_of(twin, x, y)
        assert torch.equal(weights, other.backward(again, shared=twin.trunk.parameters()))
        found, wanted = gradients_of(model, rule), gradients_of(twin, other)
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, 1024 * b, rtol=1e-12, atol=1e-12)
        observe(rule, losses)
        observe(other, again)


@each_rule
def test_a_whole_training_with_a_scaler_is_that_without(name):
    model, x, y = problem()
    results = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=256.0)):
        net, rule = copy.deepcopy(model), make(name, K)
        optimizer = torch.optim.SGD([*net.parameters(), *rule.parameters()], lr=0.05)
        for _ in range(3):
            losses = losses_of(net, x, y)
            optimizer.zero_grad()
            rule.backward(losses, shared=net.trunk.parameters(), scaler=scaler)
            if scaler is None:
                optimizer.step()
            else:
                scaler.step(optimizer)
                scaler.update()
            observe(rule, losses)
        results.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["gradients", "losses"])
@each_rule
def test_an_overflow_skips_the_step_and_moves_no_state(name, kind):
    model, x, y = problem()
    rule = make(name, K)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    if kind == "gradients":
        model.trunk[0].weight.register_hook(lambda g: g * torch.inf)
    optimizer = torch.optim.SGD([*model.parameters(), *rule.parameters()], lr=0.05)
    before = copy.deepcopy(rule.state_dict()), copy.deepcopy(model.state_dict())
    losses = losses_of(model, x, y) * (1 if kind == "gradients" else torch.inf)
    rule.backward(losses, shared=model.trunk.parameters(), scaler=scaler)
    scaler.step(optimizer)
    scale = scaler.get_scale()
    scaler.update()
    assert scaler.get_scale() == scale / 2
    assert same_state(model.state_dict(), before[1])
    assert same_state(rule.state_dict(), before[0])


def test_a_scaler_of_another_kind_is_refused():
    model, x, y = problem()
    with pytest.raises(ValueError, match=r"^scaler: expected a torch.amp.GradScaler, got 2.0"):
        make("equal", K).backward(losses_of(model, x, y), scaler=2.0)


def test_a_disabled_scaler_changes_nothing():
    model, x, y = problem()
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    rule, other = make("mgda", K), make("mgda", K)
    twin = copy.deepcopy(model)
    rule.backward(losses_of(model, x, y), shared=model.trunk.parameters(), scaler=scaler)
    other.backward(losses_of(twin, x, y), shared=twin.trunk.parameters())
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


@pytest.mark.parametrize("name", GRADIENT_RULES)
def test_inside_autocast_a_rule_computes_as_outside(name):
    """Two tasks that nearly agree: a Gramian in bfloat16 would say that they do."""
    torch.manual_seed(0)
    model = HardSharing(mlp(16, 64, 64, last=True), [nn.Linear(64, 1), nn.Linear(64, 1)])
    model.heads[1].load_state_dict(model.heads[0].state_dict())
    x = torch.randn(64, 16)
    y = x.sum(1, keepdim=True)
    targets = [y, y + 0.3 * torch.randn(64, 1)]
    updates = []
    for inside in (False, True):
        model.zero_grad()
        rule = make(name, 2).float()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            pairs = zip(model(x), targets, strict=True)
            losses = torch.stack([(out.float() - t).square().mean() for out, t in pairs])
            if inside:
                rule.backward(losses, shared=model.trunk.parameters())
        if not inside:
            rule.backward(losses, shared=model.trunk.parameters())
        updates.append(torch.cat([p.grad.flatten() for p in model.trunk.parameters()]))
    torch.testing.assert_close(updates[1], updates[0], rtol=1e-5, atol=1e-6)


def warned(rule, losses, model):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        rule.backward(losses, shared=model.trunk.parameters())
    return [str(w.message) for w in said if "gradient scaler" in str(w.message)]


@each_rule
def test_losses_that_a_scaler_scaled_are_noticed_once(name):
    model, x, y = problem()
    rule, scaler = make(name, K), torch.amp.GradScaler("cpu", init_scale=1024.0)
    first = warned(rule, scaler.scale(losses_of(model, x, y)), model)
    assert len(first) == (weighting_class(name).card.reads != "nothing")
    assert all("by 1024" in text and "scaler=scaler" in text for text in first)
    assert not warned(rule, scaler.scale(losses_of(model, x, y)), model)


@pytest.mark.parametrize(
    "factor", [2, 1024.0, torch.tensor(3.0), torch.tensor([2.0, 4.0, 8.0]), torch.tensor(0.5)]
)
def test_other_factors_are_the_users_own_business(factor):
    model, x, y = problem()
    assert not warned(make("log", K), losses_of(model, x, y) * factor, model)
    assert not warned(make("log", K), factor * losses_of(model, x, y), model)
