"""Activations on which `retain_grad()` was called: `.grad` is for the gradient that lands."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from typing import Any

from torch import Tensor


class Retained:
    """The `.grad` of such activations of a graph, as it was before task gradients were found.

    Autograd adds to it in every pass, and leads from a tensor to its node but not back: so they are
    looked for among the objects that Python made last, and among all once one was found.

    Args:
        nodes: of the graph.
        memo: kept from call to call.
    """

    def __init__(self, nodes: Iterable[Any], memo: dict) -> None:
        old = memo.get("retained", False)
        objects = gc.get_objects() if old else gc.get_objects(0) + gc.get_objects(1)
        tensors = [thing for thing in objects if type(thing) is Tensor]
        found = [tensor for tensor in tensors if tensor.retains_grad]
        if found:
            own = set(nodes)
            found = [tensor for tensor in found if tensor.grad_fn in own]
        self.before = [(tensor, tensor.grad) for tensor in found]
        memo["retained"] = old or bool(found)

    def restore(self) -> None:
        """Take out what was added since."""
        for tensor, gradient in self.before:
            tensor.grad = gradient
