"""What a backward pass does besides gradients, and what is refused."""

import gc
import re
import shutil
from unittest import mock

import pytest
import torch
from torch import nn
from torch._functorch import config
from torch.utils.checkpoint import checkpoint

from mtl_utils.engine import layers
from mtl_utils.gradients import task_gradients
from mtl_utils.models import HardSharing, mlp
from tests import plain
from tests.rules import GRADIENT_RULES, NAMES, make
from tests.zoo import SITUATIONS, Situation, errors, linears, numbers

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing")
each_rule = pytest.mark.parametrize("rule", NAMES)
each_gradient_rule = pytest.mark.parametrize("rule", GRADIENT_RULES)
# a formula in a wide trunk, gradients in a narrow one, leaves below the shared part, sparse ones
KINDS = (
    "wide_perceptron",
    "perceptron",
    "stem_outside_shared_with_skips_to_all",
    "recommender_with_sparse_tables",
    "unet_bottleneck_shared",
)
each_kind = pytest.mark.parametrize("name", KINDS)


def step(model: Situation, rule: str, losses=None):
    losses = model.losses() if losses is None else losses
    weighting = make(rule, len(losses))
    weights = weighting.backward(losses, shared=model.shared)
    return weights, weighting


@each_kind
@each_rule
def test_hooks_after_accumulation_run_once_with_the_gradient_there(name, rule):
    model, seen = SITUATIONS[name](), {}

    def note(parameter):
        assert id(parameter) not in seen
        seen[id(parameter)] = parameter.grad.to_dense().clone()

    for parameter in model.parameters:
        parameter.register_post_accumulate_grad_hook(note)
    step(model, rule)
    assert seen.keys() == {id(p) for p in model.parameters}
    for parameter in model.parameters:
        assert torch.equal(seen[id(parameter)], parameter.grad.to_dense())


@each_kind
@each_rule
def test_gradients_are_added_to_those_that_are_there(name, rule):
    fresh, model = SITUATIONS[name](), SITUATIONS[name]()
    step(fresh, rule)
    for parameter in model.parameters:
        parameter.grad = torch.ones_like(parameter)
    held = [parameter.grad for parameter in model.parameters]
    step(model, rule)
    for wanted, parameter, before in zip(fresh.parameters, model.parameters, held, strict=True):
        torch.testing.assert_close(parameter.grad, 1 + wanted.grad.to_dense())
        assert parameter.grad is before


@each_rule
def test_an_optimiser_in_the_backward_pass(rule):
    """Each parameter takes its step when its gradient is there, as the memory-saving recipe does;
    it must not change what other gradients are computed from."""
    fresh, model = SITUATIONS["perceptron"](), SITUATIONS["perceptron"]()
    step(fresh, rule)
    wanted = [p.detach() - 0.1 * p.grad for p in fresh.parameters]

    def descend(parameter):
        with torch.no_grad():
            parameter -= 0.1 * parameter.grad

    handles = [p.register_post_accumulate_grad_hook(descend) for p in model.parameters]
    step(model, rule)
    for parameter, value in zip(model.parameters, wanted, strict=True):
        torch.testing.assert_close(parameter.detach(), value)
    assert len(handles) == len(wanted)


@pytest.mark.parametrize("name", ["recommender_with_sparse_tables"])
@each_rule
def test_sparse_gradients_stay_sparse_for_sparse_adam(name, rule):
    model = SITUATIONS[name]()
    step(model, rule)
    sparse = [p for p in model.parameters if p.grad.is_sparse]
    assert [p.shape[0] for p in sparse] == [200, 100]
    before = [p.detach().clone() for p in sparse]
    torch.optim.SparseAdam(sparse).step()
    for parameter, old in zip(sparse, before, strict=True):
        moved = (parameter != old).any(1)
        assert set(moved.nonzero().flatten().tolist()) <= set(
            parameter.grad.coalesce().indices().flatten().tolist()
        )
        assert moved.any()


# ---- activations that are watched ----------------------------------------------------------------


def watched(watch) -> tuple[Situation, list]:
    """A model whose representation and first activation are handed to `watch`."""
    stem, last, heads = nn.Linear(4, 6).double(), nn.Linear(6, 6).double(), linears(12)
    x, held = numbers(5, 4), []

    def forward():
        h = torch.tanh(stem(x))
        z = torch.tanh(last(h))
        held[:] = [h, z]
        watch(h)
        watch(z)
        return errors(head(torch.cat([z, h], 1)) for head in heads)

    return Situation([stem, last, *heads], last.parameters(), forward), held


