"""What a rule remembers: saved, loaded, copied, averaged and moved like any module's state."""

import copy
import math

import pytest
import safetensors.torch
import torch
import torch.distributed.checkpoint as dcp
from accelerate import Accelerator
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mtl_utils.weighting import make_weighting, state
from mtl_utils.weighting.base import weighting_class
from tests.rules import (
    NAMES,
    RANDOM_RULES,
    Problem,
    make,
    run,
    same_state,
    saved_and_loaded,
    step,
)

every_rule = pytest.mark.parametrize("name", NAMES)


def trained(name, steps=4, **options):
    """A rule that has seen some steps."""
    weighting = make(name, 3, **options)
    run(weighting, steps, seed=0)
    return weighting


def goes_on_alike(weighting, other):
    """Whether both do the same from here on, bit for bit."""
    assert same_state(weighting.state_dict(), other.state_dict())
    same = torch.equal(run(weighting, 4, seed=1), run(other, 4, seed=1))
    return same and same_state(weighting.state_dict(), other.state_dict())


# ---- the last weights ----------------------------------------------------------------------------


@every_rule
def test_weights_of_the_last_backward(name):
    problem, weighting = Problem(2), make(name, 2)
    assert not hasattr(weighting, "weights")
    with pytest.raises(AttributeError, match=r"^weights: there are none before .* backward\(\)"):
        _ = weighting.weights
    with pytest.raises(AttributeError, match="has no attribute 'weihgts'"):
        _ = weighting.weihgts
    returned = problem.backward(weighting)
    assert torch.equal(weighting.weights, returned) and not weighting.weights.requires_grad
    before = weighting.weights
    returned.zero_()  # the caller's to change, as is
    weighting.weights.zero_()
    assert torch.equal(weighting.weights, before)


# ---- plain tensors with fixed names and shapes ---------------------------------------------------


@every_rule
def test_the_state_is_plain_tensors_with_fixed_names_and_shapes(name):
    problem, weighting = Problem(3), make(name, 3)
    weighting.prepare([problem.theta])
    before = weighting.state_dict()
    run(weighting, 3, seed=0)
    after = weighting.state_dict()
    assert list(before) == list(after)
    for key, value in after.items():
        assert type(value) is torch.Tensor and not value.requires_grad
        assert (value.shape, value.dtype) == (before[key].shape, before[key].dtype)


@every_rule
def test_a_state_dict_keeps_what_it_holds(name):
    """Rules replace their buffers. (Into parameters the user's optimiser writes.)"""
    weighting = trained(name)
    learned = dict(weighting.named_parameters())
    held = {key: t for key, t in weighting.state_dict().items() if key not in learned}
    frozen = copy.deepcopy(held)
    run(weighting, 3, seed=1)
    assert same_state(held, frozen)


# ---- every way to save, load and copy ------------------------------------------------------------


def by_load_state_dict(weighting, fresh, folder):
    assert str(fresh.load_state_dict(weighting.state_dict())) == "<All keys matched successfully>"
    return fresh


def by_file(weighting, fresh, folder):
    return saved_and_loaded(weighting, fresh)  # weights_only=True


def by_deepcopy(weighting, fresh, folder):
    return copy.deepcopy(weighting)


def by_safetensors(weighting, fresh, folder):
    file = str(folder / "model.safetensors")
    safetensors.torch.save_model(inside(weighting), file)
    missing, unexpected = safetensors.torch.load_model(inside(fresh), file)
    assert not missing and not unexpected
    return fresh


def by_distributed_checkpoint(weighting, fresh, folder):
    dcp.save({"weighting": weighting.state_dict()}, checkpoint_id=folder)
    fresh.prepare([Problem(3).theta])
    into = {"weighting": fresh.state_dict()}
    dcp.load(into, checkpoint_id=folder)
    fresh.load_state_dict(into["weighting"])
    return fresh


def by_accelerate(weighting, fresh, folder):
    accelerator = Accelerator(cpu=True)
    accelerator.prepare(inside(weighting))
    accelerator.save_state(str(folder))
    accelerator = Accelerator(cpu=True)
    accelerator.prepare(inside(fresh))
    accelerator.load_state(str(folder))
    return fresh


def inside(weighting):
    """A model that contains the rule."""
    return nn.ModuleDict({"net": nn.Linear(2, 2), "weighting": weighting})


WAYS = (
    by_load_state_dict,
    by_file,
    by_deepcopy,
    by_safetensors,
    by_distributed_checkpoint,
    by_accelerate,
)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize("way", WAYS)
@every_rule
def test_a_copy_goes_on_bit_for_bit(name, way, tmp_path):
    weighting = trained(name)
    other = way(weighting, make(name, 3), tmp_path)
    assert torch.equal(other.weights, weighting.weights)
    kept = copy.deepcopy(other.state_dict())
    assert goes_on_alike(copy.deepcopy(other), weighting)
    assert same_state(kept, other.state_dict())  # nothing is shared between the two


