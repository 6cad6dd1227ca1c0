"""The training loop: its history, its checkpoints, and what it hands to the weighting."""

import copy
import math
from collections import UserDict

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from mtl_utils import training
from mtl_utils.models import HardSharing, SeparateModels, flat_parameters, mlp
from mtl_utils.training import accuracy, batches, train
from mtl_utils.weighting import make_weighting
from tests.rules import HalfSum, same_state


@pytest.fixture(autouse=True)
def _float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def make_data(n=23):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 3, generator=generator)
    return x, x.sum(1, keepdim=True), x[:, :1] - 2


def losses(model, x, *targets):
    return torch.stack([(y - t).square().mean() for y, t in zip(model(x), targets, strict=True)])


def forked_losses(model, x, *targets):
    outputs, features = model.forked(x)
    each = zip(outputs, targets, strict=True)
    return torch.stack([(y - t).square().mean() for y, t in each]), features


class Setting:
    """Everything that moves in a training: dropout, momentum, a scheduler, a shuffling loader."""

    def __init__(self, rule="uncertainty", shuffle=True, dropout=0.3, seed=0):
        torch.manual_seed(seed)
        trunk = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(dropout))
        self.model = HardSharing(trunk, [nn.Linear(8, 1) for _ in range(2)])
        options = {"generator": torch.Generator().manual_seed(1)} if rule == "random" else {}
        self.weighting = HalfSum(2) if rule == "half_sum" else make_weighting(rule, 2, **options)
        parameters = [*self.model.parameters(), *self.weighting.parameters()]
        self.optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9)
        self.scheduler = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.9)
        generator = torch.Generator().manual_seed(2) if shuffle else None
        self.loader = batches(make_data(), 5, generator)

    def train(self, epochs, losses=losses, **options):
        options = {"scheduler": self.scheduler, "progress": False, **options}
        return train(
            self.model, losses, self.loader, self.weighting, self.optimizer, epochs, **options
        )

    def state(self):
        return {
            "model": self.model.state_dict(),
            "weighting": self.weighting.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
        }


# ---- batches ------------------------------------------------------------------------------------


def test_batches_in_order_cover_every_row_once():
    data = make_data(7)
    found = list(batches(data, 3))
    assert [len(x) for x, _, _ in found] == [3, 3, 1]
    for column, tensor in zip(zip(*found, strict=True), data, strict=True):
        assert torch.equal(torch.cat(column), tensor)
    assert [len(x) for x, _, _ in batches(data, 3, drop_last=True)] == [3, 3]


def test_batches_shuffled_anew_each_epoch_rows_kept_together():
    x = torch.arange(20.0)
    loader = batches((x, 10 * x), 6, torch.Generator().manual_seed(0))
    epochs = [torch.cat([a for a, b in loader if torch.equal(10 * a, b)]) for _ in range(2)]
    assert all(torch.equal(order.sort().values, x) for order in epochs)
    assert not torch.equal(epochs[0], epochs[1]) and not torch.equal(epochs[0], x)
    again = batches((x, 10 * x), 6, torch.Generator().manual_seed(0))
    assert torch.equal(torch.cat([a for a, _ in again]), epochs[0])


# ---- history ------------------------------------------------------------------------------------


def test_history_by_hand_with_a_smaller_last_batch():
    setting = Setting("uncertainty", shuffle=False, dropout=0.0)
    model, weighting = copy.deepcopy((setting.model, setting.weighting))
    optimizer = torch.optim.SGD([*model.parameters(), *weighting.parameters()], 0.01, momentum=0.9)
    x, *targets = make_data()
    wanted = []
    for epoch in range(2):
        sums, weights = np.zeros(2), []
        for rows in torch.arange(23).split(5):
            found = losses(model, x[rows], *(t[rows] for t in targets))
            optimizer.zero_grad()
            objective = 0.5 * torch.exp(-weighting.log_vars) * found + 0.5 * weighting.log_vars
            weights.append(0.5 * torch.exp(-weighting.log_vars.detach()).numpy())
            objective.sum().backward()
            optimizer.step()
            sums += found.detach().numpy() * len(rows)
        optimizer.param_groups[0]["lr"] *= 0.9
        for k, task in enumerate(["sum", "first"]):
            wanted.append((epoch + 1, task, sums[k] / 23, np.mean(weights, 0)[k]))
    history = setting.train(2, tasks=["sum", "first"])
    wanted = pd.DataFrame(wanted, columns=["epoch", "task", "loss", "weight"])
    pd.testing.assert_frame_equal(history, wanted, rtol=1e-10)
    torch.testing.assert_close(
        flat_parameters(setting.model), flat_parameters(model), rtol=1e-10, atol=1e-12
    )
    torch.testing.assert_close(setting.weighting.log_vars, weighting.log_vars)


