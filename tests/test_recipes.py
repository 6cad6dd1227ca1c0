"""The recipes of notebook 16 that it does not run itself. The code for Lightning, Trainer and
Accelerate is taken from the page, and gives the network that the plain loop gives."""

import re
import shutil
from pathlib import Path

import lightning
import nbformat
import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch._functorch import config
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, TensorDataset
from transformers import TrainingArguments

from mtl_utils import make_weighting

PAGE = Path(__file__).resolve().parents[1] / "notebooks" / "16_your_own_model.ipynb"
NAMES = ("x", "temperature", "sky", "wind")
STEPS, ROWS = 6, 8


@pytest.fixture(scope="module")
def page():
    return nbformat.read(PAGE, as_version=4)


@pytest.fixture
def names(page):
    """What the notebook has defined when a recipe begins."""
    names = {"torch": torch, "nn": nn, "functional": functional, "make_weighting": make_weighting}
    for beginning in ("class Net(", "def losses_of("):
        (source,) = (c.source for c in page.cells if c.source.startswith(beginning))
        exec(source, names)
    return names


def recipe(page, names, library):
    """Run the block of code on the page that imports a library."""
    texts = [cell.source for cell in page.cells if cell.cell_type == "markdown"]
    blocks = re.findall(r"^```python\n(.*?)^```$", "\n".join(texts), re.DOTALL | re.MULTILINE)
    (block,) = (b for b in blocks if re.match(rf"(import|from) {library}\b", b))
    exec(block, names)


def rows():
    own = torch.Generator().manual_seed(0)
    x, y = torch.randn(STEPS * ROWS, 8, generator=own), torch.randn(STEPS * ROWS, generator=own)
    return x, y, torch.randint(3, (STEPS * ROWS,), generator=own), 2 * y


def loader():
    return DataLoader(TensorDataset(*rows()), batch_size=ROWS)


def build(names, rule, lr=0.01):
    torch.manual_seed(0)
    net, weighting = names["Net"](), make_weighting(rule, n_tasks=3)
    optimizer = torch.optim.Adam([*net.parameters(), *weighting.parameters()], lr=lr)
    return net, weighting, optimizer


def in_a_plain_loop(names, rule):
    """Parameters of network and rule."""
    net, weighting, optimizer = build(names, rule)
    for batch in loader():
        optimizer.zero_grad()
        weighting.backward(names["losses_of"](net, *batch), shared=net.trunk.parameters())
        optimizer.step()
    return flat(net, weighting)


def flat(*modules):
    """All their numbers that a step changes: parameters, and what a rule remembers."""
    states = [t for module in modules for t in [*module.parameters(), *module.buffers()]]
    return torch.cat([t.detach().flatten() for t in states]).nan_to_num(7)


# ---- Lightning -----------------------------------------------------------------------------------


@pytest.fixture
def station(page, names):
    recipe(page, names, "lightning")
    torch.manual_seed(0)
    return names["Station"]()


def fit(station, folder):
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(station, loader())
    return trainer


@pytest.mark.filterwarnings("ignore")
def test_lightning(station, names, tmp_path):
    fit(station, tmp_path)
    expected = in_a_plain_loop(names, "gradnorm")
    assert torch.equal(flat(station.net, station.weighting), expected)


@pytest.mark.filterwarnings("ignore")
def test_a_checkpoint_of_lightning_holds_the_rule(station, names, tmp_path):
    trainer = fit(station, tmp_path)
    trainer.save_checkpoint(tmp_path / "saved.ckpt")
    saved = torch.load(tmp_path / "saved.ckpt", weights_only=True)["state_dict"]
    other = names["Station"]()
    other.load_state_dict(saved)
    assert torch.equal(other.weighting.weights, station.weighting.weights)
    assert torch.equal(other.weighting.w, station.weighting.w)


# ---- Trainer -------------------------------------------------------------------------------------


class Rows(Dataset):
    def __init__(self):
        self.columns = rows()

    def __len__(self):
        return len(self.columns[0])

    def __getitem__(self, i):
        return {name: column[i] for name, column in zip(NAMES, self.columns, strict=True)}


