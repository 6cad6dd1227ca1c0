"""Notebook 11: twenty attributes of an image at once; who gets the weight, and what if by lot?

One setting, near the paper's on a small scale: squared error on labels of -1 and 1, SGD with
momentum at a rate that falls to 0, batches of 50 images and 50 validation images that only steer;
a window of the rule sees 2000 of these, as that of the official code. Seeds draw images, initial
weights and order. Nothing is tuned: this is no verdict (see `nb11_loss_trend`), it takes the rule
apart. The report trains all of it while it runs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from experiments.controls import Wrapper
from mtl_utils import make_weighting
from mtl_utils.datasets import glyph_attributes
from mtl_utils.ensemble import train_many
from mtl_utils.ensemble_optim import many_optimizer
from mtl_utils.models import HardSharing, mlp
from mtl_utils.weighting.methods.loss_trend import LossTrend

TRAIN, VAL, TEST, BATCH, EPOCHS = 3000, 1000, 3000, 50, 10
TASKS = glyph_attributes(1, 1, 1, size=16).tasks
K = len(TASKS)
SEEDS, RATE = range(8), 0.01
WINDOW = 2000 // BATCH  # validation images of the official code: 200 batches of 10


class ByLot(Wrapper):
    """The weights of loss trend, handed to the tasks by lot, anew in each window.

    Args:
        rule: a `LossTrend`.
        seed: of the lots.
    """

    def __init__(self, rule: LossTrend, seed: int) -> None:
        super().__init__(rule)
        self.generator = torch.Generator().manual_seed(seed)
        self.window, self.steps = rule.window, 0

    def backward(
        self,
        losses: Tensor,
        shared: Any = None,
        features: Any = None,
    ) -> Tensor:
        self.steps += 1
        if self.steps == 1 or self.steps % self.window == 0:
            self.order = torch.randperm(self.n_tasks, generator=self.generator)
        weights = self.rule.weights_now()[self.order]  # type: ignore[attr-defined]
        losses.backward(weights)
        return weights


RULES: dict[str, Callable[[int], Any]] = {  # functions of the seed
    "equal": lambda seed: make_weighting("equal", K),
    "trend": lambda seed: LossTrend(K, WINDOW),
    "by lot": lambda seed: ByLot(LossTrend(K, WINDOW), seed),
}
PASSES = {"whole passes": lambda seed: LossTrend(K, TRAIN // BATCH)}
BOTH_HALVES = {"both halves": lambda seed: make_weighting("equal", K)}


def network() -> HardSharing:
    """64 hidden units, shared; the 20 heads are one layer."""
    return HardSharing(mlp(64, 64, last=True), [nn.Linear(64, K)])


@functools.lru_cache(maxsize=10)
def draw(seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Images of 8 x 8 pixels [N, 64] and labels -1 and 1 [N, 20] of each split."""
    data = glyph_attributes(TRAIN, VAL, TEST, size=16, seed=seed)
    splits = {}
    for split in ("train", "val", "test"):
        images, *labels = getattr(data, split)
        x = avg_pool2d((images - 0.25) / 0.3, 2).flatten(1)
        splits[split] = x, 2 * torch.stack(labels, 1) - 1
    return splits


def beside(seed: int, passes: bool) -> Tensor:
    """Number of the validation image beside each training image, [N].

    With `passes` each stands beside as many, so that a window of an epoch always sees the same;
    else they are drawn with replacement.
    """
    if passes:
        return torch.arange(TRAIN) % VAL
    return torch.randint(VAL, (TRAIN,), generator=torch.Generator().manual_seed(1000 + seed))