@every_rule
def test_a_state_from_before_the_first_step_loads(name):
    assert goes_on_alike(make(name, 3), saved_and_loaded(make(name, 3), make(name, 3)))


@pytest.mark.parametrize("average_buffers", [False, True])
@every_rule
def test_an_averaged_model_follows(name, average_buffers):
    model = inside(make(name, 3).prepare([Problem(3).theta]))
    average = AveragedModel(
        model, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=average_buffers
    )
    for seed in range(3):
        run(model["weighting"], 2, seed)
        average.update_parameters(model)
    theirs = dict(average.module["weighting"].named_buffers())
    if not average_buffers:
        assert same_state(theirs, dict(model["weighting"].named_buffers()))
    for own in average.module["weighting"].parameters():
        assert torch.isfinite(own).all()
    fresh = AveragedModel(inside(make(name, 3).prepare([Problem(3).theta])))
    fresh.load_state_dict(average.state_dict())
    assert same_state(fresh.state_dict(), average.state_dict())


@pytest.mark.parametrize("name", RANDOM_RULES)
def test_the_generator_is_in_the_state_as_bytes(name):
    weighting = trained(name)
    assert weighting.state_dict()["generator"].dtype == torch.uint8
    other = make(name, 3, generator=torch.Generator().manual_seed(99))
    other.load_state_dict(weighting.state_dict())
    assert torch.equal(other.generator.get_state(), weighting.generator.get_state())
    own = weighting.generator  # the caller's own generator is the one that goes on
    weighting.load_state_dict(make(name, 3).state_dict())
    assert weighting.generator is own


def test_what_does_not_belong_is_unexpected_and_what_lacks_is_missing():
    weighting = make("gradnorm", 3)
    whole = weighting.state_dict()
    with pytest.raises(RuntimeError, match=r'Unexpected key\(s\).*"options.beta"'):
        weighting.load_state_dict({**whole, "options.beta": torch.tensor(1.0)})
    for key in ("rule", "n_tasks", "options.alpha", "w"):
        with pytest.raises(RuntimeError, match=rf'Missing key\(s\).*"{key}"'):
            weighting.load_state_dict({k: v for k, v in whole.items() if k != key})
    # a model's state without the rule, as from a run that had none
    model = inside(weighting)
    without = {k: v for k, v in model.state_dict().items() if not k.startswith("weighting")}
    found = model.load_state_dict(without, strict=False)
    assert set(found.missing_keys) == {f"weighting.{key}" for key in whole}


# ---- of another rule, or with other options ------------------------------------------------------


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


