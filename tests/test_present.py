"""Tasks without labels in a batch: the others are weighed as if they were all there are."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from mtl_utils.models import HardSharing, mlp
from mtl_utils.weighting import LossWeighting, make_weighting
from tests.rules import (
    GRADIENT_RULES,
    GRAMIAN_RULES,
    LOSS_RULES,
    NAMES,
    RANDOM_RULES,
    Problem,
    float64,  # noqa: F401
    make,
    on_one_batch,
    same_state,
    saved_and_loaded,
    step,
    vector,
)

every_rule = pytest.mark.parametrize("name", NAMES)
K = 4
OPTIONS = {
    "fixed": {"weights": vector([1.0, 2.0, 0.5, 4.0])},
    "uncertainty": {"forms": ("regression", "laplace", "classification", "regression")},
    "dtp": {"gamma": vector([0.5, 1.0, 2.0, 3.0])},
    "stch": {"preference": vector([1.0, 2.0, 0.5, 1.5]), "ideal": vector([-0.1, 0.0, 0.05, -1.0])},
    "pbi": {"preference": vector([1.0, 2.0, 0.5, 1.5]), "ideal": vector([-0.1, 0.0, 0.05, -1.0])},
    "cosmos": {"preference": vector([1.0, 2.0, 0.5, 1.5])},
    "famo": {"lower": vector([-0.5, 0.0, -1.0, -0.1]), "lr": 0.1},
    "loss_trend": {"window": 1},
    "gradnorm": {"lr": 0.1},
    "pareto_mtl": {"preferences": torch.eye(K) + 0.2, "index": 2},
    "db_mtl": {"sigma": 0.5},
    "pcd": {"tau": 0.5, "beta": 0.5},
    "moco": {"beta": 0.5, "gamma": 0.02, "rho": 0.1},
    "excess_mtl": {"lr": 0.5, "warm_up": 2},
}
VARIANTS = {
    **{name: (name, {}) for name in NAMES},
    "stch log": ("stch", {"warm_up": 2}),
    "cr_mogm pcd": ("cr_mogm", {"rule": "pcd"}),
}
PRESENT = [
    [True, True, True, True],
    [True, False, True, True],
    [False, False, True, False],
    [False, True, True, False],
    [False, False, False, False],
    [True, True, False, True],
    [True, True, True, True],
    [True, False, False, True],
]


def build(variant, present):
    """The rule for some of the four tasks, made of nothing but these tasks' options."""
    name, more = VARIANTS[variant]
    tasks = [k for k in range(K) if present[k]]
    options = {**({} if more else OPTIONS.get(name, {})), **more}
    for option, value in options.items():
        if option == "preferences":
            options[option] = value[:, tasks]
        elif isinstance(value, torch.Tensor | tuple):
            options[option] = [value[k] for k in tasks]
    if name in RANDOM_RULES:
        options["generator"] = torch.Generator().manual_seed(3)
    return on_one_batch(make_weighting(name, len(tasks), **options))


def part_of(state, name, present):
    """The entries of some tasks in a rule's state."""
    tasks = [k for k in range(K) if present[k]]
    found = {}
    for key, value in state.items():
        own = key.removeprefix("inner.")  # of the rule that cr_mogm holds
        if own.startswith("options.") or own in ("rule", "n_tasks"):
            continue
        if name == "gradvac" and key == "average":
            value = value[tasks][:, tasks]
        elif value.dim() and own != "generator":
            value = value[tasks]
        found[key] = value.clone()
    return found


def with_absent(problem, present, kind):
    """Losses of which the absent ones are of no use."""
    losses = []
    for k, (loss, _) in enumerate(problem.pairs()):
        if present[k]:
            losses.append(loss)
        elif kind == "attached nan":
            losses.append((loss - loss.detach() - 1).sqrt())  # its derivative is NaN too
        elif kind == "infinite":
            losses.append(loss / 0.0)
        else:
            losses.append(torch.tensor({"nan": math.nan, "constant": 0.7}[kind]))
    return torch.stack(losses)


KINDS = ["attached nan", "nan", "constant", "infinite"]


