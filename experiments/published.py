"""Published against reproduced: what papers, posts and codes report, and what came out here.

Our numbers are typed nowhere: `ROWS` says in which notebook and beside which words each stands, and
`measure` reads it out of the stored output. The verdict of a row is judged by the numbers, and a
row that says another one is refused. `table` is for notebooks, `markdown` for the README.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pandas as pd

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"

HOLDS = "holds"
SETTING = "holds only in its setting"
NOT = "does not reproduce"
OPEN = "not decided"

Lines = list[list[str]]  # the numbers of each line that was read, as they are printed
Numbers = list[list[float]]


@dataclass(frozen=True)
class Row:
    """Something published and what became of it.

    Args:
        what: is reported.
        published: the number or the finding, in the words of the table.
        source: of it: table, figure or code.
        number: of our notebook; its lesson and its reports are searched.
        after: words in the output that holds our numbers.
        lines: regular expression; the lines behind those words that begin so hold them.
        ours: makes of the numbers what the table says, with their spread.
        judge: of the published numbers and ours, the verdict.
        verdict: what the table says; has to be the judge's.
        why: what a reader should know beside it.
    """

    what: str
    published: str
    source: str
    number: str
    after: str
    lines: str
    ours: Callable[[Lines], str]
    judge: Callable[[list[float], Numbers], str]
    verdict: str
    why: str = ""


# ---- reading -----------------------------------------------------------------------------------

NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w.]*\w)")


def measure(row: Row) -> tuple[Path, str, Lines]:
    """Our numbers of a row, line by line, behind the notebook and the section that hold them.

    Raises:
        ValueError: no stored output of the notebook, or more than one, has them.
    """
    found = []
    for path in notebooks(row.number):
        for section, text in outputs(path):
            if row.after in text:
                begin = text.rindex("\n", 0, text.index(row.after) + 1) + 1
                found.append((path, section, numbers_in(text[begin:], row.lines)))
    found = [place for place in found if place[-1]]
    if len(found) != 1:
        raise ValueError(
            f"{row.what}: expected one stored output of notebook {row.number} with lines "
            f"{row.lines!r} behind {row.after!r}, found {len(found)}"
        )
    return found[0]


def numbers_in(text: str, lines: str) -> Lines:
    """The numbers of each line that begins with a regular expression, behind what it matches.

    >>> numbers_in("rule error\\nequal +0.1 [-0.2, 0.4]\\nmgda 0.3", "equal ")
    [['+0.1', '-0.2', '0.4']]
    """
    matches = [(line, re.match(lines, line)) for line in text.splitlines()]
    return [NUMBER.findall(line[found.end() :]) for line, found in matches if found]


def notebooks(number: str) -> list[Path]:
    """The lesson and the reports of a number."""
    folders = (NOTEBOOKS, NOTEBOOKS / "research")
    return [path for folder in folders for path in sorted(folder.glob(f"{number}_*.ipynb"))]


@functools.cache
def outputs(path: Path) -> tuple[tuple[str, str], ...]:
    """The stored outputs of a notebook: section, and text with each space once, a line break
    before it."""
    found, section = [], ""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            section = [section, *re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE)][-1]
        for output in cell.get("outputs", []):
            text = output.get("text") or output.get("data", {}).get("text/plain", "")
            lines = (" ".join(line.split()) for line in text.splitlines())
            found.append((section, "\n" + "\n".join(lines)))
    return tuple(found)


# ---- what the table says of our numbers ---------------------------------------------------------


def spread(lines: Lines) -> str:
    """From the least to the largest of the first two numbers of the lines, a line a seed."""
    columns = [sorted(column, key=float) for column in list(zip(*lines, strict=True))[:2]]
    ranges = " and ".join(f"{column[0]} to {column[-1]}" for column in columns)
    return f"{ranges}, {len(lines)} seeds"


def apart(lines: Lines) -> str:
    """The means of two tasks over seeds, and how many standard deviations off they are."""
    means, off = (" and ".join(line[k] for line in lines) for k in (1, 2))
    return f"{means}: {off} standard deviations off"


def with_interval(lines: Lines, first: int = 0) -> str:
    """A mean and its 95 % interval, of the first line, from a place on."""
    mean, low, high = lines[0][first : first + 3]
    return f"{mean} [{low}, {high}]"


def places(line: Sequence[str]) -> str:
    """Points (x_1, x_2); equal ones once."""
    points = zip(line[::2], line[1::2], strict=True)
    return ", ".join(dict.fromkeys(f"({a}, {b})" for a, b in points))


# ---- judges -------------------------------------------------------------------------------------


def within_spread(published: list[float], ours: Numbers) -> str:
    """Each published number lies between the least and the largest of ours, give or take 0.01."""
    columns = list(zip(*ours, strict=True))[: len(published)]
    pairs = zip(published, columns, strict=True)
    return HOLDS if all(min(c) - 0.01 <= p <= max(c) + 0.01 for p, c in pairs) else NOT


def within_two_deviations(published: list[float], ours: Numbers) -> str:
    """Each distance to our mean is at most two standard deviations over seeds."""
    return HOLDS if all(line[2] <= 2 for line in ours) else NOT


def less(ours: Numbers, first: int = 0) -> str:
    """Published is that a difference is below 0: what the first line's interval says."""
    _, low, high = ours[0][first : first + 3]
    return HOLDS if high < 0 else NOT if low > 0 else OPEN