class AsMappings:
    """A loader whose batches are mappings, as those of many data sets."""

    generator = None

    def __init__(self, loader, kind):
        self.loader, self.kind = loader, kind

    def __iter__(self):
        names = ("x", "first", "second")
        return (self.kind(zip(names, batch, strict=True)) for batch in self.loader)


@pytest.mark.parametrize("kind", [dict, UserDict])
def test_batches_that_are_mappings_are_handed_over_whole(kind):
    histories = []
    for mapped in (False, True):
        setting, seen = Setting("dtp", shuffle=False, dropout=0.0), []
        if mapped:
            setting.loader = AsMappings(setting.loader, kind)

        def of(model, *batch, mapped=mapped, seen=seen):
            if mapped:
                (batch,) = batch
                assert isinstance(batch, kind)
                batch = batch["x"], batch["first"], batch["second"]
            return losses(model, *batch)

        def observe(model, *batch, of=of, seen=seen):
            seen.append(len(batch))
            return {"kpis": of(model, *batch).clamp(0.1, 1)}

        histories.append(setting.train(2, of, observe=observe))
        assert set(seen) == ({1} if mapped else {3})
    pd.testing.assert_frame_equal(*histories)


def test_a_checkpoint_of_other_options_is_refused_before_anything_changed(tmp_path):
    first = Setting("dwa")
    first.train(1, checkpoint=tmp_path / "run.pt")
    other = Setting("dwa", seed=5)
    other.weighting = make_weighting("dwa", 2, temperature=0.5)
    before = copy.deepcopy(other.state())
    with pytest.raises(ValueError, match=r"^options.temperature: the state has 2, .* 0.5"):
        other.train(2, checkpoint=tmp_path / "run.pt")
    assert same_state(other.state(), before)


def test_default_names_and_no_epochs():
    history = Setting().train(1)
    assert history["task"].tolist() == ["task 0", "task 1"]
    assert Setting().train(0).empty


def test_tasks_of_the_wrong_number():
    with pytest.raises(ValueError, match="tasks: expected 2 names, got 3"):
        Setting().train(1, tasks=["a", "b", "c"])


def test_evaluate_in_evaluation_mode_without_gradients():
    setting, modes = Setting(), []

    def evaluate(model):
        modes.append((model.training, torch.is_grad_enabled()))
        return {"rmse": losses(model, *make_data()).sqrt(), "rank": [1, 2]}

    history = setting.train(3, evaluate=evaluate)
    assert list(history) == ["epoch", "task", "loss", "weight", "rmse", "rank"]
    assert history["rank"].tolist() == [1, 2] * 3
    assert modes == [(False, False)] * 3 and setting.model.training
    setting.model.eval()
    final = losses(setting.model, *make_data()).sqrt().tolist()
    assert history["rmse"].tolist()[-2:] == pytest.approx(final, rel=1e-12)


def test_scheduler_steps_once_an_epoch():
    setting = Setting()
    setting.train(4)
    assert setting.optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * 0.9**4)


def test_epoch_losses_are_observed():
    setting, seen = Setting("equal"), []
    setting.weighting.observe = lambda **quantities: seen.append(quantities)
    history = setting.train(3)
    assert [list(q) for q in seen] == [["train_losses"]] * 3
    for epoch, quantities in enumerate(seen, start=1):
        assert quantities["train_losses"].tolist() == (
            history.loc[history["epoch"] == epoch, "loss"].tolist()
        )


