"""The one interface, through every rule, and the rules of weighting/loss.py."""

import copy
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize
from torch import nn

import mtl_utils
from mtl_utils.weighting import (
    GradientWeighting,
    LossWeighting,
    available_weightings,
    base,
    make_weighting,
    register,
)
from tests.rules import (
    HalfSum,
    few,
    permutation,
    same_state,
    saved_and_loaded,
    step,
    tables,
    vector,
)

NAMES = available_weightings()
LOSS_RULES = [name for name in NAMES if issubclass(base._REGISTRY[name], LossWeighting)]
GRADIENT_RULES = [name for name in NAMES if issubclass(base._REGISTRY[name], GradientWeighting)]
HOLD_FACTORS_CONSTANT = {"famo", "uncertainty_soft"}  # their weights are no plain derivative
every_rule = pytest.mark.parametrize("name", NAMES)
every_loss_rule = pytest.mark.parametrize("name", LOSS_RULES)


def make(name, n_tasks, **options):
    """A rule with the options it cannot do without, in float64, with something observed."""
    if name == "fixed":
        options = {"weights": torch.arange(1.0, n_tasks + 1), **options}
    if name in ("random", "pcgrad", "gradvac", "graddrop"):
        options = {"generator": torch.Generator().manual_seed(3), **options}
    if name == "pareto_mtl":
        options = {"preferences": torch.eye(n_tasks) + 0.1, "index": 0, **options}
    weighting = make_weighting(name, n_tasks, **options).double()
    for quantity in weighting.observes:
        if quantity != "losses_after_step":
            weighting.observe(**{quantity: torch.linspace(0.2, 0.8, n_tasks)})
            weighting.observe(**{quantity: torch.linspace(0.5, 0.7, n_tasks)})
    return weighting


class Problem:
    """K positive losses of one shared vector and of a head number for each task."""

    def __init__(self, n_tasks, dtype=torch.float64, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.a = torch.randn(n_tasks, 3, generator=generator, dtype=torch.float64).to(dtype)
        self.theta = torch.ones(3, dtype=dtype, requires_grad=True)
        self.heads = [torch.tensor(0.3 + k, dtype=dtype).requires_grad_() for k in range(n_tasks)]

    def losses(self):
        each = zip(self.a, self.heads, strict=True)
        return torch.stack([(a @ self.theta - head) ** 2 + 0.1 for a, head in each])

    def gradients(self):
        """Each loss's gradient in theta [K, 3] and in its own head [K], by autograd."""
        found = [torch.autograd.grad(loss, [self.theta, h]) for loss, h in self.pairs()]
        return torch.stack([g for g, _ in found]), torch.stack([h for _, h in found])

    def pairs(self):
        each = zip(self.a, self.heads, strict=True)
        return [((a @ self.theta - head) ** 2 + 0.1, head) for a, head in each]

    def backward(self, weighting, losses=None):
        """A step with everything that any rule wants."""
        losses = self.losses() if losses is None else losses
        weights = weighting.backward(losses, shared=[self.theta])
        if "losses_after_step" in weighting.observes:
            weighting.observe(losses_after_step=losses.detach() * 0.9)
        return weights

    def untouched(self):
        return all(p.grad is None for p in (self.theta, *self.heads))


# ---- names and options --------------------------------------------------------------------------


def test_names():
    promised = "equal fixed random uncertainty liebel dwa dtp loss_trend".split()
    assert set(promised) <= set(NAMES)
    assert all(name == name.lower() and name.isidentifier() for name in NAMES)
    assert mtl_utils.make_weighting is make_weighting
    assert mtl_utils.available_weightings() == available_weightings()
    for name in NAMES:
        assert make(name, 2).name == name
        assert f"n_tasks={2}" in repr(make(name, 2))


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"name: no weighting is called 'gradnrom'") as error:
        make_weighting("gradnrom", 2)
    assert all(name in str(error.value) for name in NAMES)


