"""Three ways to the Jacobian of the task losses, against torch's own Jacobian."""

import copy
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, jacrev

from mtl_utils import make_weighting
from mtl_utils.engine import TaskGradients, landing, layers
from mtl_utils.gradients import fork, gramian, jacobian, task_gradients
from mtl_utils.models import HardSharing
from tests.rules import HalfSum, few

METHODS = ("loop", "batched", "cut", "forked")
each_method = pytest.mark.parametrize("method", METHODS)


class Last(nn.Module):
    """The last state of a recurrent layer."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0][:, -1]


class Tied(nn.Module):
    """One layer used twice."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(torch.tanh(self.layer(x)))


# layer -> (how to make it, shape of its input, or the number of words)
TRUNKS = {
    "linear": (lambda: nn.Linear(4, 3), (4,)),
    "mlp": (lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3), nn.ReLU()), (4,)),
    "tied": (Tied, (4,)),
    "conv": (lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.Flatten()), (1, 6, 6)),
    "strided": (lambda: nn.Sequential(nn.Conv1d(2, 3, 3, stride=2), nn.Flatten()), (2, 7)),
    "conv2": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 3, padding=1, stride=2, bias=False),
            nn.ReLU(),
            nn.Conv2d(3, 4, (2, 1), dilation=(1, 2)),
            nn.Flatten(),
        ),
        (2, 5, 5),
    ),
    "grouped": (lambda: nn.Sequential(nn.Conv2d(2, 4, 2, groups=2), nn.Flatten()), (2, 3, 3)),
    "transposed": (
        lambda: nn.Sequential(nn.ConvTranspose2d(2, 3, 2), nn.Flatten()),
        (2, 3, 3),
    ),
    "no bias": (lambda: nn.Sequential(nn.Linear(4, 6, bias=False), nn.Linear(6, 3)), (4,)),
    "sequence": (lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)), (3, 4)),
    "batch norm": (lambda: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), (4,)),
    "layer norm": (lambda: nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 3), nn.GELU()), (4,)),
    "group norm": (lambda: nn.Sequential(nn.GroupNorm(2, 4), nn.Flatten()), (4, 3)),
    "embedding": (lambda: nn.Sequential(nn.Embedding(7, 3), nn.Flatten()), 7),
    "padding": (lambda: nn.Sequential(nn.Embedding(7, 3, padding_idx=0), nn.Flatten()), 7),
    "gru": (lambda: Last(nn.GRU(3, 4, batch_first=True)), (5, 3)),
    "lstm": (lambda: Last(nn.LSTM(3, 4, batch_first=True)), (5, 3)),
    "attention": (
        lambda: nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True),
        (3, 4),
    ),
}


def make_trunk(name):
    """A trunk, an input of 5 rows, and the shape of what comes out."""
    make, shape = TRUNKS[name]
    trunk = make().double()
    x = torch.randint(7, (5, 2)) if shape == 7 else torch.randn(5, *shape, dtype=torch.float64)
    return trunk, x, copy.deepcopy(trunk)(x).shape[1:].numel()


def make_model(trunk, width, n_tasks):
    heads = [nn.Sequential(nn.Flatten(), nn.Linear(width, 2)) for _ in range(n_tasks)]
    return HardSharing(trunk, heads).double()


def losses_of(outputs):
    return torch.stack([(y - k).square().mean() for k, y in enumerate(outputs)])


def reference(model, x):
    """The Jacobian in the trunk's parameters by torch.func."""
    trunk = dict(model.trunk.named_parameters())

    def losses(parameters):
        buffers = {name: b.clone() for name, b in model.trunk.named_buffers()}
        z = functional_call(model.trunk, {**parameters, **buffers}, (x,))
        return losses_of([head(z) for head in model.heads])

    blocks = jacrev(losses)({name: p.detach() for name, p in trunk.items()})
    return torch.cat([blocks[name].reshape(model.n_tasks, -1) for name in trunk], 1)


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # attention on a CPU
@pytest.mark.parametrize("name", TRUNKS)
@given(seed=st.integers(0, 10_000), n_tasks=st.integers(1, 5), formulas=st.sampled_from("anw"))
@settings(max_examples=8, deadline=None)
def test_all_ways_agree_with_torch(name, seed, n_tasks, formulas):
    """Formulas for the layers: always, never, or where they are cheaper."""
    choice = {"a": {"return_value": 1e18}, "n": {"return_value": -1.0}}.get(formulas)
    wraps = choice or {"side_effect": layers._saved}
    with mock.patch.object(layers, "_saved", **wraps):
        all_ways_agree_with_torch(name, seed, n_tasks)


