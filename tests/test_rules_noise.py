"""Rules made for noise: averages, tracked gradients, independent batches, excess risk."""

import copy

import numpy as np
import pytest
import torch
from torchjd import aggregation

from mtl_utils.weighting import make_weighting
from tests.rules import (
    Problem,
    float64,  # noqa: F401
    same_state,
    saved_and_loaded,
)


def matrices(n_tasks, columns, count, seed=0, spread=1.0):
    """Jacobians of some calls, [count, K, P], with something in common."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(n_tasks, columns))
    return torch.as_tensor(common + spread * rng.normal(size=(count, n_tasks, columns)))


# ---- excess_mtl ----------------------------------------------------------------------------------


@pytest.mark.parametrize("warm_up", [1, 4])
@pytest.mark.parametrize("n_tasks", [2, 5])
def test_excess_mtl_is_that_of_torchjd_call_by_call(n_tasks, warm_up):
    """Its weights sum to 1, ours to K."""
    ours = make_weighting("excess_mtl", n_tasks, lr=0.3, warm_up=warm_up)
    theirs = aggregation.ExcessMTLWeighting(0.3, warm_up)
    for jacobian in matrices(n_tasks, 9, 8):
        update, weights = ours.merge(jacobian, torch.ones(n_tasks))
        torch.testing.assert_close(weights, n_tasks * theirs(jacobian), rtol=1e-12, atol=0)
        torch.testing.assert_close(update, weights @ jacobian)
    assert weights.max() > 1.01


def test_excess_mtl_does_not_follow_a_loss_that_noise_keeps_high():
    """Two regressions of one kind, the second with noise of variance 25 in its labels: its loss
    stays 25 times as large. A task that started with twice the way to go keeps its weight."""
    own = torch.Generator().manual_seed(0)
    x = torch.randn(400, 3, generator=own)
    clean = x @ torch.tensor([1.0, -1.0, 0.5])
    targets = [clean, clean + 5.0 * torch.randn(400, generator=own)]
    theta = torch.zeros(3, requires_grad=True)
    rule = make_weighting("excess_mtl", 2, lr=0.05)
    for _ in range(200):
        theta.grad = None
        losses = torch.stack([(x @ theta - y).square().mean() for y in targets])
        weights = rule.backward(losses, shared=[theta])
        with torch.no_grad():
            theta -= 0.05 * theta.grad
    assert losses[1] > 10 * losses[0]
    assert 0.5 < weights[1] / weights[0] < 2


def test_excess_mtl_keeps_its_weights_when_a_loss_is_scaled():
    plain, scaled = (make_weighting("excess_mtl", 3, lr=0.3, eps=0.0) for _ in range(2))
    for jacobian in matrices(3, 6, 5):
        other = jacobian * torch.tensor([[1.0], [100.0], [0.01]])
        wanted = plain.merge(jacobian, torch.ones(3))[1]
        torch.testing.assert_close(scaled.merge(other, torch.ones(3))[1], wanted)


# ---- moco ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_tasks", "columns"), [(2, 5), (4, 9)])
def test_moco_with_constant_gradients_ends_at_the_mgda_point(n_tasks, columns):
    jacobian = matrices(n_tasks, columns, 1)[0]
    rule = make_weighting("moco", n_tasks, beta=0.5, gamma=0.1, decay=0.25)
    for _ in range(4000):
        update, weights = rule.merge(jacobian, torch.ones(n_tasks))
    wanted = make_weighting("mgda", n_tasks).coefficients(jacobian @ jacobian.T)
    torch.testing.assert_close(rule.shares, wanted, rtol=0, atol=1e-5)
    torch.testing.assert_close(update, wanted @ jacobian, rtol=0, atol=1e-4)
    torch.testing.assert_close(weights, wanted * 0.5 / 4000**0.25, rtol=0, atol=1e-5)


def test_moco_by_hand():
    """y = g / 2; slope = y y' (1/2, 1/2) = (1/2, 1/8); shares (1/2 - .05, 1/2 - .0125) + .03125."""
    rule = make_weighting("moco", 2, beta=0.5, gamma=0.1)
    jacobian = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    update, weights = rule.merge(jacobian, torch.ones(2))
    shares = torch.tensor([0.48125, 0.51875])
    torch.testing.assert_close(rule.shares, shares)
    torch.testing.assert_close(update, shares * torch.tensor([1.0, 0.5]))
    torch.testing.assert_close(weights, shares / 2)
    rule.merge(torch.zeros(2, 2), torch.ones(2))  # b = 0.5 / sqrt(2)
    tracked = (1 - 0.5 / 2**0.5) * jacobian / 2
    torch.testing.assert_close(rule.tracked, tracked)
    # c = 0.1 / sqrt(2); slope = |y_k|^2 shares_k
    moved = shares - 0.1 / 2**0.5 * tracked.square().sum(1) * shares
    torch.testing.assert_close(rule.shares, moved + (1 - moved.sum()) / 2)