def test_a_name_is_taken_once():
    with pytest.raises(ValueError, match=r"name: 'equal' is already taken by Equal"):
        register("equal")(type("Other", (LossWeighting,), {}))
    assert type(make_weighting("equal", 2)).__name__ == "Equal"


def test_options_unknown_and_missing():
    with pytest.raises(
        TypeError, match=r"^wieghts: weighting 'fixed' has no such option; it has: weights"
    ):
        make_weighting("fixed", 2, wieghts=[1, 2])
    with pytest.raises(TypeError, match=r"^weights: weighting 'fixed' needs this option"):
        make_weighting("fixed", 2)
    with pytest.raises(
        TypeError, match=r"^alpha: weighting 'equal' has no such option; it has: none"
    ):
        make_weighting("equal", 2, alpha=1.5)


@every_rule
@pytest.mark.parametrize("n_tasks", [0, -1, 1.5, True, "2", None])
def test_n_tasks_refused(name, n_tasks):
    with pytest.raises(ValueError, match=rf"^n_tasks: expected an integer .* got {n_tasks!r}"):
        options = {"fixed": {"weights": [1.0]}, "pareto_mtl": {"preferences": [[1.0]], "index": 0}}
        make_weighting(name, n_tasks, **options.get(name, {}))


# ---- every rule: weights and gradients ----------------------------------------------------------


@every_rule
@pytest.mark.parametrize("n_tasks", [1, 2, 5])
def test_weights_are_the_ratio_of_the_gradients_that_arrive(name, n_tasks):
    problem, weighting = Problem(n_tasks), make(name, n_tasks)
    shared, own = problem.gradients()
    weights = problem.backward(weighting)
    assert weights.shape == (n_tasks,) and weights.dtype == torch.float64
    assert not weights.requires_grad
    if name == "graddrop":
        pytest.skip("takes coordinates of the gradients, not multiples of them")
    torch.testing.assert_close(problem.theta.grad, weights @ shared, rtol=1e-12, atol=1e-12)
    heads = torch.stack([head.grad for head in problem.heads])
    expected = own if name in GRADIENT_RULES else weights * own
    if name == "db_mtl":  # the heads descend their log loss
        expected = own / (problem.losses().detach() + weighting.eps)
    torch.testing.assert_close(heads, expected, rtol=1e-12, atol=1e-12)


@every_loss_rule
def test_weights_are_the_derivative_of_the_objective(name):
    values, h = vector([0.7, 2.0, 0.05]), 1e-6
    weighting = make(name, 3)
    twins = [copy.deepcopy(weighting) for _ in range(6)]  # each draws what `weighting` will draw
    weights, _ = step(weighting, values)
    if name in HOLD_FACTORS_CONSTANT:
        pytest.skip("holds factors constant, so its objective has another derivative")
    for k in range(3):
        shift = h * torch.eye(3, dtype=torch.float64)[k]
        up, down = (
            twins[2 * k].objective(values + shift),
            twins[2 * k + 1].objective(values - shift),
        )
        assert weights[k].item() == pytest.approx((up - down).item() / (2 * h), rel=1e-7, abs=1e-8)


@pytest.mark.parametrize("name", ["uncertainty", "liebel", "imtl_l"])
@given(table=tables(rows=2, low=1e-2, high=1e2))
@few
def test_own_gradients_by_finite_difference(name, table):
    weighting = make(name, table.shape[1])
    (own,) = weighting.parameters()
    with torch.no_grad():
        own.copy_(1 + table[1].log() / 10)
    step(weighting, table[0])
    point = own.detach().clone()

    def objective(x):
        with torch.no_grad():
            own.copy_(torch.as_tensor(x))
            return weighting.objective(table[0]).item()

    wanted = optimize.approx_fprime(point.numpy(), objective, 1e-7)
    scale = 1 + np.abs(own.grad.numpy()).max()
    assert np.abs(own.grad.numpy() - wanted).max() < 1e-4 * scale