def all_ways_agree_with_torch(name, seed, n_tasks):
    torch.manual_seed(seed)
    trunk, x, width = make_trunk(name)
    model = make_model(trunk, width, n_tasks)
    outputs, features = model.forked(x)
    losses = losses_of(outputs)
    shared = list(trunk.parameters())
    found = {m: jacobian(losses, shared, features, method=m) for m in METHODS}
    if name in ("gru", "lstm"):  # torch.func has no rule for these
        rows = [torch.autograd.grad(loss, shared, retain_graph=True) for loss in losses]
        wanted = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])
    else:
        wanted = reference(model, x)
    for rows in found.values():
        assert rows.shape == (n_tasks, sum(p.numel() for p in shared))
        assert not rows.requires_grad
        torch.testing.assert_close(rows, wanted, rtol=1e-10, atol=1e-10)
    for method in METHODS:
        found = gramian(losses, shared, features, method)
        torch.testing.assert_close(found, wanted @ wanted.T, rtol=1e-10, atol=1e-10)
    alpha = torch.randn(n_tasks, dtype=torch.float64)
    for method in METHODS:
        for ask in ("gramian", "jacobian", "nothing"):
            task = task_gradients(losses, shared, features, method, retain_graph=True)
            {"gramian": task.gramian, "jacobian": lambda t=task: t.jacobian}.get(ask, int)()
            task.fill(alpha)
            got = torch.cat([p.grad.flatten() for p in shared])
            torch.testing.assert_close(got, alpha @ wanted, rtol=1e-10, atol=1e-10)
            model.zero_grad()
    assert all(p.grad is None for p in model.parameters())


@each_method
def test_by_finite_differences(method):
    torch.manual_seed(0)
    model = make_model(nn.Sequential(nn.Linear(4, 3), nn.Tanh()), 3, 3)
    x, h = torch.randn(5, 4, dtype=torch.float64), 1e-6
    outputs, features = model.forked(x)
    rows = jacobian(losses_of(outputs), model.trunk.parameters(), features, method)
    weight = model.trunk[0].weight
    for i, j in [(0, 0), (1, 2), (2, 3)]:
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                weight[i, j] += sign * h
                values.append(losses_of(model(x)))
                weight[i, j] -= sign * h
        difference = (values[0] - values[1]) / (2 * h)
        torch.testing.assert_close(rows[:, 4 * i + j], difference, rtol=1e-6, atol=1e-8)


@each_method
def test_dropout_keeps_the_mask_of_the_forward_pass(method):
    torch.manual_seed(0)
    model = make_model(nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5)), 6, 2).train()
    x = torch.randn(5, 4, dtype=torch.float64)
    torch.manual_seed(1)
    outputs, features = model.forked(x)
    losses = losses_of(outputs)
    state = torch.get_rng_state()
    rows = jacobian(losses, model.trunk.parameters(), features, method)
    assert torch.equal(torch.get_rng_state(), state)
    shared = list(model.trunk.parameters())
    plain = [torch.autograd.grad(loss, shared, retain_graph=True) for loss in losses]
    wanted = torch.stack([torch.cat([g.flatten() for g in row]) for row in plain])
    torch.testing.assert_close(rows, wanted, rtol=1e-10, atol=1e-10)
    again = losses_of(model.forked(x)[0])  # another forward pass draws another mask
    assert not torch.allclose(rows, jacobian(again, shared))


@each_method
def test_normalisation_statistics_move_once(method):
    torch.manual_seed(0)
    model = make_model(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), 3, 3).train()
    outputs, features = model.forked(torch.randn(5, 4, dtype=torch.float64))
    task_gradients(losses_of(outputs), model.trunk.parameters(), features, method)
    assert model.trunk[1].num_batches_tracked == 1


@each_method
def test_parameters_that_some_or_all_losses_miss(method):
    first, second, aside = (torch.ones(2, dtype=torch.float64) for _ in range(3))
    shared = [p.requires_grad_() for p in (first, second, aside)]
    z = torch.cat([first, second])
    features = fork(z, 3)
    losses = torch.stack(
        [
            features[0][:2].square().sum(),
            features[1].sum(),
            torch.tensor(0.5, dtype=torch.float64),  # reaches nothing
        ]
    )
    found = task_gradients(losses, shared, features, method)
    assert found.jacobian.tolist() == [[2, 2, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0], [0] * 6]
    assert found.reached == [True, True, False]
    found.fill(torch.tensor([1.0, 10.0, 100.0]))
    assert first.grad.tolist() == [12, 12] and second.grad.tolist() == [10, 10]
    assert aside.grad is None


