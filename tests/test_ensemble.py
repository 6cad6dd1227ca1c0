"""Many trainings at once are what they would be one by one."""

import pytest
import torch
from torch import nn

from mtl_utils import make_weighting
from mtl_utils.datasets import two_regressions
from mtl_utils.ensemble import train_many
from mtl_utils.models import HardSharing, flat_parameters, mlp
from mtl_utils.training import batches, train


@pytest.fixture(autouse=True)
def float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def losses(model, x, *targets):
    return torch.stack([((o - y) ** 2).mean() for o, y in zip(model(x), targets, strict=True)])


def make(name="uncertainty"):
    heads = [nn.Linear(8, 1) for _ in range(2)]
    return HardSharing(mlp(1, 8, last=True), heads), make_weighting(name, n_tasks=2)


def adam(parameters):
    return torch.optim.Adam(parameters.values(), lr=1e-2)


def sgd(parameters):
    return torch.optim.SGD(parameters.values(), lr=1e-3, momentum=0.9)


def alone(data, seed, optimizer, epochs, batch_size, name):
    torch.manual_seed(seed)
    model, weighting = make(name)
    named = dict(model.named_parameters()) | {"w" + n: p for n, p in weighting.named_parameters()}
    loader = batches(data, batch_size)
    history = train(model, losses, loader, weighting, optimizer(named), epochs, progress=False)
    return model, weighting, history


@pytest.mark.parametrize("optimizer", [adam, sgd])
@pytest.mark.parametrize("name", ["uncertainty", "equal", "liebel", "dwa"])
def test_members_equal_single_runs(optimizer, name):
    data = two_regressions(n=50).train
    together = train_many(
        lambda: make(name), losses, data, [3, 4, 5], 4, 20, optimizer, progress=False
    )
    for member, seed in enumerate([3, 4, 5]):
        model, weighting, history = alone(data, seed, optimizer, 4, 20, name)
        found = [v[member].flatten() for n, v in together.parameters.items() if "model." in n]
        torch.testing.assert_close(torch.cat(found), flat_parameters(model))
        for parameter_name, value in weighting.named_parameters():
            stacked = together.parameters["weighting." + parameter_name][member]
            torch.testing.assert_close(stacked, value.detach())
        last = history[history["epoch"] == 4]["loss"].to_numpy()
        torch.testing.assert_close(together.losses[-1, member], torch.tensor(last.copy()))
        outputs = together.predict(data[0])
        for out, wanted in zip(outputs, model(data[0]), strict=True):
            torch.testing.assert_close(out[member], wanted.detach())


def test_own_data():
    sets = [two_regressions(n=30, seed=seed).train for seed in (0, 1)]
    rows = [torch.stack(tensors) for tensors in zip(*sets, strict=True)]
    together = train_many(
        make, losses, rows, [7, 8], 3, 10, adam, own_data=True, record=["weighting.log_vars"]
    )
    for member, seed in enumerate([7, 8]):
        _, weighting, _ = alone(sets[member], seed, adam, 3, 10, "uncertainty")
        recorded = together.history["weighting.log_vars"][:, member]
        torch.testing.assert_close(recorded[-1], weighting.log_vars.detach())
        _, earlier, _ = alone(sets[member], seed, adam, 1, 10, "uncertainty")
        torch.testing.assert_close(recorded[0], earlier.log_vars.detach())  # as it was then


def test_each_member_has_an_order_of_its_own_and_the_generator_fixes_it():
    data = two_regressions(n=30).train

    def run():
        generator = torch.Generator().manual_seed(0)
        return train_many(make, losses, data, [1, 1], 2, 10, sgd, generator=generator).losses

    first, second = run(), run()
    assert torch.equal(first, second)
    assert not torch.equal(first[:, 0], first[:, 1])  # the same initial weights, another order


def test_bad_input_is_refused():
    data = two_regressions(n=30).train
    with pytest.raises(ValueError, match="seeds: expected at least one"):
        train_many(make, losses, data, [], 1, 10, sgd)
    with pytest.raises(ValueError, match=r"tensors: with own_data expected \[2, N"):
        train_many(make, losses, data, [0, 1], 1, 10, sgd, own_data=True)
    with pytest.raises(ValueError, match="record: no parameter 'sigma'"):
        train_many(make, losses, data, [0], 1, 10, sgd, record=["sigma"])


def kpis_and_losses(model, x, *targets):
    """What dtp and loss_trend want to see."""
    errors = [(o - y).abs() for o, y in zip(model(x), targets, strict=True)]
    return {
        "kpis": torch.stack([(e < 3.0).double().mean() for e in errors]),
        "val_losses": torch.stack([e.square().mean() for e in errors]),
    }