def test_moco_of_one_call_keeps_rho_near_equal_shares():
    jacobian = torch.tensor([[4.0, 0.0], [0.0, 1.0]])
    for rho, low in ((0.0, 0.05), (1000.0, 0.48)):
        rule = make_weighting("moco", 2, beta=1.0, gamma=0.001, decay=0.0, rho=rho)
        for _ in range(5000):
            rule.merge(jacobian, torch.ones(2))
        assert rule.shares[0] > low


# ---- modo and sdmgrad: independent batches -------------------------------------------------------

TWO_BATCHES = {
    "modo": lambda: aggregation.MoDoWeighting(gamma=0.05, rho=0.2),
    "sdmgrad": lambda: aggregation.SDMGradWeighting(lr=0.7, momentum=0.4, n_iter=15, lambda_=0.5),
}
THEIR_OPTIONS = {
    "modo": {"gamma": 0.05, "rho": 0.2},
    "sdmgrad": {"lr": 0.7, "momentum": 0.4, "rounds": 15, "lam": 0.5},
}


@pytest.mark.parametrize("name", TWO_BATCHES)
@pytest.mark.parametrize("n_tasks", [2, 5])
def test_coefficients_are_those_of_torchjd_call_by_call(name, n_tasks):
    ours, theirs = make_weighting(name, n_tasks, **THEIR_OPTIONS[name]), TWO_BATCHES[name]()
    first, second = matrices(n_tasks, 9, 12).split(6)
    for one, two in zip(first, second, strict=True):
        found = ours.coefficients(one @ two.T)
        torch.testing.assert_close(found, theirs(one @ two.T), rtol=0, atol=1e-8)
    assert (found - 1 / n_tasks).abs().max() > 0.01


@pytest.mark.parametrize("name", ["modo", "sdmgrad"])
def test_with_the_true_gramian_they_end_at_the_mgda_point(name):
    jacobian = matrices(4, 9, 1)[0]
    options = {"modo": {"gamma": 0.02, "rho": 0.0}, "sdmgrad": {"lam": 0.0}}[name]
    rule = make_weighting(name, 4, **options)
    for _ in range(3000):
        alpha = rule.coefficients(jacobian @ jacobian.T)
    wanted = make_weighting("mgda", 4).coefficients(jacobian @ jacobian.T)
    torch.testing.assert_close(alpha, wanted, rtol=0, atol=1e-6)


def test_sdmgrad_with_much_pull_is_the_mean_gradient():
    jacobian = matrices(4, 9, 1)[0]
    alpha = make_weighting("sdmgrad", 4, lam=1e6).coefficients(jacobian @ jacobian.T)
    torch.testing.assert_close(alpha, torch.full((4,), 0.25), rtol=0, atol=1e-5)


def test_sdmgrad_settles_where_the_rate_of_public_code_does_not():
    """|d|^2 beside its least value, 20 tasks, median over 20 sets of gradients, fifth call."""

    def excess(lr, seed):
        rng = np.random.default_rng(seed)
        scales = 10 ** rng.uniform(-0.5, 0.5, size=(20, 1))
        rows = rng.normal(size=(20, 50)) * scales + 0.5 * rng.normal(size=50)
        gramian = torch.as_tensor(rows @ rows.T)
        rule = make_weighting("sdmgrad", 20, lam=0.0, lr=lr)
        for _ in range(5):
            alpha = rule.coefficients(gramian)
        least = make_weighting("mgda", 20).coefficients(gramian)
        return ((alpha @ gramian @ alpha) / (least @ gramian @ least)).item()

    settled, public = (np.median([excess(lr, seed) for seed in range(20)]) for lr in (0.5, 5.0))
    assert settled < 1.001 and public > 3