@each_method
def test_heads_that_share_a_parameter_get_the_sum_of_their_gradients(method):
    torch.manual_seed(0)
    trunk, head = nn.Linear(3, 2).double(), nn.Linear(2, 1).double()
    own = torch.ones((), dtype=torch.float64, requires_grad=True)
    features = fork(trunk(torch.randn(4, 3, dtype=torch.float64)), 2)
    losses = torch.stack([head(features[0]).mean(), (own * head(features[1])).square().mean()])
    leaves = [*head.parameters(), own]
    wanted = torch.autograd.grad(losses.sum(), leaves, retain_graph=True)
    task_gradients(losses, trunk.parameters(), features, method).fill(torch.tensor([3.0, 4.0]))
    for leaf, gradient in zip(leaves, wanted, strict=True):
        torch.testing.assert_close(leaf.grad, gradient, rtol=1e-12, atol=1e-12)


@each_method
def test_only_the_last_shared_layer(method):
    """The rest of the trunk then counts as task-only and gets the unweighted sum."""
    torch.manual_seed(0)
    model = make_model(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), 3, 3)
    outputs, features = model.forked(torch.randn(5, 4, dtype=torch.float64))
    losses = losses_of(outputs)
    last, first = list(model.trunk[2].parameters()), list(model.trunk[0].parameters())
    plain = torch.autograd.grad(losses.sum(), first, retain_graph=True)
    rows = [torch.autograd.grad(loss, last, retain_graph=True) for loss in losses]
    task_gradients(losses, last, features, method).fill(torch.tensor([1.0, 2.0, 3.0]))
    for parameter, wanted in zip(first, plain, strict=True):
        torch.testing.assert_close(parameter.grad, wanted, rtol=1e-12, atol=1e-12)
    for i, parameter in enumerate(last):
        wanted = sum((k + 1) * row[i] for k, row in enumerate(rows))
        torch.testing.assert_close(parameter.grad, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("with_features", [False, True])
@given(n_tasks=st.integers(1, 5), seed=st.integers(0, 1000))
@few
def test_rule_on_gradients_with_and_without_features(with_features, n_tasks, seed):
    torch.manual_seed(seed)
    model = make_model(nn.Sequential(nn.Linear(4, 3), nn.Tanh()), 3, n_tasks)
    outputs, features = model.forked(torch.randn(5, 4, dtype=torch.float64))
    losses = losses_of(outputs)
    plain = torch.autograd.grad(losses.sum(), list(model.parameters()), retain_graph=True)
    HalfSum(n_tasks).backward(losses, model.trunk.parameters(), features if with_features else None)
    for (name, parameter), wanted in zip(model.named_parameters(), plain, strict=True):
        factor = 0.5 if name.startswith("trunk") else 1.0
        torch.testing.assert_close(parameter.grad, factor * wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("n_tasks", [2, 3])
@pytest.mark.parametrize("which", ["trunk and a head", "trunk and a layer of a head", "all"])
def test_shared_parameters_in_the_heads_leave_no_cut(which, n_tasks):
    """A cut would lose their gradients: there are shared parameters above it."""
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh())
    heads = [nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 1)) for _ in range(n_tasks)]
    model = HardSharing(trunk, heads).double()
    x, y = torch.randn(7, 4).double(), torch.randn(n_tasks, 7, 1).double()
    extra = {
        "trunk and a head": list(heads[0].parameters()),
        "trunk and a layer of a head": list(heads[-1][0].parameters()),
        "all": [p for head in heads for p in head.parameters()],
    }[which]
    shared = [*trunk.parameters(), *extra]

    def losses():
        pairs = zip(model(x), y, strict=True)
        return torch.stack([(out - t).square().mean() for out, t in pairs])

    want = task_gradients(losses(), shared, method="loop").jacobian
    found = task_gradients(losses(), shared)
    torch.testing.assert_close(found.gramian(), want @ want.T)
    torch.testing.assert_close(found.jacobian, want)
    make_weighting("mgda", n_tasks).backward(losses(), shared)
    alpha = make_weighting("mgda", n_tasks).coefficients(want @ want.T)
    update = torch.cat([p.grad.flatten() for p in shared])
    torch.testing.assert_close(update, alpha @ want)