def more(ours: Numbers, first: int = 0) -> str:
    """Published is that a difference is above 0."""
    mean, low, high = ours[0][first : first + 3]
    return less([[-mean, -high, -low]])


def on_both(own: bool, elsewhere: bool) -> str:
    """The verdict from whether it is so in its own setting, and in another."""
    return NOT if not own else HOLDS if elsewhere else SETTING


def points(line: list[float]) -> list[tuple[float, float]]:
    """Points from their coordinates in a line."""
    return list(zip(line[::2], line[1::2], strict=True))


def in_the_middle(line: list[float], half: float = 0.1) -> int:
    """How many points of the toy of two valleys lie in the middle of its Pareto set."""
    return sum(abs(a) < half and abs(b + 8.35) < 0.06 for a, b in points(line))


def above(line: list[float]) -> int:
    """How many points of that toy are still in the upper half, away from the Pareto set."""
    return sum(b > 0 for _, b in points(line))


def ordered_fronts(published: list[float], ours: Numbers) -> str:
    """Sets at the ends, in the middle, spread: hypervolumes in this order, intervals apart."""
    fixed, mgda, pareto = ours
    return HOLDS if fixed[2] < mgda[1] and mgda[2] < pareto[1] else NOT


def famo(published: list[float], ours: Numbers) -> str:
    """All in the middle with gamma = 0, which was published; with another gamma as well?"""
    middles = [
        sum(in_the_middle(line[k : k + 2], 2.0) for line in ours) == len(ours) for k in (2, 4)
    ]
    return on_both(*middles)


def aligned(published: list[float], ours: Numbers) -> str:
    """All in the middle at equal scale, which was published; all on the set at another?"""
    equal_scale, tenth = ours
    return on_both(in_the_middle(equal_scale) == 5, above(tenth) == 0)


def nash(published: list[float], ours: Numbers) -> str:
    """The mean is stuck from one start of five, Nash-MTL on the Pareto set from all."""
    mean, rule = ours
    arrived = all(abs(b + 8.4) < 0.1 for _, b in points(rule))
    return HOLDS if arrived and above(mean) == published[0] else NOT


def coefficient(published: list[float], ours: Numbers) -> str:
    """The published number of points lies in the interval of one of the optimisers."""
    inside = [low <= published[0] <= high for _, low, high, *_ in ours]
    return HOLDS if all(inside) else SETTING if any(inside) else NOT