# name, option, another value, and how the message shows both
OTHER = [
    ("fixed", "weights", [1.0, 2.0, 4.0], r"\[1.0, 2.0, 4.0\], this fixed has \[1.0, 2.0, 3.0\]"),
    ("uncertainty", "forms", "laplace", "'laplace, laplace, laplace', .* has 'regression, regr"),
    ("log", "eps", 0.5, "0.5, this log has 0"),
    ("geometric", "eps", 0.5, "0.5, this geometric has 0"),
    ("uncertainty_soft", "temperature", math.inf, "inf, this uncertainty_soft has 1"),
    ("stch", "mu", 0.1, "0.1, this stch has 1"),
    ("stch", "preference", [1.0, 1.0, 2.0], r"\[1.0, 1.0, 2.0\], this stch has \[1.0, 1.0, 1.0\]"),
    ("stch", "ideal", [-1.0, 0.0, 0.0], r"\[-1.0, 0.0, 0.0\], this stch has \[0.0, 0.0, 0.0\]"),
    ("stch", "warm_up", 4, "4, this stch has None"),
    ("pbi", "theta", 1.0, "1, this pbi has 5"),
    ("pbi", "preference", [1.0, 1.0, 2.0], r"\[1.0, 1.0, 2.0\], this pbi has \[1.0, 1.0, 1.0\]"),
    ("pbi", "ideal", [-1.0, 0.0, 0.0], r"\[-1.0, 0.0, 0.0\], this pbi has \[0.0, 0.0, 0.0\]"),
    ("cosmos", "lam", 8.0, "8, this cosmos has 1"),
    ("cosmos", "preference", [1.0, 1.0, 2.0], r"\[1.0, 1.0, 2.0\], this cosmos has \[1.0, 1"),
    ("famo", "lr", 0.1, "0.1, this famo has 0.025"),
    ("famo", "gamma", 0.0, "0, this famo has 0.001"),
    ("famo", "lower", [-1.0, 0.0, 0.0], r"\[-1.0, 0.0, 0.0\], this famo has \[0.0, 0.0, 0.0\]"),
    ("famo", "eps", 1e-6, "1e-06, this famo has 1e-08"),
    ("dwa", "temperature", 1.0, "1, this dwa has 2"),
    ("dtp", "gamma", (0.0, 2.0, 2.0), r"\[0.0, 2.0, 2.0\], this dtp has \[2.0, 2.0, 2.0\]"),
    ("dtp", "momentum", 0.5, "0.5, this dtp has 0.9"),
    ("dtp", "kpi_min", 0.1, "0.1, this dtp has 0.01"),
    ("loss_trend", "window", 100, "100, this loss_trend has 200"),
    ("gradnorm", "alpha", 0.12, "0.12, this gradnorm has 1.5"),
    ("gradnorm", "lr", 0.01, "0.01, this gradnorm has 0.025"),
    ("gradnorm", "floor", 0.01, "0.01, this gradnorm has 0.0001"),
    ("graddrop", "leak", 1.0, "1, this graddrop has 0"),
    ("db_mtl", "beta", 0.5, "0.5, this db_mtl has 0.9"),
    ("db_mtl", "sigma", 0.5, "0.5, this db_mtl has 0"),
    ("db_mtl", "eps", 0.0, "0, this db_mtl has 1e-08"),
    ("mgda", "normalise", "loss", "'loss', this mgda has 'none'"),
    ("moco", "beta", 0.5, "0.5, this moco has 0.1"),
    ("moco", "gamma", 0.5, "0.5, this moco has 0.1"),
    ("moco", "decay", 0.0, "0, this moco has 0.5"),
    ("moco", "rho", 0.1, "0.1, this moco has 0"),
    ("modo", "gamma", 1.0, "1, this modo has 0.1"),
    ("modo", "rho", 0.0, "0, this modo has 0.1"),
    ("sdmgrad", "lam", 0.0, "0, this sdmgrad has 0.3"),
    ("sdmgrad", "lr", 5.0, "5, this sdmgrad has 0.5"),
    ("sdmgrad", "momentum", 0.0, "0, this sdmgrad has 0.5"),
    ("sdmgrad", "rounds", 40, "40, this sdmgrad has 20"),
    ("excess_mtl", "lr", 1.0, "1, this excess_mtl has 0.01"),
    ("excess_mtl", "warm_up", 3, "3, this excess_mtl has 1"),
    ("excess_mtl", "eps", 0.0, "0, this excess_mtl has 1e-07"),
    ("cr_mogm", "rule", "upgrad", "'upgrad', this cr_mogm has 'mgda'"),
    ("cr_mogm", "alpha", 0.5, "0.5, this cr_mogm has 0.9"),
    ("pcd", "tau", 0.5, "0.5, this pcd has 0.02"),
    ("pcd", "beta", 0.9, "0.9, this pcd has 0.999"),
    ("pcd", "eps", 0.0, "0, this pcd has 1e-08"),
    ("gradvac", "decay", 0.01, "0.01, this gradvac has 0.5"),
    ("cagrad", "c", 0.5, "0.5, this cagrad has 0.4"),
    ("nash_mtl", "max_norm", 2.0, "2, this nash_mtl has 1"),
    ("aligned_mtl", "scale", "rmse", "'rmse', this aligned_mtl has 'min'"),
    ("aligned_mtl", "tolerance", 0.0, "0, this aligned_mtl has 3.57"),
    ("fairgrad", "alpha", 2.0, "2, this fairgrad has 1"),
    ("pareto_mtl", "index", 1, "1, this pareto_mtl has 0"),
    ("pareto_mtl", "preferences", torch.eye(3), r"\[\[1.0, 0.0, 0.0\], .* has \[\[0.99"),
]


@pytest.mark.parametrize(("name", "option", "value", "shown"), OTHER)
def test_the_state_of_other_options_is_refused_and_changes_nothing(name, option, value, shown):
    other, weighting = make_weighting(name, 3, **needed(name, option, value)), make(name, 3)
    run(weighting, 2, seed=0)
    before = copy.deepcopy(weighting.state_dict())
    with pytest.raises(ValueError, match=rf"options\.{option}: the state has {shown}"):
        weighting.load_state_dict(other.state_dict())
    with pytest.raises(ValueError, match=rf"^weighting\.options\.{option}: "):
        inside(weighting).load_state_dict(inside(other).state_dict())
    assert same_state(weighting.state_dict(), before)


