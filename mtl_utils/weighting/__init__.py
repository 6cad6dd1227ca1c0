"""Losses in, task weights out. See `base.py` for the interface."""

# Importing a module registers its rules, in the order in which the course meets them.
from mtl_utils.weighting import loss, history, scalarisation, gradient  # noqa: F401  # isort: skip
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