@every_rule
def test_gradients_accumulate_as_with_backward(name):
    problem, twin = Problem(2), Problem(2)
    weighting, other = make(name, 2), make(name, 2)
    parameters = [problem.theta, *problem.heads, *weighting.parameters()]
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 7.0)
    held = [parameter.grad for parameter in parameters]
    problem.backward(weighting)
    twin.backward(other)
    fresh = [twin.theta, *twin.heads, *other.parameters()]
    for parameter, reference, before in zip(parameters, fresh, held, strict=True):
        torch.testing.assert_close(parameter.grad, reference.grad + 7, rtol=1e-12, atol=1e-12)
        assert parameter.grad is before  # in place, as Tensor.backward does


@every_rule
@given(seed=st.integers(0, 1000), n_tasks=st.integers(2, 5))
@few
def test_permuting_the_tasks_permutes_the_weights(name, seed, n_tasks):
    if name in ("fixed", "random", "pcgrad", "gradvac", "pareto_mtl"):
        pytest.skip("depends on the position by design")
    order = permutation(n_tasks, seed)
    problem = Problem(n_tasks, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    seeded = {"generator": torch.Generator().manual_seed(3)} if name == "graddrop" else {}
    plain = make_weighting(name, n_tasks, **copy.deepcopy(seeded)).double()
    moved = make_weighting(name, n_tasks, **copy.deepcopy(seeded)).double()
    for quantity in plain.observes:
        if quantity != "losses_after_step":
            for row in torch.rand(2, n_tasks, generator=generator, dtype=torch.float64):
                plain.observe(**{quantity: row})
                moved.observe(**{quantity: row[order]})
    weights = problem.backward(plain, problem.losses())
    permuted = problem.backward(moved, torch.stack([problem.losses()[k] for k in order]))
    if name in GRADIENT_RULES and n_tasks > 3:  # more tasks than parameters: weights not unique
        rows = problem.gradients()[0]
        weights, permuted, order = weights @ rows, permuted @ rows[order], slice(None)
    torch.testing.assert_close(permuted, weights[order], rtol=1e-9, atol=1e-8)


@every_rule
def test_one_task(name):
    weighting = make(name, 1)
    weights = Problem(1).backward(weighting)
    assert weights.shape == (1,) and bool(weights > 0)
    if name in ("equal", "fixed", "random", "dwa", "geometric", "famo", "stch", "uncertainty_soft"):
        assert weights.item() == pytest.approx(1, abs=1e-12)


@every_rule
@pytest.mark.parametrize("losses_dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rule_dtype", [torch.float32, torch.float64])
def test_any_pair_of_number_types(name, losses_dtype, rule_dtype):
    problem, weighting = Problem(3, losses_dtype), make(name, 3).to(rule_dtype)
    weights = problem.backward(weighting)
    assert weights.dtype == losses_dtype and problem.theta.grad.dtype == losses_dtype
    assert all(p.dtype == p.grad.dtype == rule_dtype for p in weighting.parameters())
    exact = Problem(3).backward(make(name, 3))
    if name != "random":  # draws in the number type of the losses
        torch.testing.assert_close(weights.double(), exact, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["equal", "fixed", "random", "uncertainty", "liebel"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_losses(name, dtype):
    leaf = torch.tensor([0.5, 40000.0], dtype=dtype, requires_grad=True)  # their sum overflows
    weights = make(name, 2).float().backward(leaf * 1)
    assert weights.dtype == dtype and bool(torch.isfinite(weights).all())
    assert torch.equal(weights, leaf.grad)


@every_rule
def test_under_no_grad_and_twice_on_one_graph(name):
    problem, weighting = Problem(2), make(name, 2)
    losses = problem.losses()
    with torch.no_grad():
        weights = problem.backward(weighting, losses)
    torch.testing.assert_close(
        problem.theta.grad, weights @ problem.gradients()[0], rtol=1e-12, atol=1e-12
    )
    with pytest.raises(RuntimeError, match=r"second time"):
        weighting.backward(losses, shared=[problem.theta])


@every_loss_rule
def test_losses_may_be_a_leaf_and_need_no_stack(name):
    leaf = vector([0.5, 2.0]).requires_grad_()
    weights = make(name, 2).backward(leaf)
    assert torch.equal(leaf.grad, weights)
    matrix = torch.rand(4, 2, dtype=torch.float64, requires_grad=True)
    weights = make(name, 2).backward(matrix.mean(0))
    torch.testing.assert_close(matrix.grad, (weights / 4).expand(4, 2))


@every_rule
def test_a_task_without_loss_in_this_batch(name):
    """A constant among attached losses, e.g. where a batch has no labels of a task."""
    problem, weighting = Problem(2), make(name, 2)
    losses = torch.stack([problem.pairs()[0][0], torch.tensor(0.5, dtype=torch.float64)])
    shared, _ = problem.gradients()
    weights = problem.backward(weighting, losses)
    torch.testing.assert_close(problem.theta.grad, weights[0] * shared[0])
    assert problem.heads[1].grad is None


# ---- every rule: state --------------------------------------------------------------------------


@every_rule
def test_weights_of_the_last_backward(name):
    problem, weighting = Problem(2), make(name, 2)
    with pytest.raises(RuntimeError, match=r"^weights: there are none before .* backward\(\)"):
        _ = weighting.weights
    returned = problem.backward(weighting)
    assert torch.equal(weighting.weights, returned) and not weighting.weights.requires_grad
    before = weighting.weights.clone()
    returned.zero_()  # the caller's to change
    assert torch.equal(weighting.weights, before)


def run(weighting, steps, seed):
    """Weights of some steps of training, parameters and histories moving along."""
    problem = Problem(3, seed=seed)
    seen = []
    for number in range(steps):
        scaled = problem.losses() * (1 + 0.1 * number)
        seen.append(problem.backward(weighting, torch.stack(scaled.unbind())).clone())
        for quantity in weighting.observes:
            if quantity != "losses_after_step":
                weighting.observe(**{quantity: scaled.detach() / scaled.detach().sum()})
        with torch.no_grad():
            for parameter in weighting.parameters():
                parameter -= 0.01 * parameter.grad
                parameter.grad = None
    return torch.stack(seen)


@every_rule
@pytest.mark.parametrize("how", ["load_state_dict", "file", "deepcopy"])
def test_a_copy_continues_bit_for_bit(name, how):
    weighting = make(name, 3)
    run(weighting, 4, seed=0)
    if how == "load_state_dict":
        other = make(name, 3)
        assert (
            str(other.load_state_dict(weighting.state_dict())) == "<All keys matched successfully>"
        )
    elif how == "file":
        other = saved_and_loaded(weighting, make(name, 3))
    else:
        other = copy.deepcopy(weighting)
    assert torch.equal(other.weights, weighting.weights)
    state = copy.deepcopy(other.state_dict())
    ahead = run(weighting, 4, seed=1)
    assert same_state(state, other.state_dict())  # nothing is shared between the two
    assert torch.equal(run(other, 4, seed=1), ahead)
    assert same_state(weighting.state_dict(), other.state_dict())


@every_rule
def test_the_state_dict_is_a_snapshot(name):
    weighting = make(name, 3)
    run(weighting, 2, seed=0)
    memory = weighting.get_extra_state()
    frozen = copy.deepcopy(memory)
    weighting.weights.fill_(9)
    assert same_state(memory, frozen)
    run(weighting, 2, seed=1)
    assert same_state(memory, frozen)
    other = make(name, 3)
    other.set_extra_state(memory)
    run(other, 2, seed=2)
    assert same_state(memory, frozen)
    for each in (weighting, other):  # not even a change in place shows
        for value in each.memory.values():
            if isinstance(value, torch.Tensor):
                value.fill_(9)
    assert same_state(memory, frozen)


@pytest.mark.parametrize(
    ("given_name", "given_k", "name", "n_tasks"),
    [
        ("equal", 2, "random", 2),
        ("random", 2, "equal", 2),
        ("equal", 3, "equal", 2),
        ("dwa", 2, "dtp", 2),
    ],
)
def test_the_state_of_another_rule_is_refused(given_name, given_k, name, n_tasks):
    state = make(given_name, given_k).state_dict()
    message = f"^state_dict: expected that of {name} with n_tasks={n_tasks}, got that of "
    with pytest.raises(ValueError, match=message + f"{given_name} with n_tasks={given_k}"):
        make(name, n_tasks).load_state_dict(state)


def test_a_weighting_lives_inside_a_module():
    outer = nn.ModuleDict({"net": nn.Linear(2, 2), "weighting": make_weighting("uncertainty", 2)})
    assert "weighting.log_vars" in dict(outer.named_parameters())
    step(outer["weighting"].double(), [1.0, 2.0])
    other = copy.deepcopy(outer)
    other.load_state_dict(outer.state_dict())
    assert torch.equal(other["weighting"].weights, outer["weighting"].weights)


# ---- every rule: bad input ----------------------------------------------------------------------


def attached(values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True) * 1.0


BAD_LOSSES = [
    (lambda: attached([1.0, 2.0, 3.0]), r"losses: expected a 1-D tensor of K = 2 .* shape \(3,\)"),
    (lambda: attached([1.0]), r"losses: .* K = 2 values, got shape \(1,\)"),
    (lambda: attached(1.0), r"losses: expected a 1-D tensor of K = 2 values, got shape \(\)"),
    (lambda: attached([[1.0, 2.0]]), r"losses: .* K = 2 values, got shape \(1, 2\)"),
    (lambda: [attached(1.0), attached(2.0)], r"losses: .* got list; use torch.stack"),
    (lambda: (attached(1.0), attached(2.0)), r"losses: .* got tuple; use torch.stack"),
    (lambda: None, r"losses: expected a 1-D tensor, got NoneType"),
    (lambda: torch.ones(2), r"losses: expected a tensor attached to the graph, got a detached one"),
    (lambda: attached([1.0, math.nan]), r"losses: expected finite values, got: task 1 is nan$"),
    (lambda: attached([math.inf, -math.inf]), r"got: task 0 is inf, task 1 is -inf$"),
    (lambda: torch.ones(2, dtype=torch.complex128, requires_grad=True) * 1, r"losses: .* real"),
]


@every_rule
@pytest.mark.parametrize("case", range(len(BAD_LOSSES)))
def test_bad_losses_are_refused_and_change_nothing(name, case):
    bad, message = BAD_LOSSES[case]
    problem, weighting = Problem(2), make(name, 2)
    state = copy.deepcopy(weighting.state_dict())
    with pytest.raises(ValueError, match=message):
        weighting.backward(bad(), shared=[problem.theta])
    assert same_state(weighting.state_dict(), state)
    assert all(p.grad is None for p in weighting.parameters())


@every_rule
def test_nan_in_one_loss_leaves_the_model_alone(name):
    problem, weighting = Problem(2), make(name, 2)
    problem.backward(weighting)
    state = copy.deepcopy(weighting.state_dict())
    problem.theta.grad, gradients = None, [p.grad.clone() for p in problem.heads]
    losses = problem.losses()
    bad = torch.stack([losses[0], losses[1] * math.nan])
    with pytest.raises(ValueError, match=r"losses: expected finite values, got: task 1 is nan"):
        problem.backward(weighting, bad)
    assert problem.theta.grad is None and same_state(weighting.state_dict(), state)
    assert all(map(torch.equal, gradients, [p.grad for p in problem.heads]))


@every_rule
def test_negative_losses(name):
    problem, weighting = Problem(2), make(name, 2)
    losses = torch.stack([problem.losses()[0], problem.losses()[1] - 1000])
    must_refuse = {
        "uncertainty",
        "liebel",
        "imtl_l",
        "uncertainty_soft",
        "log",
        "geometric",
        "famo",
        "gradnorm",
        "pareto_mtl",
        "db_mtl",
    }
    if name in must_refuse:
        state = copy.deepcopy(weighting.state_dict())
        with pytest.raises(ValueError, match=r"^losses: .*got: task 1 is -\d"):
            weighting.backward(losses, shared=[problem.theta])
        assert problem.untouched() and same_state(weighting.state_dict(), state)
    else:
        assert bool(torch.isfinite(weighting.backward(losses, shared=[problem.theta])).all())


@pytest.mark.parametrize("weighting", [make("equal", 2), HalfSum(2)], ids=["loss", "gradient"])
@pytest.mark.parametrize(
    ("shared", "message"),
    [
        (lambda p: [], "shared: expected at least one parameter, got none"),
        (lambda p: exhausted(p), r"shared: .* empty the second time"),
        (lambda p: [p.theta * 1], r"shared: expected parameters .* got Tensor that is not a leaf"),
        (lambda p: [("theta", p.theta)], "shared: .* got tuple$"),
        (lambda p: ["theta"], "shared: .* got str$"),
        (lambda p: nn.Linear(1, 1), "shared: expected parameters, .* got Linear"),
        (
            lambda p: [torch.zeros(3)],
            "shared: expected parameters that learn, got only frozen ones",
        ),
    ],
)
def test_bad_shared(weighting, shared, message):
    problem = Problem(2)
    with pytest.raises(ValueError, match=message):
        weighting.backward(problem.losses(), shared=shared(problem))
    assert problem.untouched() and "weights" not in weighting.memory


def exhausted(problem):
    generator = (p for p in [problem.theta])
    list(generator)
    return generator


@every_rule
def test_devices_must_match(name):
    weighting = make(name, 2)
    if not list(weighting.parameters()):
        pytest.skip("has no parameters of its own")
    weighting = weighting.to("meta")
    problem = Problem(2)
    with pytest.raises(
        ValueError, match=r"losses: they are on cpu, .* on meta; .* weighting.to\(dev"
    ):
        weighting.backward(problem.losses(), shared=[problem.theta])
    assert problem.untouched()


@every_rule
def test_observe_checks(name):
    weighting = make(name, 2)
    state = copy.deepcopy(weighting.state_dict())
    with pytest.raises(
        TypeError, match=r"accuracy: nothing to observe .* known: train_losses, val_"
    ):
        weighting.observe(train_losses=[0.5, 0.5], val_losses=[0.5, 0.5], accuracy=[1.0, 1.0])
    for bad, message in [
        ([1.0, 2.0, 3.0], r"train_losses: .* K = 2 values, got shape \(3,\)"),
        (0.5, r"train_losses: .* got shape \(\)"),
        ([1.0, math.nan], "train_losses: expected finite values, got: task 1 is nan"),
        ([[1.0], [2.0, 3.0]], "train_losses: expected 2 numbers, got"),
        ({"a": 1.0, "b": 2.0}, "train_losses: expected 2 numbers, got"),
        (None, "train_losses: expected 2 numbers, got None"),
        (["a", "b"], "train_losses: expected 2 numbers, got"),
    ]:
        with pytest.raises(ValueError, match=message):
            weighting.observe(val_losses=[0.5, 0.5], kpis=[0.5, 0.5], train_losses=bad)
    assert same_state(weighting.state_dict(), state)


@pytest.mark.parametrize(
    "values",
    [
        [0.25, 2],
        (0.25, 2.0),
        np.array([0.25, 2.0]),
        np.array([0.25, 2.0], dtype=np.float32),
        pd.Series([0.25, 2.0], index=["a", "b"]),
        pd.Series([0.25, 2.0], index=[7, 3]),
        [torch.tensor(0.25), torch.tensor(2.0)],
        torch.tensor([0.25, 2.0], requires_grad=True),
    ],
)
def test_observe_takes_numbers_of_any_kind(values):
    weighting = make_weighting("dwa", 2).double()
    weighting.observe(train_losses=values)
    last = weighting.memory["train_losses"][-1]
    assert last.tolist() == [0.25, 2.0] and not last.requires_grad


# ---- a rule on gradients ------------------------------------------------------------------------


@pytest.mark.parametrize("n_tasks", [1, 2, 5])
def test_gradient_rule_shared_weighted_heads_not(n_tasks):
    problem = Problem(n_tasks)
    shared, own = problem.gradients()
    weights = HalfSum(n_tasks).backward(problem.losses(), shared=[problem.theta])
    assert torch.equal(weights, torch.full((n_tasks,), 0.5, dtype=torch.float64))
    torch.testing.assert_close(problem.theta.grad, 0.5 * shared.sum(0))
    torch.testing.assert_close(torch.stack([h.grad for h in problem.heads]), own)


def test_gradient_rule_needs_shared_that_is_reached():
    problem = Problem(2)
    with pytest.raises(
        ValueError, match=r"shared: half_sum needs .* shared=model.trunk.parameters"
    ):
        HalfSum(2).backward(problem.losses())
    other = nn.Linear(3, 3)
    with pytest.raises(ValueError, match=r"shared: no loss reaches any .* are they of this model"):
        HalfSum(2).backward(problem.losses(), shared=other.parameters())
    with pytest.raises(ValueError, match=r"shared: no loss reaches any"):
        HalfSum(2).backward(attached([1.0, 2.0]).detach().requires_grad_(), shared=[problem.theta])
    assert problem.untouched()


def test_gradient_rule_partly_unreached_and_partly_frozen():
    problem = Problem(2)
    aside, frozen = torch.ones(2, requires_grad=True), torch.ones(2)
    kept = torch.full((2,), 5.0)
    HalfSum(2).backward(problem.losses(), shared=[aside, problem.theta, frozen])
    assert aside.grad is None and frozen.grad is None and problem.theta.grad is not None
    aside.grad = kept
    HalfSum(2).backward(problem.losses(), shared=[aside, problem.theta])
    assert aside.grad is kept and kept.tolist() == [5.0, 5.0]


@pytest.mark.parametrize("infinite_slope", [0, 1])
def test_gradient_rule_names_the_task_with_a_bad_gradient(infinite_slope):
    theta = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    head = torch.ones((), dtype=torch.float64, requires_grad=True)
    losses = [(theta - head).square().sum(), theta.square().sum().sqrt()]  # sqrt at 0
    weighting = HalfSum(2)
    with pytest.raises(ValueError, match=r"losses: the gradient in the shared parameters") as error:
        weighting.backward(
            torch.stack(losses if infinite_slope == 1 else losses[::-1]), shared=[theta]
        )
    assert f"task {infinite_slope} is nan" in str(error.value)
    assert f"task {1 - infinite_slope} is" not in str(error.value)
    assert theta.grad is None and head.grad is None and "weights" not in weighting.memory


def test_gradient_rule_without_finite_coefficients():
    class Broken(HalfSum):
        def coefficients(self, gramian):
            return gramian.diagonal() * vector([1.0, math.inf])

    problem = Problem(2)
    with pytest.raises(ValueError, match=r"weights: half_sum found no finite .* task 1 is inf"):
        Broken(2).backward(problem.losses(), shared=[problem.theta])
    assert problem.untouched()


# ---- equal, fixed, random -----------------------------------------------------------------------


@given(table=tables(rows=2))
@few
def test_equal_and_fixed_are_what_they_say(table):
    losses, constants = table
    assert torch.equal(step(make("equal", len(losses)), losses)[0], torch.ones_like(losses))
    fixed = make_weighting("fixed", len(losses), weights=constants)
    assert torch.equal(step(fixed, losses)[0], constants)
    constants_before = constants.clone()
    constants.zero_()  # the rule keeps its own copy
    assert torch.equal(step(fixed, losses)[0], constants_before)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, -1.0], r"weights: expected values of at least 0, not all 0, got \[1.0, -1.0\]"),
        ([0.0, 0.0], "weights: expected values of at least 0, not all 0"),
        ([1.0], r"weights: expected a 1-D tensor of K = 2 values, got shape \(1,\)"),
        ([1.0, math.inf], "weights: expected finite values, got: task 1 is inf"),
        ("ab", "weights: expected 2 numbers, got 'ab'"),
    ],
)
def test_fixed_refuses(weights, message):
    with pytest.raises(ValueError, match=message):
        make_weighting("fixed", 2, weights=weights)


