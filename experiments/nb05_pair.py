"""Notebook 05: is a weight for each sample better than a weight for each task?

python -m experiments.nb05_pair    writes results/05_pair.jsonl

Two related regressions on one trunk. Task 1 is clean; task 2 is as clean where the first input is
negative and very noisy elsewhere ("uneven"), or has noise of the same mean variance everywhere
("even"). Noise in the rows to train on and to choose by, none in those to judge by. AdamW, whose
decay everybody tunes; two widths; early and trained to a plateau. The validation metric is the
squared error for all, also for those who could use their likelihood.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from experiments.protocol import Contender, Study, run, sum_to_k, train_block, usual_controls
from experiments.search import Knob
from mtl_utils import sweep
from mtl_utils.datasets import MultiTaskData, RelatedTasks
from mtl_utils.losses import beta_nll
from mtl_utils.models import HardSharing, mlp

N_INPUTS, BATCH = 6, 100
ROWS = {"train": 500, "val": 1000, "test": 2000}
QUIET, LOUD = 0.1, 2.0  # standard deviations of the noise
EVEN = math.sqrt((QUIET**2 + LOUD**2) / 2)


def noise_of(x: Tensor, even: bool, loud: float = LOUD) -> Tensor:
    """Standard deviation of the noise of both tasks, [..., 2]."""
    task_1 = torch.full_like(x[..., :1], QUIET)
    task_2 = torch.where(x[..., :1] > 0, loud, QUIET)
    return torch.cat([task_1, torch.full_like(task_2, EVEN) if even else task_2], -1)


def two_tasks(seed: int, even: bool, loud: float = LOUD) -> MultiTaskData:
    """Directions with a cosine of 0.5; a seed draws them, the rows and the noise."""
    family = RelatedTasks(0.5, n_features=N_INPUTS, n_waves=1, noise=0, seed=seed)
    own = torch.Generator().manual_seed(seed)
    splits: dict[str, tuple[Tensor, ...]] = {}
    for split, n in ROWS.items():
        x = torch.randn(n, N_INPUTS, generator=own)
        y = family.targets(x).to(x.dtype)
        if split != "test":
            y = y + noise_of(x, even, loud) * torch.randn(n, 2, generator=own)
        splits[split] = (x, y[:, :1], y[:, 1:])
    return MultiTaskData("two related tasks", ("task 1", "task 2"), **splits)  # type: ignore[arg-type]


def uneven_noise(seed: int) -> MultiTaskData:
    return two_tasks(seed, even=False)


def even_noise(seed: int) -> MultiTaskData:
    return two_tasks(seed, even=True)


def shared(data: MultiTaskData, width: int) -> HardSharing:
    """A trunk of two layers; each head gives a prediction and a log-variance."""
    trunk = mlp(N_INPUTS, width, width, activation=nn.Tanh, last=True)
    return HardSharing(trunk, [nn.Linear(width, 2) for _ in range(2)])


def single(data: MultiTaskData, width: int, task: int) -> nn.Sequential:
    """The same for one task."""
    return mlp(N_INPUTS, width, width, 2, activation=nn.Tanh)


# ---- losses: what a sample counts ------------------------------------------------------------


def squared(model: nn.Module, x: Tensor, *targets: Tensor) -> Tensor:
    """Mean squared error of each task, [K]; the log-variances are not used."""
    pairs = zip(model(x), targets, strict=True)
    return torch.stack([(out[..., :1] - y).square().mean() for out, y in pairs])


def by_sample(beta: float = 0.0, held_steps: int = 0) -> Callable[..., Tensor]:
    """The likelihood with a variance for each sample; called once a step, it counts.

    Args:
        beta: of beta-NLL, Seitzer et al., ICLR 2022; 0 is the likelihood.
        held_steps: for so many steps the variances are held at 1 (a warm-up).
    """
    left = held_steps

    def losses(model: nn.Module, x: Tensor, *targets: Tensor) -> Tensor:
        nonlocal left
        free = 0.0 if left > 0 else 1.0
        left -= 1
        pairs = list(zip(model(x), targets, strict=True))
        each = [beta_nll(out[..., :1], free * out[..., 1:], y, beta) for out, y in pairs]
        return torch.stack(each)

    return losses


def by_true_noise(even: bool) -> Callable[..., Tensor]:
    """The likelihood with the true variance of each sample, but for its constant."""

    def losses(model: nn.Module, x: Tensor, *targets: Tensor) -> Tensor:
        errors = [out[..., :1] - y for out, y in zip(model(x), targets, strict=True)]
        z = torch.cat(errors, -1) / noise_of(x, even)
        return z.square().mean(0) / 2

    return losses


def losses_of(contender: str, data: str, epochs: int) -> Callable[..., Tensor]:
    """What a contender trains on."""
    steps = epochs * ROWS["train"] // BATCH
    special = {
        "heteroscedastic": by_sample(),
        "heteroscedastic, beta 0.5": by_sample(beta=0.5),
        "heteroscedastic, warm-up": by_sample(held_steps=steps // 2),
        "alone, heteroscedastic": by_sample(),
        "true weights": by_true_noise(even=data == "even noise"),
    }
    return special.get(contender, squared)


# ---- the study -------------------------------------------------------------------------------

UNCERTAINTY = Contender(
    "uncertainty",
    "uncertainty",
    knobs=(Knob("own_rate", 0.03, reach=3, least=0.03 / 2**8, because="the weights stay equal"),),
    held={"forms": "all tasks are regressions"},
)

STUDY = Study(
    data={"uneven noise": uneven_noise, "even noise": even_noise},
    model=shared,
    single=single,
    losses=squared,  # see losses_of
    metric=squared,
    contenders=(
        *usual_controls(units=False),
        UNCERTAINTY,
        sum_to_k(UNCERTAINTY),
        Contender("heteroscedastic"),
        Contender("heteroscedastic, beta 0.5"),
        Contender("heteroscedastic, warm-up"),
        Contender("alone, heteroscedastic", network="alone"),
        Contender("true weights"),
    ),
    widths=(16, 32),
    epochs=(15, 120),
    rates={"adamw": Knob("rate", 0.01)},
    weight_decay=Knob(
        "weight_decay", 0.1, factor=4, reach=2, least=0.1 / 4**4, because="nothing decays there"
    ),
    batch_size=BATCH,
    reporting=tuple(range(20)),
)


def block(data, optimiser, width, epochs, contender, trials, stage):
    """The unit of work: see `experiments.protocol.train_block`; the losses are the contender's."""
    study = replace(STUDY, losses=losses_of(contender, data, epochs))
    return train_block(study, data, optimiser, width, epochs, contender, trials, stage)


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    run(STUDY, block, record="05_pair", **sweep.options(__doc__))
