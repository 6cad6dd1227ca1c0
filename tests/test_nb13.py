"""What notebook 13 shows: its toys, against other routes."""

import math

import numpy as np
import pytest
import torch

from experiments import nb12_toys, nb13_toys
from mtl_utils import make_weighting


@pytest.fixture(autouse=True)
def double():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def test_five_losses_span_eight_decades_and_a_factor_rescales_them():
    five = nb13_toys.Five(torch.Generator().manual_seed(0))
    losses = five.losses().detach()
    assert 1e7 < losses[-1] / losses[0] < 1e9
    torch.testing.assert_close(five.losses(3.0).detach(), 3 * losses)


def test_an_update_is_the_weighted_sum_of_gradients():
    five = nb13_toys.Five(torch.Generator().manual_seed(0))
    rows = five.gradients()
    for name in ("equal", "log", "geometric", "imtl_l", "uncertainty"):
        weights, update = five.update(name)
        torch.testing.assert_close(update, weights @ rows)
    weights, _ = five.update("imtl_l")
    torch.testing.assert_close(weights, 1 / five.losses().detach())


def test_one_minus_cosine():
    x, y = torch.tensor([1.0, 0.0]), torch.tensor([3.0, 3.0])
    assert nb13_toys.one_minus_cosine(x, 5 * x) == 0
    assert nb13_toys.one_minus_cosine(x, y) == pytest.approx(1 - math.sqrt(0.5))
    assert nb13_toys.one_minus_cosine(x, -x) == 2


def test_a_learned_share_rests_at_the_closed_form():
    found = nb13_toys.learned_shares("imtl_l", 0.08)
    assert found.shape == (700,)
    assert found[:100] == pytest.approx(1.0)
    assert found[349] == pytest.approx(0.75, rel=1e-3)


def test_the_line_has_the_closed_form():
    s = torch.linspace(-1, 1, 9)
    x = (s / math.sqrt(20))[:, None].expand(-1, 20)
    torch.testing.assert_close(nb13_toys.bulging_losses(x), nb13_toys.bulging_front(s))


def test_descent_on_one_loss_reaches_its_end():
    found = nb13_toys.descend(lambda f: f[..., 0], runs=1, seeds=2, steps=400)
    assert found.shape == (2, 1, 2)
    end = torch.tensor([0.0, 1 - math.exp(-4)]).expand(2, 1, 2)
    torch.testing.assert_close(found, end, atol=1e-6, rtol=0)


def test_heights_are_those_of_notebook_12():
    points = 6 * torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    mine = torch.tensor([nb13_toys.heights(*point) for point in points.tolist()])
    torch.testing.assert_close(mine, nb12_toys.valley(points) * torch.tensor([0.1, 1.0]))


@pytest.mark.parametrize("gamma", [0.0, 1e-3, None])
def test_famo_walks_as_the_package_does(gamma):
    theta = torch.tensor([-8.5, 7.5], requires_grad=True)
    rule = make_weighting("famo", 2, gamma=gamma or 0.0, lower=[-2.1, -21.0], eps=0.0)
    adam, strayed = torch.optim.Adam([theta], lr=1e-3), []

    def losses():
        return nb12_toys.valley(theta) * torch.tensor([0.1, 1.0])

    for _ in range(60):
        strayed.append(abs(rule.z[0].item() - 0.5))
        adam.zero_grad()
        rule.backward(losses())
        adam.step()
        if gamma is not None:
            rule.observe(losses_after_step=losses().detach())
    point, mine = nb13_toys.famo_walk((-8.5, 7.5), gamma, steps=60)
    np.testing.assert_allclose(point, theta.detach(), rtol=1e-9)
    np.testing.assert_allclose(mine, strayed, rtol=1e-6, atol=1e-9)


def test_the_first_record_is_read_and_paired():
    error = nb13_toys.first_record()
    ratio = nb13_toys.log_ratio(error, "units", "SGD", "equal", "log")
    assert len(ratio) == 20
    by_hand = math.log(error["units", "SGD", "equal", 3] / error["units", "SGD", "log", 3])
    assert ratio[3] == pytest.approx(by_hand)


def test_famo_goes_twice_through_the_network():
    assert [nb13_toys.forward_passes(name) for name in ("equal", "famo")] == [4, 8]


@pytest.mark.parametrize("rule, kind, seed", [("log", "SGD", 0), ("equal", "Adam", 7)])
def test_the_first_record_is_what_the_package_does(rule, kind, seed):
    rate, kept = nb13_toys.recorded(rule, kind, seed)
    assert rate > 0
    torch.testing.assert_close(nb13_toys.trained_again(rule, kind, seed), kept, rtol=1e-4, atol=0)