@each_method
def test_the_graph_is_freed_unless_kept(method):
    model = make_model(nn.Sequential(nn.Linear(4, 3), nn.Tanh()), 3, 2)
    outputs, features = model.forked(torch.randn(5, 4, dtype=torch.float64))
    losses = losses_of(outputs)
    arguments = (losses, list(model.trunk.parameters()), features, method)
    memo = {}  # of a call that may fail the first time, the graph is kept
    kept = task_gradients(*arguments, retain_graph=True, memo=memo).jacobian
    assert torch.equal(task_gradients(*arguments, memo=memo).jacobian, kept)
    with pytest.raises(RuntimeError, match="second time"):
        _ = task_gradients(*arguments).jacobian


@pytest.mark.parametrize("stacked", [True, False])
def test_losses_need_no_stack(stacked):
    torch.manual_seed(0)
    model = make_model(nn.Linear(4, 3), 3, 3)
    losses = losses_of(model(torch.randn(5, 4, dtype=torch.float64)))
    given_losses = losses if stacked else losses * 1.0
    shared = list(model.trunk.parameters())
    rows = [torch.autograd.grad(loss, shared, retain_graph=True) for loss in losses]
    wanted = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])
    for method in ("loop", "batched"):
        torch.testing.assert_close(
            jacobian(given_losses, shared, method=method), wanted, rtol=1e-12, atol=1e-12
        )


def test_the_loop_passes_through_each_head_once():
    """Not K times: a loss taken out of a stack would send zeros through all the others."""
    passes = []

    class Head(nn.Module):
        def __init__(self, k):
            super().__init__()
            self.k, self.weight = k, nn.Parameter(torch.ones(2))

        def forward(self, z):
            y = z * self.weight
            y.register_hook(lambda _: passes.append(self.k))
            return y

    model = HardSharing(nn.Linear(3, 2), [Head(k) for k in range(4)])
    losses = losses_of(model(torch.ones(1, 3)))
    _ = task_gradients(losses, model.trunk.parameters(), method="loop").jacobian
    assert passes == [0, 1, 2, 3]


def test_a_bad_gradient_stays_with_its_task():
    theta = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    z = theta * 2
    features = fork(z, 2)
    losses = torch.stack([(features[0] + 1).square().sum(), features[1].square().sum().sqrt()])
    for method in ("loop", "forked"):
        rows = jacobian(losses, [theta], features, method)
        assert rows[0].tolist() == [4, 4] and bool(rows[1].isnan().all())


def test_a_coefficient_of_0_leaves_an_infinite_gradient_out():
    theta = torch.ones(2, dtype=torch.float64, requires_grad=True)
    z = theta * 2
    losses = torch.stack([(z + 1).sum(), (z - z.detach()).sqrt().sum()])
    task_gradients(losses, [theta]).fill(torch.tensor([1.0, 0.0]))
    assert theta.grad.tolist() == [2, 2]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gradients_do_not_overflow_the_gramian(dtype):
    theta = torch.ones(4, dtype=dtype, requires_grad=True)
    losses = torch.stack([(theta * 300).sum(), (theta * -300).sum()])
    found = task_gradients(losses, [theta])
    g = 4 * 300.0**2
    assert found.gramian().dtype == torch.float32
    torch.testing.assert_close(found.gramian(), torch.tensor([[g, -g], [-g, g]]), rtol=1e-2, atol=0)
    found.fill(torch.tensor([0.75, 0.25]))
    assert theta.grad.dtype == dtype and theta.grad.tolist() == pytest.approx([150] * 4, rel=1e-2)


def test_shared_parameters_of_two_number_types():
    first = torch.ones(2, requires_grad=True)
    second = torch.ones(2, dtype=torch.float64, requires_grad=True)
    losses = torch.stack([(first * second).sum(), second.sum().float()])
    task_gradients(losses, [first, second]).fill(torch.tensor([1.0, 1.0]))
    assert first.grad.dtype == torch.float32 and second.grad.dtype == torch.float64
    assert second.grad.tolist() == [2, 2]


def test_sparse_gradients_of_an_embedding():
    torch.manual_seed(0)
    table = nn.Embedding(6, 2, sparse=True)
    losses = losses_of([table(torch.tensor([1, 1, 3])), table(torch.tensor([0]))])
    dense = nn.Embedding.from_pretrained(table.weight.detach(), freeze=False)
    wanted = losses_of([dense(torch.tensor([1, 1, 3])), dense(torch.tensor([0]))])
    torch.testing.assert_close(
        jacobian(losses, table.parameters()), jacobian(wanted, dense.parameters())
    )


