"""The long comparison of notebook 11: validation-loss trend against controls, on two data sets.

python -m benchmarks.loss_trend    writes results/11_loss_trend*.csv (about 35 minutes)

Ten seeds; a seed draws the data, the initial weights and the batches. Each step reads 10 training
and 10 validation images (or films), as in the authors' code. Every rule is trained at three
learning rates, which fall to 0, and on glyphs, where a rule prefers the smallest, at two more ("low
rate"); all trainings of a rule run side by side. Weights have mean 1 always. A record that is there
is completed.

11_loss_trend.csv: a row for each training, means over tasks. 11_loss_trend_tasks.csv: a row for
each seed and task of three rules, at the one of three rates with the smallest validation loss.
11_loss_trend_curves.csv: means over tasks after every 250 steps, at that rate.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from benchmarks.record import Record
from mtl_utils import Weighting, make_weighting
from mtl_utils.datasets import MultiTaskData, glyph_attributes, movie_genres
from mtl_utils.models import HardSharing, SeparateModels
from mtl_utils.weighting.methods.loss_trend import LossTrend

FOLDER = Path(__file__).resolve().parents[1] / "results"
SEEDS, STEPS, HALF, EVERY, WIDTH, WORDS = range(10), 3000, 10, 250, 32, 2000
METRICS = ("loss", "accuracy", "auc")
LOW = (0.00125, 0.0025)  # further rates, on glyphs, for rules that prefer the smallest of the three
LOW_FOR = (
    "trend 20",
    "trend 100",
    "trend 200",
    "trend 100, passes",
    "trend 200, falling",
    "equal, mse",
    "trend 200, mse",
)
PER_TASK = ("alone", "equal", "trend 200")


# ---- data and networks -----------------------------------------------------------------------


def glyphs(seed: int) -> MultiTaskData:
    data = glyph_attributes(n_train=3000, n_val=1000, n_test=3000, size=16, seed=seed)
    splits = {}
    for split in ("train", "val", "test"):
        images, *labels = getattr(data, split)
        splits[split] = ((images - 0.25) / 0.3, *labels)  # about mean 0, standard deviation 1
    return MultiTaskData(data.name, data.tasks, **splits)


def films(seed: int) -> MultiTaskData:
    text = {"text": "title+people", "length": 20, "n_words": WORDS}
    return movie_genres(n_train=8000, n_val=1000, n_test=3000, **text, seed=seed)


class MeanEmbedding(nn.Module):
    """Mean of the embeddings of a text's words: [..., L] -> [..., width]; word 0 is padding."""

    def __init__(self, n_words: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(n_words, width)

    def forward(self, numbers: Tensor) -> Tensor:
        there = (numbers > 0).unsqueeze(-1)
        return (self.embed(numbers) * there).sum(-2) / there.sum(-2).clamp(min=1)


def image_trunk() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, WIDTH),
        nn.ReLU(),
    )


def text_trunk() -> nn.Sequential:
    return nn.Sequential(MeanEmbedding(WORDS, 16), nn.Linear(16, WIDTH), nn.ReLU())


# data, trunk, optimiser, learning rates
SETS: dict[str, tuple[Callable, Callable, str, tuple[float, ...]]] = {
    "glyphs": (glyphs, image_trunk, "SGD", (0.005, 0.01, 0.02)),
    "films": (films, text_trunk, "Adam", (0.003, 0.006, 0.015)),
}


def network(trunk: Callable[[], nn.Module], n_tasks: int, alone: bool) -> nn.Module:
    """A shared trunk of width `WIDTH`, or such a trunk for each task."""
    if alone:
        models = [nn.Sequential(trunk(), nn.Linear(WIDTH, 1)) for _ in range(n_tasks)]
        return SeparateModels(models)
    return HardSharing(trunk(), [nn.Linear(WIDTH, 1) for _ in range(n_tasks)])


