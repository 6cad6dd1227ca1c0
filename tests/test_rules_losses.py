"""Functions of the losses alone: log, geometric, imtl_l, uncertainty_soft, stch, famo."""

import copy
import math
import warnings
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mtl_utils.models import HardSharing, flat_parameters, mlp
from mtl_utils.weighting import make_weighting
from tests.rules import (
    few,
    float64,  # noqa: F401
    permutation,
    same_state,
    saved_and_loaded,
    step,
    tables,
    vector,
)

RULES = {
    "log": {},
    "geometric": {},
    "imtl_l": {},
    "uncertainty_soft": {"temperature": 2.0},
    "stch": {"mu": 0.7},
    "stch log": {"mu": 0.7, "warm_up": 2},
    "famo": {},
}
NEEDS_POSITIVE = ["log", "geometric", "stch log", "famo with eps=0"]


def make(rule, n_tasks, **options):
    """A rule of `RULES`, or one with other options."""
    defaults = {"famo with eps=0": {"eps": 0.0}}.get(rule, RULES.get(rule, {}))
    return make_weighting(rule.split()[0], n_tasks, **{**defaults, **options}).double()


def train_step(weighting, row, after=None):
    """A step with everything that any of the rules wants; returns the weights."""
    weights, _ = step(weighting, row)
    for parameter in weighting.parameters():
        with torch.no_grad():
            parameter -= 0.1 * parameter.grad
        parameter.grad = None
    weighting.observe(losses_after_step=row * 0.9 if after is None else after, train_losses=row)
    return weights


# ---- all -------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
@few
@given(rows=tables(5), seed=st.integers(0, 99))
def test_weights_are_finite_not_negative_and_equivariant(rule, rows, seed):
    n_tasks = rows.shape[1]
    order = permutation(n_tasks, seed)
    weighting, permuted = make(rule, n_tasks), make(rule, n_tasks)
    for row, after in pairwise(rows):
        weights = train_step(weighting, row, after)
        assert torch.isfinite(weights).all() and (weights >= 0).all()
        swapped = train_step(permuted, row[order], after[order])
        torch.testing.assert_close(swapped, weights[order], rtol=1e-6, atol=1e-12)
        total = weights.sum().item()
        if rule == "famo":
            assert total == pytest.approx(1, rel=1e-9)
        if rule in ("uncertainty_soft", "stch"):
            assert total == pytest.approx(n_tasks, rel=1e-9)


@pytest.mark.parametrize("rule", RULES)
@few
@given(rows=tables(6), cut=st.integers(1, 5))
def test_resumes_bit_for_bit(rule, rows, cut):
    n_tasks = rows.shape[1]
    through, stopped = make(rule, n_tasks), make(rule, n_tasks)
    for weighting in (through, stopped):
        for row in rows[:cut]:
            train_step(weighting, row)
    resumed = saved_and_loaded(stopped, make(rule, n_tasks))
    for row in rows[cut:]:
        assert torch.equal(train_step(through, row), train_step(resumed, row))
    assert same_state(through.state_dict(), resumed.state_dict())


@pytest.mark.parametrize("rule", RULES)
def test_one_task(rule):
    weights = train_step(make(rule, 1), vector([4.0]))
    expected = 0.25 if rule in ("log", "stch log") else 1.0  # these divide by the loss
    assert weights.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("rule", NEEDS_POSITIVE)
@pytest.mark.parametrize("bad", [0.0, -1.0])
def test_losses_that_have_no_logarithm_are_refused_and_change_nothing(rule, bad):
    weighting = make(rule, 2)
    before = weighting.state_dict()
    leaf = torch.ones(2, dtype=torch.float64, requires_grad=True)
    with pytest.raises(ValueError, match=r"losses: .*above 0.*task 1 is"):
        weighting.backward(leaf * vector([1.0, bad]))
    assert leaf.grad is None and same_state(weighting.state_dict(), before)