def needed(name, option, value):
    options = {"fixed": {"weights": [1.0, 2.0, 3.0]}, "pareto_mtl": {"index": 0}}.get(name, {})
    if name == "pareto_mtl":
        options["preferences"] = torch.eye(3) + 0.1
    return {**options, option: value}


def test_every_option_is_refused_by_some_line_above():
    tried = {(name, option) for name, option, _, _ in OTHER}
    options = {(name, option) for name in NAMES for option in make(name, 3).options}
    assert tried == options


@every_rule
def test_options_given_again_are_the_same_options(name):
    """Also in another number type, and in double precision by default."""
    weighting = make_weighting(name, 3, **make_options(name)).float()
    torch.set_default_dtype(torch.float64)
    try:
        again = make_weighting(name, 3, **make_options(name))
    finally:
        torch.set_default_dtype(torch.float32)
    again.load_state_dict(weighting.state_dict())
    for option, value in weighting.options.items():
        assert not state.differ(state.encode(value), weighting.state_dict()[f"options.{option}"])


def make_options(name):
    uneven = [0.1, 0.7, 1.3]
    return {
        "fixed": {"weights": uneven},
        "dtp": {"gamma": uneven},
        "stch": {"preference": uneven, "ideal": [-0.1, 0.0, 0.2]},
        "pbi": {"preference": uneven, "ideal": [-0.1, 0.0, 0.2]},
        "cosmos": {"preference": uneven},
        "famo": {"lower": [-0.1, 0.0, 0.2]},
        "pareto_mtl": {"preferences": [uneven, [1.0, 1.0, 1.0]], "index": 1},
    }.get(name, {})


def test_a_subclass_with_options_of_its_own():
    class Mine(weighting_class("gradnorm")):
        def __init__(self, n_tasks, gentle=True):
            super().__init__(n_tasks)
            self.gentle = gentle

    assert Mine(2).state_dict()["options.gentle"] == 1
    with pytest.raises(ValueError, match=r"^options.gentle: the state has 1, this gradnorm has 0"):
        Mine(2, gentle=False).load_state_dict(Mine(2).state_dict())


def test_a_distributed_checkpoint_of_other_options_is_refused(tmp_path):
    """It is read into the tensors of the fresh rule's state, so these must not be its options."""
    dcp.save({"weighting": trained("gradnorm", alpha=0.12).state_dict()}, checkpoint_id=tmp_path)
    fresh = make("gradnorm", 3)
    into = {"weighting": fresh.state_dict()}
    dcp.load(into, checkpoint_id=tmp_path)
    with pytest.raises(ValueError, match=r"^options.alpha: the state has 0.12, .* has 1.5"):
        fresh.load_state_dict(into["weighting"])


# ---- moved to other number types -----------------------------------------------------------------


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
@every_rule
def test_no_number_falls_below_single_precision(name, half):
    for weighting in (make(name, 3), make(name, 3).float()):
        before = dict(copy.deepcopy(weighting.state_dict()))
        for move in (lambda m: m.to(half), lambda m: m.to("cpu", half)):
            model = move(inside(weighting))
            assert model["net"].weight.dtype == half
            assert same_state(weighting.state_dict(), before)
    assert all(b.dtype == torch.float64 for b in make(name, 3).double().parameters())


@pytest.mark.parametrize("name", ["uncertainty", "liebel", "imtl_l"])
def test_learned_weights_of_a_model_in_bfloat16_reach_their_optimum(name):
    weighting = make_weighting(name, 2)
    model = inside(weighting).to(torch.bfloat16)
    (own,) = weighting.parameters()
    optimizer = torch.optim.SGD(weighting.parameters(), lr=0.1)
    level = torch.tensor([math.exp(-3), 2.0]).to(torch.bfloat16)
    for _ in range(3000):
        optimizer.zero_grad()
        model["weighting"].backward(level.clone().requires_grad_())
        optimizer.step()
    level = level.float()
    best = {
        "uncertainty": level.log(),
        "imtl_l": -level.log(),
        "liebel": ((level + (level**2 + 8 * level).sqrt()) / 4).sqrt(),
    }[name]
    torch.testing.assert_close(own.detach(), best, rtol=0, atol=1e-3)


# ---- inside a module -----------------------------------------------------------------------------


def test_a_weighting_lives_inside_a_module():
    outer = inside(make_weighting("uncertainty", 2))
    assert "weighting.log_vars" in dict(outer.named_parameters())
    step(outer["weighting"].double(), [1.0, 2.0])
    other = copy.deepcopy(outer)
    other.load_state_dict(outer.state_dict())
    assert torch.equal(other["weighting"].weights, outer["weighting"].weights)
