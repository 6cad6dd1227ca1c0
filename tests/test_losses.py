"""Losses with learned noise for each example, and the focal loss."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, gaussian_nll_loss, mse_loss

from mtl_utils.losses import beta_nll, focal_loss, gaussian_nll, heteroscedastic_cross_entropy
from mtl_utils.weighting import make_weighting
from tests.rules import few, vector


def random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def classes(*shape, n=4, seed=0):
    return torch.randint(n, shape, generator=torch.Generator().manual_seed(seed))


LOSSES = {
    "gaussian_nll": lambda a, s: gaussian_nll(a, s, random(6, 3, seed=3)),
    "heteroscedastic_cross_entropy": lambda a, s: heteroscedastic_cross_entropy(
        a, s[:, 0], classes(6, n=3)
    ),
    "focal_loss": lambda a, s: focal_loss(a, classes(6, n=3), gamma=1.5) + 0 * s.sum(),
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_by_finite_differences(name):
    a, s = random(6, 3, seed=1).requires_grad_(), random(6, 3, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(LOSSES[name], (a, s))


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_beta_nll_gradient_is_that_of_the_likelihood_times_the_held_factor(beta):
    mean, s = random(6, 3, seed=1).requires_grad_(), random(6, 3, seed=2).requires_grad_()
    target = random(6, 3, seed=3)
    beta_nll(mean, s, target, beta).backward()
    held = torch.exp(beta * s.detach())

    def weighted(mean, s):  # the same with the factor as a constant, which gradcheck can check
        return (held * gaussian_nll(mean, s, target, reduction="none")).mean()

    assert torch.autograd.gradcheck(weighted, (mean, s))
    expected = torch.autograd.grad(weighted(mean, s), (mean, s))
    torch.testing.assert_close((mean.grad, s.grad), expected)


# ---- gaussian_nll ------------------------------------------------------------------------------


@few
@given(s=st.floats(-5, 5), seed=st.integers(0, 99))
def test_constant_head_is_homoscedastic_uncertainty(s, seed):
    mean, target = random(16, 2, seed=seed).requires_grad_(), random(16, 2, seed=seed + 1)
    head = torch.tensor(s, dtype=torch.float64, requires_grad=True)
    value = gaussian_nll(mean, head, target)
    value.backward()
    gradient, mean.grad = mean.grad, None

    weighting = make_weighting("uncertainty", 1).double()
    weighting.log_vars.data.fill_(s)
    loss = mse_loss(mean, target)[None]
    torch.testing.assert_close(weighting.objective(loss), value)
    weighting.backward(loss)
    torch.testing.assert_close(mean.grad, gradient)
    torch.testing.assert_close(weighting.log_vars.grad[0], head.grad)


def test_gaussian_nll_is_that_of_torch():
    mean, s, target = (random(8, 3, seed=k) for k in range(3))
    torch.testing.assert_close(
        gaussian_nll(mean, s, target), gaussian_nll_loss(mean, target, s.exp())
    )


def test_best_log_var_is_the_log_of_the_squared_error():
    mean, target = random(20, seed=1), random(20, seed=2)
    s = torch.log((target - mean) ** 2).requires_grad_()
    for loss in (gaussian_nll, beta_nll):
        (gradient,) = torch.autograd.grad(loss(mean, s, target), s)
        torch.testing.assert_close(gradient, torch.zeros(20).double(), rtol=0, atol=1e-14)


def test_log_var_may_be_shared_between_outputs():
    mean, target, s = random(5, 3, seed=1), random(5, 3, seed=2), random(5, 1, seed=3)
    expected = gaussian_nll(mean, s.repeat(1, 3), target)
    torch.testing.assert_close(gaussian_nll(mean, s, target), expected)


@pytest.mark.parametrize("loss", [gaussian_nll, beta_nll])
def test_shapes_that_would_broadcast_are_refused(loss):
    with pytest.raises(ValueError, match=r"target: .*\(5, 1\), got \(5,\)"):
        loss(random(5, 1), random(5, 1), random(5))
    with pytest.raises(ValueError, match=r"log_var: .*\(5, 1\), got \(5,\)"):
        loss(random(5, 1), random(5), random(5, 1))
    with pytest.raises(ValueError, match=r"log_var: .*\(5,\), got \(5, 2\)"):
        loss(random(5), random(5, 2), random(5))
    with pytest.raises(ValueError, match="reduction"):
        loss(random(5), random(5), random(5), reduction="sum")
    assert loss(random(5), random(5), random(5), reduction="none").shape == (5,)


# ---- beta_nll ----------------------------------------------------------------------------------


def test_beta_0_is_the_likelihood_and_beta_1_gives_the_mean_the_gradient_of_mse():
    mean, s, target = (random(8, 3, seed=k).requires_grad_() for k in range(3))
    torch.testing.assert_close(beta_nll(mean, s, target, beta=0.0), gaussian_nll(mean, s, target))
    (found,) = torch.autograd.grad(beta_nll(mean, s, target, beta=1.0), mean)
    (expected,) = torch.autograd.grad(mse_loss(mean, target) / 2, mean)
    torch.testing.assert_close(found, expected)


def test_the_default_beta_is_that_of_its_authors():
    """Seitzer et al. 2022 advise 0.5: between the likelihood and the squared error."""
    mean, s, target = (random(8, 3, seed=k) for k in range(3))
    torch.testing.assert_close(beta_nll(mean, s, target), beta_nll(mean, s, target, beta=0.5))


def test_the_likelihood_neglects_what_it_takes_for_noise_and_beta_nll_less():
    mean, target, s = torch.zeros(2).double(), torch.ones(2).double(), vector([0.0, math.log(100)])
    share = {}
    for beta in (0.0, 0.5, 1.0):
        leaf = mean.clone().requires_grad_()
        beta_nll(leaf, s, target, beta).backward()
        share[beta] = (leaf.grad[1] / leaf.grad[0]).item()
    assert share == pytest.approx({0.0: 0.01, 0.5: 0.1, 1.0: 1.0})


@pytest.mark.parametrize("beta", [-0.1, 1.1, math.nan])
def test_beta_out_of_range_is_refused(beta):
    with pytest.raises(ValueError, match="beta"):
        beta_nll(random(2), random(2), random(2), beta=beta)


# ---- heteroscedastic_cross_entropy ---------------------------------------------------------------


def test_constant_classification_head_is_half_the_cross_entropy():
    logits, y = random(9, 4), classes(9)
    zero = torch.zeros(()).double()
    expected = cross_entropy(logits, y) / 2
    torch.testing.assert_close(heteroscedastic_cross_entropy(logits, zero, y), expected)


@few
@given(s=st.floats(-3, 3))
def test_constant_classification_head_is_the_regression_form_of_uncertainty(s):
    logits, y = random(9, 4), classes(9)
    weighting = make_weighting("uncertainty", 1).double()
    weighting.log_vars.data.fill_(s)
    expected = weighting.objective(cross_entropy(logits, y)[None])
    found = heteroscedastic_cross_entropy(logits, vector(s), y)
    torch.testing.assert_close(found, expected)


def test_best_log_var_of_a_classification_is_the_log_of_the_cross_entropy():
    logits, y = random(9, 4), classes(9)
    s = cross_entropy(logits, y, reduction="none").log().requires_grad_()
    heteroscedastic_cross_entropy(logits, s, y).backward()
    torch.testing.assert_close(s.grad, torch.zeros(9).double(), rtol=0, atol=1e-14)


def test_classification_of_pixels():
    logits, y, s = random(2, 4, 3, 3), classes(2, 3, 3), random(2, 3, 3)
    value = heteroscedastic_cross_entropy(logits, s, y, reduction="none")
    assert value.shape == (2, 3, 3)
    with pytest.raises(ValueError, match=r"log_var: .*\(2, 3, 3\), got \(2, 4, 3, 3\)"):
        heteroscedastic_cross_entropy(logits, logits, y)


# ---- focal_loss --------------------------------------------------------------------------------


def test_focal_loss_formula():
    logits, y = random(9, 4), classes(9)
    p = torch.softmax(logits, 1)[torch.arange(9), y]
    for gamma in (0.5, 2.0):
        expected = -((1 - p) ** gamma) * p.log()
        torch.testing.assert_close(focal_loss(logits, y, gamma, reduction="none"), expected)
    torch.testing.assert_close(focal_loss(logits, y, gamma=0.0), cross_entropy(logits, y))
    assert focal_loss(random(2, 4, 3), classes(2, 3), reduction="none").shape == (2, 3)


def test_focal_loss_takes_weight_from_easy_examples():
    """p = 0.9 keeps 1/100 of its cross-entropy, p = 0.1 keeps 81/100."""
    logits = vector([[math.log(9), 0.0], [-math.log(9), 0.0]])
    ratio = focal_loss(logits, torch.tensor([0, 0]), reduction="none") / cross_entropy(
        logits, torch.tensor([0, 0]), reduction="none"
    )
    torch.testing.assert_close(ratio, vector([0.01, 0.81]))


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_focal_loss_of_certain_examples_has_a_finite_gradient(gamma, dtype):
    logits = torch.tensor([[2e3, 0.0], [-2e3, 0.0]], dtype=dtype, requires_grad=True)
    loss = focal_loss(logits, torch.tensor([0, 0]), gamma, reduction="none")
    loss.sum().backward()
    assert loss[0] == 0 and torch.isfinite(loss).all() and torch.isfinite(logits.grad).all()


def test_focal_loss_refuses_a_negative_gamma():
    with pytest.raises(ValueError, match="gamma"):
        focal_loss(random(2, 3), classes(2, n=3), gamma=-1.0)