def stream(n_rows: int, count: int, seed: int, passes: bool) -> Tensor:
    """Row numbers [count]: whole passes in a new order each, or drawn with replacement."""
    generator = torch.Generator().manual_seed(seed)
    if not passes:
        return torch.randint(n_rows, (count,), generator=generator)
    orders = [torch.randperm(n_rows, generator=generator) for _ in range(-(-count // n_rows))]
    return torch.cat(orders)[:count]


# ---- rules: a function of (step, validation losses [M, K]) that returns weights [M, K] -----------


class FallingOnly(LossTrend):
    """Loss trend in which only a falling loss counts."""

    def moved(self, current: Tensor, previous: Tensor) -> Tensor:
        return (previous - current).clamp(min=0)


class FromPackage:
    """A rule of mtl_utils for each member."""

    def __init__(self, rules: list[Weighting], shuffled: bool = False) -> None:
        self.rules, self.shuffled = rules, shuffled
        self.generator = torch.Generator().manual_seed(0)
        self.sum, self.steps = 0.0, 0

    def __call__(self, step: int, val_losses: Tensor) -> Tensor:
        val_losses = val_losses.nan_to_num(0, 0)  # of a training that diverged
        for rule, losses in zip(self.rules, val_losses, strict=True):
            rule.observe(val_losses=losses)  # before the step, as mtl_utils.training.train does
        weights = torch.stack([rule.weights_now() for rule in self.rules])
        if self.shuffled:
            if step == 0 or (step + 1) % self.rules[0].window == 0:
                self.order = torch.rand(weights.shape, generator=self.generator).argsort(1)
            weights = weights.gather(1, self.order)
        self.sum, self.steps = self.sum + weights, self.steps + 1
        return weights


def fixed(weights: Tensor) -> Callable[[int, Tensor], Tensor]:
    weights = weights / weights.mean(1, keepdim=True)
    return lambda step, val_losses: weights.expand_as(val_losses)


def random() -> Callable[[int, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)

    def weigh(step: int, val_losses: Tensor) -> Tensor:
        z = torch.randn(val_losses.shape, generator=generator)
        return z.shape[1] * torch.softmax(z, 1)

    return weigh


# ---- training --------------------------------------------------------------------------------


class Optimizer:
    """SGD with momentum 0.9, or Adam, with a learning rate for each member."""

    def __init__(self, kind: str, parameters: list[Tensor]) -> None:
        self.kind, self.parameters, self.steps = kind, parameters, 0
        self.first = [torch.zeros_like(p) for p in parameters]
        self.second = [torch.zeros_like(p) for p in parameters]

    def step(self, gradients: tuple[Tensor, ...], rate: Tensor) -> None:
        self.steps += 1
        lists = zip(self.parameters, gradients, self.first, self.second, strict=True)
        for p, g, first, second in lists:
            if self.kind == "SGD":
                update = first.mul_(0.9).add_(g)
            else:
                first.lerp_(g, 0.1)
                second.lerp_(g**2, 0.001)
                spread = (second / (1 - 0.999**self.steps)).sqrt_().add_(1e-8)
                update = first / spread / (1 - 0.9**self.steps)
            p.data -= rate.reshape(-1, *[1] * (p.dim() - 1)) * update


def task_losses(outputs: Tensor, labels: Tensor, kind: str) -> Tensor:
    """Mean over rows, [..., K]: cross-entropy, or squared error on labels of -1 and 1."""
    if kind == "mse":
        return mse_loss(outputs, 2 * labels - 1, reduction="none").mean(-2)
    return binary_cross_entropy_with_logits(outputs, labels, reduction="none").mean(-2)


def area_under_curve(outputs: Tensor, labels: Tensor) -> Tensor:
    """Area under the receiver operating characteristic of each task, [..., K], by ranks."""
    ranks = torch.from_numpy(rankdata(outputs.numpy(), axis=-2))
    positives = labels.sum(-2)
    least = positives * (positives + 1) / 2
    return ((ranks * labels).sum(-2) - least) / (positives * (labels.shape[-2] - positives))


class Trainer:
    """All trainings of a data set: data and network are made once."""

    def __init__(self, name: str, rates: tuple[float, ...] = (), seeds: range = SEEDS) -> None:
        make, self.trunk, self.optimizer, usual = SETS[name]
        self.rates = rates or usual
        drawn = [make(seed) for seed in seeds]
        self.seeds, self.tasks = seeds, drawn[0].tasks
        self.splits = {}
        for split in ("train", "val", "test"):
            rows = [getattr(data, split) for data in drawn]
            x = torch.stack([row[0] for row in rows])
            y = torch.stack([torch.stack(row[1:], 1) for row in rows])
            self.splits[split] = x, y  # [S, N, ...], [S, N, K]
        self.seed_of = torch.arange(len(seeds)).repeat_interleave(len(self.rates))  # [M]

    def run(
        self,
        weigh: Callable[[int, Tensor], Tensor],
        *,
        loss: str = "bce",
        alone: bool = False,
        passes: bool = False,
        both_halves: bool = False,
        dtype: torch.dtype = torch.float64,
    ) -> dict[str, Tensor]:
        """Train a member for each seed and rate, M in all.

        Args:
            weigh: the rule.
            loss: "bce" or "mse".
            alone: a network for each task.
            passes: validation rows come in whole passes, not with replacement.
            both_halves: train on the validation half too.
            dtype: of the network.

        Returns:
            loss and accuracy on validation and test rows after every `EVERY` steps, each
            [evaluations, M, K]; area under the curve on test rows at the end, [1, M, K].
        """
        n_tasks, (x, y), (x_val, y_val) = len(self.tasks), self.splits["train"], self.splits["val"]
        models = []
        for seed in self.seeds:
            torch.manual_seed(seed)
            models.append(network(self.trunk, n_tasks, alone))
        stacked, _ = stack_module_state(models)
        parameters = {n: p.detach()[self.seed_of].to(dtype) for n, p in stacked.items()}
        for value in parameters.values():
            value.requires_grad_()
        template = models[0].to("meta")
        side_by_side = vmap(lambda p, rows: torch.cat(functional_call(template, p, (rows,)), -1))

        def forward(parameters: dict[str, Tensor], rows: Tensor) -> Tensor:
            rows = rows.to(dtype) if rows.is_floating_point() else rows
            return side_by_side(parameters, rows).to(torch.float64)

        optimizer = Optimizer(self.optimizer, list(parameters.values()))
        rate = torch.tensor(self.rates).repeat(len(self.seeds))
        count, member = STEPS * HALF, self.seed_of[:, None]
        train_rows = [stream(x.shape[1], count, seed, True) for seed in self.seeds]
        val_rows = [stream(x_val.shape[1], count, 1000 + seed, passes) for seed in self.seeds]
        train_rows, val_rows = torch.stack(train_rows), torch.stack(val_rows)
        found: dict[str, list[Tensor]] = {}
        for step in range(STEPS):
            here = slice(step * HALF, (step + 1) * HALF)
            rows, held_out = train_rows[:, here][self.seed_of], val_rows[:, here][self.seed_of]
            with torch.no_grad():
                outputs = forward(parameters, x_val[member, held_out])
                val_losses = task_losses(outputs, y_val[member, held_out], loss)
            weights = weigh(step, val_losses)
            losses = task_losses(forward(parameters, x[member, rows]), y[member, rows], loss)
            if both_halves:
                outputs = forward(parameters, x_val[member, held_out])
                losses = (losses + task_losses(outputs, y_val[member, held_out], loss)) / 2
            wanted = list(parameters.values())
            gradients = torch.autograd.grad((weights * losses).sum(), wanted)
            optimizer.step(gradients, rate.to(dtype) * (1 - step / STEPS))
            if (step + 1) % EVERY == 0:
                last = step + 1 == STEPS
                for key, value in self.evaluate(forward, parameters, loss, last).items():
                    found.setdefault(key, []).append(value)
        return {key: torch.stack(values) for key, values in found.items()}

    @torch.no_grad()
    def evaluate(self, forward, parameters, loss: str, rank: bool) -> dict[str, Tensor]:
        """Loss and accuracy on validation and test rows; the area under the curve if `rank`."""
        n_rates, found = len(self.rates), {}
        for split in ("val", "test"):
            x, y = self.splits[split]
            for j in range(n_rates):
                own = {name: p[j::n_rates] for name, p in parameters.items()}
                out = forward(own, x)
                right = ((out > 0) == (y > 0.5)).to(y).mean(-2)
                values = {"loss": task_losses(out, y, loss), "accuracy": right}
                if rank and split == "test":
                    values["auc"] = area_under_curve(out, y)
                for key, value in values.items():
                    found.setdefault(f"{split} {key}", []).append(value)
        return {key: torch.stack(values, 1).flatten(0, 1) for key, values in found.items()}


# ---- the comparison --------------------------------------------------------------------------


def entropy_weights(trainer: Trainer, power: float) -> Tensor:
    """(entropy of the training labels)^power, [M, K]: hard tasks up, or down."""
    p = trainer.splits["train"][1].mean(1)[trainer.seed_of]
    return (-p * p.log() - (1 - p) * (1 - p).log()) ** power


def rules(trainer: Trainer) -> dict[str, Callable[[], dict[str, dict[str, Tensor]]]]:
    """For each rule a function that trains it; one may return more than one rule."""
    n_members, n_tasks = len(trainer.seed_of), len(trainer.tasks)
    ones = fixed(torch.ones(1, n_tasks))

    def trend(window: int, cls: type[LossTrend] | None = None, **options) -> FromPackage:
        make = cls or (lambda n, window: make_weighting("loss_trend", n, window=window))
        return FromPackage([make(n_tasks, window=window) for _ in range(n_members)], **options)

    def simple(name: str, make: Callable[[], Callable], **options):
        return lambda: {name: trainer.run(make(), **options)}

    def trend_and_frozen():
        weigh = trend(200)
        found = {"trend 200": trainer.run(weigh)}
        found["trend 200, frozen"] = trainer.run(fixed(weigh.sum / weigh.steps))
        return found

    table = {
        "equal": simple("equal", lambda: ones),
        "trend 200": trend_and_frozen,
        "trend 100": simple("trend 100", lambda: trend(100)),
        "trend 20": simple("trend 20", lambda: trend(20)),
        "trend 100, passes": simple("trend 100, passes", lambda: trend(100), passes=True),
        "trend 200, shuffled": simple("trend 200, shuffled", lambda: trend(200, shuffled=True)),
        "trend 200, falling": simple("trend 200, falling", lambda: trend(200, FallingOnly)),
        "random": simple("random", random),
    }
    for power in (-1, 1):
        name = f"fixed {power}"
        table[name] = simple(name, lambda power=power: fixed(entropy_weights(trainer, power)))
    table["equal, both halves"] = simple("equal, both halves", lambda: ones, both_halves=True)
    table["equal, mse"] = simple("equal, mse", lambda: ones, loss="mse")
    table["trend 200, mse"] = simple("trend 200, mse", lambda: trend(200), loss="mse")
    single = {"alone": True, "dtype": torch.float32}  # twice as fast
    table["alone"] = simple("alone", lambda: ones, **single)
    return table


HEADERS = {
    "": (
        "data,rule,seed,rate,val loss,val accuracy,test loss,test accuracy,test auc,"
        "picked step,picked val accuracy,picked test accuracy"
    ),
    "_tasks": "data,rule,seed,task,rate,test loss,test accuracy,test auc",
    "_curves": "data,rule,seed,step,val loss,test loss,test accuracy",
}


def write(
    records: dict[str, Record], name: str, rule: str, trainer: Trainer, found: dict[str, Tensor]
) -> None:
    """The rows of a rule, in all three tables."""
    shape = (-1, len(trainer.seeds), len(trainer.rates), len(trainer.tasks))
    found = {key: values.reshape(shape) for key, values in found.items()}  # [E, S, R, K]
    mean = {key: values.mean(-1) for key, values in found.items()}
    last_loss = found["val loss"][-1].nan_to_num(float("inf"))  # [S, R, K]

    lines: dict[str, list] = {suffix: [] for suffix in records}

    def line(suffix: str, *values) -> None:
        lines[suffix].append([f"{v:.6g}" if isinstance(v, float) else v for v in values])

    for s, seed in enumerate(trainer.seeds):
        for r, rate in enumerate(trainer.rates):
            step = int(mean["val accuracy"][:, s, r].argmax())
            end = [mean[key][-1, s, r].item() for key in HEADERS[""].split(",")[4:9]]
            picked = [mean[f"{split} accuracy"][step, s, r].item() for split in ("val", "test")]
            line("", name, rule, seed, rate, *end, (step + 1) * EVERY, *picked)
        shared_rate = last_loss[s].mean(-1).argmin().expand(len(trainer.tasks))
        best = last_loss[s].argmin(0) if rule == "alone" else shared_rate  # [K]
        pick = torch.arange(len(trainer.tasks))
        for k, task in enumerate(trainer.tasks if rule in PER_TASK else ()):
            values = [found[f"test {key}"][-1, s, best[k], k].item() for key in METRICS]
            line("_tasks", name, rule, seed, task, trainer.rates[best[k]], *values)
        for e in range(len(found["val loss"])):
            keys = HEADERS["_curves"].split(",")[4:]
            values = [found[key][e, s, best, pick].mean().item() for key in keys]
            line("_curves", name, rule, seed, (e + 1) * EVERY, *values)
    for suffix in ("_tasks", "_curves", ""):  # the last one says that the rule is done
        records[suffix].add(lines[suffix])


def main(names: list[str]) -> None:
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    records = {
        suffix: Record(FOLDER / f"11_loss_trend{suffix}.csv", header.split(","), ("data", "rule"))
        for suffix, header in HEADERS.items()
    }
    trainers = {name: Trainer(name) for name in names or SETS}
    for last in (False, True):  # tasks alone take longest
        for name, trainer in trainers.items():
            for rule, train in rules(trainer).items():
                if (name, rule) in records[""] or (rule == "alone") != last:
                    continue
                for each, found in train().items():
                    write(records, name, each, trainer, found)
    if "glyphs" in trainers:
        low = Trainer("glyphs", rates=LOW)
        for rule in LOW_FOR:
            if ("glyphs", f"{rule}, low rate") not in records[""]:
                for each, found in rules(low)[rule]().items():
                    write(records, "glyphs", f"{each}, low rate", low, found)


if __name__ == "__main__":
    main(sys.argv[1:])
