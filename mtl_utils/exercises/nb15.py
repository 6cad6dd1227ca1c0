"""Exercises of notebook 15."""

import math

import torch

from mtl_utils.exercises import Exercise


def _noisy_error(e: float, b: float) -> float:
    """E |e + noise|, the noise Laplace with scale b."""
    return abs(e) + b * math.exp(-abs(e) / b)


def _known_error(depth: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean absolute error over the pixels whose target is not 0."""
    known = target != 0
    return (depth - target).abs()[known].mean()


DEPTH = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
TARGET = torch.tensor([[1.5, 0.0, 3.0], [0.0, 0.0, 4.0]])
STEPS = math.ceil(2 * math.log(86) / 0.05)

EXERCISES = {
    "15.1": Exercise(
        answer=[-math.log(0.25), 0.4, 1.0],
        hint="The three losses of *One pixel by hand*: -log p, the absolute error in metres, and 1 "
        "minus a cosine.",
        formula="-log 0.25; 40 cm in metres; 1 - cos 90°.",
        praise="three numbers of about 1, and each has a unit of its own",
        mistakes=(
            ([-math.log(0.25), 40.0, 1.0], "The depth is in metres, and 40 cm are fewer."),
            ([-math.log(0.25), 0.4, 0.0], "The cosine of 90° is 0, and the loss is 1 minus it."),
            ([0.75, 0.4, 1.0], "The cross-entropy is the negative logarithm of p."),
            ([2.0, 0.4, 1.0], "In nats: take the natural logarithm."),
        ),
    ),
    "15.2": Exercise(
        answer=[1.25, 2.0, 2.5],
        hint="Formula (2): one of the three weights has no factor 1/2.",
        formula="1 / (2 L) for classes and normals, 1 / L for the depth.",
        praise="weight times loss is 1/2, 1, 1/2: the depth is heard twice as loudly",
        mistakes=(
            ([1.25, 1.0, 2.5], "The absolute error has a Laplace likelihood: its weight is 1 / L."),
            ([2.5, 2.0, 5.0], "Classes and normals have 1 / (2 L)."),
            (
                [0.8, 0.5, 0.2],
                "Those are the places of rest; the weights stand beside them in (2).",
            ),
        ),
    ),
    "15.3": Exercise(
        answer=STEPS,
        hint="The rule learns s, and b is e^(s/2). From where to where has s to go?",
        formula="s goes from 0 to 2 log 86; each step is at most 0.05; round up.",
        praise="of the 200 steps that the training has, if every one of them were a full one",
        mistakes=(
            (math.ceil(math.log(86) / 0.05), "b is e^(s/2), so s is 2 log b."),
            (math.ceil(86 / 0.05), "What moves by 0.05 a step is s, a logarithm, not b."),
            (STEPS - 1, "After so many steps it is not quite there: round up."),
            (180, "Rounded too much: give the whole number."),
        ),
    ),
    "15.4": Exercise(
        answer=_noisy_error,
        at=((0.5, 1.0), (-0.8, 0.3), (0.0, 2.0)),
        hint="Formula (3).",
        formula="abs(e) + b * exp(-abs(e) / b); an error may be negative.",
        praise="at e = 0 it is b, and where |e| is much larger than b it is |e|",
        mistakes=(
            (lambda e, b: abs(e) + b, "That is too much: noise and error often cancel in part."),
            (lambda e, b: e + b * math.exp(-e / b), "An error may be negative: take its absolute."),
            (lambda e, b: math.hypot(e, b), "Squares would add up like this; absolutes do not."),
        ),
    ),
    "15.5": Exercise(
        answer=_known_error,
        at=((DEPTH, TARGET), (2 * DEPTH, DEPTH)),
        hint="Which pixels are known? Average over these alone.",
        formula="known = target != 0; (depth - target).abs()[known].mean().",
        praise="dividing by all pixels would give images with many unknown ones less weight",
        mistakes=(
            (
                lambda depth, target: ((depth - target).abs() * (target != 0)).mean(),
                "Divide by the number of known pixels, not by that of all.",
            ),
            (
                lambda depth, target: (depth - target).abs().mean(),
                "Pixels with the target 0 are unknown: leave them out.",
            ),
        ),
    ),
    "15.6": Exercise(
        answer=1 / (2 * math.log(5)),
        hint="What is the lowest cross-entropy that a model can have if the labels say nothing?",
        formula="It says 1/5 of each class, so L = log 5; the weight at rest is 1 / (2 L).",
        praise="not 0: a task of pure noise is still heard, with half a nat of the sum",
        mistakes=(
            (0.0, "The rule never switches a task off: at rest the weight is 1 / (2 L)."),
            (1 / math.log(5), "Classes have a weight of 1 / (2 L)."),
            (0.5 / math.log2(5), "Take the natural logarithm."),
        ),
    ),
}