def test_two_batches_give_the_gramian_without_the_noise():
    """E J_1 J_2' is the Gramian of the expected gradients; E J_1 J_1' has their variances too."""
    noise = torch.tensor([[0.1], [3.0]])
    own = torch.Generator().manual_seed(0)
    true = torch.tensor([[1.0, 0.0, 0.5], [0.5, 1.0, 0.0]])
    first, second = (true + noise * torch.randn(20000, 2, 3, generator=own) for _ in range(2))
    one, two = (first @ b.transpose(1, 2) for b in (first, second))
    error = (two.mean(0) - true @ true.T) / (two.std(0) / 20000**0.5)
    assert error.abs().max() < 4
    one = one.mean(0)
    assert one[1, 1].item() == pytest.approx(1.25 + 3 * 9, rel=0.05)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("modo", {"gamma": 0.0}, r"^gamma: expected a number in \(0, inf\)"),
        ("modo", {"rho": -1.0}, r"^rho: expected a number in \[0, inf\)"),
        ("modo", {"every": 2}, r"^every: "),
        ("modo", {"gramian": "representation"}, r"^gramian: "),
        ("sdmgrad", {"lam": -1.0}, r"^lam: expected a number in \[0, inf\)"),
        ("sdmgrad", {"lr": 0.0}, r"^lr: expected a number in \(0, inf\)"),
        ("sdmgrad", {"momentum": 1.0}, r"^momentum: expected a number in \[0, 1\)"),
        ("sdmgrad", {"rounds": 0}, r"^rounds: expected an integer of at least 1"),
        ("moco", {"beta": 0.0}, r"^beta: expected a number in \(0, 1\]"),
        ("moco", {"gamma": 0.0}, r"^gamma: expected a number in \(0, inf\)"),
        ("moco", {"decay": -1.0}, r"^decay: expected a number in \[0, inf\)"),
        ("moco", {"rho": -1.0}, r"^rho: expected a number in \[0, inf\)"),
        ("moco", {"every": 2}, r"^every: "),
        ("moco", {"gramian": "last_layer"}, r"^gramian: "),
        ("excess_mtl", {"lr": 0.0}, r"^lr: expected a number in \(0, inf\)"),
        ("excess_mtl", {"warm_up": 0}, r"^warm_up: expected an integer of at least 1"),
        ("excess_mtl", {"eps": -1.0}, r"^eps: expected a number in \[0, inf\)"),
        ("cr_mogm", {"alpha": 1.0}, r"^alpha: expected a number in \[0, 1\)"),
    ],
)
def test_options_are_checked(name, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make_weighting(name, 2, **options)


# ---- cr_mogm -------------------------------------------------------------------------------------

WRAPPED = {
    "upgrad": lambda: aggregation.UPGradWeighting(),
    "cagrad": lambda: aggregation.CAGradWeighting(c=0.4),
    "imtl_g": lambda: aggregation.IMTLGWeighting(),
    "pcd": lambda: aggregation.PCDWeighting(),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", WRAPPED)
@pytest.mark.parametrize("alpha", [0.0, 0.6])
def test_cr_mogm_is_that_of_torchjd_call_by_call(name, alpha):
    ours = make_weighting("cr_mogm", 3, rule=name, alpha=alpha)
    theirs = aggregation.CRMOGMWeighting(WRAPPED[name](), alpha=alpha)
    for jacobian in matrices(3, 6, 5):
        gramian = jacobian @ jacobian.T
        torch.testing.assert_close(
            ours.coefficients(gramian) @ jacobian,
            theirs(gramian) @ jacobian,
            rtol=0,
            atol=2e-3 * jacobian.norm().item(),  # of their solvers
        )


def test_cr_mogm_is_the_average_of_the_rule_that_it_holds():
    inner, alpha = make_weighting("mgda", 4), 0.8
    rule, average = make_weighting("cr_mogm", 4, alpha=alpha), None
    for jacobian in matrices(4, 9, 6):
        found = inner.coefficients(jacobian @ jacobian.T)
        average = found if average is None else alpha * average + (1 - alpha) * found
        torch.testing.assert_close(rule.coefficients(jacobian @ jacobian.T), average)


def test_cr_mogm_takes_a_rule_with_options_and_its_needs():
    rule = make_weighting("cr_mogm", 3, rule=make_weighting("mgda", 3, normalise="loss"), alpha=0.0)
    plain = make_weighting("mgda", 3, normalise="loss")
    problem, twin = Problem(3), Problem(3)
    torch.testing.assert_close(problem.backward(rule), twin.backward(plain))
    assert rule.needs_nonnegative
    other = make_weighting("cr_mogm", 3, alpha=0.0)
    with pytest.raises(ValueError, match=r"^inner.options.normalise: the state has 'loss'"):
        other.load_state_dict(rule.state_dict())


@pytest.mark.parametrize("inner", ["pcgrad", "gradvac", "pcd"])
def test_cr_mogm_around_a_rule_with_a_state_goes_on_from_a_file(inner):
    """Its own generator and averages are saved with it."""
    torch.manual_seed(0)
    rule = make_weighting("cr_mogm", 4, rule=inner)
    jacobians = matrices(4, 5, 6, spread=3.0)
    for jacobian in jacobians[:3]:
        rule.coefficients(jacobian @ jacobian.T)
    again = saved_and_loaded(rule, make_weighting("cr_mogm", 4, rule=inner))
    twin = copy.deepcopy(rule)
    for jacobian in jacobians[3:]:
        gramian = jacobian @ jacobian.T
        found = [one.coefficients(gramian) for one in (rule, again, twin)]
        assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    assert same_state(rule.state_dict(), again.state_dict())


@pytest.mark.parametrize("inner", ["pcd", "pcgrad"])  # one has averages, one draws
def test_cr_mogm_overflow_moves_no_state_of_the_rule_inside(inner):
    rule = make_weighting("cr_mogm", 2, rule=inner)
    before = copy.deepcopy(rule.state_dict())
    problem = Problem(2)
    problem.heads[0].register_hook(lambda g: g * torch.inf)  # seen only when the step has landed
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    rule.backward(problem.losses(), shared=[problem.theta], scaler=scaler)
    assert same_state(rule.state_dict(), before)


@pytest.mark.parametrize("rule", ["db_mtl", "equal", make_weighting("mgda", 2), 3])
def test_cr_mogm_refuses_what_has_no_coefficients_of_the_gramian(rule):
    with pytest.raises(ValueError, match=r"^rule: expected a rule .* such as mgda, with n_tasks=3"):
        make_weighting("cr_mogm", 3, rule=rule)
