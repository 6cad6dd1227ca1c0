"""Activations that somebody watches: with `retain_grad()`, or with a hook."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from typing import Any

from torch import Tensor


class Watched:
    """Such activations of a graph: the `.grad` of the first kind is for the gradient that lands.

    Autograd adds to it in every pass. It leads from a tensor to its node but not back: so they are
    looked for among the objects that Python made last, and among all where its collector has moved
    objects on since the last call, or fewer are found than then. A hook whose tensor Python no
    longer has is not found.

    Args:
        nodes: of the graph.
        memo: kept from call to call.

    Attributes:
        by_hooks: whether there are hooks. They are the user's Python code, which may keep what it
            sees: what a vectorised pass shows them could not be read afterwards.
    """

    def __init__(self, nodes: Iterable[Any], memo: dict) -> None:
        own = set(nodes)
        moved = [generation["collections"] for generation in gc.get_stats()[1:]]
        found = _watched_among(gc.get_objects(0) + gc.get_objects(1), own)
        if memo.get("collections") != moved or len(found) < memo["watched"]:
            found = _watched_among(gc.get_objects(), own)
        memo |= {"collections": moved, "watched": len(found)}
        kinds = {type(node).__name__ for node in own}
        self.by_hooks = "BackwardHookFunctionBackward" in kinds  # those of modules
        self.by_hooks |= any(tensor._backward_hooks for tensor in found)
        self.before = [(tensor, tensor.grad) for tensor in found if tensor.retains_grad]

    def restore(self) -> None:
        """Take out what was added since."""
        for tensor, gradient in self.before:
            tensor.grad = gradient


def _watched_among(objects: list, nodes: set) -> list[Tensor]:
    kinds = _kinds_of(Tensor)
    tensors = [thing for thing in objects if type(thing) in kinds]
    found = [tensor for tensor in tensors if tensor.retains_grad or tensor._backward_hooks]
    return [tensor for tensor in found if tensor.grad_fn in nodes]


def _kinds_of(kind: Any) -> set[Any]:
    """A class and all that inherit from it."""
    found, todo = {kind}, [kind]
    while todo:
        new = set(type.__subclasses__(todo.pop())) - found
        found |= new
        todo += new
    return found