def test_one_tensor_counts_as_shared_and_repeats_count_once():
    theta = torch.ones(2, requires_grad=True)
    losses = torch.stack([theta.sum(), 2 * theta.sum()])
    assert jacobian(losses, theta).tolist() == [[1, 1], [2, 2]]
    assert jacobian(losses, [theta, theta]).shape == (2, 2)


def test_checkpointed_trunk():
    from torch.utils.checkpoint import checkpoint

    trunk, x = nn.Linear(3, 3), torch.ones(2, 3)
    plain, saved = trunk(x), checkpoint(trunk, x, use_reentrant=False)
    rows = [jacobian(losses_of([z, z * 2]), trunk.parameters()) for z in (plain, saved)]
    torch.testing.assert_close(rows[0], rows[1])


# ---- what forked refuses -------------------------------------------------------------------------


def forked_problem():
    torch.manual_seed(0)
    model = make_model(nn.Linear(4, 3), 3, 3)
    x = torch.randn(5, 4, dtype=torch.float64)
    outputs, features = model.forked(x)
    return model, x, outputs, features


def refused(message, losses, model, features):
    with pytest.raises(ValueError, match=message):
        HalfSum(3).backward(losses, shared=model.trunk.parameters(), features=features)
    assert all(p.grad is None for p in model.parameters())


def test_features_of_the_wrong_number():
    model, _, outputs, features = forked_problem()
    losses = losses_of(outputs)
    refused(
        r"features: expected 3 tensors, fork\(z, n_tasks=3\), got 2", losses, model, features[:2]
    )
    refused(r"features: expected 3 tensors, .* got 5", losses, model, features[0])
    with pytest.raises(ValueError, match=r"features: expected 3 tensors, .* got none"):
        task_gradients(losses, model.trunk.parameters(), method="forked")


def test_features_with_losses_that_are_no_stack():
    model, _, outputs, features = forked_problem()
    message = r"losses: with features they have to come from torch.stack.* result of MvBackward0"
    refused(message, 2 * torch.eye(3).double() @ losses_of(outputs), model, features)


def test_a_loss_that_reads_the_feature_of_another():
    model, _, outputs, features = forked_problem()
    crossed = losses_of([outputs[0], outputs[1] + model.heads[1](features[2]), outputs[2]])
    refused(r"features: loss 1 reads features\[2\], expected only \[1\]", crossed, model, features)
    swapped = losses_of([model.heads[k](features[j]) for k, j in enumerate([1, 0, 2])])
    refused(r"features: loss 0 reads features\[1\]", swapped, model, features)


def test_a_loss_that_bypasses_its_feature():
    model, x, outputs, features = forked_problem()
    penalty = model.trunk.weight.square().sum()
    bypassing = losses_of([outputs[0], outputs[1], outputs[2] + penalty])
    refused(
        "features: loss 2 reaches the shared parameters without passing", bypassing, model, features
    )
    unforked = losses_of(model(x))
    refused("features: loss 0 reaches the shared parameters without", unforked, model, features)


@pytest.mark.parametrize(
    "alias",
    [
        lambda z, trunk, x: [z, z, z],
        lambda z, trunk, x: [z.view_as(z)] * 3,
        lambda z, trunk, x: [z * (k + 1) for k in range(3)],
        lambda z, trunk, x: [trunk(x + k) for k in range(3)],
        lambda z, trunk, x: [trunk(x + k).view(5, 3) for k in range(3)],
        lambda z, trunk, x: [z.detach().view_as(z) for _ in range(3)],
        lambda z, trunk, x: [z.view(5, 3), z.view(5, 3, 1), z.view(1, 5, 3)],
        lambda z, trunk, x: z.chunk(3, dim=1),
    ],
    ids=["same", "same view", "multiples", "other inputs", "views", "detached", "shapes", "chunks"],
)
def test_features_that_are_no_fork(alias):
    """Above all those that differ: one pass through the trunk would be wrong for all but one."""
    model, x, _, _ = forked_problem()
    features = alias(model.trunk(x), model.trunk, x)
    own = torch.ones((), dtype=torch.float64, requires_grad=True)
    losses = torch.stack([(own * z).square().mean() for z in features])
    refused("features: expected K different aliases of one representation", losses, model, features)


def test_features_changed_in_place():
    model, x, _, _ = forked_problem()
    features = fork(model.trunk(x), 3)
    features[1].relu_()
    losses = losses_of([head(z) for head, z in zip(model.heads, features, strict=True)])
    refused("features: .* not changed in place", losses, model, features)


