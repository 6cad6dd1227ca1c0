"""Notebook 01: when does sharing help, and when does it harm? Two regressions of a set relatedness.

python -m experiments.nb01_sharing    writes results/01_sharing.jsonl

Each task has rows of its own. AdamW, so that everybody may pick a weight decay; two widths of which
the smaller can hardly hold two functions; early and trained to a plateau. "untied" is two networks
of half the width, which have together as many parameters as the shared one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from experiments.protocol import Contender, Study, run, train_block, usual_controls
from experiments.search import Knob
from mtl_utils import sweep
from mtl_utils.datasets import MultiTaskData, RelatedTasks
from mtl_utils.models import HardSharing, mlp

FEATURES, NOISE = 10, 0.5
ROWS = {"train": 200, "val": 300, "test": 1000}
RELATEDNESS = (0.0, 0.5, 0.9, 1.0)


def pair(seed: int, p: float) -> MultiTaskData:
    """Two regressions whose directions have cosine p; test targets have no noise.

    Returns:
        inputs [N, 2, 10], a row for each of the two tasks; targets [N, 1] and [N, 1].
    """
    noisy, clean = (RelatedTasks(p, FEATURES, 1, noise, seed) for noise in (NOISE, 0.0))
    own = torch.Generator().manual_seed(100 + seed)
    splits: dict[str, tuple[Tensor, ...]] = {}
    for split, n in ROWS.items():
        tasks = clean if split == "test" else noisy
        (x1, y1, _), (x2, _, y2) = (tasks.draw(n, own) for _ in range(2))
        splits[split] = (torch.stack([x1, x2], 1), y1, y2)
    return MultiTaskData("two regressions", ("first", "second"), **splits)  # type: ignore[arg-type]


def unrelated(seed: int) -> MultiTaskData:
    return pair(seed, 0.0)


def half_related(seed: int) -> MultiTaskData:
    return pair(seed, 0.5)


def related(seed: int) -> MultiTaskData:
    return pair(seed, 0.9)


def the_same(seed: int) -> MultiTaskData:
    return pair(seed, 1.0)


def trunk(width: int) -> nn.Sequential:
    """One hidden layer of tanh units."""
    return mlp(FEATURES, width, activation=nn.Tanh, last=True)


def shared(data: MultiTaskData | None, width: int) -> HardSharing:
    return HardSharing(trunk(width), [nn.Linear(width, 1) for _ in range(2)])


def single(data: MultiTaskData | None, width: int, task: int) -> nn.Sequential:
    return nn.Sequential(trunk(width), nn.Linear(width, 1))


class CrossStitch(nn.Module):
    """Two networks whose representations are mixed by a learned matrix before the heads.

    Args:
        width: of each trunk.
        speed: learning rate of the matrix over that of the network, under Adam.

    Source: Misra et al., CVPR 2016; the matrix begins at 0.9 and 0.1.
    """

    def __init__(self, width: int, speed: float = 1.0) -> None:
        super().__init__()
        self.trunks = nn.ModuleList(trunk(width) for _ in range(2))
        self.heads = nn.ModuleList(nn.Linear(width, 1) for _ in range(2))
        self.moved = nn.Parameter(torch.zeros(2, 2))
        self.register_buffer("start", torch.tensor([[0.9, 0.1], [0.1, 0.9]]))
        self.register_buffer("speed", torch.tensor(speed))  # Adam's steps have the rate's length

    @property
    def alpha(self) -> Tensor:
        """The matrix, [2, 2]."""
        return self.start + self.speed * self.moved

    def forward(self, x: Tensor) -> list[Tensor]:
        """Outputs of the two heads."""
        z = torch.stack([trunk(x) for trunk in self.trunks])  # [2, N, width]
        mixed = torch.tensordot(self.alpha, z, dims=1)
        return [head(m) for head, m in zip(self.heads, mixed, strict=True)]


def stitched(speed: float) -> Callable[[MultiTaskData | None, int], CrossStitch]:
    """Makes such networks; the matrix learns at `speed` times the network's rate."""
    return lambda data, width: CrossStitch(width, speed)


def errors(model: nn.Module, x: Tensor, *targets: Tensor) -> Tensor:
    """Mean squared error of each task on its own rows, [2]."""
    pairs = zip(x.unbind(1), targets, strict=True)
    return torch.stack([mse_loss(model(rows)[k], y) for k, (rows, y) in enumerate(pairs)])


def unexplained(model: nn.Module, x: Tensor, *targets: Tensor) -> Tensor:
    """Share of each target's variance that is not explained, [2]."""
    return errors(model, x, *targets) / torch.stack([y.var() for y in targets])


STITCHED = {  # a rate of its own for the matrix, tried at three places
    "cross-stitch": stitched(1.0),
    "cross-stitch, 10 x": stitched(10.0),
    "cross-stitch, 100 x": stitched(100.0),
}

STUDY = Study(
    data={
        "p = 0": unrelated,
        "p = 0.5": half_related,
        "p = 0.9": related,
        "p = 1": the_same,
    },
    model=shared,
    single=single,
    losses=errors,
    metric=unexplained,
    contenders=(
        *usual_controls(units=False),
        *(Contender(name) for name in STITCHED),
    ),
    widths=(2, 8),
    epochs=(50, 400),
    rates={"adamw": Knob("rate", 0.01)},
    weight_decay=Knob(
        "weight_decay", 0.1, factor=4, reach=2, least=0.1 / 4**4, because="nothing decays there"
    ),
    batch_size=100,
)


def block(data, optimiser, width, epochs, contender, trials, stage):
    """The unit of work: see `experiments.protocol.train_block`, with cross-stitch."""
    study = replace(STUDY, model=STITCHED.get(contender, shared))
    return train_block(study, data, optimiser, width, epochs, contender, trials, stage)


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    run(STUDY, block, record="01_sharing", **sweep.options(__doc__))