def test_dwa_trains_and_weighs_from_the_third_epoch():
    setting = Setting("dwa", dropout=0.0)
    table = setting.train(4).pivot(index="epoch", columns="task", values=["loss", "weight"])
    weights, epoch_losses = table["weight"].to_numpy(), table["loss"].to_numpy()
    assert weights[:2].tolist() == [[1, 1], [1, 1]]
    for epoch in (2, 3):
        ratio = np.exp(epoch_losses[epoch - 1] / epoch_losses[epoch - 2] / 2)
        assert weights[epoch] == pytest.approx(2 * ratio / ratio.sum(), rel=1e-10)


def test_observe_is_called_before_each_step_without_gradients():
    setting, seen, calls = Setting("dtp", dropout=0.0), [], []
    setting.weighting.observe = lambda **quantities: seen.append(quantities)
    setting.weighting.weights_now = lambda: torch.ones(2)

    def observe(model, x, *targets):
        calls.append((len(x), len(targets), torch.is_grad_enabled(), model.training))
        return {"kpis": [0.25, 0.75]}

    setting.train(1, observe=observe)
    assert calls == [(5, 2, False, False)] * 4 + [(3, 2, False, False)]
    assert seen[:-1] == [{"kpis": [0.25, 0.75]}] * 5 and list(seen[-1]) == ["train_losses"]


def test_rules_that_observe_train_through_the_loop():
    kpis = Setting("dtp").train(2, observe=lambda *_: {"kpis": [0.5, 0.9]})
    assert kpis["weight"].tolist() == pytest.approx(
        [-((1 - p) ** 2) * math.log(p) for p in (0.5, 0.9)] * 2, rel=1e-10
    )
    with pytest.raises(RuntimeError, match="kpis: dtp has observed none"):
        Setting("dtp").train(1)


def test_losses_after_the_step_are_those_of_the_same_batch():
    setting, seen = Setting("famo", dropout=0.0), []
    original = setting.weighting.observe
    setting.weighting.observe = lambda **quantities: (
        seen.append(quantities) or original(**quantities)
    )
    setting.loader = [make_data()]  # one batch, so that the next step begins where this one ended
    first_losses = []

    def spied(model, *batch):
        found = losses(model, *batch)
        if torch.is_grad_enabled():
            first_losses.append(found.detach())
        return found

    setting.train(3, losses=spied)
    after = [q["losses_after_step"] for q in seen if "losses_after_step" in q]
    assert len(after) == 3 and torch.equal(torch.stack(after[:2]), torch.stack(first_losses[1:]))


def test_an_empty_loader_is_refused():
    setting = Setting()
    setting.loader = batches(make_data(4), 5, drop_last=True)
    with pytest.raises(ValueError, match="loader: expected at least one batch an epoch, got none"):
        setting.train(1)


# ---- what the weighting gets --------------------------------------------------------------------


def test_rule_on_gradients_gets_the_trunk_and_the_forked_features():
    plain, forked = Setting("half_sum", dropout=0.0), Setting("half_sum", dropout=0.0)
    calls = []
    original = forked.weighting.backward

    def spy(found, shared=None, features=None, **others):
        calls.append((list(shared), features))
        return original(found, shared=shared, features=features, **others)

    forked.weighting.backward = spy
    a, b = plain.train(2), forked.train(2, losses=forked_losses)
    pd.testing.assert_frame_equal(a, b, rtol=1e-10)
    torch.testing.assert_close(flat_parameters(plain.model), flat_parameters(forked.model))
    shared, features = calls[0]
    assert [id(p) for p in shared] == [id(p) for p in forked.model.trunk.parameters()]
    assert len(features) == 2 and features[0].shape == (5, 8)


def test_shared_can_be_chosen():
    setting, calls = Setting("equal"), []
    original = setting.weighting.backward
    setting.weighting.backward = lambda found, shared=None, **others: (
        calls.append(shared) or original(found)
    )
    chosen = [setting.model.trunk[0].weight]
    setting.train(1, shared=chosen)
    assert calls[0] is chosen