@pytest.mark.parametrize("shared", ["all", "last"])
@pytest.mark.parametrize("ask", ["gramian", "jacobian", "last layer", "nothing"])
@pytest.mark.parametrize("formulas", ["always", "never"])
def test_retained_gradients_are_those_that_land_or_none(ask, formulas, shared):
    """Also where Python has moved the activation among its old objects, once it found one."""
    memo, alpha = {}, torch.tensor([0.5, -1.0, 2.0]).double()
    for call in range(2):
        torch.manual_seed(0)
        model, held = watched(lambda h: h.retain_grad())
        if shared == "all":
            model.shared = model.parameters[:4]
        losses = model.losses()
        each = [torch.autograd.grad(loss, held, retain_graph=True) for loss in losses]
        for h in held:
            h.grad = None
        if call == 1:
            gc.collect()
        with mock.patch.object(layers, "_saved", return_value=1e18 if formulas == "always" else -1):
            task = task_gradients(losses, model.shared, memo=memo)
            task.gramian() if ask == "gramian" else None
            _ = task.jacobian if ask == "jacobian" else None
            task.gramian(last_layer=True) if ask == "last layer" else None
            task.fill(alpha)
        for i, h in enumerate(held):
            is_below = i == 0 and shared == "last"
            factors = torch.ones(3) if is_below else alpha
            wanted = sum(w * g[i] for w, g in zip(factors, each, strict=True))
            if h.grad is not None:
                torch.testing.assert_close(h.grad, wanted)


@each_rule
def test_retained_gradients_can_be_read(rule):
    torch.manual_seed(0)
    model, held = watched(lambda h: h.retain_grad())
    step(model, rule)
    for h in held:
        assert h.grad is None or torch.isfinite(h.grad).all()


@each_gradient_rule
def test_what_a_hook_keeps_can_be_read(rule):
    torch.manual_seed(0)
    kept = []
    model, _ = watched(lambda h: h.register_hook(kept.append))
    step(model, rule)
    assert kept and all(torch.isfinite(gradient).all() for gradient in kept)


@each_gradient_rule
def test_what_a_hook_of_a_module_keeps_can_be_read(rule):
    torch.manual_seed(0)
    kept = []
    model = HardSharing(mlp(4, 6, 6, last=True), [mlp(6, 1), mlp(6, 1)]).double()
    model.trunk[2].register_full_backward_hook(lambda module, into, out: kept.append(out[0]))
    losses = torch.stack(errors(model(numbers(5, 4))))
    make(rule, 2).backward(losses, shared=model.trunk.parameters())
    assert kept and all(torch.isfinite(gradient).all() for gradient in kept)


@each_gradient_rule
def test_a_hook_that_comes_later(rule):
    """The first calls are vectorised; then somebody looks at a number, then no more."""
    weighting, norms = make(rule, 3), []
    for call in range(4):
        torch.manual_seed(0)
        look = lambda h: h.register_hook(lambda g: norms.append(g.norm().item()))  # noqa: E731
        model, _ = watched(look if call == 2 else lambda h: None)
        model.shared = model.parameters[:4]
        weighting.backward(model.losses(), shared=model.shared)
    assert norms


def test_a_hook_out_of_sight_that_refuses_is_named_once():
    """Python no longer has the tensor: that the hook is there shows when it fails."""
    torch.manual_seed(0)
    layers, heads, x = (
        [nn.Linear(4, 6).double(), nn.Linear(6, 6).double()],
        linears(6),
        numbers(5, 4),
    )
    shared, memo = [p for layer in layers for p in layer.parameters()], {}

    def jacobian(look):
        h = layers[0](x)
        if look:
            h.register_hook(lambda g: g * g.norm().item() ** 0)
        h = torch.tanh(h + 1)
        losses = torch.stack(errors(head(layers[1](h)) for head in heads))
        del h
        gc.collect()
        return task_gradients(losses, shared, memo=memo).jacobian

    wanted = jacobian(False)
    with pytest.raises(ValueError, match="something in the trunk, such as a hook"):
        jacobian(True)
    torch.testing.assert_close(jacobian(True), wanted)


class Moody(torch.autograd.Function):
    """The identity, whose backward pass reads a number if it is told to."""

    reads = False

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * (gradient.norm().item() > 0) if Moody.reads else gradient


def test_a_function_that_may_refuse_all_tasks_at_once_is_not_asked_to(monkeypatch):
    torch.manual_seed(0)
    layer, heads, x, memo = nn.Linear(4, 6).double(), linears(6), numbers(5, 4), {}

    def found():
        z = Moody.apply(layer(x))
        losses = torch.stack(errors(head(z) for head in heads))
        task = task_gradients(losses, layer.parameters(), memo=memo)
        return task.jacobian, task.plan

    wanted, plan = found()
    assert plan.endswith("once for each task, as hooks or custom functions see each gradient")
    monkeypatch.setattr(Moody, "reads", True)
    again, plan = found()
    torch.testing.assert_close(again, wanted)


