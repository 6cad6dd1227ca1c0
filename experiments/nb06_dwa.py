"""Notebook 06: dynamic weight average against its controls, and what uncertainty's gain is.

python -m experiments.nb06_dwa    writes results/06_dwa.jsonl

Two regressions of different speed (with an easy target that is clean, or noisy), and three on
diamonds; Adam, and SGD with momentum; two widths; early and trained to a plateau.
"""

from __future__ import annotations

import torch
from torch import Tensor

from experiments.protocol import Contender, Study, run, sum_to_k, train_block, usual_controls
from experiments.search import Knob
from experiments.small import shared_mlp, single_mlp, squared_errors, unexplained
from mtl_utils import sweep
from mtl_utils.datasets import MultiTaskData, RelatedTasks, diamonds

ROWS = {"train": 500, "val": 1000, "test": 2000}


def two_speeds(seed: int, noise: float) -> MultiTaskData:
    """An easy, linear regression and a hard one with three sines on top, of one input.

    Args:
        seed: of the functions and the rows.
        noise: standard deviation in the easy target; 0.1 in the hard one; test rows are clean.
    """
    usual = torch.randn(10_000, 8, generator=torch.Generator().manual_seed(10_000))
    own = torch.Generator().manual_seed(seed)
    families = [RelatedTasks(0.0, n_features=8, n_waves=n, seed=seed) for n in (0, 3)]
    splits: dict[str, tuple[Tensor, ...]] = {}
    for split, n in ROWS.items():
        x, targets = torch.randn(n, 8, generator=own), []
        for k, (family, level) in enumerate(zip(families, (noise, 0.1), strict=True)):
            many = family.targets(usual)[:, k]
            y = (family.targets(x)[:, [k]] - many.mean()) / many.std()
            disturbed = y + level * torch.randn(n, 1, generator=own)
            targets.append(y if split == "test" else disturbed)
        splits[split] = (x, *targets)
    return MultiTaskData("two speeds", ("easy", "hard"), **splits)  # type: ignore[arg-type]


def both_learnable(seed: int) -> MultiTaskData:
    return two_speeds(seed, noise=0.1)


def easy_one_noisy(seed: int) -> MultiTaskData:
    return two_speeds(seed, noise=1.0)


def stones(seed: int) -> MultiTaskData:
    """Diamonds: 500 rows to train, 1000 and 2000 to judge; without the one impossible height."""
    data = diamonds(n_train=ROWS["train"], n_test=3001, seed=seed)
    possible = data.test[3][:, 0].abs() < 10
    held_out = [t[possible][:3000] for t in data.test]
    val, test = (tuple(t[part] for t in held_out) for part in (slice(1000), slice(1000, None)))
    return MultiTaskData(data.name, data.tasks, data.train, val, test)


TEMPERATURE = Knob(
    "temperature", 0.5, reach=3, most=16.0, because="at 16 no weight is 1.07 times another"
)
OWN_RATE = Knob(
    "own_rate", 0.03, reach=3, least=0.03 / 2**8, because="weights stay where they start"
)
UNCERTAINTY = Contender(
    "uncertainty", "uncertainty", knobs=(OWN_RATE,), held={"forms": "all tasks are regressions"}
)


CONTENDERS = (
    *usual_controls(units=False),
    Contender("dwa", "dwa", knobs=(TEMPERATURE,)),
    Contender("dwa, T = 2", "dwa", {"temperature": 2.0}),
    UNCERTAINTY,
    sum_to_k(UNCERTAINTY),
)

STUDY = Study(
    data={"both learnable": both_learnable, "easy one noisy": easy_one_noisy, "diamonds": stones},
    model=shared_mlp,
    single=single_mlp,
    losses=squared_errors,
    metric=unexplained,
    contenders=CONTENDERS,
    widths=(8, 32),
    epochs=(12, 300),
    rates={"adam": Knob("rate", 0.02), "momentum": Knob("rate", 0.02)},
    batch_size=50,
)


def block(data, optimiser, width, epochs, contender, trials, stage):
    """The unit of work: see `experiments.protocol.train_block`."""
    return train_block(STUDY, data, optimiser, width, epochs, contender, trials, stage)


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    run(STUDY, block, record="06_dwa", **sweep.options(__doc__))