def observe(weighting, number, tasks=slice(None)):
    """What the rule wants after a step; numbers that differ by task and step."""
    values = torch.rand(K, generator=torch.Generator().manual_seed(number)) + 0.05
    for quantity in weighting.observes:
        if quantity != "losses_after_step":
            weighting.observe(**{quantity: values[tasks] / 1.1})


@pytest.mark.parametrize("variant", VARIANTS)
def test_present_tasks_are_weighed_as_if_they_were_all(variant):
    name = VARIANTS[variant][0]
    problem = Problem(K)
    weighting = build(variant, [True] * K).prepare([problem.theta])
    observe(weighting, 100)
    observe(weighting, 101)
    for number, present in enumerate(PRESENT):
        tasks = [k for k in range(K) if present[k]]
        away = [not here for here in present]
        before = copy.deepcopy(weighting.state_dict())
        losses = with_absent(problem, present, KINDS[number % 4])
        weights = weighting.backward(losses, shared=[problem.theta], present=present)
        assert weights.shape == (K,) and bool((weights[away] == 0).all())
        assert torch.equal(weighting.weights, weights)
        after = weighting.state_dict()
        if tasks:
            alone = build(variant, present)
            alone.load_state_dict({**alone.state_dict(), **part_of(before, name, present)})
            twin = Problem(K)
            twin.theta.data, twin.heads = problem.theta.data.clone(), twin_heads(problem)
            some = torch.stack([twin.pairs()[k][0] for k in tasks])
            expected = alone.backward(some, shared=[twin.theta])
            torch.testing.assert_close(weights[tasks], expected, rtol=1e-12, atol=0)
            compare_gradients(problem, twin, weighting, alone, tasks)
            mine = part_of(after, name, present)
            theirs = {key: t for key, t in alone.state_dict().items() if key in mine}
            if name == "pareto_mtl" and len(tasks) < K:  # says less than all tasks would
                assert after["inside"] == before["inside"]
                mine.pop("inside"), theirs.pop("inside")
            assert_alike(mine, theirs)
        assert same_state(*(of_absent(state, name, away) for state in (before, after)))
        if not tasks:
            before["last_weights"] = torch.zeros(K)
            assert same_state(before, after)
        finish_step(weighting, problem, losses, number, present)


def of_absent(state, name, away):
    """What a step must not touch: the entries of absent tasks, but for the weights of the step."""
    found = part_of(state, name, away)
    return {
        key: t
        for key, t in found.items()
        if t.dim() and key.removeprefix("inner.") not in ("last_weights", "generator")
    }


def twin_heads(problem):
    return [head.detach().clone().requires_grad_() for head in problem.heads]


def assert_alike(mine, theirs):
    assert mine.keys() == theirs.keys()
    for key, value in mine.items():
        torch.testing.assert_close(value, theirs[key], rtol=1e-12, atol=1e-14, equal_nan=True)


