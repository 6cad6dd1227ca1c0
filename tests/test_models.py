"""Trunk and heads."""

import pytest
import torch
from torch import nn

from mtl_utils.models import (
    HardSharing,
    SeparateModels,
    count_parameters,
    digit_model,
    flat_parameters,
    lenet_trunk,
    mlp,
)


def test_hard_sharing_runs_the_trunk_once_and_each_head_on_it():
    calls = []
    trunk = nn.Linear(3, 4)
    trunk.register_forward_hook(lambda *_: calls.append(1))
    model = HardSharing(trunk, (nn.Linear(4, k + 1) for k in range(3)))
    x = torch.randn(5, 3)
    outputs = model(x)
    assert calls == [1] and model.n_tasks == 3
    assert [tuple(y.shape) for y in outputs] == [(5, 1), (5, 2), (5, 3)]
    for k, y in enumerate(outputs):
        assert torch.equal(y, model.heads[k](trunk(x)))
    names = {name.split(".")[0] for name, _ in model.named_parameters()}
    assert names == {"trunk", "heads"}


def test_forked_gives_the_same_outputs_and_a_feature_for_each_head():
    model = HardSharing(mlp(3, 4, last=True), [nn.Linear(4, 1) for _ in range(3)])
    x = torch.randn(5, 3)
    outputs, features = model.forked(x)
    assert all(map(torch.equal, outputs, model(x)))
    assert len(features) == 3 and all(torch.equal(z, model.trunk(x)) for z in features)
    for k, y in enumerate(outputs):  # head k reads features[k] and no other
        found = torch.autograd.grad(y.sum(), features, retain_graph=True, allow_unused=True)
        assert [g is not None for g in found] == [j == k for j in range(3)]


def test_no_heads():
    with pytest.raises(ValueError, match="heads: expected at least one, got none"):
        HardSharing(nn.Identity(), [])


def test_separate_models_share_nothing():
    model = SeparateModels([mlp(3, 4, 1), mlp(3, 2)])
    x = torch.randn(5, 3)
    first, second = model(x)
    assert model.n_tasks == 2 and first.shape == (5, 1) and second.shape == (5, 2)
    first.sum().backward()
    assert all(p.grad is None for p in model.models[1].parameters())
    assert not hasattr(model, "trunk")


def kinds(network):
    return [type(layer).__name__ for layer in network]


def test_mlp():
    assert kinds(mlp(3, 4)) == ["Linear"]
    assert kinds(mlp(3, 4, 5)) == ["Linear", "ReLU", "Linear"]
    assert kinds(mlp(3, 4, 5, last=True)) == ["Linear", "ReLU", "Linear", "ReLU"]
    assert kinds(mlp(3, 4, 5, activation=nn.Tanh)) == ["Linear", "Tanh", "Linear"]
    assert count_parameters(mlp(3, 4, 5)) == (3 * 4 + 4) + (4 * 5 + 5)
    network = mlp(3, 4, 4, 4, last=True)
    assert len({id(layer) for layer in network}) == len(network)
    for sizes in [(), (3,)]:
        with pytest.raises(ValueError, match=r"sizes: expected at least input and output width"):
            mlp(*sizes)


@pytest.mark.parametrize("size", [36, 18])
@pytest.mark.parametrize("width", [50, 7])
def test_digit_model(size, width):
    trunk = lenet_trunk(size, width)
    assert trunk(torch.rand(2, 1, size, size)).shape == (2, width)
    model = digit_model(size, width)
    assert [tuple(y.shape) for y in model(torch.rand(2, 1, size, size))] == [(2, 10)] * 2
    first, second = (layer for layer in trunk if isinstance(layer, nn.Conv2d))
    assert (first.kernel_size[0], second.kernel_size[0]) == (5, 5 if size == 36 else 3)
    assert (first.out_channels, second.out_channels) == (10, 20)


def test_lenet_refuses_other_sizes():
    with pytest.raises(ValueError, match="size: expected 36 or 18, got 28"):
        lenet_trunk(28)


def test_counting_and_flattening():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    model[0].bias.requires_grad_(False)
    assert count_parameters(model) == 6 + 3 + 1
    flat = flat_parameters(model)
    assert flat.shape == (13,) and not flat.requires_grad
    assert torch.equal(flat[:6], model[0].weight.flatten())
    before = flat.clone()
    with torch.no_grad():
        model[0].weight.zero_()
    assert torch.equal(flat, before)  # a copy