def test_separate_models_have_no_trunk():
    torch.manual_seed(0)
    model = SeparateModels([mlp(3, 4, 1) for _ in range(2)])
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    arguments = (model, losses, batches(make_data(), 5), make_weighting("equal", 2), optimizer)
    history = train(*arguments, epochs=5, progress=False)
    first, last = history.query("epoch == 1")["loss"], history.query("epoch == 5")["loss"]
    assert (last.to_numpy() < first.to_numpy()).all()
    with pytest.raises(ValueError, match="shared: half_sum needs the shared parameters"):
        train(*arguments[:3], HalfSum(2), optimizer, epochs=1, progress=False)


@pytest.mark.parametrize("frozen", [True, False])
def test_rules_on_losses_need_no_trunk_that_learns(frozen):
    trunk = nn.Linear(3, 3).requires_grad_(False) if frozen else nn.Flatten()
    model = HardSharing(trunk, [nn.Linear(3, 1) for _ in range(2)])
    optimizer = torch.optim.SGD(model.heads.parameters(), 0.01)
    loader, weighting = batches(make_data(), 5), make_weighting("equal", 2)
    assert len(train(model, losses, loader, weighting, optimizer, 2, progress=False)) == 4


def test_training_learns_and_is_deterministic():
    histories = [Setting().train(8) for _ in range(2)]
    pd.testing.assert_frame_equal(*histories, check_exact=True)
    table = histories[0].pivot(index="epoch", columns="task", values="loss")
    assert (table.loc[8] < table.loc[1]).all()
    assert not Setting(seed=1).train(8).equals(histories[0])


# ---- checkpoints --------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["equal", "random", "uncertainty", "half_sum"])
@pytest.mark.parametrize("shuffle", [True, False])
def test_resume_is_exact(tmp_path, rule, shuffle):
    file = tmp_path / "folder" / "run.pt"
    whole = Setting(rule, shuffle)
    full = whole.train(6)
    rng = torch.get_rng_state()
    Setting(rule, shuffle).train(3, checkpoint=file)
    torch.manual_seed(999)  # another process
    resumed = Setting(rule, shuffle, seed=77)
    resumed.loader.generator and resumed.loader.generator.manual_seed(5)
    history = resumed.train(6, checkpoint=file)
    pd.testing.assert_frame_equal(history, full, check_exact=True)
    assert same_state(resumed.state(), whole.state())
    assert torch.equal(torch.get_rng_state(), rng)
    assert torch.equal(resumed.weighting.weights, whole.weighting.weights)


@pytest.mark.parametrize("rule", ["modo", "sdmgrad"])
def test_several_batches_make_a_step_and_a_rest_is_dropped(tmp_path, rule):
    """23 rows in batches of 5 are 5 batches: two steps of modo, one of sdmgrad; a resumed training
    knows nothing of the rest."""
    whole, made = Setting(rule), []
    whole.optimizer.register_step_post_hook(lambda *_: made.append(1))
    full = whole.train(4)
    assert len(made) == 4 * (5 // whole.weighting.batches) and not whole.weighting.waits
    weights = full.groupby("epoch")["weight"].sum()
    assert weights.tolist() == pytest.approx([1.0] * 4)
    Setting(rule).train(2, checkpoint=tmp_path / "run.pt")
    resumed = Setting(rule, seed=77)
    history = resumed.train(4, checkpoint=tmp_path / "run.pt")
    pd.testing.assert_frame_equal(history, full, check_exact=True)
    assert same_state(resumed.state(), whole.state())


def test_too_few_batches_for_a_step_are_refused():
    setting = Setting("sdmgrad")
    setting.loader = batches(make_data(), 20)
    with pytest.raises(ValueError, match=r"^loader: expected at least 3 batches .* of sdmgrad"):
        setting.train(1)


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.RMSprop])
def test_resume_with_a_loader_of_torch_that_shuffles(tmp_path, optimizer):
    """Without a generator of its own it draws from the global one."""

    def make(seed):
        setting = Setting(seed=seed)
        dataset = torch.utils.data.TensorDataset(*make_data())
        setting.loader = torch.utils.data.DataLoader(dataset, batch_size=5, shuffle=True)
        parameters = [*setting.model.parameters(), *setting.weighting.parameters()]
        setting.optimizer = optimizer(parameters, lr=0.01)
        setting.scheduler = torch.optim.lr_scheduler.StepLR(setting.optimizer, 2)
        return setting

    whole = make(0)
    full = whole.train(4)
    make(0).train(2, checkpoint=tmp_path / "run.pt")
    resumed = make(1)
    pd.testing.assert_frame_equal(
        resumed.train(4, checkpoint=str(tmp_path / "run.pt")), full, check_exact=True
    )
    assert same_state(resumed.state(), whole.state())