def test_fork_keeps_values_and_storage():
    z = torch.randn(3, 2, requires_grad=True) * 1
    features = fork(z, 3)
    assert all(torch.equal(f, z) and f.data_ptr() == z.data_ptr() for f in features)
    assert len({f.grad_fn for f in features}) == 3
    features = fork(z.T, 2)  # not contiguous
    assert torch.equal(features[0], z.T)


def test_unknown_method():
    model, _, outputs, _ = forked_problem()
    with pytest.raises(ValueError, match=r"method: expected one of auto, loop, .* got 'magic'"):
        task_gradients(losses_of(outputs), model.trunk.parameters(), method="magic")


def test_the_heads_are_found_behind_what_was_done_to_the_stack():
    model, _, outputs, _ = forked_problem()
    losses, shared = losses_of(outputs), list(model.trunk.parameters())
    for given_losses in (losses, losses * 1.0, (losses / 4).float(), torch.log(losses)):
        found = task_gradients(given_losses, shared, retain_graph=True)
        assert found.plan == "each head once"
    mixed = torch.eye(3).double() @ losses
    assert task_gradients(mixed, shared).plan == "a backward pass for each task"


def test_gradients_are_added_to_leaves_and_no_memory_is_shared():
    parameter, other = (torch.ones(2, requires_grad=True) for _ in range(2))
    given_gradient = torch.ones(2)
    landing.onto_leaves([parameter, other], [given_gradient, None])
    held = parameter.grad
    landing.onto_leaves([parameter, other], [given_gradient, None])
    assert parameter.grad is held and held.tolist() == [2, 2] and other.grad is None
    assert given_gradient.tolist() == [1, 1] and not held.requires_grad


@pytest.mark.parametrize("reads_first", [0, 1])
def test_gradients_found_pass_by_pass_lie_in_one_matrix(reads_first):
    """The Jacobian is put together as rows are found, and is not copied again."""
    first, second = nn.Linear(4, 3), nn.Linear(3, 3)
    h = torch.tanh(first(torch.randn(5, 4)))
    losses = [second(h).square().mean(), h.square().mean()]  # one loss misses the second layer
    losses = torch.stack([losses[1 - reads_first], losses[reads_first]])
    shared = [*first.parameters(), *second.parameters()]
    found = task_gradients(losses, shared, method="loop", retain_graph=True)
    jacobian = found.jacobian
    for row, loss in zip(jacobian, losses, strict=True):
        expected = torch.autograd.grad(
            loss, shared, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        torch.testing.assert_close(row, torch.cat([g.flatten() for g in expected]))
    place = jacobian.untyped_storage().data_ptr()
    assert all(block.untyped_storage().data_ptr() == place for block in found._rows.blocks)


@pytest.mark.parametrize("method", ["auto", "loop"])
def test_a_process_whose_losses_reach_no_shared_parameter_has_zero_rows(method):
    trunk, heads = nn.Linear(3, 2), nn.Linear(3, 2)
    losses = heads(torch.randn(4, 3)).square().mean(0)
    mean = mock.Mock(side_effect=lambda rows: rows, size=1)  # of one process
    found = TaskGradients(losses, list(trunk.parameters()), method, reduce=mean)
    assert found.jacobian.shape == (2, 8) and not found.jacobian.any()


@pytest.mark.parametrize("method", ["auto", "loop", "batched", "cut"])
@pytest.mark.parametrize("rule", ["upgrad", "graddrop"])
def test_a_parameter_without_numbers_among_the_shared_ones(method, rule):
    torch.manual_seed(0)
    trunk, empty = nn.Linear(4, 3), torch.zeros(0, 3, requires_grad=True)
    heads, x = [nn.Linear(3, 1) for _ in range(2)], torch.randn(5, 4)

    def found(shared):
        z = torch.tanh(trunk(x) + torch.ones(5, 0) @ empty)
        losses = torch.stack([head(z).square().mean() for head in heads])
        weighting = make_weighting(rule, n_tasks=2).use(method=method)
        weighting.backward(losses, shared=shared)
        gradient, trunk.weight.grad = trunk.weight.grad, None
        return gradient

    beside = found([empty, *trunk.parameters()])
    assert empty.grad.shape == (0, 3)
    torch.manual_seed(0)
    if rule == "upgrad":  # GradDrop draws
        torch.testing.assert_close(beside, found(trunk.parameters()))
