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


def test_cr_mogm_overflow_moves_no_state_of_the_rule_inside():
    rule = make_weighting("cr_mogm", 2, rule="pcd")
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
