"""Tuning on an endless lattice: every contender gets the same number of trials.

A knob lives on start * factor^i, i an integer or a simple fraction, without an end. The first round
of trials covers a wide box; each later one goes around the best so far, in finer and in further
steps, until a trial stands on both sides of the best one for every knob. So no pick lies at the
edge of what was tried.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import qmc

Trial = dict[str, float]  # name of a knob -> its value
FINEST = 0.125  # of a step of the lattice


@dataclass(frozen=True)
class Knob:
    """A positive number that a user of a method would tune.

    Args:
        name: "rate" (of the network), "own_rate" (of what the rule learns), "weight_decay", or an
            option of the rule.
        start: middle of the first round.
        factor: step of the lattice, above 1.
        reach: steps of the first round to each side.
        least, most: natural ends, on the lattice, beyond which nothing changes.
        because: why there is nothing beyond them; needed where there is an end.

    >>> Knob("rate", 0.01).value(-2)
    0.0025
    """

    name: str
    start: float
    factor: float = 2.0
    reach: float = 4.0
    least: float | None = None
    most: float | None = None
    because: str = ""

    def __post_init__(self) -> None:
        if not (self.start > 0 and self.factor > 1 and self.reach >= 1):
            raise ValueError(f"{self.name}: expected start > 0, factor > 1 and reach >= 1")
        if (self.least is not None or self.most is not None) and not self.because:
            raise ValueError(f"because: {self.name} has an end; say why nothing lies beyond it")

    def value(self, place: float) -> float:
        """The number at a place of the lattice, to six digits."""
        return float(f"{self.start * self.factor**place:.6g}")

    def place(self, value: float) -> float:
        """Where a number stands on the lattice."""
        exact = math.log(value / self.start) / math.log(self.factor)
        return round(exact / FINEST) * FINEST

    @property
    def ends(self) -> tuple[float, float]:
        """First and last place."""
        low = -math.inf if self.least is None else self.place(self.least)
        high = math.inf if self.most is None else self.place(self.most)
        return low, high


Point = tuple[float, ...]  # a place for each knob


def first_round(knobs: Sequence[Knob], n: int) -> list[Trial]:
    """n trials spread over the box of all knobs (a Halton sequence, rounded to the lattice)."""
    step = 0.5 if len(knobs) == 1 else 1.0
    sequence = qmc.Halton(len(knobs), scramble=False)
    sequence.fast_forward(1)  # its first point is a corner
    points: dict[Point, None] = {}
    for shares in sequence.random(1000):
        point = tuple(
            _inside(knob, step * round((2 * share - 1) * knob.reach / step))
            for knob, share in zip(knobs, shares, strict=True)
        )
        points[point] = None
        if len(points) == n:
            break
    return _filled(knobs, list(points), n)


def next_round(
    knobs: Sequence[Knob], tried: Sequence[Trial], scores: Sequence[float], n: int
) -> list[Trial]:
    """n further trials around the best five: first the neighbours that tell whether they are best.

    With one knob they also come closer than a step. With several they do not: there the best would
    move on for ever before its neighbours along every knob were tried.

    Args:
        knobs: of the contender.
        tried, scores: what was tried and how it did; lower is better.
        n: how many.
    """
    points = [_point(knobs, trial) for trial in tried]
    ranking = sorted(range(len(points)), key=lambda i: (scores[i], points[i]))[:5]
    steps = (1.0, 0.5, 2.0, 0.25) if len(knobs) == 1 else (1.0, 2.0, 3.0)
    wanted = [
        (rank + 2 * later, points[i], step)
        for rank, i in enumerate(ranking)
        for later, step in enumerate(steps)
    ]
    known = set(points)
    new: list[Point] = []
    for _, point, step in sorted(wanted, key=lambda item: item[0]):
        for candidate in _around(knobs, point, step):
            if candidate not in known and len(new) < n:
                known.add(candidate)
                new.append(candidate)
    return _filled(knobs, new, n, known)


def edges(knobs: Sequence[Knob], tried: Sequence[Trial], pick: Trial) -> list[str]:
    """Knobs of a pick that have no tried neighbour on one side, within a step, all else equal."""
    points, chosen = [_point(knobs, trial) for trial in tried], _point(knobs, pick)
    found = []
    for j, knob in enumerate(knobs):
        others = [p for p in points if p[:j] + p[j + 1 :] == chosen[:j] + chosen[j + 1 :]]
        gaps = [p[j] - chosen[j] for p in others]
        below = any(-1 <= gap < 0 for gap in gaps) or chosen[j] <= knob.ends[0]
        above = any(0 < gap <= 1 for gap in gaps) or chosen[j] >= knob.ends[1]
        if not (below and above):
            found.append(knob.name)
    return found


def _point(knobs: Sequence[Knob], trial: Trial) -> Point:
    return tuple(knob.place(trial[knob.name]) for knob in knobs)


def _inside(knob: Knob, place: float) -> float:
    low, high = knob.ends
    return min(max(place, low), high)


def _around(knobs: Sequence[Knob], point: Point, step: float) -> list[Point]:
    """The point moved along each knob, both ways; only where the lattice goes on."""
    found = []
    for j, knob in enumerate(knobs):
        for place in (point[j] - step, point[j] + step):
            if knob.ends[0] <= place <= knob.ends[1]:
                found.append((*point[:j], place, *point[j + 1 :]))
    return found


def _filled(
    knobs: Sequence[Knob], points: list[Point], n: int, known: set[Point] | None = None
) -> list[Trial]:
    """n trials of these points; where they are too few, of neighbours of theirs, then of all."""
    known = set(points) if known is None else known
    steps = (1.0, 0.5, 0.25) if len(knobs) == 1 else (1.0,)
    for queue in (list(points), sorted(known)):  # each grows by what is found
        for point in queue:
            for step in steps:
                for candidate in _around(knobs, point, step):
                    if candidate not in known and len(points) < n:
                        known.add(candidate)
                        points.append(candidate)
                        queue.append(candidate)
    if len(points) < n:
        raise ValueError(f"knobs: there are no {n} trials more between their ends")
    return [
        {knob.name: knob.value(place) for knob, place in zip(knobs, point, strict=True)}
        for point in points[:n]
    ]
