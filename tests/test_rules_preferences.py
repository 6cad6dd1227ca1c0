"""Rules that are told what is wanted: a direction of the losses, or a main task."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchjd import aggregation, scalarization

from mtl_utils.weighting import make_weighting
from tests.rules import (
    float64,  # noqa: F401
    step,
    tables,
    vector,
)
from tests.test_solvers import SPECIAL, jacobians

few = settings(max_examples=30, deadline=None)
TORCHJD = {  # of an option, a preference and ideal losses
    "pbi": lambda option, r, ideal: scalarization.PBI(option, r, ideal),
    "cosmos": lambda option, r, ideal: scalarization.COSMOS(option, r),
}
OPTION = {"pbi": "theta", "cosmos": "lam"}


# ---- a direction of the losses -------------------------------------------------------------------


@pytest.mark.parametrize("name", TORCHJD)
@given(table=tables(3, 1e-2, 1e2), option=st.sampled_from([0.0, 0.3, 5.0]))
@few
def test_objective_and_weights_are_those_of_torchjd(name, table, option):
    losses, r, ideal = table[0].clone().requires_grad_(), table[1], table[2] / 10
    options = {OPTION[name]: option, "preference": r}
    if name == "pbi":
        options["ideal"] = ideal
    rule = make_weighting(name, len(losses), **options).double()
    theirs = TORCHJD[name](option, r, ideal)(losses)
    torch.testing.assert_close(rule.objective(losses), theirs, rtol=1e-9, atol=1e-5)
    (wanted,) = torch.autograd.grad(theirs, losses)
    near_ray = name == "pbi" and theirs.item() < 1.0001 * (losses - ideal).norm().item()
    if not near_ray:  # there their root of d2^2 + 1e-12 has another slope
        scale = wanted.abs().max().item()
        torch.testing.assert_close(
            step(rule, losses.detach())[0], wanted, rtol=1e-4, atol=1e-6 * scale
        )


@pytest.mark.parametrize("name", TORCHJD)
def test_without_the_second_term_it_is_a_weighted_sum(name):
    preference = vector([3.0, 4.0])
    rule = make_weighting(name, 2, preference=preference, **{OPTION[name]: 0.0}).double()
    weights, _ = step(rule, [0.7, 0.2])
    length = 5.0 if name == "pbi" else 1.0
    torch.testing.assert_close(weights, preference / length)


@pytest.mark.parametrize("name", TORCHJD)
def test_on_the_ray_nothing_draws_aside(name):
    rule = make_weighting(name, 3, preference=[1.0, 2.0, 2.0]).double()
    weights, _ = step(rule, [0.5, 1.0, 1.0])
    torch.testing.assert_close(weights / weights[0], vector([1.0, 2.0, 2.0]))


@pytest.mark.parametrize(("name", "option"), [("pbi", 5.0), ("cosmos", 8.0)])
def test_the_optimum_need_not_be_pareto_optimal(name, option):
    """Losses 1 + a^2 and 0.2 + b^2: the only Pareto optimal point is a = b = 0."""

    def ends_at(rule):
        theta = vector([0.3, 0.1]).requires_grad_()
        for _ in range(4000):
            theta.grad = None
            rule.backward(torch.stack([1 + theta[0] ** 2, 0.2 + theta[1] ** 2]))
            with torch.no_grad():
                theta -= 0.002 * theta.grad
        return torch.stack([1 + theta[0] ** 2, 0.2 + theta[1] ** 2]).detach()

    best = ends_at(make_weighting(name, 2, **{OPTION[name]: 0.0}).double())
    torch.testing.assert_close(best, vector([1.0, 0.2]), rtol=0, atol=1e-3)
    end = ends_at(make_weighting(name, 2, **{OPTION[name]: option}).double())
    assert end[0] >= 1 and end[1] > 0.6  # worse in the second loss, no better in the first
    if name == "pbi":  # on the ray
        torch.testing.assert_close(end, vector([1.0, 1.0]), rtol=0, atol=0.02)


def test_a_preference_for_none_of_the_tasks_present_is_no_direction():
    """Then the weighted sum and the cosine are 0, and PBI wants the loss that is there small."""
    for name, wanted in (("cosmos", 0.0), ("pbi", 3.0)):
        rule = make_weighting(name, 2, preference=[1.0, 0.0], **{OPTION[name]: 3.0}).double()
        losses = vector([0.5, 0.7]).requires_grad_()
        weights = rule.backward(torch.stack(losses.unbind()), present=[False, True])
        assert weights.tolist() == pytest.approx([0.0, wanted])


def test_all_losses_zero_have_no_direction():
    rule = make_weighting("cosmos", 2).double()
    with pytest.raises(ValueError, match=r"^losses: cosmos needs a loss that is not 0, got: task"):
        step(rule, [0.0, 0.0])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pbi", {"theta": -1.0}, r"^theta: expected a number in \[0, inf\)"),
        ("pbi", {"preference": [0.0, 0.0]}, r"^preference: .* not all 0"),
        ("pbi", {"ideal": [0.0]}, r"^ideal: expected a 1-D tensor of K = 2"),
        ("cosmos", {"lam": -1.0}, r"^lam: expected a number in \[0, inf\)"),
        ("cosmos", {"preference": [1.0, -1.0]}, r"^preference: expected values of at least 0"),
    ],
)
def test_options_are_checked(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_weighting(name, 2, **options)


# ---- a main task ---------------------------------------------------------------------------------


def pcd(rows, **options):
    """Update and weights of a fresh rule, for which the first call normalises to length 1."""
    rows = torch.as_tensor(rows)
    alpha = make_weighting("pcd", len(rows), **options).double().coefficients(rows @ rows.T)
    return (alpha @ rows).numpy(), alpha.numpy()


@given(data=st.data(), tau=st.sampled_from([0.0, 0.02, 0.5, 1.0]), eps=st.sampled_from([1e-8, 0.1]))
@few
def test_pcd_is_that_of_torchjd_call_by_call(data, tau, eps):
    """Its solver stops at 1e-9; its average begins at 0 and is divided by 1 - beta^calls."""
    rows = data.draw(jacobians(max_tasks=6, decades=3.0))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    ours = make_weighting("pcd", len(rows), tau=tau, beta=0.7, eps=eps).double()
    theirs = aggregation.PCD(tau=tau, beta=0.7, eps=eps)
    for _ in range(4):
        now = torch.as_tensor(rows * rng.uniform(0.5, 2.0, size=rows.shape))
        wanted = theirs(now)
        found = ours.coefficients(now @ now.T) @ now
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * wanted.norm().item())


@pytest.mark.parametrize("kind", SPECIAL)
def test_pcd_of_special_gradients_is_that_of_torchjd(kind):
    rows = SPECIAL[kind]
    wanted = aggregation.PCD(tau=0.3)(torch.as_tensor(rows)).numpy()
    np.testing.assert_allclose(pcd(rows, tau=0.3)[0], wanted, atol=1e-6)


@given(rows=jacobians(max_tasks=2, decades=3.0), tau=st.floats(0.0, 1.0))
@few
def test_pcd_of_two_is_the_closed_form(rows, tau):
    h1, h2 = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    d = h1 + max(0.0, tau - h1 @ h2) * h2
    wanted = np.linalg.norm(rows[0]) * d / np.linalg.norm(d)
    found, _ = pcd(rows, tau=tau, eps=0.0)
    np.testing.assert_allclose(found, wanted, atol=1e-9 * np.linalg.norm(wanted))


@given(rows=jacobians(max_tasks=6, decades=2.0), tau=st.floats(0.0, 1.0))
@few
def test_pcd_gives_each_task_its_share_and_moves_no_more_than_that_takes(rows, tau):
    """The conditions of Karush, Kuhn and Tucker, before d is made as long as g_1."""
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    _, alpha = pcd(rows, tau=tau, eps=0.0)
    multipliers = alpha * np.linalg.norm(rows, axis=1)
    multipliers /= multipliers[0]
    slack = (units @ (multipliers @ units) - tau)[1:]
    assert slack.min() > -1e-7 and multipliers.min() >= 0
    assert np.abs(slack * multipliers[1:]).max() < 1e-6 * (1 + multipliers.max())


def test_pcd_drops_constraints_that_no_direction_fulfils_and_stops_with_the_main_task():
    main, side = np.array([0.0, 2.0]), np.array([1.0, 0.0])
    np.testing.assert_allclose(pcd(np.stack([main, side, -side]), tau=0.5)[0], main)
    np.testing.assert_allclose(pcd(np.stack([0 * main, side]), tau=0.5)[0], 0)
    np.testing.assert_allclose(pcd(np.stack([side, -3 * side]), tau=0.0)[0], 0, atol=1e-12)
    np.testing.assert_allclose(pcd(np.stack([side, -3 * side]), tau=0.5)[0], -side, atol=1e-6)


@pytest.mark.parametrize("tilt", [1e-2, 1e-5])
def test_pcd_goes_a_whole_step_however_little_the_main_task_gains_by_it(tilt):
    """Two gradients that are nearly opposite; tau = 0 leaves what is at right angles to both."""
    rows = np.array([[2.0, 0.0], [-np.cos(tilt), np.sin(tilt)]])
    wanted = 2.0 * np.array([np.sin(tilt), np.cos(tilt)])
    np.testing.assert_allclose(pcd(rows, tau=0.0, eps=0.0)[0], wanted, atol=1e-4)
