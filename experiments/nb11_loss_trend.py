"""Notebook 11: the validation-loss trend against equal, tuned fixed and random weights.

python -m experiments.nb11_loss_trend    writes results/11_trend.jsonl

Three attributes of rendered characters from easy to hard, trained as the paper does, with squared
error on labels of -1 and 1, and with cross-entropy; and three regressions on diamonds. Adam; two
widths; early and trained to a plateau. Each training row has a validation row beside it, which only
steers: an epoch passes once through all of them, so that a window of `STEPS` iterations sees the
same validation rows each time. The weights sum to K by themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, binary_cross_entropy_with_logits, mse_loss

from experiments.protocol import Contender, Study, run, train_block, usual_controls
from experiments.search import Knob
from experiments.small import squared_errors, unexplained
from mtl_utils import make_weighting, sweep
from mtl_utils.datasets import MultiTaskData, diamonds, glyph_attributes
from mtl_utils.models import HardSharing, mlp
from mtl_utils.weighting import Weighting

TRAIN, VAL, TEST, BATCH = 1000, 1000, 2000, 50
STEPS = TRAIN // BATCH  # of an epoch
ATTRIBUTES = ("left", "bold", "hole")
PAPER = 2000  # validation images that a window of the official code sees: 200 batches of 10


def beside(train: tuple[Tensor, ...], val: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Training rows with a validation row beside each: tensors [N, 2, ...]."""
    return tuple(torch.stack(pair, 1) for pair in zip(train, val, strict=True))


def glyphs(seed: int, no: float) -> MultiTaskData:
    """Three attributes of characters on 8 x 8 pixels; `no` is the number that stands for no."""
    drawn = glyph_attributes(TRAIN, VAL, TEST, size=16, seed=seed)
    splits = {}
    for split in ("train", "val", "test"):
        images, *labels = getattr(drawn, split)
        x = avg_pool2d((images - 0.25) / 0.3, 2).flatten(1)
        asked = [labels[drawn.tasks.index(name)][:, None] for name in ATTRIBUTES]
        splits[split] = (x, *(torch.where(y > 0.5, 1.0, no) for y in asked))
    splits["train"] = beside(splits["train"], splits["val"])
    return MultiTaskData(drawn.name, ATTRIBUTES, **splits)


def plus_minus(seed: int) -> MultiTaskData:
    return glyphs(seed, -1.0)


def zero_one(seed: int) -> MultiTaskData:
    return glyphs(seed, 0.0)


def stones(seed: int) -> MultiTaskData:
    """Diamonds: log price, length and height, standardised; without the one impossible height."""
    drawn = diamonds(n_train=TRAIN, n_test=VAL + TEST + 1, seed=seed)
    possible = drawn.test[3][:, 0].abs() < 10
    held_out = [t[possible][: VAL + TEST] for t in drawn.test]
    val, test = (tuple(t[part] for t in held_out) for part in (slice(VAL), slice(VAL, None)))
    return MultiTaskData(drawn.name, drawn.tasks, beside(drawn.train, val), val, test)


def shared(data: MultiTaskData, width: int) -> HardSharing:
    trunk = mlp(data.train[0].shape[-1], width, last=True)
    return HardSharing(trunk, [nn.Linear(width, 1) for _ in data.tasks])


def single(data: MultiTaskData, width: int, task: int) -> nn.Sequential:
    return mlp(data.train[0].shape[-1], width, 1)


def cross_entropies(model: nn.Module, x: Tensor, *labels: Tensor) -> Tensor:
    """Cross-entropy of each yes-or-no question, [K]."""
    pairs = zip(model(x), labels, strict=True)
    return torch.stack([binary_cross_entropy_with_logits(out, y) for out, y in pairs])


def plain_errors(model: nn.Module, x: Tensor, *labels: Tensor) -> Tensor:
    """Squared error of each question on labels of -1 and 1, [K]."""
    return torch.stack([mse_loss(out, y) for out, y in zip(model(x), labels, strict=True)])


def wrong(model: nn.Module, x: Tensor, *labels: Tensor) -> Tensor:
    """Share of wrong answers of each question, [K]; an output above 0 is a yes."""
    pairs = zip(model(x), labels, strict=True)
    return torch.stack([((out > 0) != (y > 0)).to(out.dtype).mean() for out, y in pairs])


LOSSES: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "attributes, squared error": (plain_errors, wrong),
    "attributes, cross-entropy": (cross_entropies, wrong),
    "diamonds": (squared_errors, unexplained),
}


def half(losses: Callable[..., Tensor], which: int) -> Callable[..., Tensor]:
    """The losses on the training half (0) or the validation half (1) of rows [B, 2, ...]."""
    return lambda model, *rows: losses(model, *(t[:, which] for t in rows))


def trend(n_tasks: int, window: float) -> Weighting:
    """The rule, its window rounded to whole iterations."""
    return make_weighting("loss_trend", n_tasks, window=max(1, round(window)))


WINDOW = Knob(
    "window",
    STEPS / 2,
    reach=3,
    least=STEPS / 2 / 2**4,
    most=STEPS / 2 * 2**6,
    because="a window is an iteration at least; at 640 all weights stay 1 to the end",
)


def study_of(data: str) -> Study:
    """With the losses and the metric of a data set."""
    losses, metric = LOSSES[data]
    steering = half(losses, 1)

    def observe(model: nn.Module, *rows: Tensor) -> dict[str, Tensor]:
        return {"val_losses": steering(model, *rows)}

    return replace(STUDY, losses=half(losses, 0), metric=metric, observe=observe)


STUDY = Study(
    data={
        "attributes, squared error": plus_minus,
        "attributes, cross-entropy": zero_one,
        "diamonds": stones,
    },
    model=shared,
    single=single,
    losses=half(plain_errors, 0),  # see study_of
    metric=wrong,
    contenders=(
        *usual_controls(units=False),
        Contender("trend", trend, knobs=(WINDOW,)),
        Contender("trend, as published", trend, {"window": PAPER / BATCH}),
        Contender("trend, one pass", trend, {"window": STEPS}),
    ),
    widths=(16, 64),
    epochs=(10, 40),
    rates={"adam": Knob("rate", 0.005)},
    batch_size=BATCH,
)


def block(data, optimiser, width, epochs, contender, trials, stage):
    """The unit of work: see `experiments.protocol.train_block`; losses are those of the data."""
    study = study_of(data)
    return train_block(study, data, optimiser, width, epochs, contender, trials, stage)


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    run(STUDY, block, record="11_trend", **sweep.options(__doc__))
