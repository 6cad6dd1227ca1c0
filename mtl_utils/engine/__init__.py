"""The engine behind `mtl_utils.gradients`: any graph that autograd can differentiate."""

from mtl_utils.engine.landing import backward
from mtl_utils.engine.task_gradients import TaskGradients

__all__ = ["TaskGradients", "backward"]
