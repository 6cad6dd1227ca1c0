"""The two-dimensional toys of notebook 12, in full length.

python -m experiments.nb12_paths    writes results/12_toy.csv, 12_pcgrad_toy.csv (18 minutes)

Two losses of two parameters, gradients in closed form, directions from `mtl_utils`, steps of Adam
with a rate of 0.001. A setting is a scale of the losses, a number of steps and starts, all as
published. Positions every so many steps are kept. A record that is there is completed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.record import Record
from mtl_utils import make_weighting
from mtl_utils.weighting.kinds import GramianWeighting

RESULTS = Path(__file__).resolve().parents[1] / "results"
FLOOR = 5e-6  # below that, a logarithm is cut off
FIVE = ((-8.5, 7.5), (0.0, 0.0), (9.0, 9.0), (-7.5, -0.5), (9.0, -1.0))
THREE = ((-8.5, 7.5), (-8.5, -5.0), (9.0, 9.0))

Gradients = tuple[float, float, float, float]  # dL_1/dx_1, dL_1/dx_2, dL_2/dx_1, dL_2/dx_2


def valley(x1: float, x2: float) -> Gradients:
    """Gradients of the toy with two valleys (Liu et al. 2021, CAGrad's public code)."""
    steep = math.tanh(x2)
    c1, c2 = max(math.tanh(0.5 * x2), 0.0), max(math.tanh(-0.5 * x2), 0.0)
    slope_c1 = 0.5 * (1 - c1 * c1) if x2 >= 0 else 0.0  # at 0 both count, as in autograd
    slope_c2 = -0.5 * (1 - c2 * c2) if x2 <= 0 else 0.0
    found = []
    for sign, a in ((1.0, -0.5 * (x1 + 7) + steep), (-1.0, 0.5 * (3 - x1) - steep + 2)):
        size = abs(a)
        inverse = 1 / a if size >= FLOOR else 0.0
        log = math.log(max(size, FLOOR)) + 6
        away = x1 - 7 * sign
        bowl = (away * away + 0.1 * (x2 + 8) ** 2) / 10 - 20
        found.append(c1 * inverse * -0.5 + c2 * 0.2 * away)
        across = slope_c1 * log + c1 * inverse * sign * (1 - steep * steep)
        found.append(across + slope_c2 * bowl + c2 * 0.02 * (x2 + 8))
    return tuple(found)  # type: ignore[return-value]


def ravine(x1: float, x2: float) -> Gradients:
    """Gradients of the toy of PCGrad (Yu et al. 2020)."""
    steep = math.tanh(x2)
    found = []
    for height, a, sign in ((20.0, 0.5 * x1 + steep, 1.0), (25.0, 0.5 * x1 - steep + 2, -1.0)):
        pull = height / a if abs(a) >= FLOOR else 0.0
        found += [0.5 * pull, sign * pull * (1 - steep * steep)]
    return tuple(found)  # type: ignore[return-value]


class Setting(NamedTuple):
    """What a record is made with.

    Attributes:
        toy: gives the gradients.
        scale: factors of the two losses.
        starts: where the runs begin.
        steps: of Adam.
        keep: one position in so many steps is kept.
        rules: name in the record -> name and options for `make_weighting`.
    """

    toy: Callable[[float, float], Gradients]
    scale: tuple[float, float]
    starts: tuple[tuple[float, float], ...]
    steps: int
    keep: int
    rules: dict[str, tuple[str, dict[str, Any]]]


def plain(*names: str) -> dict[str, tuple[str, dict[str, Any]]]:
    return {name: (name, {}) for name in names}


ALL = plain("equal", "mgda", "pcgrad", "gradvac", "cagrad", "imtl_g", "nash_mtl", "aligned_mtl")
ALL |= plain("upgrad", "dualproj", "config", "graddrop")
ALL["fairgrad, alpha 2"] = ("fairgrad", {"alpha": 2.0})
TOLERANCES = {
    "aligned_mtl, tolerance 0": ("aligned_mtl", {"tolerance": 0.0}),
    "aligned_mtl, tolerance 1e-4": ("aligned_mtl", {"tolerance": 1e-4}),
}
FIRST_TOLERANCE = dict(list(TOLERANCES.items())[:1])
STUCK = plain(
    "equal", "gradvac", "graddrop", "pcgrad", "cagrad", "dualproj", "aligned_mtl", "config"
)
HALF = {"cagrad, c 0.5": ("cagrad", {"c": 0.5})}
SETTINGS = {
    "L1 x 0.1": Setting(valley, (0.1, 1.0), FIVE, 35_000, 500, ALL | FIRST_TOLERANCE),
    "L1 x 0.1, longer": Setting(valley, (0.1, 1.0), FIVE[2:3], 100_000, 2500, STUCK),
    "equal scale": Setting(
        valley, (0.5, 0.5), FIVE, 35_000, 500, plain("aligned_mtl") | TOLERANCES
    ),
    "as published first": Setting(
        valley, (1.0, 1.0), THREE, 100_000, 2000, plain("equal", "pcgrad", "nash_mtl") | HALF
    ),
}
RAVINE = {
    "ravine": Setting(ravine, (1.0, 1.0), ((0.5, -3.0),), 500_000, 2500, plain("equal", "pcgrad"))
}


def direction(name: str, options: dict[str, Any], seed: int) -> Callable[..., tuple[float, float]]:
    """From the four gradients to the update, by the rule of that name."""
    if name == "equal":
        return lambda a, b, c, d: (0.5 * (a + c), 0.5 * (b + d))
    if name in ("pcgrad", "gradvac", "graddrop"):
        options = options | {"generator": torch.Generator().manual_seed(seed)}
    rule = make_weighting(name, 2, **options)

    def by_gramian(a: float, b: float, c: float, d: float) -> tuple[float, float]:
        assert isinstance(rule, GramianWeighting)
        across = a * c + b * d
        w = rule.rule(np.array([[a * a + b * b, across], [across, c * c + d * d]]))
        return float(w[0] * a + w[1] * c), float(w[0] * b + w[1] * d)

    def by_coordinates(a: float, b: float, c: float, d: float) -> tuple[float, float]:
        jacobian = torch.tensor([[a, b], [c, d]], dtype=torch.float64)
        update, _ = rule.merge(jacobian, jacobian[:, 0])  # type: ignore[operator]
        return tuple(update.tolist())

    return by_gramian if isinstance(rule, GramianWeighting) else by_coordinates


def path(setting: Setting, rule: str, start: int) -> Iterator[tuple[int, float, float]]:
    """Step and position, from the start on."""
    combine = direction(*setting.rules[rule], seed=start)
    (x1, x2), (s1, s2) = setting.starts[start], setting.scale
    m1 = m2 = v1 = v2 = 0.0
    yield 0, x1, x2
    for step in range(1, setting.steps + 1):
        a, b, c, d = setting.toy(x1, x2)
        d1, d2 = combine(s1 * a, s1 * b, s2 * c, s2 * d)
        m1, m2 = 0.9 * m1 + 0.1 * d1, 0.9 * m2 + 0.1 * d2
        v1, v2 = 0.999 * v1 + 0.001 * d1 * d1, 0.999 * v2 + 0.001 * d2 * d2
        rate, root = 1e-3 / (1 - 0.9**step), 1 / (1 - 0.999**step)
        x1 -= rate * m1 / (math.sqrt(v1 * root) + 1e-8)
        x2 -= rate * m2 / (math.sqrt(v2 * root) + 1e-8)
        if step % setting.keep == 0:
            yield step, x1, x2


def complete(file: Path, settings: dict[str, Setting]) -> None:
    """Add to the file what it lacks."""
    columns = ["setting", "rule", "start", "step", "x1", "x2"]
    record = Record(file, columns, key=columns[:4])
    for name, setting in settings.items():
        for rule in setting.rules:
            for start in range(len(setting.starts)):
                if (name, rule, start, setting.steps) not in record:
                    record.add(
                        [name, rule, start, step, f"{x1:.4f}", f"{x2:.4f}"]
                        for step, x1, x2 in path(setting, rule, start)
                    )
                    print(name, rule, start, list(record.rows[-1].values())[-2:], flush=True)


def main() -> None:
    complete(RESULTS / "12_toy.csv", SETTINGS)
    complete(RESULTS / "12_pcgrad_toy.csv", RAVINE)


if __name__ == "__main__":
    main()