def test_resume_of_a_finished_training_changes_nothing(tmp_path):
    first = Setting()
    full = first.train(3, checkpoint=tmp_path / "run.pt")
    second = Setting(seed=5)
    again = second.train(3, checkpoint=tmp_path / "run.pt")
    pd.testing.assert_frame_equal(again, full, check_exact=True)
    assert same_state(first.state(), second.state())


@pytest.mark.parametrize("when", ["half written", "not replaced"])
def test_an_interrupted_write_leaves_the_old_checkpoint(tmp_path, monkeypatch, when):
    file = tmp_path / "run.pt"
    whole = Setting().train(4)
    Setting().train(2, checkpoint=file)
    before = file.read_bytes()

    def half(state, path):
        path.write_bytes(before[: len(before) // 2])
        raise OSError("disk full")

    def never(source, target):
        raise OSError("power cut")

    with monkeypatch.context() as patch:
        if when == "half written":
            patch.setattr(training.torch, "save", half)
        else:
            patch.setattr(training.os, "replace", never)
        with pytest.raises(OSError, match=r"disk full|power cut"):
            Setting().train(4, checkpoint=file)
    assert file.read_bytes() == before
    pd.testing.assert_frame_equal(Setting().train(4, checkpoint=file), whole, check_exact=True)
    assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]


def test_resume_refuses_another_training(tmp_path):
    file = tmp_path / "run.pt"
    Setting().train(1, checkpoint=file)
    with pytest.raises(ValueError, match=r"checkpoint: .*run.pt is of the tasks \['task 0', "):
        Setting().train(2, checkpoint=file, tasks=["a", "b"])
    with pytest.raises(ValueError, match=r"checkpoint: .* is of a training with a scheduler"):
        Setting().train(2, checkpoint=file, scheduler=None)
    with pytest.raises(ValueError, match=r"checkpoint: .* and this loader differ in shuffling"):
        Setting(shuffle=False).train(2, checkpoint=file)
    with pytest.raises(ValueError, match=r"state_dict: .* that of equal .* that of uncertainty"):
        Setting("equal").train(2, checkpoint=file)
    other = Setting()
    other.model.heads[0] = nn.Linear(9, 1)
    with pytest.raises(RuntimeError, match=r"heads.0.weight"):
        other.train(2, checkpoint=file)
    file.unlink()
    Setting().train(1, checkpoint=file, scheduler=None)
    with pytest.raises(ValueError, match=r"checkpoint: .* holds no scheduler"):
        Setting().train(2, checkpoint=file)


def test_checkpoint_is_safe_to_load(tmp_path):
    Setting("random").train(1, checkpoint=tmp_path / "run.pt")
    state = torch.load(tmp_path / "run.pt", weights_only=True)
    assert state["epoch"] == 1 and len(state["rows"]) == 2


def test_a_nan_stops_the_training_before_it_reaches_a_parameter():
    setting = Setting()

    def diverging(model, x, *targets):
        return losses(model, x, *targets) * torch.tensor([1.0, math.nan])

    before = flat_parameters(setting.model)
    with pytest.raises(ValueError, match="losses: expected finite values, got: task 1 is nan"):
        setting.train(1, losses=diverging)
    assert torch.equal(flat_parameters(setting.model), before)


def test_accuracy():
    logits = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0], [5.0, 4.0]])
    assert accuracy(logits, torch.tensor([1, 0, 0, 0])) == 0.75


