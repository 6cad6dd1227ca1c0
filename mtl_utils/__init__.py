"""Loss weighting in multi-task learning: the small package under the notebooks.

In your own loop:

    weighting = make_weighting("uncertainty", n_tasks=2)
    ...
    weights = weighting.backward(losses, shared=model.trunk.parameters())
"""

from mtl_utils.weighting import Weighting, available_weightings, make_weighting

__version__ = "1.0.0"
__all__ = ["Weighting", "available_weightings", "make_weighting"]
