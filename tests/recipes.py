"""The recipes of notebook 16 that it does not run itself: the code for Lightning, Trainer and
Accelerate is taken from the page. What tests/test_recipes.py and tests/frameworks.py share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import lightning
import nbformat
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, SequentialSampler, TensorDataset
from transformers import TrainingArguments

from mtl_utils import make_weighting

PAGE = Path(__file__).resolve().parents[1] / "notebooks" / "16_your_own_model.ipynb"
COLUMNS = ("x", "temperature", "sky", "wind")
STEPS, ROWS = 6, 8


# ---- the page ------------------------------------------------------------------------------------


def names() -> dict[str, Any]:
    """What the notebook has defined when a recipe begins."""
    found = {"torch": torch, "nn": nn, "functional": functional, "make_weighting": make_weighting}
    cells = nbformat.read(PAGE, as_version=4).cells
    for beginning in ("class Net(", "def losses_of("):
        (source,) = (c.source for c in cells if c.source.startswith(beginning))
        exec(source, found)
    return found


def run(library: str, names: dict[str, Any]) -> None:
    """Run the block of code on the page that imports a library."""
    cells = nbformat.read(PAGE, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    (block,) = (b for b in blocks if re.match(rf"(import|from) {library}\b", b))
    exec(block, names)


# ---- the training --------------------------------------------------------------------------------


def rows() -> tuple[Tensor, ...]:
    """All rows of the training, in the order of its batches."""
    own = torch.Generator().manual_seed(0)
    x, y = torch.randn(STEPS * ROWS, 8, generator=own), torch.randn(STEPS * ROWS, generator=own)
    return x, y, torch.randint(3, (STEPS * ROWS,), generator=own), 2 * y


def loader(batch_size: int = ROWS) -> DataLoader:
    return DataLoader(TensorDataset(*rows()), batch_size)


def build(
    names: dict[str, Any], rule: str, lr: float = 0.01
) -> tuple[Any, Any, torch.optim.Optimizer]:
    """The same network each time, a rule, and an optimiser for both."""
    torch.manual_seed(0)
    net, weighting = names["Net"](), make_weighting(rule, n_tasks=3)
    optimizer = torch.optim.Adam([*net.parameters(), *weighting.parameters()], lr=lr)
    return net, weighting, optimizer


def in_a_plain_loop(rule: str) -> Tensor:
    """Network and rule after the training, without a framework."""
    known = names()
    net, weighting, optimizer = build(known, rule)
    for batch in loader():
        optimizer.zero_grad()
        weighting.backward(known["losses_of"](net, *batch), shared=net.trunk.parameters())
        optimizer.step()
    return flat(net, weighting)


def flat(*modules: nn.Module) -> Tensor:
    """All their numbers that a step changes: parameters, and what a rule remembers."""
    states = [t for module in modules for t in [*module.parameters(), *module.buffers()]]
    return torch.cat([t.detach().flatten() for t in states]).nan_to_num(7)


# ---- the frameworks ------------------------------------------------------------------------------


def station(names: dict[str, Any], rule: str) -> Any:
    """The module of a recipe with the weights of `build`, and this rule."""
    torch.manual_seed(0)
    found = names["Station"]()
    found.weighting = make_weighting(rule, n_tasks=3)
    return found


def lightning_trainer(folder: str | Path, **options: Any) -> lightning.Trainer:
    return lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **options,
    )


class Rows(Dataset):
    """The rows as mappings."""

    def __init__(self) -> None:
        self.columns = rows()

    def __len__(self) -> int:
        return len(self.columns[0])

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {name: column[i] for name, column in zip(COLUMNS, self.columns, strict=True)}


def hugging_face_trainer(
    names: dict[str, Any], rule: str, folder: str | Path, **options: Any
) -> Any:
    arguments = {"per_device_train_batch_size": ROWS, "num_train_epochs": 1, "learning_rate": 0.01}
    arguments |= {"lr_scheduler_type": "constant", "max_grad_norm": 0, "use_cpu": True}
    arguments |= {"save_strategy": "no", "report_to": "none", "disable_tqdm": True}
    arguments |= options
    trainer = names["MultiTaskTrainer"](
        station(names, rule), TrainingArguments(str(folder), **arguments), train_dataset=Rows()
    )
    trainer._get_train_sampler = lambda *_: SequentialSampler(Rows())
    return trainer
