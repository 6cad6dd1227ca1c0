"""The four claimed mechanisms of notebook 01 on a hundred seeds.

python -m experiments.nb01_mechanisms    writes results/01_mechanisms.csv (about 4 minutes)

Each seed draws functions, data and initial weights of its own. Seeds are trained twenty at a time,
so that twenty can be run again alone. A record that is there is completed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from benchmarks.record import Record
from mtl_utils import make_weighting
from mtl_utils.ensemble import Ensemble, train_many
from mtl_utils.models import HardSharing, mlp

FILE = Path(__file__).resolve().parents[1] / "results" / "01_mechanisms.csv"
SEEDS, GROUP = range(100), 20
RATES = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16)
FIRST = [f"model.{part}.{kind}" for part in ("trunk.0", "heads.0") for kind in ("weight", "bias")]
Make = Callable[[], tuple[nn.Module, nn.Module]]


def hard(width: int, n_heads: int, weights: Iterator[float] | None = None) -> Make:
    """Makes members: a tanh trunk, drawn first, and heads; each member its own loss weight."""

    def make():
        trunk = mlp(10, width, activation=nn.Tanh, last=True)
        heads = [nn.Linear(width, 1) for _ in range(n_heads)]
        mine = 1.0 if weights is None else next(weights)
        return HardSharing(trunk, heads), make_weighting("fixed", n_heads, weights=[mine] * n_heads)

    return make


def losses(model: nn.Module, x: Tensor, *targets: Tensor) -> Tensor:
    return torch.stack([mse_loss(out, y) for out, y in zip(model(x), targets, strict=True)])


def fit(make, data, seeds, epochs, batch_size, optimizer, record=()) -> Ensemble:
    order = torch.Generator().manual_seed(1)
    options = {"generator": order, "own_data": True, "record": record, "progress": False}
    return train_many(make, losses, data, seeds, epochs, batch_size, optimizer, **options)


def adam(lr: float):
    return lambda p: torch.optim.Adam(p.values(), lr=lr, fused=True)


def sgd(lr: float, trunk_factor: float = 1.0):
    def make(p):
        trunk = [v for name, v in p.items() if "trunk" in name]
        rest = [v for name, v in p.items() if "trunk" not in name]
        groups = [{"params": trunk, "lr": lr * trunk_factor}, {"params": rest}]
        return torch.optim.SGD(groups, lr=lr)

    return make


def stacked(draws: Sequence) -> list[Tensor]:
    return [torch.stack(tensors) for tensors in zip(*draws, strict=True)]


# ---- noise, capacity, rate: one main task with companions ----------------------------------------


def companions(seed: int, n: int, first: int = 0, clean: bool = False) -> tuple:
    """Inputs, labels of the main task, and the labels of each set of companions."""
    g = torch.Generator().manual_seed(seed)
    u = torch.linalg.qr(torch.randn(10, 8, generator=g)).Q
    beta = 6 * torch.rand(8, generator=g)
    g = torch.Generator().manual_seed(first + seed)
    x, noise = torch.randn(n, 10, generator=g), 0.5 * torch.randn(n, 10, generator=g)
    f = x @ u + torch.sin(x @ u + beta)
    y = f[:, :1] if clean else f[:, :1] + noise[:, :1]
    unrelated = (f[:, 1:] + noise[:, 3:]).split(1, 1)
    sets = {
        "alone": [],
        "pure noise": [3 * noise[:, 1:2]],
        "a copy": [y],
        "same function": [f[:, :1] + noise[:, 2:3]],
        "1 unrelated": unrelated[:1],
        "3 unrelated": unrelated[:3],
        "7 unrelated": unrelated,
    }
    return x, y, sets


def draw(seeds: Sequence[int]) -> tuple[list[list[Tensor]], dict[str, list[Tensor]]]:
    """Inputs and main labels of training, validation and test rows; labels of the companions."""
    rows = [companions(seed, 100) for seed in seeds]
    val = [companions(seed, 300, first=1000)[:2] for seed in seeds]
    test = [companions(seed, 1000, first=2000, clean=True)[:2] for seed in seeds]
    main = [stacked(part) for part in ([r[:2] for r in rows], val, test)]
    return main, {arm: stacked([r[2][arm] for r in rows]) for arm in rows[0][2]}


def overfitting(seeds: Sequence[int]) -> Iterator[tuple[str, str, Tensor]]:
    """Training and test error at the end, and test error where validation says stop."""
    main, others = draw(seeds)
    pick = torch.arange(len(seeds))
    for arm, width in [(arm, 8) for arm in others] + [("alone", 2)]:
        data = [*main[0], *others[arm]]
        make = hard(width, len(data) - 1)
        trained = fit(make, data, seeds, 150, 50, adam(0.02), record=FIRST)
        W, b, v, c = (trained.history[name][4::5] for name in FIRST)
        paths = []
        for x, y in main:
            z = torch.tanh(torch.einsum("eswf,snf->esnw", W, x) + b[:, :, None])
            out = torch.einsum("esnw,eskw->esnk", z, v) + c[:, :, None]
            paths.append((out - y).square().mean((2, 3)))
        train, val, test = paths
        yield f"{arm}, {width}", "train", train[-1]
        yield f"{arm}, {width}", "last", test[-1]
        yield f"{arm}, {width}", "stopped", test[val.argmin(0), pick]


def rates(seeds: Sequence[int]) -> Iterator[tuple[str, str, Tensor]]:
    """Test error at a rate of 0.01, and at the rate picked on validation rows."""
    main, others = draw(seeds)
    n, pick = len(seeds), torch.arange(len(seeds))

    def by_rate(arm: str, factor: float) -> list[Tensor]:
        def repeat(t: Tensor) -> Tensor:
            return t.repeat(len(RATES), 1, 1)

        data = [repeat(t) for t in (*main[0], *others[arm])]
        mine = (rate for rate in RATES for _ in seeds)  # with SGD a weight is a learning rate
        make = hard(8, len(data) - 1, mine)
        trained = fit(make, data, list(seeds) * len(RATES), 150, 50, sgd(1.0, factor))
        missed = [trained.predict(repeat(x))[0] - repeat(y) for x, y in main[1:]]
        return [m.square().mean((1, 2)).reshape(len(RATES), n) for m in missed]

    factors = {factor: by_rate("alone", factor) for factor in (1.0, 2.0, 4.0)}
    both = [torch.cat(parts) for parts in zip(*factors.values(), strict=True)]
    found = {"alone": factors[1.0], "trunk x 2": factors[2.0], "alone, trunk tuned too": both}
    found |= {arm: by_rate(arm, 1.0) for arm in ("a copy", "same function")}
    for arm, (val, test) in found.items():
        yield arm, "rate 0.01", test[RATES.index(0.01)]
        yield arm, "tuned", test[val.argmin(0), pick]


# ---- minima: a sine that is hard to train --------------------------------------------------------


def plateau(seed: int) -> tuple[Tensor, ...]:
    """Inputs, a sine of a direction, and three companions."""
    g = torch.Generator().manual_seed(seed)
    u = torch.linalg.qr(torch.randn(10, 2, generator=g)).Q
    x = torch.randn(500, 10, generator=g)
    z = x @ u
    y = 2**0.5 * torch.sin(3 * z[:, :1])
    return x, y, y.clone(), z[:, 1:], z[:, :1]


def minima(seeds: Sequence[int]) -> Iterator[tuple[str, str, Tensor]]:
    """Training loss of the sine, from scratch and continued from where it ended alone."""
    x, y, *rest = stacked([plateau(seed) for seed in seeds])
    helpers = dict(zip(("a copy", "other direction", "same direction"), rest, strict=True))

    def run(helper=None, epochs=100, optimizer=None, start=None) -> tuple[dict, Tensor]:
        data = [x, y] + ([helpers[helper]] if helper else [])
        place = iter(range(len(seeds)))

        def make():
            model, weighting = hard(8, len(data) - 1)()
            if start is not None:
                i = next(place)
                old = {name.removeprefix("model."): value[i] for name, value in start.items()}
                known = {name: value for name, value in old.items() if "heads.1" not in name}
                model.load_state_dict(model.state_dict() | known)
            return model, weighting

        trained = fit(make, data, seeds, epochs, 100, optimizer or sgd(0.1))
        return trained.parameters, (trained.predict(x)[0] - y).square().mean((1, 2))

    state, loss = run()
    yield "alone", "loss", loss
    for helper in helpers:
        yield helper, "loss", run(helper)[1]
    yield "alone, rate x 2", "loss", run(optimizer=sgd(0.2))[1]
    yield "alone, Adam", "loss", run(optimizer=adam(0.01))[1]
    for helper in (None, "a copy", "other direction", "same direction"):
        continued, _ = run(helper, start=state)
        yield helper or "alone", "continued", run(epochs=50, start=continued)[1]


EXPERIMENTS = {"overfitting": overfitting, "rates": rates, "minima": minima}


def main() -> None:
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    columns = ["experiment", "arm", "measure", "seed", "value"]
    record = Record(FILE, columns, key=("experiment", "seed"))
    for first in SEEDS[::GROUP]:
        seeds = range(first, first + GROUP)
        for name, experiment in EXPERIMENTS.items():
            if (name, first) not in record:
                record.add(
                    [name, arm, measure, seed, f"{value:.4f}"]
                    for arm, measure, values in experiment(seeds)
                    for seed, value in zip(seeds, values.tolist(), strict=True)
                )


if __name__ == "__main__":
    main()
