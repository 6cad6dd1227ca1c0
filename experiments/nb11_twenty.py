"""Notebook 11: twenty attributes of an image at once; who gets the weight, and what if by lot?

python -m experiments.nb11_twenty    writes results/11_twenty.jsonl (about five minutes)

One setting, that of the paper as far as it goes on a small scale: squared error on labels of -1 and
1, SGD with momentum at a rate that falls to 0, batches of 10 images and 10 validation images that
only steer. Ten seeds draw images, initial weights and order. Only the learning rate is tuned, seed
by seed on validation rows: this is no verdict (see `nb11_loss_trend`), it takes the rule apart.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import torch
from scipy.stats import rankdata
from torch import Tensor, nn

from experiments.controls import Wrapper
from mtl_utils import make_weighting, sweep
from mtl_utils.datasets import glyph_attributes
from mtl_utils.ensemble import Ensemble, train_many
from mtl_utils.ensemble_optim import many_optimizer
from mtl_utils.models import HardSharing, mlp
from mtl_utils.weighting import Weighting
from mtl_utils.weighting.methods.loss_trend import LossTrend

SIZE, TRAIN, VAL, TEST, BATCH, EPOCHS = 16, 3000, 1000, 3000, 10, 10
STEPS = TRAIN // BATCH  # of an epoch
TASKS = glyph_attributes(1, 1, 1, size=SIZE).tasks
K = len(TASKS)
SEEDS, RATES = range(10), (0.0006, 0.00125, 0.0025, 0.005)
WINDOW = 200  # as in the official code


class FallingOnly(LossTrend):
    """Loss trend in which only a falling loss counts."""

    def moved(self, current: Tensor, previous: Tensor) -> Tensor:
        return (previous - current).clamp(min=0)


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


Maker = Callable[[int], Weighting]
RULES: dict[str, Maker] = {
    "equal": lambda seed: make_weighting("equal", K),
    "trend": lambda seed: LossTrend(K, WINDOW),
    "by lot": lambda seed: ByLot(LossTrend(K, WINDOW), seed),  # type: ignore[dict-item,return-value]
    "both halves": lambda seed: make_weighting("equal", K),
    "trend, one pass": lambda seed: LossTrend(K, STEPS),
    "falling only": lambda seed: FallingOnly(K, WINDOW),
    "random": lambda seed: make_weighting("random", K),
}


def network() -> HardSharing:
    """64 hidden units, shared; the 20 heads are one layer."""
    return HardSharing(mlp(SIZE**2, 64, last=True), [nn.Linear(64, K)])


@functools.lru_cache(maxsize=10)
def draw(seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Images [N, 256] and labels -1 and 1 [N, 20] of each split."""
    data = glyph_attributes(TRAIN, VAL, TEST, size=SIZE, seed=seed)
    splits = {}
    for split in ("train", "val", "test"):
        images, *labels = getattr(data, split)
        splits[split] = ((images - 0.25) / 0.3).flatten(1), 2 * torch.stack(labels, 1) - 1
    return splits


