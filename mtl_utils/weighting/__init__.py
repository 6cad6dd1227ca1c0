"""Losses in, task weights out. See `base.py` for the interface, `methods/` for the rules."""

from mtl_utils.weighting.base import (
    Weighting,
    available_weightings,
    make_weighting,
    register,
)
from mtl_utils.weighting.kinds import GradientWeighting, LossWeighting

from mtl_utils.weighting import methods  # noqa: F401  # isort: skip  (registers the rules)

__all__ = [
    "GradientWeighting",
    "LossWeighting",
    "Weighting",
    "available_weightings",
    "make_weighting",
    "register",
]