def test_an_infinite_gradient_with_coefficient_zero_leaves_no_trace():
    trunk = torch.tensor([1.0, 2.0], requires_grad=True)
    losses = torch.stack([(3 * trunk).sum(), (trunk - trunk.detach()).sum().sqrt()])
    task_gradients(losses, [trunk]).fill(torch.tensor([1.0, 0.0]))
    assert trunk.grad.tolist() == [3.0, 3.0]


# ---- the graph a second time ---------------------------------------------------------------------


@each_kind
def test_a_second_backward_pass_through_a_kept_graph(name):
    model, found = SITUATIONS[name](), plain.passes(SITUATIONS[name])
    losses = model.losses()
    ones = torch.ones(found.n_tasks, dtype=torch.float64)
    for alpha in (ones, torch.linspace(-1, 2, found.n_tasks).double()):
        task = task_gradients(losses, model.shared, retain_graph=True)
        task.gramian()
        task.fill(alpha)
        plain.compare(model, found.combined(alpha @ found.jacobian, ones))
        for parameter in model.parameters:
            parameter.grad = None
    losses.sum().backward()
    plain.compare(model, found.combined(ones @ found.jacobian, ones))


# ---- refusals ------------------------------------------------------------------------------------


@each_gradient_rule
def test_reentrant_checkpointing_is_refused_by_name(rule):
    trunk, heads = mlp(4, 6, last=True).double(), linears(6)
    z = checkpoint(trunk, numbers(5, 4).requires_grad_(), use_reentrant=True)
    losses = torch.stack(errors(head(z) for head in heads))
    with pytest.raises(ValueError, match=r"losses: reentrant checkpointing .* use_reentrant=False"):
        make(rule, 3).backward(losses, shared=trunk.parameters())
    assert all(p.grad is None for p in trunk.parameters())


@pytest.mark.parametrize("what", ["trunk", "heads", "whole_model"])
@each_gradient_rule
def test_compiled_parts_are_refused_by_name_or_right(what, rule):
    """As they come, without what `NEEDS_BUFFERS` asks for."""
    build = SITUATIONS[f"compiled_{what}"]
    with config.patch(donated_buffer=False):
        wanted = plain.Reference(rule, plain.passes(build)).step()
    model = build()
    try:
        step(model, rule)
    except ValueError as error:
        assert str(error).startswith("losses: a part of the model was compiled")
        assert all(p.grad is None for p in model.parameters)
    else:
        plain.compare(model, wanted)


# ---- the cheap way -------------------------------------------------------------------------------

ONCE = """feature_pyramid unet_all_shared unet_bottleneck_shared mmoe_experts_shared bert
mmoe_embedding_and_experts_shared deep_supervision lstm_heads_read_output_and_state
divided_after_the_stack clamped_after_the_stack logarithms_after_the_stack
fixed_factors_after_the_stack two_stacks_added joined_in_float32 concatenated
penalty_on_shared_parameters_in_one_loss""".split()


@pytest.mark.parametrize("name", ["recommender_with_dense_tables", "wide_perceptron"])
def test_large_tables_and_wide_layers_go_by_formula(name):
    assert re.search("Gramian of [1-4] layers by formula", step(SITUATIONS[name](), "mgda")[1].plan)


@pytest.mark.parametrize("name", ONCE)
def test_heads_are_passed_once(name):
    model = SITUATIONS[name]()
    assert step(model, "mgda")[1].plan.startswith("each head once")


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_a_trunk_from_the_compiler_is_right_with_its_buffers_kept():
    """The rest of the zoo does without the compiler's last step, which takes some seconds."""
    torch.manual_seed(0)
    trunk, heads, x = mlp(4, 8, 6, last=True).double(), linears(6), numbers(5, 4)
    shared = list(trunk.parameters())
    losses = torch.stack(errors(head(trunk(x)) for head in heads))
    wanted = task_gradients(losses, shared, retain_graph=True).jacobian
    losses.sum().backward()
    plain_gradient = [p.grad for p in shared]
    with config.patch(donated_buffer=False):
        compiled = torch.compile(trunk)
        for ask in ("gramian", "jacobian"):
            for p in shared:
                p.grad = None
            losses = torch.stack(errors(head(compiled(x)) for head in heads))
            task = task_gradients(losses, shared)
            found = task.gramian() if ask == "gramian" else task.jacobian
            torch.testing.assert_close(found, wanted @ wanted.T if ask == "gramian" else wanted)
            task.fill(torch.ones(3))
            torch.testing.assert_close([p.grad for p in shared], plain_gradient)
