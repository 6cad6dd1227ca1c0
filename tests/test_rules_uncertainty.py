"""Learned noise: uncertainty, liebel."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize
from torch import nn

from mtl_utils.weighting import make_weighting
from tests.rules import (
    Problem,
    attached,
    few,
    float64,  # noqa: F401
    make,
    step,
    vector,
)

# per form: negative log-likelihood of s for loss L, and where it is least
FORMS = {
    "regression": (lambda s, L: 0.5 * math.exp(-s) * L + 0.5 * s, lambda L: math.log(L)),
    "classification": (lambda s, L: math.exp(-s) * L + 0.5 * s, lambda L: math.log(2 * L)),
    "laplace": (lambda s, L: math.exp(-s / 2) * L + 0.5 * s, lambda L: 2 * math.log(L)),
}
each_form = pytest.mark.parametrize("form", FORMS)


def with_log_vars(values, forms="regression"):
    weighting = make("uncertainty", len(values), forms=forms)
    with torch.no_grad():
        weighting.log_vars.copy_(torch.as_tensor(values, dtype=torch.float64))
    return weighting


@each_form
@given(loss=st.floats(1e-3, 1e3), s=st.floats(-5, 5))
@few
def test_uncertainty_objective_and_optimum(form, loss, s):
    negative_log_likelihood, best = FORMS[form]
    weighting = with_log_vars([s], form)
    assert weighting.objective(vector([loss])).item() == pytest.approx(
        negative_log_likelihood(s, loss), rel=1e-12, abs=1e-12
    )
    found = optimize.minimize_scalar(
        negative_log_likelihood, bracket=(-1, 1), args=(loss,), options={"xtol": 1e-12}
    )
    assert found.x == pytest.approx(best(loss), abs=1e-5)
    assert found.fun == pytest.approx(negative_log_likelihood(best(loss), loss), abs=1e-10)
    weighting = with_log_vars([best(loss)], form)
    weights, _ = step(weighting, [loss])
    assert abs(weighting.log_vars.grad.item()) < 1e-12
    # weight times loss at the optimum: 1/2, for Laplace 1
    assert (weights * loss).item() == pytest.approx(1.0 if form == "laplace" else 0.5, rel=1e-12)
    assert weighting.sigma.item() == pytest.approx(math.exp(best(loss) / 2), rel=1e-12)


def test_uncertainty_likelihoods_are_those_of_scipy():
    from scipy import stats

    y, mean, s = 1.7, 0.4, 0.8
    gauss = -stats.norm(mean, math.exp(s / 2)).logpdf(y) - 0.5 * math.log(2 * math.pi)
    objective = with_log_vars([s]).objective(vector([(y - mean) ** 2]))
    assert objective.item() == pytest.approx(gauss, rel=1e-12)
    laplace = -stats.laplace(mean, math.exp(s / 2)).logpdf(y) - math.log(2)
    objective = with_log_vars([s], "laplace").objective(vector([abs(y - mean)]))
    assert objective.item() == pytest.approx(laplace, rel=1e-12)


@given(seed=st.integers(0, 1000), n_tasks=st.integers(1, 5))
@few
def test_uncertainty_at_its_optimum_descends_the_sum_of_logs(seed, n_tasks):
    problem = Problem(n_tasks, seed=seed)
    weighting = with_log_vars(problem.losses().detach().log())
    problem.backward(weighting)
    (wanted,) = torch.autograd.grad(problem.losses().log().sum(), problem.theta)
    torch.testing.assert_close(2 * problem.theta.grad, wanted, rtol=1e-10, atol=1e-10)
    value = weighting.objective(problem.losses()).item()
    assert value == pytest.approx(
        0.5 * (1 + problem.losses().log()).sum().item(), rel=1e-10, abs=1e-10
    )


@given(loss=st.floats(1e-2, 1e2), scale=st.floats(1e-3, 1e3))
@few
def test_uncertainty_scaling_a_loss_shifts_s_by_its_logarithm(loss, scale):
    s = math.log(loss)
    weights, _ = step(with_log_vars([s]), [loss])
    shifted = with_log_vars([s + math.log(scale)])
    scaled, _ = step(shifted, [loss * scale])
    assert (scaled * scale).item() == pytest.approx(weights.item(), rel=1e-10)
    assert abs(shifted.log_vars.grad.item()) < 1e-12


def test_uncertainty_learns_the_noise_of_a_loss():
    weighting = make("uncertainty", 3, forms=("regression", "classification", "laplace"))
    optimizer = torch.optim.SGD(weighting.parameters(), lr=0.2)
    for _ in range(400):
        optimizer.zero_grad()
        step(weighting, [4.0, 0.5, 3.0])
        optimizer.step()
    wanted = vector([math.log(4), math.log(2 * 0.5), 2 * math.log(3)])
    torch.testing.assert_close(weighting.log_vars.detach(), wanted, rtol=1e-6, atol=1e-6)


def test_uncertainty_starts_at_zero_and_keeps_the_forms():
    weighting = make_weighting("uncertainty", 3, forms=["regression", "classification", "laplace"])
    assert weighting.log_vars.tolist() == [0.0, 0.0, 0.0]
    assert isinstance(weighting.log_vars, nn.Parameter)
    assert list(dict(weighting.named_parameters())) == ["log_vars"]
    assert step(weighting.double(), [9.0, 9.0, 9.0])[0].tolist() == [0.5, 1.0, 1.0]
    assert make_weighting("uncertainty", 2).forms == ("regression", "regression")


@pytest.mark.parametrize(
    ("forms", "message"),
    [
        ("regresion", "forms: task 0 has 'regresion', expected one of regression, classification"),
        (["regression"], "forms: expected one for each of 2 tasks, got 1"),
        (["regression", "l1"], "forms: task 1 has 'l1'"),
    ],
)
def test_uncertainty_refuses_forms(forms, message):
    with pytest.raises(ValueError, match=message):
        make_weighting("uncertainty", 2, forms=forms)


def test_uncertainty_frozen_log_vars():
    weighting = with_log_vars([0.0, 1.0])
    weighting.log_vars.requires_grad_(False)
    weights, _ = step(weighting, [1.0, 1.0])
    torch.testing.assert_close(weights, 0.5 * torch.exp(-vector([0.0, 1.0])))
    assert weighting.log_vars.grad is None


@pytest.mark.parametrize(
    ("s", "loss"),
    [(-1000.0, 1.0), (-709.0, 1e10)],  # the weight overflows; only the gradient of s does
)
def test_uncertainty_overflow_is_refused_before_it_reaches_a_parameter(s, loss):
    weighting = with_log_vars([0.0, s])
    leaf = vector([1.0, loss]).requires_grad_()
    with pytest.raises(ValueError, match=r"of uncertainty (are no longer|is not) finite"):
        weighting.backward(leaf * 1.0)
    assert leaf.grad is None and weighting.log_vars.grad is None
    assert weighting.last_weights.isnan().all()


# L, Liebel's weight, weight times loss
LIEBEL = [
    (1e-4, 70.5, 0.007),
    (0.01, 6.83, 0.068),
    (0.1, 2.0, 0.2),
    (1, 0.5, 0.5),
    (10, 0.0854, 0.854),
    (100, 0.00981, 0.981),
]


@pytest.mark.parametrize(("loss", "weight", "share"), LIEBEL)
def test_liebel_table(loss, weight, share):
    best = optimize.minimize_scalar(
        lambda log_c: loss / (2 * math.exp(2 * log_c)) + math.log1p(math.exp(2 * log_c)),
        bracket=(-3, 1),
        options={"xtol": 1e-12},
    )
    c = math.exp(best.x)
    assert c**2 == pytest.approx((loss + math.sqrt(loss**2 + 8 * loss)) / 4, rel=1e-5)
    for sign in (1, -1):  # c enters as its square
        weighting = make("liebel", 1)
        with torch.no_grad():
            weighting.c.fill_(sign * math.sqrt((loss + math.sqrt(loss**2 + 8 * loss)) / 4))
        weights, _ = step(weighting, [loss])
        assert abs(weighting.c.grad.item()) < 1e-10
        assert weights.item() == pytest.approx(weight, rel=5e-3)
        assert weights.item() * loss == pytest.approx(share, rel=2e-2)


def test_liebel_start_and_division_by_zero():
    weighting = make("liebel", 2)
    assert weighting.c.tolist() == [1.0, 1.0]
    with torch.no_grad():
        weighting.c[1] = 0
    with pytest.raises(ValueError, match=r"weights: the weights of liebel .* task 1 is"):
        weighting.backward(attached([1.0, 1.0]))
    assert weighting.c.grad is None
