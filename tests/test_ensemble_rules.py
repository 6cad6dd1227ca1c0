"""Every rule and every optimiser, side by side, ends where a loop of its own ends."""

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR

from experiments.controls import AveragedTrunk, SumToK
from mtl_utils import make_weighting
from mtl_utils.ensemble import early_stopping, train_many
from mtl_utils.ensemble_optim import KINDS, SCHEDULES, many_optimizer
from mtl_utils.models import HardSharing, flat_parameters, mlp
from mtl_utils.weighting import LossWeighting, available_weightings
from tests.rules import BATCHES_RULES

K, MEMBERS, EPOCHS, BATCH, ROWS = 3, 3, 2, 8, 20
OPTIONS = {
    "fixed": [{"weights": [1.0, 2.0, 0.5]}, {"weights": [0.2, 1.0, 1.0]}, {"weights": [1, 1, 3]}],
    "pareto_mtl": [{"preferences": torch.eye(3), "index": index} for index in range(3)],
    "loss_trend": [{"window": 2}] * 3,
    "dwa": [{"temperature": t} for t in (0.2, 1.0, 2.0)],
    "uncertainty_soft": [{"temperature": t} for t in (0.2, 1.0, 2.0)],
    "mgda": [{"normalise": kind} for kind in ("none", "norm", "loss+")],
    "cagrad": [{"c": 0.4, "gramian": "last_layer"}, {"c": 0.5, "every": 2}, {}],
    "gradnorm": [{"alpha": a} for a in (0.0, 0.5, 1.5)],
    "stch": [{"warm_up": 1}, {"mu": 0.5}, {}],
}
OPTIMISERS = {
    "sgd": lambda p, lr, decay: torch.optim.SGD(p, lr, weight_decay=decay),
    "momentum": lambda p, lr, decay: torch.optim.SGD(p, lr, momentum=0.9, weight_decay=decay),
    "adam": lambda p, lr, decay: torch.optim.Adam(p, lr, weight_decay=decay),
    "adamw": lambda p, lr, decay: torch.optim.AdamW(p, lr, weight_decay=decay),
}
RATES, OWN_RATES, DECAYS = (0.01, 0.02, 0.03), (0.1, 0.05, 0.02), (0.0, 0.1, 0.2)


@pytest.fixture(autouse=True)
def float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def data(seed):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(ROWS, 4, generator=g)
    noise = torch.randn(ROWS, K, generator=g)
    y = torch.tanh(x @ torch.randn(4, K, generator=g)) * torch.tensor([1.0, 3.0, 0.3]) + noise
    return x, *y.split(1, 1)


def losses(model, x, *targets):
    return torch.stack([((o - y) ** 2).mean() for o, y in zip(model(x), targets, strict=True)])


def seen(model, x, *targets):
    """What dtp and loss_trend want to see."""
    errors = [(o - y).abs() for o, y in zip(model(x), targets, strict=True)]
    kpis = torch.stack([(e < 1.0).double().mean() for e in errors])
    return {"kpis": kpis, "val_losses": torch.stack([e.square().mean() for e in errors])}


def maker(name, options):
    def make():
        trunk = mlp(4, 6, 5, activation=nn.Tanh, last=True)
        model = HardSharing(trunk, [nn.Linear(5, 1) for _ in range(K)])
        return model, make_weighting(name, K, **options)

    return make


def loop(make, rows, seed, optimiser, rate, own_rate, decay, schedule="constant"):
    """One training, as a user writes it; the model, the rule, and the losses of the last step."""
    torch.manual_seed(seed)
    model, rule = make()
    own = list(rule.parameters())
    groups = [{"params": model.parameters()}]
    if own:
        groups.append({"params": own, "lr": own_rate, "weight_decay": 0.0})
    optimizer = optimiser(groups, rate, decay)
    base = [group["lr"] for group in optimizer.param_groups]
    order, steps, done = torch.Generator().manual_seed(10 + seed), EPOCHS * 3, 0
    for _ in range(EPOCHS):
        total = torch.zeros(K)
        for index in torch.randperm(ROWS, generator=order).split(BATCH):
            for group, lr in zip(optimizer.param_groups, base, strict=True):
                group["lr"] = lr * SCHEDULES[schedule](done / steps)
            batch = [t[index] for t in rows]
            with torch.no_grad():
                rule.observe(**seen(model, *batch))
            task_losses = losses(model, *batch)
            optimizer.zero_grad()
            rule.backward(task_losses, shared=model.trunk.parameters())
            optimizer.step()
            if "losses_after_step" in rule.observes:
                rule.observe(losses_after_step=losses(model, *batch).detach())
            total += task_losses.detach() * len(index)
            done += 1
        rule.observe(train_losses=total / ROWS)
    return model, rule, total / ROWS