def test_a_rule_whose_parameters_do_not_learn_is_refused():
    data = (torch.randn(8, 1), torch.randn(8, 1), torch.randn(8, 1))
    model = HardSharing(mlp(1, 4, last=True), [nn.Linear(4, 1) for _ in range(2)])
    weighting = make_weighting("uncertainty", n_tasks=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = lambda model, x, *ys: torch.stack(  # noqa: E731
        [((o - y) ** 2).mean() for o, y in zip(model(x), ys, strict=True)]
    )
    with pytest.raises(ValueError, match=r"optimizer: it does not hold 'log_vars' .*add weighting"):
        train(model, losses, batches(data, 4), weighting, optimizer, epochs=1, progress=False)


def test_observe_is_called_in_evaluation_mode_before_each_step():
    data = (torch.randn(8, 1), torch.randn(8, 1), torch.randn(8, 1))
    model = HardSharing(mlp(1, 4, last=True), [nn.Linear(4, 1) for _ in range(2)])
    weighting = make_weighting("dtp", n_tasks=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    modes = []

    def losses(model, x, *ys):
        modes.append(model.training)
        return torch.stack([((o - y) ** 2).mean() for o, y in zip(model(x), ys, strict=True)])

    def observe(model, *batch):
        modes.append(model.training)
        return {"kpis": [0.5, 0.9]}

    loader = batches(data, 4)
    train(model, losses, loader, weighting, optimizer, 1, observe=observe, progress=False)
    assert modes == [False, True, False, True]
    assert weighting.weights[0] > weighting.weights[1]


def sparse_losses(model, x, *targets, without=math.nan):
    """`without` for a task that has no labels in the batch."""
    outputs = model(x)
    there = [~t.isnan() for t in targets]
    each = zip(outputs, targets, there, strict=True)
    return torch.stack(
        [(y - t)[m].square().mean() if m.any() else 0 * y.sum() + without for y, t, m in each]
    )


def labelled(x, *targets):
    return [not bool(t.isnan().all()) for t in targets]


@pytest.mark.parametrize("as_mapping", [False, True])
@pytest.mark.parametrize("rule", ["uncertainty", "mgda", "famo", "dwa"])
def test_absent_tasks_as_a_loop_by_hand(rule, as_mapping):
    """Task 1 has labels in the first two batches of three."""
    x, first, second = make_data(15)
    second[10:] = torch.nan
    setting, other = Setting(rule, False, 0.0), Setting(rule, False, 0.0)
    setting.loader = batches((x, first, second), 5)

    def function(model, *batch):
        batch = batch[0].values() if as_mapping else batch
        return sparse_losses(model, *batch, without=math.inf if as_mapping else math.nan)

    def present(*batch):
        return labelled(*(batch[0].values() if as_mapping else batch))

    if as_mapping:
        setting.loader = AsMappings(setting.loader, dict)
    history = setting.train(3, function, present=present)
    rows = []
    for _ in range(3):
        seen, weights = [[], []], [[], []]
        for batch in batches((x, first, second), 5):
            here, values = labelled(*batch), sparse_losses(other.model, *batch)
            other.optimizer.zero_grad()
            w = other.weighting.backward(
                values, shared=other.model.trunk.parameters(), present=here
            )
            other.optimizer.step()
            if rule == "famo":
                after = sparse_losses(other.model, *batch).detach()
                other.weighting.observe(losses_after_step=after)
            for k in (0, 1):
                if here[k]:
                    seen[k].append(values[k].item())
                    weights[k].append(w[k].item())
        rows += [[np.mean(s), np.mean(w)] for s, w in zip(seen, weights, strict=True)]
        other.weighting.observe(train_losses=[np.mean(s) for s in seen])
        other.scheduler.step()
    np.testing.assert_allclose(history[["loss", "weight"]], rows, rtol=1e-12)
    torch.testing.assert_close(flat_parameters(setting.model), flat_parameters(other.model))


def test_a_task_that_is_absent_from_a_whole_epoch_has_no_mean():
    setting = Setting("equal")
    history = setting.train(1, present=lambda *batch: [True, False])
    assert not history["loss"][:1].isna().any() and history["loss"][1:].isna().all()
    assert history["weight"][0] == 1 and math.isnan(history["weight"][1])
    assert setting.model.heads[1].weight.grad is None


def test_present_of_the_wrong_kind_is_refused():
    with pytest.raises(ValueError, match="present: expected K = 2 booleans"):
        Setting("equal").train(1, present=lambda *batch: [True])