def compare_gradients(problem, twin, weighting, alone, tasks):
    torch.testing.assert_close(problem.theta.grad, twin.theta.grad, rtol=1e-10, atol=1e-12)
    for k in range(K):
        if k in tasks:
            torch.testing.assert_close(
                problem.heads[k].grad, twin.heads[k].grad, rtol=1e-10, atol=1e-12
            )
        else:
            assert problem.heads[k].grad is None
    for own, other in zip(weighting.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(own.grad[tasks], other.grad, rtol=1e-12, atol=0)
        others = [k for k in range(K) if k not in tasks]
        assert bool((own.grad[others] == 0).all())


def finish_step(weighting, problem, losses, number, present):
    """A step of gradient descent, and what the rule wants to see after it."""
    with torch.no_grad():
        for p in (problem.theta, *problem.heads, *weighting.parameters()):
            if p.grad is not None:
                p -= 0.02 * p.grad
            p.grad = None
    if "losses_after_step" in weighting.observes and any(present):
        after = problem.losses().detach()
        after[[not here for here in present]] = math.nan
        weighting.observe(losses_after_step=after)
    observe(weighting, number)


SHARES = {
    "moco": lambda rule: rule.shares,
    "modo": lambda rule: rule.shares,
    "sdmgrad": lambda rule: rule.shares,
    "gradnorm": lambda rule: rule.w / K,
    "excess_mtl": lambda rule: rule.log_w.exp() / K,
}


@pytest.mark.parametrize("name", SHARES)
def test_the_shares_of_all_tasks_sum_to_1_and_those_of_absent_ones_stay(name):
    problem, weighting = Problem(K), build(name, [True] * K)
    for number, present in enumerate(PRESENT):
        before = SHARES[name](weighting).clone()
        losses = with_absent(problem, present, "nan")
        weighting.backward(losses, shared=[problem.theta], present=present)
        away, after = [not here for here in present], SHARES[name](weighting)
        torch.testing.assert_close(after[away], before[away])
        assert after.sum().item() == pytest.approx(1)
        finish_step(weighting, problem, losses, number, present)
    assert (after - 1 / K).abs().max() > 0.01


@every_rule
def test_all_present_is_the_default(name):
    found = []
    for present in (None, [True] * 3, torch.ones(3, dtype=torch.bool), np.ones(3, bool)):
        problem, weighting = Problem(3), make(name, 3)
        weights = weighting.backward(problem.losses(), shared=[problem.theta], present=present)
        found.append((weights, problem.theta.grad))
    for weights, gradient in found[1:]:
        assert torch.equal(weights, found[0][0]) and torch.equal(gradient, found[0][1])


@every_rule
def test_no_task_present_does_nothing(name):
    problem, weighting = Problem(3), make(name, 3)
    state = copy.deepcopy(weighting.state_dict())
    for losses in (problem.losses(), torch.full((3,), math.nan)):
        weights = weighting.backward(losses, shared=[problem.theta], present=[False] * 3)
        assert weights.tolist() == [0, 0, 0] == weighting.weights.tolist()
    assert problem.untouched() and all(p.grad is None for p in weighting.parameters())
    state["last_weights"] = torch.zeros(3)
    assert same_state(weighting.state_dict(), state)


@pytest.mark.parametrize("name", GRAMIAN_RULES)
def test_one_task_present_is_plain_training(name):
    problem, weighting = Problem(3), make(name, 3)
    shared, _ = problem.gradients()
    weights = weighting.backward(
        problem.losses(), shared=[problem.theta], present=[False, True, False]
    )
    assert weights.tolist() == [0, 1, 0]
    torch.testing.assert_close(problem.theta.grad, shared[1])


@every_rule
def test_held_gradients_of_an_absent_head_stay(name):
    problem, weighting = Problem(2), make(name, 2)
    held = torch.tensor(7.0)
    problem.heads[1].grad = held
    weighting.backward(problem.losses(), shared=[problem.theta], present=[True, False])
    assert problem.heads[1].grad is held and held == 7


@every_rule
@pytest.mark.parametrize("forked", [False, True])
def test_a_network_with_a_batch_that_lacks_a_task(name, forked):
    """The trunk is common, so NaN of the absent task would be everywhere."""
    torch.manual_seed(0)
    model = HardSharing(mlp(4, 6, 5, activation=nn.Tanh, last=True), [mlp(5, 1) for _ in range(3)])
    x, y = torch.randn(8, 4), torch.randn(3, 8, 1)
    y[1] = math.nan  # no labels
    outputs, features = model.forked(x) if forked else (model(x), None)
    losses = torch.stack([((o - t) ** 2).mean() for o, t in zip(outputs, y, strict=True)])
    shared = list(model.trunk.parameters())
    rows = [torch.autograd.grad(losses[k], shared, retain_graph=True) for k in (0, 2)]
    present = ~losses.detach().isnan()
    weighting = make(name, 3)
    weights = weighting.backward(losses, shared, features, present=present)
    assert bool(torch.isfinite(weights).all()) and weights[1] == 0
    assert all(p.grad is None for p in model.heads[1].parameters())
    for k in (0, 2):
        assert all(bool(torch.isfinite(p.grad).all()) for p in model.heads[k].parameters())
    if name == "graddrop":
        return  # takes coordinates, not multiples
    rows = torch.stack([torch.cat([g.flatten() for g in row]) for row in clean_rows(model, x, y)])
    got = torch.cat([p.grad.flatten() for p in shared])
    torch.testing.assert_close(got, weights[[0, 2]] @ rows, rtol=1e-9, atol=1e-12)


def clean_rows(model, x, y):
    """Gradients of the losses that have labels, each from a forward pass of its own."""
    shared = list(model.trunk.parameters())
    return [torch.autograd.grad(((model(x)[k] - y[k]) ** 2).mean(), shared) for k in (0, 2)]


@every_rule
def test_without_a_stack_no_task_can_be_absent(name):
    weighting = make(name, 3)
    state = copy.deepcopy(weighting.state_dict())
    theta = torch.tensor([[0.3, -0.2], [0.1, 0.5], [0.7, 0.2]], requires_grad=True)
    with pytest.raises(ValueError, match=r"^losses: with absent tasks .* torch.stack"):
        weighting.backward((theta**2).mean(1), [theta], present=[True, False, True])
    assert theta.grad is None and same_state(weighting.state_dict(), state)


@pytest.mark.parametrize("name", ["log", "uncertainty", "mgda", "db_mtl"])
def test_absent_losses_stay_out_after_something_elementwise(name):
    found = []
    for present in ([True, False, True], [True, True, True]):
        problem, weighting = Problem(3), make(name, 3)
        losses = with_absent(problem, present, "attached nan")
        weighting.backward(losses / 4 * vector([1.0, 2.0, 3.0]), [problem.theta], present=present)
        found.append(problem)
    assert bool(torch.isfinite(found[0].theta.grad).all())
    assert found[0].heads[1].grad is None


def test_the_graph_is_as_before_once_the_step_is_done():
    """No hook stays behind on a graph that is kept."""
    problem = Problem(3)
    losses = problem.losses()
    weighting = make("equal", 3)
    with pytest.raises(ValueError, match=r"losses: expected finite"):
        weighting.backward(torch.stack([losses[0] * math.nan, losses[1], losses[2]]))
    sums = losses.sum()
    sums.backward(retain_graph=True)
    expected = [head.grad.clone() for head in problem.heads]
    with pytest.raises(RuntimeError, match="no objective"):
        Refuses(3).backward(losses, present=[True, False, True])
    for head in problem.heads:
        head.grad = None
    losses.sum().backward()
    assert all(torch.equal(h.grad, e) for h, e in zip(problem.heads, expected, strict=True))


class Refuses(LossWeighting):
    def objective(self, losses):
        raise RuntimeError("no objective")


@pytest.mark.parametrize(
    "bad",
    [[True, False], [1, 0, 1], torch.tensor([1.0, 0.0, 1.0]), "yes", [[True, False, True]], True],
)
def test_present_is_k_booleans(bad):
    problem = Problem(3)
    with pytest.raises(ValueError, match=r"^present: expected (K = )?3 booleans, got"):
        make("equal", 3).backward(problem.losses(), present=bad)
    assert problem.untouched()


@every_rule
def test_a_bad_loss_of_a_present_task_is_still_refused(name):
    problem, weighting = Problem(3), make(name, 3)
    state = copy.deepcopy(weighting.state_dict())
    losses = with_absent(problem, [True, False, True], "attached nan")
    with pytest.raises(ValueError, match=r"^losses: expected finite values, got: task 1 is nan$"):
        weighting.backward(losses, [problem.theta], present=[True, True, False])
    assert problem.untouched() and same_state(weighting.state_dict(), state)


# ---- coefficients of an earlier call -------------------------------------------------------------


def test_coefficients_are_kept_for_the_tasks_that_they_came_from():
    weighting, problem = make_weighting("mgda", 3, every=10), Problem(3)
    seen = []
    for present in ([1, 1, 1], [1, 1, 1], [1, 1, 0], [1, 1, 0], [1, 1, 1]):
        losses = problem.losses() * (1 + len(seen))  # other gradients each time
        losses = torch.stack([losses[0], losses[1] * (1 + len(seen)), losses[2]])
        seen.append(weighting.backward(losses, [problem.theta], present=[p == 1 for p in present]))
        plans = "earlier call" in weighting.plan
        assert plans == (len(seen) in (2, 4))
    assert torch.equal(seen[0], seen[1]) and torch.equal(seen[2], seen[3])
    assert seen[2].sum() == 1 and not torch.equal(seen[4], seen[0])


def stacked(*values):
    return torch.stack([torch.tensor(value, requires_grad=True) for value in values])


# ---- what is observed ----------------------------------------------------------------------------


def test_nan_is_a_task_that_was_not_measured():
    nan = math.nan
    dtp = make_weighting("dtp", 2, momentum=0.5)
    for kpis in ([0.2, nan], [nan, 0.6], [0.4, nan], [nan, nan]):
        dtp.observe(kpis=kpis)
    torch.testing.assert_close(dtp.mean, vector([0.3, 0.6]))

    dwa = make_weighting("dwa", 3)
    for epoch in ([4.0, 9.0, 5.0], [nan, 3.0, nan], [2.0, nan, nan]):
        dwa.observe(train_losses=epoch)
    ratio = vector([2 / 4, 3 / 9, 1.0])  # the third has one epoch: unchanged
    torch.testing.assert_close(dwa.weights_now(), 3 * torch.softmax(ratio / 2, 0))

    trend = make_weighting("loss_trend", 3, window=2)
    for losses in ([1.0, 1.0, nan], [3.0, nan, nan], [4.0, 1.0, nan], [2.0, 3.0, nan]):
        trend.observe(val_losses=losses)
    assert trend.weights_now().tolist() == [1.0, 1.0, 1.0]  # the first alone has two windows
    trend.observe(val_losses=[nan, 1.0, nan])  # means 2 and 3, 1 and 2
    torch.testing.assert_close(trend.weights_now(), vector([1.0, 1.0, 1.0]))
    for losses in ([nan, 5.0, nan], [nan, 5.0, nan]):
        trend.observe(val_losses=losses)
    torch.testing.assert_close(trend.change[:2], vector([1.0, 3.0]))
    torch.testing.assert_close(trend.weights_now(), vector([0.5, 1.5, 1.0]))

    stch = make_weighting("stch", 2, warm_up=2)
    for epoch in ([3.0, 4.0], [nan, 5.0], [nan, 6.0], [2.0, 7.0]):
        stch.observe(train_losses=epoch)
    assert stch.nadir.tolist() == [2.0, 5.0]


def test_the_warm_up_of_stch_lasts_until_every_present_task_has_its_nadir():
    stch = make_weighting("stch", 2, warm_up=1)
    stch.observe(train_losses=[2.0, math.nan])
    losses = vector([1.0, 4.0])
    torch.testing.assert_close(step(stch, losses)[0], 1 / losses)
    weights = stch.backward(stacked(1.0, 4.0), present=[True, False])
    assert weights.tolist() == [1.0, 0.0]


def test_dtp_needs_the_kpis_of_the_present_tasks_alone():
    dtp = make_weighting("dtp", 2)
    dtp.observe(kpis=[0.5, math.nan])
    assert dtp.backward(stacked(1.0, 1.0), present=[True, False])[0] > 0
    with pytest.raises(RuntimeError, match=r"weighting\.observe\(kpis="):
        dtp.backward(stacked(1.0, 1.0))


def test_famo_updates_the_tasks_of_the_step():
    famo = make_weighting("famo", 3)
    famo.backward(stacked(1.0, 2.0, 3.0), present=[True, False, True])
    before = copy.deepcopy(famo.state_dict())
    with pytest.raises(ValueError, match=r"losses_after_step: famo needs that .*: task 2 is nan"):
        famo.observe(losses_after_step=[0.9, math.nan, math.nan])
    assert same_state(famo.state_dict(), before)
    resumed = saved_and_loaded(famo, make_weighting("famo", 3))
    for rule, absent in ((famo, math.nan), (resumed, 1.0)):  # measured or not: it was not there
        rule.observe(losses_after_step=[0.9, absent, 1.0])
        assert rule.logits[1] == 0 and rule.updates.tolist() == [1, 0, 1]
        assert rule.logits[0] > 0 > rule.logits[2]


def test_the_rules_are_split_in_two():
    assert set(LOSS_RULES) | set(GRADIENT_RULES) == set(NAMES)