def assert_alike(makes, optimiser, schedule="constant"):
    sets = [data(seed) for seed in (5, 6, 7)]
    seeds = range(3, 3 + MEMBERS)
    together = train_many(
        makes,
        losses,
        [torch.stack(tensors) for tensors in zip(*sets, strict=True)],
        seeds,
        EPOCHS,
        BATCH,
        many_optimizer(optimiser, *(torch.tensor(v) for v in (RATES, OWN_RATES, DECAYS))),
        own_data=True,
        order_seeds=[10 + seed for seed in seeds],
        observe=seen,
        schedule=schedule,
        progress=False,
    )
    assert not together.failures
    for m, seed in enumerate(seeds):
        options = (OPTIMISERS[optimiser], RATES[m], OWN_RATES[m], DECAYS[m], schedule)
        model, rule, last = loop(makes[m], sets[m], seed, *options)
        found = [v[m].flatten() for n, v in together.parameters.items() if n.startswith("model.")]
        near = {"rtol": 1e-9, "atol": 1e-9}
        torch.testing.assert_close(torch.cat(found), flat_parameters(model), **near)
        torch.testing.assert_close(together.losses[-1, m], last, **near)
        for name, parameter in rule.named_parameters():
            stacked = together.parameters[f"weighting.{name}"][m]
            torch.testing.assert_close(stacked, parameter.detach(), **near)


@pytest.mark.parametrize("optimiser", KINDS)
@pytest.mark.parametrize("name", [n for n in available_weightings() if n not in BATCHES_RULES])
def test_members_equal_loops(name, optimiser):
    assert_alike([maker(name, options) for options in OPTIONS.get(name, [{}] * 3)], optimiser)


@pytest.mark.parametrize("name", BATCHES_RULES)
def test_rules_that_take_several_batches_a_step_are_refused(name):
    makes = [maker("mgda", {}), maker(name, {})]
    message = rf"^make: {name} takes . independent batches a step, .* use mtl_utils.train for each"
    with pytest.raises(ValueError, match=message):
        fit(makes, [0.1, 0.1])


@pytest.mark.parametrize("names", [("uncertainty", "liebel", "dwa"), ("gradnorm", "log", "mgda")])
def test_members_may_have_different_rules(names):
    assert_alike([maker(name, {}) for name in names], "adam")


@pytest.mark.parametrize("wrap", [SumToK, lambda rule: AveragedTrunk(rule, beta=0.9)])
@pytest.mark.parametrize("name", ["equal", "uncertainty", "log", "upgrad", "gradnorm"])
def test_a_wrapper_around_a_rule(name, wrap):
    def wrapped(options):
        make = maker(name, options)

        def make_wrapped():
            model, rule = make()
            return model, wrap(rule)

        return make_wrapped

    assert_alike([wrapped(options) for options in OPTIONS.get(name, [{}] * 3)], "adam")


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("name", ["mgda", "imtl_g"])
def test_the_gramian_of_the_representation(name, scaled):
    def make():
        model, rule = maker(name, {"gramian": "representation"})()
        return model, SumToK(rule) if scaled else rule

    assert_alike([make, make, maker(name, {})], "adam")


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules(schedule):
    assert_alike([maker("uncertainty", {})] * 3, "adam", schedule)


def test_schedules_are_those_of_torch():
    steps = 12
    for name, make in {
        "linear": lambda optimizer: LinearLR(optimizer, 1.0, 0.0, steps),
        "cosine": lambda optimizer: CosineAnnealingLR(optimizer, steps),
    }.items():
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
        scheduler = make(optimizer)
        for step in range(steps):
            assert scheduler.get_last_lr() == pytest.approx([0.5 * SCHEDULES[name](step / steps)])
            optimizer.step()
            scheduler.step()


class Halves(LossWeighting):
    """A rule of somebody's own, that is not registered; what it learns has options per member."""

    name = "uncertainty"  # of its base, as a subclass of that would have

    def __init__(self, factor):
        super().__init__(K)
        self.factor, self.s = factor, nn.Parameter(torch.zeros(K))

    def objective(self, losses):
        return (self.factor * torch.exp(-self.s) * losses + self.s).sum()


def test_options_of_own_rules_are_those_of_their_member():
    class Own(Halves):
        pass

    makes = [lambda f=f: (maker("equal", {})()[0], Own(f)) for f in (0.5, 1.0, 2.0)]
    assert_alike(makes, "sgd")


# ---- failures, evaluation, bad input ---------------------------------------------------------


def fit(makes, rates, optimiser="sgd", **options):
    n = len(makes)
    rows = data(0)
    options = {"progress": False, "order_seeds": [1] * n} | options
    optimizer = many_optimizer(optimiser, torch.tensor(rates))
    return train_many(makes, losses, rows, [0] * n, 12, BATCH, optimizer, **options)


def metric(model, x, *targets):
    return torch.stack(
        [((o - y) ** 2).mean() / y.var() for o, y in zip(model(x), targets, strict=True)]
    )