def matches(published: list[float], ours: Numbers) -> str:
    """The first number of each line is the published one, give or take 0.1."""
    pairs = zip(published, ours, strict=True)
    return HOLDS if all(abs(p - line[0]) <= 0.1 for p, line in pairs) else NOT


# ---- the rows -----------------------------------------------------------------------------------

FIGURE_2 = "Chen et al. 2018, figure 2"
CAGRAD = "Liu et al. 2021, figure 1 and toy code"

ROWS = (
    Row(
        "uncertainty toy, two networks: σ of both tasks",
        "8.5782 and 0.9032",
        "output of the PyTorch port that posts quote",
        "04",
        "σ of task 1 σ of task 2",
        r"\d ",
        ours=spread,
        judge=within_spread,
        verdict=HOLDS,
    ),
    Row(
        "uncertainty toy, shared layer: σ of both tasks",
        "8.5875 and 0.9198",
        "output of the authors' example, PyTorch",
        "04",
        "standard deviations apart",
        r"shared trunk \d ",
        ours=apart,
        judge=within_two_deviations,
        verdict=HOLDS,
    ),
    Row(
        "uncertainty toy, shared layer: σ of both tasks",
        "8.6482 and 0.9255",
        "output of the authors' example, Keras",
        "04",
        "standard deviations apart",
        r"shared trunk, Glorot \d ",
        ours=apart,
        judge=within_two_deviations,
        verdict=HOLDS,
        why="with Keras's initial weights",
    ),
    Row(
        "uncertainty toy: σ is the noise of the data",
        "10 and 1",
        "the post that explains the port",
        "04",
        "σ of task 1 σ of task 2",
        r"\d ",
        ours=spread,
        judge=within_spread,
        verdict=NOT,
        why="training stops before σ is at rest, and the network over-fits",
    ),
    Row(
        "GradNorm's toy, 2 tasks: what is left of the losses",
        "less than with equal weights",
        FIGURE_2,
        "08",
        "GradNorm minus 2 tasks",
        "equal ",
        ours=with_interval,
        judge=lambda _, ours: less(ours),
        verdict=OPEN,
        why="inputs, rate and length are not published; ours have three seeds",
    ),
    Row(
        "GradNorm's toy, 10 tasks: what is left of the losses",
        "less than with equal weights",
        FIGURE_2,
        "08",
        "GradNorm minus 2 tasks",
        "equal ",
        ours=lambda lines: with_interval(lines, 3),
        judge=lambda _, ours: less(ours, 3),
        verdict=OPEN,
        why="as above",
    ),
    Row(
        "GradNorm's toy, 10 tasks: what is left of the losses",
        "less than with uncertainty weighting",
        FIGURE_2,
        "08",
        "GradNorm minus 2 tasks",
        "uncertainty ",
        ours=lambda lines: with_interval(lines, 3),
        judge=lambda _, ours: less(ours, 3),
        verdict=HOLDS,
        why="where nobody tuned the rate of the log-variances",
    ),
    Row(
        "MGDA-UB on two overlapping digits: accuracy minus that of each task alone",
        "none is lost",
        "Sener and Koltun 2018, table 1",
        "09",
        "rule minus equal minus alone",
        "mgda-ub ",
        ours=lambda lines: f"{with_interval(lines, 3)} points",
        judge=lambda _, ours: more(ours, 3),
        verdict=NOT,
        why="after 400 steps, on smaller images; tuned, it is behind in 4 of 4 settings",
    ),
    Row(
        "Pareto MTL's toy: ten runs each of fixed weights, MGDA, Pareto MTL",
        "at the ends, in the middle, spread",
        "Lin et al. 2019, figure 2",
        "10",
        "method hypervolume [95 %] lost runs of 100",
        "(?:fixed weights|MGDA|Pareto MTL) ",
        ours=lambda lines: (
            "hypervolume " + ", ".join(with_interval([line]) for line in lines) + ", ten draws"
        ),
        judge=ordered_fronts,
        verdict=HOLDS,
        why="its ends are not reached",
    ),
    Row(
        "Pareto MTL's toy, one loss times 10: hypervolume",
        "less than in like units",
        "Lin et al. 2019, supplement",
        "10",
        "losses hypervolume [95 %] ends with L1 < 0.2, of 50 lost",
        r"(?:original units|10 × L1) (?=\d)",
        ours=lambda lines: f"{with_interval(lines[1:])} in place of {with_interval(lines)}",
        judge=lambda _, ours: HOLDS if ours[1][2] < ours[0][1] else OPEN,
        verdict=HOLDS,
        why="divided by its start, the loss does no harm",
    ),
    Row(
        "loss trend: accuracy over equal weights, percentage points",
        "its weights help, on attributes of persons",
        "He et al. 2017, abstract",
        "11",
        "minus equal accuracy AUC",
        "trend ",
        ours=lambda lines: (
            f"{with_interval(lines)}; area under the curve {with_interval(lines, 3)}"
        ),
        judge=lambda _, ours: more(ours),
        verdict=OPEN,
        why="and worse in the area under the curve; the paper's data are not here",
    ),
    Row(
        "a coefficient of 8 % for the loss: one-error, percentage points",
        "-3.57",
        "a widely read post, one run",
        "02",
        "Both coefficients at the same rate",
        "(?:sgd|adam) 2 one_error ",
        ours=lambda lines: f"SGD {with_interval(lines)}, Adam {with_interval(lines[1:])}, 20 seeds",
        judge=coefficient,
        verdict=NOT,
        why="under SGD it is a learning rate, under Adam nothing; other data",
    ),
    Row(
        "CAGrad's toy: where Adam on the mean ends, 3 starts",
        "stuck from 2",
        CAGRAD,
        "12",
        "rule start 1 start 2 start 3\n",
        "mean ",
        ours=lambda lines: places(lines[0]),
        judge=lambda published, ours: HOLDS if above(ours[0]) == published[0] else NOT,
        verdict=HOLDS,
        why="in 100 000 steps at the rate of its code; not stuck: at ten times that it gets out",
    ),
    Row(
        "CAGrad's toy: where CAGrad ends, 3 starts",
        "where the mean is least, from all",
        CAGRAD,
        "12",
        "rule start 1 start 2 start 3\n",
        "CAGrad, c 0.5 ",
        ours=lambda lines: places(lines[0]),
        judge=lambda _, ours: HOLDS if in_the_middle(ours[0]) == 3 else NOT,
        verdict=HOLDS,
    ),
    Row(
        "Nash-MTL's toy, 5 starts: the sum of losses, and Nash-MTL",
        "stuck from 1; on the Pareto set from all",
        "Navon et al. 2022, figure of the toy, and code",
        "12",
        "rule start 1 start 2 start 3 start 4 start 5\nmean (",
        "(?:mean|Nash-MTL) ",
        ours=lambda lines: f"stuck at {places(lines[0][4:6])}; Nash-MTL: {places(lines[1])}",
        judge=nash,
        verdict=HOLDS,
        why="stuck may mean not yet: of eight that were, four were out later",
    ),
    Row(
        "FAMO's toy, 5 starts",
        "the middle of the Pareto set from all",
        "Liu et al. 2023, figure of the toy, and code",
        "13",
        "start at gamma = 0 gamma = 0.001",
        r"\(.*?\) ",
        ours=lambda lines: "x₁ from {} to {} with γ = 0; up to {} with the paper's".format(
            *(f([line[k] for line in lines], key=float) for f, k in ((min, 0), (max, 0), (max, 2)))
        ),
        judge=lambda _, ours: famo([], [[0, 0, *line] for line in ours]),
        verdict=SETTING,
        why="it needs the γ = 0 of the code; that of the paper's algorithm leaves all elsewhere",
    ),
    Row(
        "Aligned-MTL's toy, 5 starts",
        "the middle of the Pareto set from all",
        "Senushkin et al. 2023, figure of the toy, and code",
        "12",
        "setting tolerance start 1",
        r"(?:equal scale|L1 x 0\.1) default ",
        ours=lambda lines: (
            f"{places(lines[0])}; one loss times 0.1: one at {places(lines[1][4:6])}"
        ),
        judge=aligned,
        verdict=SETTING,
        why="the tolerance of its rank decides",
    ),
    Row(
        "PCGrad's toy: sum of losses, Adam on the sum and PCGrad",
        "PCGrad gets down, Adam on the sum does not",
        "Yu et al. 2020, figure of the toy; start and length from public codes",
        "12",
        "axes: Sum of losses",
        r"#\w{6} -+: ",
        ours=lambda lines: f"{lines[0][-1]} and {lines[1][-1]} after 500 000 steps",
        judge=lambda _, ours: HOLDS if ours[1][-1] < 3 * ours[0][-1] < 0 else NOT,
        verdict=HOLDS,
        why="two parameters, no noise, losses made for the purpose",
    ),
    Row(
        "Cityscapes, Δm of equal and of uncertainty weights",
        "22.60 and 5.89, below 0 is better",
        "a table of LDC-MTL, arXiv 2502.08585, from its own cells",
        "16",
        "LS as published, sign turned",
        "✓ (?:LS|UW) as published, sign turned: ",
        ours=lambda lines: " and ".join(line[0] for line in lines),
        judge=lambda published, ours: matches(published[:2], ours),
        verdict=HOLDS,
        why="three quarters of the first come from one metric",
    ),
    Row(
        "ranks of four decision trees on 14 data sets: χ², F, critical difference",
        "9.28, 3.69 and 1.25",
        "Demšar 2006, section 3.2, from his mean ranks",
        "14",
        "Demšar 2006 published here",
        "(?:χ²|F|CD) ",
        ours=lambda lines: ", ".join(line[-1] for line in lines),
        judge=lambda published, ours: HOLDS if published == [line[-1] for line in ours] else NOT,
        verdict=HOLDS,
    ),
)


