"""Python code of the user's inside the backward pass, and models that change on the way: what is
kept, refused, or not seen by comparing gradients, as the zoo does."""

import copy
import gc

import pytest
import torch
from torch import nn
from torch.autograd import Function
from torch.utils import checkpoint as checkpointing

from mtl_utils import make_weighting

A, B = nn.Linear(4, 6).double(), nn.Linear(6, 6).double()
HEADS = [nn.Linear(6, 1).double() for _ in range(3)]
X = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
TRUNK = [*A.parameters(), *B.parameters()]


def losses(z):
    return torch.stack([(k + 1) * (h(z) - k).square().mean() for k, h in enumerate(HEADS)])


def trunk(x=X):
    return torch.tanh(B(torch.tanh(A(x))))


@pytest.fixture(autouse=True)
def fresh():
    yield
    for p in [*TRUNK, *(p for h in HEADS for p in h.parameters())]:
        p.requires_grad_(True)
        p.grad = None
        p._backward_hooks = None


def flat(parameters):
    return torch.cat([(0 * p if p.grad is None else p.grad).flatten() for p in parameters])


KEPT: list = []


class Monitor(Function):
    """Keeps what it sees."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, g):
        KEPT.append(g)
        return g


@pytest.mark.parametrize("name", ["mgda", "graddrop", "gradnorm"])
def test_what_a_function_keeps_can_be_read(name):
    KEPT.clear()
    make_weighting(name, 3).backward(losses(trunk(Monitor.apply(A(X)) @ A.weight)), shared=TRUNK)
    assert KEPT and all(kept.norm().item() >= 0 for kept in KEPT)


class Tagged(torch.Tensor):
    """A subclass, as some libraries hand out."""


@pytest.mark.parametrize("name", ["mgda", "graddrop"])
@pytest.mark.parametrize("how", ["old", "subclass"])
def test_activations_with_hooks_are_found_wherever_they_are(name, how):
    kept = []
    h = torch.tanh(A(X.as_subclass(Tagged) if how == "subclass" else X))
    h.register_hook(kept.append)
    h.retain_grad()
    if how == "old":
        gc.collect()  # moves it on
    make_weighting(name, 3).backward(losses(torch.tanh(B(h))), shared=TRUNK)
    assert all(seen.norm().item() >= 0 for seen in kept) and len(kept) >= 1
    assert h.grad is None or h.grad.norm().item() >= 0


class Reversible(Function):
    """As reversible networks do it: a backward() of its own, which fills .grad."""

    @staticmethod
    def forward(ctx, x, f):
        ctx.x, ctx.f = x.detach(), f
        with torch.no_grad():
            return f(x)

    @staticmethod
    def backward(ctx, g):
        x = ctx.x.requires_grad_()
        x.grad = None
        with torch.enable_grad():
            y = ctx.f(x)
        torch.autograd.backward(y, g)
        return x.grad, None


def test_a_backward_pass_within_a_backward_pass():
    def make():
        return losses(torch.tanh(Reversible.apply(torch.tanh(A(X)), B)))

    make().sum().backward()
    wanted = B.weight.grad.clone()
    for name in ("mgda", "graddrop", "gradnorm"):
        with pytest.raises(ValueError, match="calls backward\\(\\) in its own backward pass"):
            make_weighting(name, 3).backward(make(), shared=A.parameters())
    B.weight.grad = None
    make_weighting("equal", 3).backward(make())  # a rule on losses makes one pass
    torch.testing.assert_close(B.weight.grad, wanted)
    make().sum().backward()  # and nothing is left of the guard


def test_checkpoints_for_one_pass_are_refused_by_name():
    policy = checkpointing.CheckpointPolicy.MUST_SAVE

    def context():
        return checkpointing.create_selective_checkpoint_contexts(lambda *_, **__: policy)

    def make():
        z = checkpointing.checkpoint(trunk, X, use_reentrant=False, context_fn=context)
        return losses(z)

    make().sum().backward()
    with pytest.raises(ValueError, match="can be passed back only once"):
        make_weighting("mgda", 3).backward(make(), shared=TRUNK)


@pytest.mark.parametrize("use", [{}, {"gramian": "representation"}, {"gramian": "last_layer"}])
@pytest.mark.parametrize("by", ["data", "optimiser"])
def test_steps_that_are_taken_within_the_backward_pass(use, by):
    def run(inside):
        torch.manual_seed(0)
        layers = [nn.Linear(6, 6).double() for _ in range(3)]
        heads = [nn.Linear(6, 1).double() for _ in range(3)]
        parameters = [p for m in (*layers, *heads) for p in m.parameters()]
        optimizers = {p: torch.optim.SGD([p], 0.1) for p in parameters}

        def step(p):
            if by == "data":
                p.data.add_(p.grad, alpha=-0.1)
            else:
                optimizers[p].step()
            p.grad = None

        if inside:
            for p in parameters:
                p.register_post_accumulate_grad_hook(step)
        z = X @ X.T @ torch.ones(5, 6, dtype=X.dtype)
        for layer in layers:
            z = torch.tanh(layer(z))
        found = [(k + 1) * (h(z) - k).square().mean() for k, h in enumerate(heads)]
        shared = [*layers[0].parameters(), *layers[2].parameters()]  # not the middle one
        make_weighting("mgda", 3).use(**use).backward(torch.stack(found), shared=shared)
        if not inside:
            for p in parameters:
                step(p)
        return torch.cat([p.detach().flatten() for p in parameters])

    torch.testing.assert_close(run(inside=True), run(inside=False))


# ---- what learns changes -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mgda", "graddrop", "uncertainty"])
def test_a_parameter_that_is_frozen_after_the_forward_pass(name):
    for which in (A.weight, HEADS[0].weight):
        vector = losses(trunk())
        which.requires_grad_(False)
        make_weighting(name, 3).backward(vector, shared=TRUNK)
        assert A.bias.grad is not None and HEADS[1].weight.grad is not None
        which.requires_grad_(True)


@pytest.mark.parametrize("name", ["db_mtl", "moco", "excess_mtl"])
def test_unfreezing_on_the_way_is_refused_by_name(name):
    weighting = make_weighting(name, 3)
    A.requires_grad_(False)
    weighting.backward(losses(trunk()), shared=TRUNK)
    A.requires_grad_(True)
    with pytest.raises(ValueError, match="keeps K gradients of 42 numbers, got 72"):
        weighting.backward(losses(trunk()), shared=TRUNK)
    complex_one = nn.Parameter(torch.randn(4, dtype=torch.complex128))
    weighting = make_weighting(name, 2).prepare([complex_one])
    squares = [(complex_one - k).abs().square().sum() for k in range(2)]
    weighting.backward(torch.stack(squares), shared=[complex_one])


def test_sparse_parameters_are_refused_by_name():
    sparse = torch.eye(4).to_sparse().requires_grad_()
    vector = torch.stack([torch.sparse.mm(sparse, torch.ones(4, 1)).sum() * k for k in (1.0, 2.0)])
    with pytest.raises(ValueError, match="expected dense parameters"):
        make_weighting("mgda", 2).backward(vector, shared=[sparse])


@pytest.mark.parametrize("name", ["mgda", "uncertainty", "gradnorm"])
def test_a_copy_between_two_micro_batches(name):
    parts = {"a": A, "b": B, "h": nn.ModuleList(HEADS)}
    landed = []
    for copied in (False, True):
        weighting = make_weighting(name, 3).use(accumulate=2)
        model = copy.deepcopy(nn.ModuleDict(parts | {"w": weighting}))

        def step(x, model):
            z = torch.tanh(model["b"](torch.tanh(model["a"](x))))
            found = [(k + 1) * (h(z) - k).square().mean() for k, h in enumerate(model["h"])]
            shared = [*model["a"].parameters(), *model["b"].parameters()]
            model["w"].backward(torch.stack(found), shared=shared)

        step(X, model)
        model = copy.deepcopy(model) if copied else model
        step(2 * X, model)
        landed.append(flat(list(model.parameters())))
    torch.testing.assert_close(landed[1], landed[0])