@pytest.mark.parametrize("name", ["equal", "uncertainty", "geometric", "dwa", "upgrad", "gradnorm"])
def test_a_member_that_diverges_disturbs_no_other(name):
    evaluation = {"metric": metric, "splits": {"val": data(0)}}
    both = fit([maker(name, {})] * 2, [0.01, 1e6], **evaluation)
    one = fit([maker(name, {})], [0.01], **evaluation)
    assert torch.isinf(both.curves["val"][-1, 1]).all()
    assert torch.isinf(both.losses[-1, 1]).all()
    for key, value in one.parameters.items():
        torch.testing.assert_close(both.parameters[key][0], value[0])
    torch.testing.assert_close(both.curves["val"][:, 0], one.curves["val"][:, 0])
    assert set(both.failures) <= {1} and not one.failures


def test_a_member_whose_rule_gives_up_is_asked_no_more():
    """Its own losses are finite to the end; from the third epoch on they count as infinite."""

    class GivesUp(Halves):
        observes, told = ("train_losses",), 0

        def objective(self, losses):
            if self.told == 2:
                raise ValueError("losses: enough")
            return super().objective(losses)

        def observe(self, **quantities):
            self.told += 1

    rule = GivesUp(1.0)
    makes = [lambda: (maker("equal", {})()[0], rule), maker("uncertainty", {})]
    both = fit(makes, [0.01, 0.01], metric=metric, splits={"val": data(0)})
    assert both.failures == {0: "losses: enough"} and rule.told == 2
    for values in (both.losses, both.curves["val"]):
        assert torch.isfinite(values[:2]).all() and torch.isfinite(values[:, 1]).all()
        assert torch.isinf(values[2:, 0]).all()


def test_a_training_that_cannot_begin_raises():
    def negative(model, x, *targets):
        return losses(model, x, *targets) - 100

    for name in ("log", "uncertainty"):
        with pytest.raises(ValueError, match=r"losses: "):
            train_many(
                maker(name, {}), negative, data(0), [0], 1, BATCH, many_optimizer("sgd", 0.1),
                progress=False,
            )  # fmt: skip


def test_curves_are_the_metric_on_the_rows_of_each_member():
    sets = [data(seed) for seed in (0, 1)]
    stacked = [torch.stack(tensors) for tensors in zip(*sets, strict=True)]
    which = [0, 1, 1]
    trained = train_many(
        maker("equal", {}), losses, stacked, [0, 1, 2], 4, BATCH, many_optimizer("adam", 0.1),
        own_data=which, metric=metric, splits={"val": stacked}, evaluate_at=[0, 1, 4],
        progress=False,
    )  # fmt: skip
    assert trained.epochs == [0, 1, 4] and trained.curves["val"].shape == (3, 3, K)
    inputs = stacked[0][which]
    outputs = trained.predict(inputs)
    for m, which_set in enumerate(which):
        wanted = metric(lambda x, m=m: [o[m] for o in outputs], *sets[which_set])
        torch.testing.assert_close(trained.curves["val"][-1, m], wanted)


def test_early_stopping_by_the_mean_and_by_task():
    val = torch.tensor([[[3.0, 1.0]], [[1.0, 2.0]], [[float("nan"), 0.0]]])
    test = torch.tensor([[[10.0, 20.0]], [[30.0, 40.0]], [[50.0, 60.0]]])
    index, (best, at) = early_stopping(val, test)
    assert index.tolist() == [[1, 1]] and best.tolist() == [[1, 2]] and at.tolist() == [[30, 40]]
    index, (best, at) = early_stopping(val, test, per_task=True)
    assert index.tolist() == [[1, 2]] and best.tolist() == [[1, 0]] and at.tolist() == [[30, 60]]


def test_order_seeds_do_not_depend_on_company():
    alone = fit([maker("equal", {})], [0.01], order_seeds=[4])
    company = fit([maker("equal", {})] * 2, [0.01, 0.01], order_seeds=[3, 4])
    for key, value in alone.parameters.items():
        torch.testing.assert_close(company.parameters[key][1], value[0])
        assert not torch.equal(company.parameters[key][0], value[0])


def test_bad_input_is_refused():
    equal = maker("equal", {})
    with pytest.raises(ValueError, match="kind: expected one of sgd, momentum, adam, adamw"):
        many_optimizer("lion", 0.1)
    with pytest.raises(ValueError, match="schedule: expected one of constant"):
        fit([equal], [0.1], schedule="steps")
    with pytest.raises(ValueError, match="order_seeds: expected one for each of 1"):
        fit([equal], [0.1], order_seeds=[1, 2])
    with pytest.raises(ValueError, match="evaluate_at: expected increasing epochs in 0 to 12"):
        fit([equal], [0.1], metric=metric, splits={"val": data(0)}, evaluate_at=[13])
    with pytest.raises(ValueError, match="metric, splits: expected both or neither"):
        fit([equal], [0.1], metric=metric)
    with pytest.raises(ValueError, match="own_data: expected one for each of 1"):
        fit([equal], [0.1], own_data=[0, 0])
    with pytest.raises(ValueError, match="make: expected one for each of 2 seeds, got 1"):
        train_many([equal], losses, data(0), [0, 1], 1, BATCH, many_optimizer("sgd", 0.1))
    with pytest.raises(ValueError, match="shared: there is no trunk"):
        fit([maker("mgda", {})], [0.1], shared=lambda name: False)
