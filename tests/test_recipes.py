"""The recipes of notebook 16 that it does not run itself. The code for Lightning, Trainer and
Accelerate is taken from the page, and gives the network that the plain loop gives."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch._functorch import config

from tests import recipes
from tests.frameworks import FRAMEWORKS, RULES
from tests.recipes import ROWS, flat

ROOT = Path(__file__).resolve().parents[1]
# what the frameworks say about their own future
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def names():
    return recipes.names()


# ---- Lightning -----------------------------------------------------------------------------------


@pytest.fixture
def fitted(names, tmp_path):
    """The module of the recipe after the training, and its trainer."""
    recipes.run("lightning", names)
    station = recipes.station(names, "gradnorm")
    trainer = recipes.lightning_trainer(tmp_path)
    trainer.fit(station, recipes.loader())
    return station, trainer


def test_lightning(fitted):
    station, _ = fitted
    assert torch.equal(flat(station.net, station.weighting), recipes.in_a_plain_loop("gradnorm"))


def test_a_checkpoint_of_lightning_holds_the_rule(fitted, names, tmp_path):
    station, trainer = fitted
    trainer.save_checkpoint(tmp_path / "saved.ckpt")
    saved = torch.load(tmp_path / "saved.ckpt", weights_only=True)["state_dict"]
    other = names["Station"]()
    other.load_state_dict(saved)
    assert torch.equal(other.weighting.weights, station.weighting.weights)
    assert torch.equal(other.weighting.w, station.weighting.w)


# ---- Trainer -------------------------------------------------------------------------------------


@pytest.fixture
def trainer_of(names, tmp_path):
    recipes.run("transformers", names)

    def make(folder="trainer", **options):
        folder = tmp_path / folder
        return recipes.hugging_face_trainer(names, "uncertainty", folder, **options)

    return make


def after(trainer):
    return flat(trainer.model.net, trainer.model.weighting)


def test_trainer(trainer_of):
    trainer = trainer_of()
    trainer.train()
    torch.testing.assert_close(after(trainer), recipes.in_a_plain_loop("uncertainty"))


def test_trainer_with_micro_batches(trainer_of):
    """Two half batches as one, where both sides are told."""
    trainer = trainer_of(per_device_train_batch_size=ROWS // 2, gradient_accumulation_steps=2)
    trainer.model.weighting.use(accumulate=2)
    trainer.train()
    torch.testing.assert_close(after(trainer), recipes.in_a_plain_loop("uncertainty"))


def test_a_checkpoint_of_trainer_holds_the_rule(trainer_of):
    whole = trainer_of("whole", num_train_epochs=2)
    whole.train()
    trainer_of("half", save_strategy="epoch").train()
    half = trainer_of("half", num_train_epochs=2)
    half.train(resume_from_checkpoint=True)
    torch.testing.assert_close(after(half), after(whole))


def test_trainer_clips_the_weighting_too_unless_told_not_to(trainer_of):
    moved = []
    for norm in (0, 1e-6):
        trainer = trainer_of(max_grad_norm=norm, optim="sgd", max_steps=1)
        trainer.train()
        moved.append(trainer.model.weighting.log_vars.detach().abs().max())
    assert moved[0] > 1e-3 and moved[1] < 1e-7


# ---- Accelerate ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
def test_accelerate(names, tmp_path, rule):
    recipes.run("accelerate", names)
    net, weighting, optimizer = recipes.build(names, rule)
    accelerator = Accelerator(cpu=True)
    names["train_with"](accelerator, net, weighting, optimizer, recipes.loader())
    assert torch.equal(flat(net, weighting), recipes.in_a_plain_loop(rule))
    accelerator.save_state(str(tmp_path))
    other = recipes.build(names, rule)
    accelerator = Accelerator(cpu=True)
    accelerator.prepare(other[0], other[2])
    accelerator.register_for_checkpointing(other[1])
    accelerator.load_state(str(tmp_path))
    assert torch.equal(flat(*other[:2]), flat(net, weighting))


# ---- all three on two processes ------------------------------------------------------------------


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What each of two processes has after the training, by framework and rule."""
    out = tmp_path_factory.mktemp("frameworks") / "out"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    together = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "recipes"}
    together |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    runs = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.frameworks", str(out)],
            cwd=ROOT,
            env={**os.environ, **together, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for run in runs:
            _, error = run.communicate(timeout=300)
            assert run.returncode == 0, error
    finally:
        for run in runs:
            run.kill()
    return [torch.load(f"{out}.{rank}") for rank in range(2)]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_two_processes_are_as_one(two, framework, rule):
    first, second = (found[framework, rule] for found in two)
    assert isinstance(first, torch.Tensor), first
    assert isinstance(second, torch.Tensor), second
    torch.testing.assert_close(first, second, rtol=0, atol=1e-6)
    torch.testing.assert_close(first, recipes.in_a_plain_loop(rule), rtol=1e-4, atol=1e-5)


# ---- torch.compile with the default backend ------------------------------------------------------

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++", "cl"))), reason="there is no C++ compiler"
)


@needs_compiler
@pytest.mark.parametrize("rule", ["log", "mgda"])
@pytest.mark.parametrize("donated", [True, False])
def test_compiled_trunk(names, rule, donated):
    """As without compiling, with the line of the page; without it, rules on gradients refuse."""
    net, weighting, _ = recipes.build(names, rule)
    batch = [column[:ROWS] for column in recipes.rows()]
    weighting.backward(names["losses_of"](net, *batch), shared=net.trunk.parameters())
    expected = [p.grad for p in net.parameters()]
    net.zero_grad()
    torch.compiler.reset()
    with config.patch(donated_buffer=donated):
        net.trunk = torch.compile(net.trunk)
        losses = names["losses_of"](net, *batch)
        if donated and rule == "mgda":
            with pytest.raises(ValueError, match=r"set torch._functorch.config.donated_buffer"):
                weighting.backward(losses, shared=net.trunk.parameters())
            return
        weighting.backward(losses, shared=net.trunk.parameters())
    for p, wanted in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, wanted)