def test_fixed_zero_weight_switches_a_task_off():
    weights, _ = step(make_weighting("fixed", 2, weights=[0, 1]), [1.0, 1.0])
    assert weights.tolist() == [0.0, 1.0]


def draws(weighting, count):
    return torch.stack([step(weighting, torch.ones(weighting.n_tasks))[0] for _ in range(count)])


def test_random_mean_sum_and_law():
    found = draws(make("random", 3), 4000)
    torch.testing.assert_close(found.sum(1), torch.full((4000,), 3.0, dtype=torch.float64))
    error = found.std(0) / math.sqrt(4000)
    assert bool(((found.mean(0) - 1).abs() < 4 * error).all())
    # log-ratios of softmax weights are differences of two standard normals
    ratio = torch.log(found[:, 0] / found[:, 1])
    assert abs(ratio.mean().item()) < 4 * math.sqrt(2 / 4000)
    assert ratio.var().item() == pytest.approx(2, rel=0.1)


def test_random_is_governed_by_its_generator():
    first, second = (
        make_weighting("random", 2, generator=torch.Generator().manual_seed(5)) for _ in "ab"
    )
    assert torch.equal(draws(first, 5), draws(second, 5))
    other = make_weighting("random", 2, generator=torch.Generator().manual_seed(6))
    assert not torch.equal(draws(first, 5), draws(other, 5))


