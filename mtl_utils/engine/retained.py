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
        young = memo.get("retained")
        objects = gc.get_objects() if young else [*gc.get_objects(0), *gc.get_objects(1)]
        own = set(nodes)
        self.before: list[tuple[Tensor, Tensor | None]] = []
        for candidate in objects:
            if type(candidate) is Tensor and candidate.retains_grad and candidate.grad_fn in own:
                self.before.append((candidate, candidate.grad))
        if self.before:
            memo["retained"] = True

    def restore(self) -> None:
        """Take out what was added since."""
        for tensor, gradient in self.before:
            tensor.grad = gradient