def beside(seed: int, passes: bool) -> Tensor:
    """Number of the validation image beside each training image, [N].

    With `passes` each of them stands beside as many, so that a window of an epoch always sees the
    same; else they are drawn with replacement.
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
    rule: str,
    seeds: Sequence[int] = SEEDS,
    rates: Sequence[float] = RATES,
    weights: Tensor | None = None,
    few: int = TRAIN,
) -> tuple[Ensemble, list[tuple[int, float]], list[dict[str, tuple[Tensor, Tensor]]]]:
    """Train a network for each seed and rate, side by side.

    Args:
        rule: of `RULES`; "frozen" takes `weights`.
        seeds, rates: of the members.
        weights: held weights of each member, [M, 20].
        few: training images, the first of each draw; epochs stay as many steps.

    Returns:
        the trained members, seed and rate of each, and the draws.
    """
    draws = [draw(seed) for seed in seeds]
    passes = rule == "trend, one pass"
    rows = []
    for seed, sets in zip(seeds, draws, strict=True):
        x, y = (t[torch.arange(TRAIN) % few] for t in sets["train"])
        rows.append((x, y, *(t[beside(seed, passes)] for t in sets["val"])))
    members = [(place, rate) for place in range(len(seeds)) for rate in rates]

    def maker(member: int) -> Callable[[], tuple[nn.Module, Weighting]]:
        if weights is not None:
            return lambda: (network(), make_weighting("fixed", K, weights=weights[member]))
        seed = seeds[members[member][0]]
        return lambda: (network(), RULES[rule](seed))

    trained = train_many(
        [maker(member) for member in range(len(members))],
        learning_from_both if rule == "both halves" else learning,
        [torch.stack(part) for part in zip(*rows, strict=True)],
        [seeds[place] for place, _ in members],
        EPOCHS,
        BATCH,
        many_optimizer("momentum", torch.tensor([rate for _, rate in members])),
        own_data=[place for place, _ in members],
        order_seeds=[seeds[place] for place, _ in members],
        observe=None if rule in ("equal", "both halves", "random", "frozen") else steering,
        schedule="linear",
        metric=measured,
        splits={
            split: [torch.stack(part) for part in zip(*(d[split] for d in draws), strict=True)]
            for split in ("val", "test")
        },
        evaluate_at=range(1, EPOCHS + 1),
        progress=False,
    )
    return trained, [(seeds[place], rate) for place, rate in members], draws


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


def results(rule: str, trained: Ensemble, members: Any, draws: Any) -> list[dict[str, Any]]:
    """A row for each member: see `block`."""
    seeds = list(dict.fromkeys(seed for seed, _ in members))
    sets = [draws[seeds.index(seed)] for seed, _ in members]
    val, test = (
        trained.predict(torch.stack([own[split][0] for own in sets]))[0].detach()
        for split in ("val", "test")
    )
    found = []
    for m, (seed, rate) in enumerate(members):
        row: dict[str, Any] = {"rule": rule, "seed": seed, "rate": rate}
        for split in ("val", "test"):
            loss, wrong = trained.curves[split][:, m].split(K, dim=1)  # [E, K]
            row |= {f"{split}_loss": loss[-1].tolist(), f"{split}_error": wrong[-1].tolist()}
            row |= {f"{split}_loss_curve": loss.mean(1).tolist()}
            row |= {f"{split}_error_curve": wrong.mean(1).tolist()}
        row["auc"] = area_under_curve(test[m], sets[m]["test"][1]).tolist()
        spread = (val[m] - sets[m]["val"][1]).square().std(0)  # from image to image
        row["spread"] = spread.tolist()
        row["weights"] = trained.history["weights"][:, m].tolist()
        found.append(row)
    return found


def block(rule: str) -> list[dict[str, Any]]:
    """All seeds and rates of a rule; of "trend" also those of its weights, held at their mean.

    Returns:
        for each seed and rate: loss and share of wrong answers on validation and test rows at the
        end, [20], and their means over tasks after each epoch; on test rows the area under the
        curve, [20]; the spread of the validation loss from image to image, [20]; the mean weights
        of each epoch, [10][20].
    """
    trained, members, draws = train(rule)
    rows = results(rule, trained, members, draws)
    if rule == "trend":
        mean = trained.history["weights"].mean(0)
        rows += results("frozen", *train("frozen", weights=mean))
    return rows


def read(path: str = "11_twenty") -> pd.DataFrame:
    """For each rule and seed the training at the rate with the smallest validation loss."""
    from mtl_utils import records

    runs = records.read(path)
    mean = runs["val_loss"].map(lambda losses: sum(losses) / K)
    best = mean.groupby([runs["rule"], runs["seed"]]).idxmin()
    return runs.loc[best].reset_index(drop=True)


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    sweep.run(block, [{"rule": rule} for rule in RULES], "11_twenty", **sweep.options(__doc__))
