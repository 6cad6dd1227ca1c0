"""Losses in, task weights out. See `base.py` for the interface."""

from mtl_utils.weighting import loss  # noqa: F401  (importing a module registers its rules)
from mtl_utils.weighting.base import (
    GradientWeighting,
    LossWeighting,
    Weighting,
    available_weightings,
    make_weighting,
    register,
)

__all__ = [
    "GradientWeighting",
    "LossWeighting",
    "Weighting",
    "available_weightings",
    "make_weighting",
    "register",
]