@pytest.mark.parametrize(
    ("name", "options"), [("dtp", {"gamma": 1.0}), ("loss_trend", {"window": 3})]
)
def test_rules_that_observe_equal_single_runs(name, options):
    data = two_regressions(n=50).train

    def rule():
        return make("equal")[0], make_weighting(name, 2, **options)

    together = train_many(
        rule, losses, data, [3, 4], 5, 20, adam, observe=kpis_and_losses, progress=False
    )
    for member, seed in enumerate([3, 4]):
        torch.manual_seed(seed)
        model, weighting = rule()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        history = train(
            model, losses, batches(data, 20), weighting, optimizer, 5, observe=kpis_and_losses,
            progress=False,
        )  # fmt: skip
        found = [v[member].flatten() for v in together.parameters.values()]
        torch.testing.assert_close(torch.cat(found), flat_parameters(model))
        weights = torch.tensor(history["weight"].to_numpy().copy()).reshape(5, 2)
        torch.testing.assert_close(together.history["weights"][:, member], weights)
    assert together.history["kpis"].shape == (5, 2, 2)


def test_rules_that_observe_need_observe():
    data = two_regressions(n=30).train
    with pytest.raises(ValueError, match="observe: dtp needs it, to return kpis"):
        train_many(lambda: make("dtp"), losses, data, [0], 1, 10, sgd)
    with pytest.raises(RuntimeError, match="kpis: dtp has observed none"):
        train_many(
            lambda: make("dtp"), losses, data, [0], 1, 10, sgd,
            observe=lambda model, *batch: {"val_losses": torch.ones(2)},
        )  # fmt: skip


def test_batch_normalisation_and_bad_counts_are_refused():
    data = two_regressions(n=30).train

    def with_norm():
        model, weighting = make()
        return nn.ModuleDict({"a": model, "b": nn.BatchNorm1d(2)}), weighting

    with pytest.raises(ValueError, match="make: batch normalisation"):
        train_many(with_norm, losses, data, [0], 1, 10, sgd)
    with pytest.raises(ValueError, match="epochs: expected an integer of at least 1"):
        train_many(make, losses, data, [0], 0, 10, sgd)
    with pytest.raises(ValueError, match="batch_size: expected an integer"):
        train_many(make, losses, data, [0], 1, 0, sgd)


def test_predict_tells_shared_inputs_by_their_dimensions():
    sets = [two_regressions(n=30, seed=seed).train for seed in (0, 1)]
    rows = [torch.stack(tensors) for tensors in zip(*sets, strict=True)]
    trained = train_many(make, losses, rows, [7, 8], 1, 10, adam, own_data=True, progress=False)
    two_points = torch.tensor([[0.0], [1.0]])  # as many as members
    assert trained.predict(two_points)[0].shape == (2, 2, 1)
    assert trained.predict(rows[0])[0].shape == (2, 30, 1)


@pytest.mark.parametrize("fused", [False, True])
def test_an_optimizer_keeps_its_own_schedule_and_fused_steps_are_the_same(fused):
    """Fused Adam steps wrongly on gradients of another memory layout than the parameter's."""
    x = torch.randn(2, 12, 3, dtype=torch.float64)
    y = x.sum(-1, keepdim=True)
    rates = []

    def optimizer(parameters):
        adam = torch.optim.Adam(list(parameters.values()), lr=0.1, fused=fused)
        decay = torch.optim.lr_scheduler.ExponentialLR(adam, 0.5)
        adam.register_step_post_hook(lambda *_: decay.step())
        rates.append(adam.param_groups[0])
        return adam

    def make():
        return HardSharing(nn.Linear(3, 4), [nn.Linear(4, 1)]).double(), make_weighting("equal", 1)

    def mse(model, x, y):
        return (model(x)[0] - y).square().mean()[None]

    found = train_many(make, mse, [x, y], [0, 1], 3, 6, optimizer, own_data=True, progress=False)
    assert rates[0]["lr"] == pytest.approx(0.1 * 0.5**6)
    for member, seed in enumerate([0, 1]):
        torch.manual_seed(seed)
        model, _ = make()
        adam = torch.optim.Adam(model.parameters(), lr=0.1)
        decay = torch.optim.lr_scheduler.ExponentialLR(adam, 0.5)
        for _ in range(3):
            for rows in (slice(0, 6), slice(6, 12)):
                adam.zero_grad()
                mse(model, x[member, rows], y[member, rows]).sum().backward()
                adam.step()
                decay.step()
        for name, value in model.named_parameters():
            torch.testing.assert_close(found.parameters[f"model.{name}"][member], value.detach())
