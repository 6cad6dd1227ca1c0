"""The engine behind `mtl_utils.gradients`: any graph that autograd can differentiate."""

from mtl_utils.engine.accumulated import Accumulated
from mtl_utils.engine.processes import Mean
from mtl_utils.engine.task_gradients import TaskGradients

__all__ = ["Accumulated", "Mean", "TaskGradients"]