def trainer_of(names, folder, **options):
    torch.manual_seed(0)
    model = names["Station"]()
    arguments = {"per_device_train_batch_size": ROWS, "num_train_epochs": 1, "learning_rate": 0.01}
    arguments |= {"lr_scheduler_type": "constant", "max_grad_norm": 0, "use_cpu": True}
    arguments |= {"save_strategy": "no", "report_to": "none", "disable_tqdm": True}
    arguments |= options
    trainer = names["MultiTaskTrainer"](
        model, TrainingArguments(str(folder), **arguments), train_dataset=Rows()
    )
    trainer._get_train_sampler = lambda *_: torch.utils.data.SequentialSampler(Rows())
    return trainer


@pytest.mark.filterwarnings("ignore")
def test_trainer(page, names, tmp_path):
    recipe(page, names, "transformers")
    trainer = trainer_of(names, tmp_path)
    trainer.train()
    torch.testing.assert_close(
        flat(trainer.model.net, trainer.model.weighting), in_a_plain_loop(names, "uncertainty")
    )


@pytest.mark.filterwarnings("ignore")
def test_trainer_with_micro_batches(page, names, tmp_path):
    """Two half batches as one, where both sides are told."""
    recipe(page, names, "transformers")
    options = {"per_device_train_batch_size": ROWS // 2, "gradient_accumulation_steps": 2}
    trainer = trainer_of(names, tmp_path, **options)
    trainer.model.weighting.use(accumulate=2)
    trainer.train()
    torch.testing.assert_close(
        flat(trainer.model.net, trainer.model.weighting), in_a_plain_loop(names, "uncertainty")
    )


@pytest.mark.filterwarnings("ignore")
def test_a_checkpoint_of_trainer_holds_the_rule(page, names, tmp_path):
    recipe(page, names, "transformers")
    whole = trainer_of(names, tmp_path / "whole", num_train_epochs=2)
    whole.train()
    trainer_of(names, tmp_path / "half", save_strategy="epoch").train()
    half = trainer_of(names, tmp_path / "half", num_train_epochs=2)
    half.train(resume_from_checkpoint=True)
    torch.testing.assert_close(
        flat(half.model.net, half.model.weighting), flat(whole.model.net, whole.model.weighting)
    )


@pytest.mark.filterwarnings("ignore")
def test_trainer_clips_the_weighting_too_unless_told_not_to(page, names, tmp_path):
    recipe(page, names, "transformers")
    results = []
    for norm in (0, 1e-6):
        trainer = trainer_of(names, tmp_path, max_grad_norm=norm, optim="sgd", max_steps=1)
        trainer.train()
        results.append(trainer.model.weighting.log_vars.detach().abs().max())
    assert results[0] > 1e-3 and results[1] < 1e-7


# ---- Accelerate ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["uncertainty", "gradnorm", "mgda"])
def test_accelerate(page, names, tmp_path, rule):
    recipe(page, names, "accelerate")
    net, weighting, optimizer = build(names, rule)
    accelerator = Accelerator(cpu=True)
    names["train_with"](accelerator, net, weighting, optimizer, loader())
    assert torch.equal(flat(net, weighting), in_a_plain_loop(names, rule))
    accelerator.save_state(str(tmp_path))
    other = build(names, rule)
    accelerator = Accelerator(cpu=True)
    accelerator.prepare(other[0], other[2])
    accelerator.register_for_checkpointing(other[1])
    accelerator.load_state(str(tmp_path))
    assert torch.equal(flat(*other[:2]), flat(net, weighting))


# ---- torch.compile with the default backend ------------------------------------------------------

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++", "cl"))), reason="there is no C++ compiler"
)


@needs_compiler
@pytest.mark.parametrize("rule", ["log", "mgda"])
@pytest.mark.parametrize("donated", [True, False])
def test_compiled_trunk(names, rule, donated):
    """As without compiling, with the line of the page; without it, rules on gradients refuse."""
    net, weighting, _ = build(names, rule)
    batch = [column[:ROWS] for column in rows()]
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