def squared(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Squared error of each attribute, [20]."""
    return (model(x)[0] - y).square().mean(0)


def learning(model: nn.Module, x: Tensor, y: Tensor, *steering: Tensor) -> Tensor:
    return squared(model, x, y)


def steering(model: nn.Module, x: Tensor, y: Tensor, *beside: Tensor) -> dict[str, Tensor]:
    return {"val_losses": squared(model, *beside)}


def learning_from_both(model: nn.Module, x: Tensor, y: Tensor, *beside: Tensor) -> Tensor:
    return (squared(model, x, y) + squared(model, *beside)) / 2


def measured(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Squared error of each attribute, then the share of wrong answers, [40]."""
    (out,) = model(x)
    wrong = ((out > 0) != (y > 0)).to(out.dtype)
    return torch.cat([(out - y).square().mean(0), wrong.mean(0)])


def train(
    rules: Mapping[str, Callable[[int], Any]],
    seeds: Sequence[int] = SEEDS,
    rate: float = RATE,
    *,
    held: Mapping[int, Tensor] | None = None,
    passes: bool = False,
    both_halves: bool = False,
    few: int = TRAIN,
) -> pd.DataFrame:
    """Train a network for each rule and seed, side by side.

    Args:
        rules: name -> function of a seed that returns the rule.
        seeds, rate: of the members.
        held: weights of each seed, instead of the rule's.
        passes: windows see whole passes through the validation images, see `beside`.
        both_halves: learn from the validation half too.
        few: training images, the first of each draw; an epoch has as many steps.

    Returns:
        a row for each: rule, seed; `val_loss`, `val_error`, `test_loss`, `test_error`, [20],
        mean squared error and share of wrong answers at the end; `val_losses` after each epoch,
        [10][20]; `val_errors`, `test_errors` after each epoch, means over tasks, [10]; `auc`, area
        under the curve on test rows, [20]; `spread` of the validation loss from image to image,
        [20]; `weights`, mean over the steps of each epoch, [10][20].
    """
    draws = [draw(seed) for seed in seeds]
    members = [(rule, place) for rule in rules for place in range(len(seeds))]
    places = [place for _, place in members]

    def maker(rule: str, place: int) -> Callable[[], tuple[nn.Module, Any]]:
        seed = seeds[place]
        if held is not None:
            return lambda: (network(), make_weighting("fixed", K, weights=held[seed]))
        return lambda: (network(), rules[rule](seed))

    def stacked(split: str) -> list[Tensor]:
        return [torch.stack(part) for part in zip(*(d[split] for d in draws), strict=True)]

    rows = []
    for seed, sets in zip(seeds, draws, strict=True):
        x, y = (t[torch.arange(TRAIN) % few] for t in sets["train"])
        rows.append((x, y, *(t[beside(seed, passes)] for t in sets["val"])))
    trained = train_many(
        [maker(*member) for member in members],
        learning_from_both if both_halves else learning,
        [torch.stack(part) for part in zip(*rows, strict=True)],
        [seeds[place] for place in places],
        EPOCHS,
        BATCH,
        many_optimizer("momentum", torch.full((len(members),), rate)),
        own_data=places,
        order_seeds=[seeds[place] for place in places],
        observe=steering,
        schedule="linear",
        metric=measured,
        splits={split: stacked(split) for split in ("val", "test")},
        progress=False,
    )
    outputs = {
        split: trained.predict(stacked(split)[0][places])[0].detach() for split in ("val", "test")
    }
    table = []
    for m, (rule, place) in enumerate(members):
        sets = draws[place]
        row: dict[str, Any] = {"rule": rule, "seed": seeds[place]}
        for split in ("val", "test"):
            loss, wrong = trained.curves[split][:, m].split(K, dim=1)  # [E, K]
            row |= {f"{split}_loss": loss[-1].tolist(), f"{split}_error": wrong[-1].tolist()}
            row |= {f"{split}_errors": wrong.mean(1).tolist()}
            row |= {"val_losses": loss.tolist()} if split == "val" else {}
        row["auc"] = area_under_curve(outputs["test"][m], sets["test"][1]).tolist()
        spread = (outputs["val"][m] - sets["val"][1]).square().std(0)  # from image to image
        row |= {"spread": spread.tolist(), "weights": trained.history["weights"][:, m].tolist()}
        table.append(row)
    return pd.DataFrame(table)


def area_under_curve(outputs: Tensor, labels: Tensor) -> Tensor:
    """Area under the receiver operating characteristic of each task, by ranks.

    Args:
        outputs, labels: [N, K]; a label above 0 is a yes.

    Returns:
        [K], from 0 to 1, 0.5 by chance.
    """
    yes = (labels > 0).to(outputs)
    ranks = torch.from_numpy(rankdata(outputs.detach().numpy(), axis=0))
    count = yes.sum(0)
    return ((ranks * yes).sum(0) - count * (count + 1) / 2) / (count * (len(yes) - count))


def run() -> pd.DataFrame:
    """All rules, and what else the report compares; as `train`."""
    rules = train(RULES)
    trend = rules[rules["rule"] == "trend"]
    held = {row.seed: torch.tensor(row.weights).mean(0) for row in trend.itertuples()}
    frozen = train({"frozen": RULES["equal"]}, held=held)
    passes = train(PASSES, passes=True)
    halves = train(BOTH_HALVES, both_halves=True)
    return pd.concat([rules, frozen, passes, halves], ignore_index=True)