def test_random_by_default_follows_manual_seed_and_leaves_it_alone():
    torch.manual_seed(4)
    first = make_weighting("random", 2)
    torch.manual_seed(4)
    second = make_weighting("random", 2)
    state = torch.get_rng_state()
    assert torch.equal(draws(first, 3), draws(second, 3))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(
        draws(make_weighting("random", 2), 3), draws(make_weighting("random", 2), 3)
    )


@pytest.mark.parametrize("generator", [3, np.random.default_rng(0)])
def test_random_refuses_other_generators(generator):
    with pytest.raises(ValueError, match=r"^generator: expected a torch.Generator on the CPU, got"):
        make_weighting("random", 2, generator=generator)


# ---- uncertainty, liebel ------------------------------------------------------------------------

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
    assert "weights" not in weighting.memory


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


@pytest.mark.parametrize("interval", ["[0, 1)", "(0, 1)", "(0, inf]", "[0, inf)"])
def test_check_number(interval):
    inside = {
        "[0, 1)": [0, 0.5],
        "(0, 1)": [0.5],
        "(0, inf]": [1, math.inf],
        "[0, inf)": [0, 1e300],
    }
    outside = {"[0, 1)": [1, -0.1], "(0, 1)": [0, 1], "(0, inf]": [0], "[0, inf)": [-1, math.inf]}
    for value in inside[interval]:
        assert base.check_number("x", value, interval) == value
    for value in [*outside[interval], math.nan, True, "1", None]:
        with pytest.raises(ValueError, match=r"^x: expected a number in "):
            base.check_number("x", value, interval)
