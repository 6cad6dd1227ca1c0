"""The decision guide: what you know about your tasks, and what to try first.

Each branch names the checks of our notebooks that it rests on, and a test looks for them among the
stored outputs. `table` is for notebooks, `markdown` for the README, `plot_guide` draws the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from experiments.published import NOTEBOOKS, notebooks, outputs


@dataclass(frozen=True)
class Branch:
    """A fact about the tasks and what follows.

    Args:
        know: the fact, short enough for a box.
        first: what to try first, short enough for a box.
        cost: of it.
        not_expected: what not to hope for.
        rests_on: (number of a notebook, words of one of its checks), the strongest first.
    """

    know: str
    first: str
    cost: str
    not_expected: str
    rests_on: tuple[tuple[str, str], ...]


ALWAYS = Branch(
    "Before any rule",
    "standardise what regressions predict, weigh all tasks alike, tune the learning rate; beside "
    "it each task alone, tuned as well: where that wins, do not expect a weighting to "
    "catch up",
    "five rates: five trainings together, five for each task",
    "that sharing helps: on two digits, networks that share nothing had less error in all of 16 "
    "settings, and on four sets of five each task alone, with two to fourteen times the "
    "parameters, was ahead of all 34 rules; or that a rule spares you the standardising: on "
    "diamonds no rule on raw targets was ahead of equal weights on standardised ones",
    (
        ("14", "diamonds: no rule is ahead of standardised targets"),
        ("14", "each task alone: ahead of every rule on four of five sets"),
        ("08", "standardised, equal: below all three"),
        ("06", "DWA: 48 comparisons, none decided"),
        ("07", "untied networks: 16 of 16"),
    ),
)

BRANCHES = (
    Branch(
        "Regressions and classes together",
        "standardise each regression by the training rows, mean losses, weights of 1; tune the "
        "rate; then uncertainty weighting, its own rate tuned, or a sweep of fixed weights",
        "a search for the rate; then three trainings, or one for each ratio",
        "that weights make up for units, or that learned ones beat each task alone: in rendered "
        "rooms, tuned for 200 steps, the mean error of learned weights on standardised depth was "
        "not told from that of three networks; with noise in the depth they were behind in it, "
        "after 800 steps, at the same settings, in the two others, and in centimetres far behind",
        (
            ("15", "tuned: learned on standardised depth is not told from alone"),
            ("15", "tuned, raw depth: behind it, in metres equal ones alone"),
            ("15", "depth: level, and with noise behind"),
            ("15", "80 epochs: minus equal, alone"),
            ("15", "metres: minus alone, equal and fixed, standardised"),
        ),
    ),
    Branch(
        "Units differ, and some regression cannot be standardised",
        "fixed weights: 1 / variance for a squared error, 1 / standard deviation for an absolute "
        "one; or the log of each loss",
        "nothing; for the log, losses have to stay above 0",
        "that the log helps where units are alike: with losses in units of 1 : 10 000 it and fixed "
        "weights took 15 to 70 % off the error of equal ones in all eight settings; on "
        "standardised diamonds, SGD, it was 14 to 56 % behind them in three of four",
        (
            ("13", "units: four are ahead in eight"),
            ("13", "by 15 to 70 %"),
            ("13", "diamonds, SGD: behind"),
        ),
    ),
    Branch(
        "The labels of one task are much noisier than the others'",
        "uncertainty weighting: the form of each loss named, and a learning rate of its own; with "
        "few tasks beside it a sweep of fixed weights, the noisy one's / 4 as long as it helps",
        "three trainings; the sweep one for each ratio",
        "that it helps where noise is alike: with one noisy target of three it had 41 to 44 % less "
        "error than equal weights in four settings of four, fixed weights 10 to 52 % less; on "
        "three other sets it gained in 3 of 24 and lost in one. That falling losses (DWA) or "
        "metrics (DTP) find the noise: DWA was behind fixed weights, DTP not told from them",
        (
            ("04", "learned: 41 to 44 % less"),
            ("06", "noisy: fixed weights, 10 to 52 % less"),
            ("14", "noisy: fixed weights and uncertainty, ahead of equal"),
            ("06", "where uncertainty gains"),
            ("06", "noisy: DWA behind fixed weights"),
            ("07", "to fixed weights: none decided"),
        ),
    ),
    Branch(
        "Noise differs from sample to sample",
        "a head for the variance, with β = ½; on held-out data, errors divided by the predicted σ",
        "an output more for each task",
        "of the likelihood without β that it gains early or under even noise (on two tasks, all "
        "tuned, with noise of 2 against 0.1, it left 36 and 38 % less error than learned task "
        "weights after 120 epochs, not after 15), or that it learns what is hard",
        (
            ("05", "uneven, 120 epochs: ahead"),
            ("05", "decided; after 15 epochs not"),
            ("05", "beta 0.5: ahead, in all four"),
            ("05", "even noise: level, or 28 % behind"),
            ("05", "the likelihood's best of four rates: 5 times the control's best"),
            ("05", "beta 0.5 is within 0.01 of the control"),
        ),
    ),
    Branch(
        "One task is the main one",
        "that task alone; then fixed weights on the other tasks, tuned for it",
        "two or three trainings",
        "help from a task that only looks alike: one that finds what yours hardly finds helped",
        (
            ("01", "the helper that knows the direction lowers the error"),
            ("01", "another direction does not help"),
        ),
    ),
    Branch(
        "You want another trade-off, or a set of them",
        "a sweep of fixed weights; if it jumps from end to end, smooth Tchebycheff",
        "a training for each trade-off",
        "more from runs steered by preference vectors (Pareto MTL): on digits a sweep of fixed "
        "weights had the most",
        (
            ("13", "fixed weights: below a fifth of mu = 0.1"),
            ("10", "fixed weights: the most of all"),
        ),
    ),
    Branch(
        "You have measured that gradients conflict, beyond their noise",
        "FairGrad, Aligned-MTL or Nash-MTL beside tuned fixed weights, each at its own rate",
        "a gradient for each task: 7 plain steps for 20 tasks in a ResNet-18",
        "conflict where many tasks are alike: ours had cosines near 0. Much of a gain: on the "
        "mean of five sets, all tuned, these three had 2 to 3 % less error than equal weights "
        "after as many steps, of no other rule it is decided, and after as much time they had 5 % "
        "more",
        (
            ("14", "mean of five sets: three rules are ahead"),
            ("14", "after equal time these three are behind, decided"),
            ("12", "corrected: from 0.03 to 0.12 after the start"),
            ("12", "a step: 7.1 times plain, 1.5 on the representation"),
        ),
    ),
    Branch(
        "Time or memory is short",
        'rules on losses; for a rule on gradients gramian="representation" or every=10',
        "a plain step; one and a half on the representation",
        "the weights of the exact rule",
        (
            ("12", "a step: 7.1 times plain, 1.5 on the representation"),
            ("16", "representation: other weights"),
        ),
    ),
    Branch(
        "Labels are missing",
        "present=[...] for a task that has none in the batch",
        "nothing",
        "that a loss of 0 does it: learned weights run away, and MGDA stands still",
        (
            ("16", "zeros: the weight runs away"),
            ("16", "with a zero MGDA stands still"),
        ),
    ),
    Branch(
        "Each batch has one task only",
        "choose how often each task is drawn: that is its weight; or add up batches",
        "nothing; memory for the added ones",
        "anything of rules on gradients: on one task alone their weight is 1",
        (
            ("16", "in the mean: fixed weights p"),
            ("16", "alternating, mgda: the weight 1"),
        ),
    ),
)


def grounds(branch: Branch) -> list[str]:
    """The notebooks that a branch rests on, as links from the repository's root.

    Raises:
        ValueError: one of its checks is not among the stored outputs.
    """
    links = {}
    for number, words in branch.rests_on:
        holding = [
            path
            for path in notebooks(number)
            if any(f"\n✓ {words}" in text for _, text in outputs(path))
        ]
        if not holding:
            raise ValueError(f"{branch.know}: notebook {number} has no check {words!r}")
        links[number] = f"[{number}](notebooks/{holding[0].relative_to(NOTEBOOKS).as_posix()})"
    return list(links.values())


def table(branches: Sequence[Branch] = (ALWAYS, *BRANCHES)) -> pd.DataFrame:
    """The guide in words, a row a branch, for `show`."""
    rows = [
        {
            "what you know": branch.know,
            "try first": branch.first,
            "it costs": branch.cost,
            "do not expect": branch.not_expected,
            "measured in": ", ".join(dict.fromkeys(number for number, _ in branch.rests_on)),
        }
        for branch in branches
    ]
    return pd.DataFrame(rows)


def markdown(branches: Sequence[Branch] = (ALWAYS, *BRANCHES)) -> str:
    """The guide in words with links, for the README."""
    lines = ["| what you know | try first | it costs | do not expect | measured in |"]
    lines.append("|---|---|---|---|---|")
    for branch in branches:
        cells = (branch.know, branch.first, branch.cost, branch.not_expected)
        lines.append(f"| {' | '.join(cells)} | {', '.join(grounds(branch))} |")
    return "\n".join(lines)