@pytest.mark.parametrize("rule", ["imtl_l", "uncertainty_soft"])
def test_negative_losses_are_refused_and_zero_is_not(rule):
    weighting = make(rule, 2)
    with pytest.raises(ValueError, match=r"at least 0.*task 1 is -1"):
        step(weighting, [1.0, -1.0])
    weights = train_step(weighting, vector([1.0, 0.0]))
    assert torch.isfinite(weights).all()
    assert all(torch.isfinite(p).all() for p in weighting.parameters())


@pytest.mark.parametrize("rule", ["log", "geometric"])
def test_eps_allows_a_loss_of_zero(rule):
    with pytest.raises(ValueError, match="eps=1e-8"):
        step(make(rule, 2), [1.0, 0.0])
    weights, _ = step(make(rule, 2, eps=1e-8), [1.0, 0.0])
    assert torch.isfinite(weights).all()
    assert (weights[1] / weights[0]).item() == pytest.approx(1e8, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("log", {"eps": -1.0}),
        ("geometric", {"eps": math.inf}),
        ("uncertainty_soft", {"temperature": 0.0}),
        ("stch", {"mu": 0.0}),
        ("stch", {"mu": math.inf}),
        ("stch", {"preference": [1.0, -1.0]}),
        ("stch", {"preference": [0.0, 0.0]}),
        ("stch", {"preference": [1.0]}),
        ("stch", {"ideal": [math.nan, 0.0]}),
        ("stch", {"warm_up": 0}),
        ("stch", {"ideal": [0.0, 0.0], "warm_up": 2}),
        ("famo", {"lr": 0.0}),
        ("famo", {"gamma": -0.1}),
        ("famo", {"lower": [0.0]}),
        ("famo", {"eps": -1e-8}),
    ],
)
def test_bad_options_are_refused_by_name(name, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        make_weighting(name, 2, **options)


# ---- one direction ---------------------------------------------------------------------------


def small_problem(scales):
    """A network with K heads, and a function that gives its losses times `scales`."""
    generator = torch.manual_seed(0)
    n_tasks = len(scales)
    model = HardSharing(
        mlp(5, 8, 8, activation=torch.nn.Tanh), [mlp(8, 1) for _ in range(n_tasks)]
    ).double()
    x = torch.randn(32, 5, generator=generator, dtype=torch.float64)
    y = torch.randn(n_tasks, 32, 1, generator=generator, dtype=torch.float64)

    def losses():
        outputs = model(x)
        return torch.stack(
            [c * ((o - t) ** 2).mean() for c, o, t in zip(scales, outputs, y, strict=True)]
        )

    return model, losses


def gradient(model, losses, weighting):
    model.zero_grad()
    weighting.backward(losses(), shared=model.trunk.parameters())
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("scales", [(1.0, 1.0, 1.0), (1e-2, 1.0, 1e2)])
def test_five_methods_one_direction(scales):
    model, losses = small_problem(scales)
    values = losses().detach()
    uncertainty, imtl_l = make("uncertainty", 3), make("imtl_l", 3)
    uncertainty.log_vars.data = values.log()  # both at their optimum
    imtl_l.log_weights.data = -values.log()
    rules = [uncertainty, imtl_l, make("log", 3), make("geometric", 3), make("famo", 3)]
    with_gradients = gradient(model, losses, make("fixed", 3, weights=1 / values))
    for weighting in rules:
        found = gradient(model, losses, weighting)
        cosine = found @ with_gradients / (found.norm() * with_gradients.norm())
        assert abs(1 - cosine.item()) < 1e-10, weighting.name
    # they differ in length
    torch.testing.assert_close(gradient(model, losses, rules[1]), with_gradients)
    torch.testing.assert_close(gradient(model, losses, uncertainty), with_gradients / 2)
    equal = gradient(model, losses, make("equal", 3))
    cosine = equal @ with_gradients / (equal.norm() * with_gradients.norm())
    assert cosine < 1 - 1e-4  # a direction of its own


# ---- log, geometric --------------------------------------------------------------------------


@few
@given(rows=tables(2))
def test_log_and_geometric_closed_forms_and_scale(rows):
    losses, c = rows
    n_tasks = len(losses)
    torch.testing.assert_close(step(make("log", n_tasks), losses)[0], 1 / losses)
    mean = losses.log().mean().exp()
    weights = step(make("geometric", n_tasks), losses)[0]
    torch.testing.assert_close(weights, mean / (n_tasks * losses))
    # the gradient of loss k grows by c_k, its weight by what is checked here
    torch.testing.assert_close(step(make("log", n_tasks), c * losses)[0] * c, 1 / losses)
    scaled = step(make("geometric", n_tasks), c * losses)[0] * c
    torch.testing.assert_close(scaled, weights * c.log().mean().exp())


def test_geometric_of_many_losses_does_not_overflow():
    losses = torch.full((400,), 1e-3, dtype=torch.float64)
    assert losses.prod() == 0
    torch.testing.assert_close(
        step(make("geometric", 400), losses)[0], torch.full_like(losses, 1 / 400)
    )


# ---- imtl_l ----------------------------------------------------------------------------------


@few
@given(rows=tables(2, 1e-2, 1e2))
def test_imtl_l_is_twice_uncertainty_with_the_sign_of_s_turned(rows):
    losses, s = rows[0], rows[1].log()
    imtl_l, uncertainty = make("imtl_l", len(s)), make("uncertainty", len(s))
    imtl_l.log_weights.data, uncertainty.log_vars.data = s, -s
    torch.testing.assert_close(step(imtl_l, losses)[0], 2 * step(uncertainty, losses)[0])
    torch.testing.assert_close(imtl_l.objective(losses), 2 * uncertainty.objective(losses))
    torch.testing.assert_close(imtl_l.log_weights.grad, -2 * uncertainty.log_vars.grad)


def test_imtl_l_optimum_equalises_the_losses():
    losses = vector([0.01, 1.0, 300.0])
    weighting = make("imtl_l", 3)
    weighting.log_weights.data = -losses.log()
    weights, _ = step(weighting, losses)
    torch.testing.assert_close(weights * losses, torch.ones(3).double())
    torch.testing.assert_close(
        weighting.log_weights.grad, torch.zeros(3).double(), atol=1e-15, rtol=0
    )


def test_imtl_l_starts_as_equal_and_is_not_scale_invariant_there():
    assert step(make("imtl_l", 2), [1.0, 100.0])[0].tolist() == [1.0, 1.0]


# ---- uncertainty_soft ------------------------------------------------------------------------


@few
@given(rows=tables(1), temperature=st.floats(1e-2, 1e3))
def test_uncertainty_soft_formula_and_order(rows, temperature):
    losses = rows[0]
    weights, _ = step(make("uncertainty_soft", len(losses), temperature=temperature), losses)
    expected = len(losses) * torch.softmax(1 / losses / temperature, 0)
    torch.testing.assert_close(weights, expected, rtol=1e-6, atol=1e-12)
    order = losses.argsort()
    assert (weights[order].diff() <= 0).all()  # the smaller loss has the larger weight


def test_uncertainty_soft_limits_units_and_zero():
    losses = vector([0.5, 1.0])
    weights = step(make("uncertainty_soft", 2, temperature=math.inf), losses)[0]
    assert weights.tolist() == [1.0, 1.0]
    near = step(make("uncertainty_soft", 2), losses)[0]
    assert not torch.allclose(step(make("uncertainty_soft", 2), losses * 10)[0], near)
    both = step(make("uncertainty_soft", 2, temperature=20.0), losses * 0.1)[0]
    torch.testing.assert_close(both, near)  # the temperature is in units of 1 / loss
    for temperature in (1e-300, 1.0):
        weighting = make("uncertainty_soft", 3, temperature=temperature)
        assert step(weighting, [0.0, 1.0, 0.0])[0].tolist() == [1.5, 0.0, 1.5]


# ---- stch ------------------------------------------------------------------------------------


def test_stch_by_hand():
    weights, _ = step(make("stch", 2, mu=1.0), [math.log(3.0), 0.0])
    torch.testing.assert_close(weights, vector([1.5, 0.5]))


@few
@given(rows=tables(2, 1e-1, 1e1), mu=st.floats(0.05, 20))
def test_stch_weights_over_preferences_sum_to_k(rows, mu):
    losses, preference = rows
    weighting = make("stch", len(losses), mu=mu, preference=preference)
    weights, _ = step(weighting, losses)
    assert (weights / preference).sum().item() == pytest.approx(len(losses), rel=1e-9)
    # the soft maximum lies above the maximum, by mu log K at most
    top = (preference * losses).max()
    soft = weighting.objective(losses) / len(losses)
    assert top - 1e-9 <= soft <= top + mu * math.log(len(losses)) + 1e-9


def test_stch_small_mu_is_the_maximum():
    losses, preference, ideal = vector([1.0, 3.0, 2.0]), [1.0, 0.5, 2.0], [0.5, 0.5, 0.25]
    weighting = make("stch", 3, mu=1e-4, preference=preference, ideal=ideal)
    weights, _ = step(weighting, losses)
    torch.testing.assert_close(weights, vector([0.0, 0.0, 6.0]))
    assert weighting.objective(losses).item() == pytest.approx(3 * 2.0 * 1.75, rel=1e-6)


def test_stch_large_mu_is_linear():
    losses = vector([1.0, 3.0, 2.0])
    weights, _ = step(make("stch", 3, mu=1e7), losses)
    torch.testing.assert_close(weights, torch.ones(3).double(), rtol=0, atol=1e-6)
    weights, _ = step(make("stch", 3, mu=1e7, preference=[0.2, 0.3, 0.5]), losses)
    torch.testing.assert_close(weights, vector([0.2, 0.3, 0.5]), rtol=0, atol=1e-6)


def test_stch_plain_form_takes_any_sign_and_depends_on_scale():
    weights, _ = step(make("stch", 2, mu=1.0), [-5.0, 0.0])
    assert torch.isfinite(weights).all()
    small, _ = step(make("stch", 2, mu=1.0), [1.0, 2.0])
    large, _ = step(make("stch", 2, mu=1.0), [10.0, 20.0])
    assert not torch.allclose(small, large)
    # mu is in units of the losses
    torch.testing.assert_close(step(make("stch", 2, mu=10.0), [10.0, 20.0])[0], small)


def test_stch_does_not_overflow():
    weights, _ = step(make("stch", 2, mu=0.01), [1e4, 1.0])
    assert weights.tolist() == [2.0, 0.0]


@few
@given(rows=tables(3, 1e-2, 1e2), mu=st.floats(0.1, 5))
def test_stch_log_form(rows, mu):
    n_tasks = rows.shape[1]
    weighting = make("stch", n_tasks, mu=mu, warm_up=2)
    for row in rows[:2]:
        torch.testing.assert_close(step(weighting, row)[0], 1 / row)  # sum of logarithms
        weighting.observe(train_losses=row)
    nadir, losses = rows[1], rows[2]
    weights, _ = step(weighting, losses)
    expected = n_tasks * torch.softmax((losses / nadir).log() / mu, 0) / losses
    torch.testing.assert_close(weights, expected)
    weighting.observe(train_losses=losses)  # the nadir stays
    assert torch.equal(step(weighting, losses)[0], weights)
    # where it begins, it is as long as the warm-up's step
    torch.testing.assert_close(step(weighting, nadir)[0], 1 / nadir)


def test_stch_log_form_with_mu_1_is_the_log_of_the_sum_of_normalised_losses():
    weighting = make("stch", 2, mu=1.0, warm_up=1)
    nadir, losses = vector([2.0, 30.0]), vector([1.0, 20.0])
    weighting.observe(train_losses=nadir)
    value = weighting.objective(losses).item()
    assert value == pytest.approx(2 * math.log(1 / 2 + 20 / 30), rel=1e-12)


@few
@given(rows=tables(3, 1e-2, 1e2))
def test_stch_log_form_keeps_its_direction_when_a_loss_is_scaled(rows):
    nadir, losses, c = rows
    plain, scaled = (make("stch", len(c), mu=0.5, warm_up=1) for _ in range(2))
    plain.observe(train_losses=nadir)
    scaled.observe(train_losses=nadir * c)
    torch.testing.assert_close(step(scaled, losses * c)[0] * c, step(plain, losses)[0])


def test_stch_log_form_refuses_a_nadir_of_zero():
    weighting = make("stch", 2, warm_up=1)
    with pytest.raises(ValueError, match=r"train_losses: stch .* task 0 is 0"):
        weighting.observe(train_losses=[0.0, 1.0])
    assert weighting.nadir.isnan().all() and weighting.epochs.tolist() == [0, 0]


def test_stch_finds_the_inside_of_a_concave_front_and_a_weighted_sum_does_not():
    """f = 1 - exp(-(x -+ 1)^2) has a concave front, with x in [-1, 1]."""

    def ends_at(weighting):
        x = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
        for _ in range(400):
            x.grad = None
            losses = 1 - torch.exp(-((x - vector([1.0, -1.0])) ** 2))
            weighting.backward(losses)
            with torch.no_grad():
                x -= 0.1 * x.grad
        return x.item()

    preference = [0.45, 0.55]
    assert abs(ends_at(make("fixed", 2, weights=preference))) > 0.9
    assert abs(ends_at(make("stch", 2, mu=0.01, preference=preference))) < 0.3


# ---- famo ------------------------------------------------------------------------------------


@few
@given(rows=tables(7, 1e-2, 1e2), gamma=st.sampled_from([0.0, 1e-3, 0.1]))
def test_famo_against_autograd_and_torch_adam(rows, gamma):
    n_tasks = rows.shape[1]
    lower, eps = vector([-0.5] * n_tasks), 1e-8
    weighting = make("famo", n_tasks, lr=0.025, gamma=gamma, lower=lower)
    logits = torch.zeros(n_tasks, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([logits], lr=0.025, weight_decay=gamma)
    for before, after in pairwise(rows):
        weights, _ = step(weighting, before)
        weighting.observe(losses_after_step=after)
        z = torch.softmax(logits, 0)
        share = (z / (before - lower + eps)).detach()
        torch.testing.assert_close(weights, share / share.sum(), rtol=1e-5, atol=1e-12)
        delta = torch.log(before - lower + eps) - torch.log(after - lower + eps)
        adam.zero_grad()
        (z @ delta).backward()
        adam.step()
        torch.testing.assert_close(weighting.logits, logits.detach(), rtol=0, atol=1e-6)
    assert weighting.z.sum().item() == pytest.approx(1, rel=1e-12)


def test_famo_takes_weight_from_the_task_that_fell_faster():
    weighting = make("famo", 2, gamma=0.0)
    step(weighting, [1.0, 1.0])
    weighting.observe(losses_after_step=[0.5, 0.9])
    assert weighting.z[0] < 0.5 < weighting.z[1]


def test_famo_logits_rest_where_all_tasks_fall_alike():
    weighting = make("famo", 3, eps=0.0)
    step(weighting, [1.0, 10.0, 100.0])
    weighting.observe(losses_after_step=vector([0.8, 8.0, 80.0]))
    torch.testing.assert_close(weighting.z, torch.full((3,), 1 / 3).double(), rtol=0, atol=1e-6)


def test_famo_with_large_gamma_stays_at_equal_logits():
    generator = torch.manual_seed(0)
    weighting = make("famo", 3, gamma=1e3)
    for _ in range(50):
        losses = torch.rand(3, generator=generator, dtype=torch.float64) + 0.1
        train_step(weighting, losses, losses * vector([0.5, 0.9, 1.1]))
    assert (weighting.z - 1 / 3).abs().max() < 0.01


@few
@given(rows=tables(4, 1e-2, 1e2))
def test_famo_keeps_its_direction_when_losses_and_bounds_are_scaled(rows):
    before, after, c, _ = rows
    lower = torch.full_like(c, -0.5)
    plain = make("famo", len(c), lower=lower, eps=0.0)
    scaled = make("famo", len(c), lower=c * lower, eps=0.0)
    for losses, next_losses in ((before, after), (after, before)):
        weights = train_step(plain, losses, next_losses)
        other = train_step(scaled, losses * c, next_losses * c) * c
        torch.testing.assert_close(other / other.sum(), weights / weights.sum(), rtol=1e-6, atol=0)
    # Adam divides by the size of delta, so that rounding shows where delta is nearly 0
    torch.testing.assert_close(scaled.z, plain.z, rtol=1e-4, atol=1e-6)


def test_famo_says_what_to_call():
    weighting = make("famo", 2)
    with pytest.raises(RuntimeError, match=r"call backward\(\) first"):
        weighting.observe(losses_after_step=[1.0, 1.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(200):
            train_step(weighting, vector([1.0, 1.0]))
        for _ in range(99):
            step(weighting, [1.0, 1.0])
    with pytest.warns(UserWarning, match=r"in 100 calls .*observe\(losses_after_step=") as found:
        for _ in range(200):
            step(weighting, [1.0, 1.0])
    assert len(found) == 1


def test_famo_compares_with_where_the_step_began():
    """LBFGS and SAM look at several points in each step; the first is where it began."""
    once, often = make("famo", 2), make("famo", 2)
    step(once, [1.0, 4.0])
    for row in ([1.0, 4.0], [0.9, 3.0], [0.7, 2.0]):
        weights, _ = step(often, row)
        torch.testing.assert_close(weights, 1 / vector(row) / (1 / vector(row)).sum())
    for weighting in (once, often):
        weighting.observe(losses_after_step=[0.6, 1.0])
    assert torch.equal(once.logits, often.logits) and often.logits[0] > often.logits[1]
    with pytest.raises(RuntimeError, match=r"call backward\(\) first"):
        often.observe(losses_after_step=[0.6, 1.0])


def test_famo_under_lbfgs():
    model, losses = small_problem((0.1, 1.0, 10.0))
    weighting, first = make("famo", 3), losses().detach()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=5, line_search_fn="strong_wolfe")
    calls = []

    def closure():
        optimizer.zero_grad()
        found = losses()
        calls.append(found.detach())
        return (weighting.backward(found) * found.detach()).sum()

    for number in range(4):
        calls.clear()
        began = losses().detach()
        z = weighting.z
        optimizer.step(closure)
        assert len(calls) > 1 and torch.equal(calls[0], began)
        after = losses().detach()
        weighting.observe(losses_after_step=after)
        fell = (began.log() - after.log()) * z
        if number == 0:  # the task that fell relatively most has less weight now
            assert weighting.z.argmin() == fell.argmax()
    assert weighting.updates.tolist() == [4, 4, 4]
    assert bool((losses().detach() < first).all())


def test_famo_resumes_between_backward_and_observe():
    through = make("famo", 2)
    step(through, [1.0, 5.0])
    resumed = saved_and_loaded(through, make("famo", 2))
    for weighting in (through, resumed):
        weighting.observe(losses_after_step=vector([0.5, 4.9]))
    assert same_state(through.state_dict(), resumed.state_dict())


def test_famo_at_and_below_its_bound():
    weighting = make("famo", 2, lower=[-2.0, -21.0])
    weights = train_step(weighting, vector([-2.0, 0.0]), vector([-1.5, -1.0]))
    torch.testing.assert_close(weights, vector([1.0, 0.0]), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match=r"losses: famo .*lower bound.*task 0 is -1"):
        step(weighting, [-3.0, 0.0])
    step(weighting, [-1.0, 0.0])
    before = weighting.state_dict()
    with pytest.raises(ValueError, match=r"losses_after_step: famo .*task 1 is -1"):
        weighting.observe(losses_after_step=[-1.0, -22.0])
    assert same_state(weighting.state_dict(), before)
    weighting.observe(losses_after_step=[-1.0, -1.0])
    assert torch.isfinite(weighting.z).all()


def test_training_with_every_rule_keeps_parameters_finite():
    for rule in RULES:
        model, losses = small_problem((0.1, 1.0, 10.0))
        start = copy.deepcopy(flat_parameters(model))
        weighting = make(rule, 3)
        optimizer = torch.optim.SGD([*model.parameters(), *weighting.parameters()], lr=1e-2)
        first = losses().detach()
        for _ in range(30):
            optimizer.zero_grad()
            weighting.backward(losses())
            optimizer.step()
            with torch.no_grad():
                weighting.observe(losses_after_step=losses(), train_losses=losses())
        assert torch.isfinite(flat_parameters(model)).all()
        assert not torch.equal(flat_parameters(model), start)
        assert (losses().detach() / first).log().sum() < 0, rule