# ---- the table ----------------------------------------------------------------------------------


def judged(row: Row) -> tuple[Path, str, str]:
    """The notebook and the section that hold our numbers, and what the table says of them.

    Raises:
        ValueError: the numbers are not there, or their verdict is not the row's.
    """
    path, section, lines = measure(row)
    published = [float(n) for n in NUMBER.findall(row.published)]
    verdict = row.judge(published, [[float(n) for n in line] for line in lines])
    if verdict != row.verdict:
        raise ValueError(f"{row.what}: the row says {row.verdict!r}, its numbers {verdict!r}")
    return path, section, row.ours(lines)


def table(rows: Sequence[Row] = ROWS) -> pd.DataFrame:
    """What was published and what came out here, a row each, for `show`."""
    found = []
    for row in rows:
        path, _, ours = judged(row)
        verdict = f"{row.verdict}{': ' * bool(row.why)}{row.why}"
        place = f"{row.number}{', report' * (path.parent.name == 'research')}"
        found.append((row.what, row.published, ours, verdict, place))
    return pd.DataFrame(found, columns=["what", "published", "here", "verdict", "where"])


def markdown(rows: Sequence[Row] = ROWS) -> str:
    """The table with sources and links, for the README."""
    lines = ["| what | published | here | verdict |", "|---|---|---|---|"]
    for row in rows:
        path, section, ours = judged(row)
        link = f"[{row.number}, {section}](notebooks/{path.relative_to(NOTEBOOKS).as_posix()})"
        verdict = f"**{row.verdict}**{': ' * bool(row.why)}{row.why}"
        source = f"{row.published} ({row.source})"
        lines.append(f"| {row.what} | {source} | {ours} ({link}) | {verdict} |")
    return "\n".join(lines)
