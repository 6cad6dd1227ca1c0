"""The passes that find task gradients: through the heads to the gates, and on through the trunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from mtl_utils.engine import heads, trunk
from mtl_utils.engine.graph import Graph
from mtl_utils.engine.rows import Block
from mtl_utils.engine.watched import Watched

NEEDS_BUFFERS = (
    "losses: a part of the model was compiled so that it can be passed back only once, and rules "
    "on gradients pass it once for each task; set torch._functorch.config.donated_buffer = False "
    "before the model is compiled, and leave it so"
)
NEEDS_LOOP = (
    "losses: something in the trunk, such as a hook, cannot take all tasks at once, as it could in "
    "an earlier call; from now on each task is a pass of its own, as with method='loop'"
)
NEEDS_PASSES = (
    "losses: a part of the model can be passed back only once (so does selective checkpointing), "
    "and rules on gradients pass it once for each task; checkpoint it whole, or take a rule on "
    "losses"
)
NEEDS_GRAD = (
    "losses: a custom function of the model calls backward() in its own backward pass and so adds "
    "to .grad in every pass, of which rules on gradients make several; let it return its gradients "
    "by torch.autograd.grad, or take a rule on losses"
)


class Passes:
    """Passes through one graph. They touch no `.grad`, and hooks of leaves do not see them.

    Args:
        graph: what the losses reach.
        head_weights: [K], above 0, of the losses in the gradients of all leaves but shared ones.
        scale: factor of all gradients.
        method: "loop" passes the trunk once for each task, "batched" at once even where that is
            slower, if it is possible; anything else leaves it open.
        memo: kept from call to call: which graphs cannot be vectorised.

    Attributes:
        words: how the trunk was passed.
    """

    def __init__(
        self, graph: Graph, head_weights: Sequence[float], scale: float, method: str, memo: dict
    ) -> None:
        self.graph, self.head_weights, self.scale = graph, head_weights, scale
        self.method, self.memo = method, memo
        self.words = ""
        self.leaves = [*graph.live, *graph.private, *graph.below]
        self._watched = Watched(graph.every, memo)
        # Python code of the user's sees the gradients, may write into them, and may keep them
        self.user_code = self._watched.by_hooks or graph.has_own_functions
        self._partials: heads.Partials | None = None

    def at_gates(
        self, leaves: Sequence[Tensor] = (), keep: bool = True
    ) -> tuple[heads.Partials, list[Tensor | None]]:
        """What each task wants at the gates, and the gradients of leaves that are not shared.

        Args:
            leaves: whose gradients are wanted; only the first call finds them.
            keep: the graph of the heads for another pass.
        """
        found: list[Tensor | None] = []
        if self._partials is None:
            with self._without_traces():
                self._partials, found = heads.at_gates(
                    self.graph,
                    self.head_weights,
                    self.scale,
                    leaves,
                    keep,
                    self._may_vectorise,
                    self.user_code,
                )
        return self._partials, found

    @property
    def are_plain(self) -> bool:
        """Whether each task is a pass of its own anyway, and nothing else was asked for."""
        return self._partials is None and not self._may_vectorise

    def from_losses(
        self, targets: Sequence[Tensor], beside: Sequence[Tensor], keep: bool
    ) -> list[Block | None]:
        """For each task one pass through its head and on through the trunk: see `trunk.one_by_one`.

        Args:
            targets, beside: leaves.
            keep: the graph for another pass.
        """
        self._say_one_by_one()
        with self._without_traces():
            partials = self._own(heads.at_roots(self.graph, self.scale))
            return trunk.one_by_one(self.graph, partials, targets, keep, beside)

    def through_trunk(self, targets: Sequence[Any], keep: bool) -> list[Block | None]:
        """What the tasks want, taken back from the gates to parameters or edges.

        Args:
            targets: tensors or edges.
            keep: the graph of the trunk for another pass.
        """
        partials = self._own(self.at_gates()[0])
        with self._without_traces():
            if self._may_vectorise and (self.method == "batched" or trunk.is_dense(partials)):
                found = self._at_once(partials, targets, keep)
                if found is not None:
                    return found
            self._say_one_by_one()
            return trunk.one_by_one(self.graph, partials, targets, keep)

    def _own(self, partials: heads.Partials) -> heads.Partials:
        """The same, or a copy where somebody may write into it."""
        if not self.user_code:
            return partials
        return {
            into: [None if row is None else row.clone() for row in rows]
            for into, rows in partials.items()
        }

    def _say_one_by_one(self) -> None:
        self.words = "trunk once for each task"
        if self.memo.get(self._kinds) is False:
            self.words += ", as it cannot be vectorised"
        elif self.user_code and self._vectorises:
            self.words += ", as hooks or custom functions see each gradient"

    @cached_property
    def _kinds(self) -> frozenset:
        return frozenset(type(node).__name__ for node in self.graph.nodes)

    @cached_property
    def _vectorises(self) -> bool:
        return self.method == "batched" or trunk.vectorises(self.graph)

    @property
    def _may_vectorise(self) -> bool:
        if self.method == "loop" or self.user_code or self.memo.get(self._kinds) is False:
            return False
        return self._vectorises

    def _at_once(
        self, partials: heads.Partials, targets: Sequence[Any], keep: bool
    ) -> list[Block | None] | None:
        """All tasks in one pass; None where that is not possible."""
        kinds = self._kinds
        keep = keep or not self.memo.get(kinds)
        try:
            found = trunk.at_once(self.graph, partials, targets, keep)
        except Exception as error:
            self.memo[kinds] = False
            if not keep:
                raise ValueError(NEEDS_LOOP) from error
            return None
        self.memo[kinds] = True
        self.words = "trunk vectorised"
        return found

    @contextmanager
    def _without_traces(self) -> Iterator[None]:
        """Hooks of leaves and `.grad` of activations are for the gradient that lands."""
        try:
            with heads.hooks_off(self.leaves), several_passes():
                yield
        finally:
            self.forget()

    def forget(self) -> None:
        """Take out of activations with `retain_grad()` what was added since the beginning."""
        self._watched.restore()


@contextmanager
def several_passes() -> Iterator[None]:
    """Around passes of which there are several."""
    with naming_parts_for_one_pass(), refusing_backward_within():
        yield


@contextmanager
def refusing_backward_within() -> Iterator[None]:
    """Within it, a custom function that calls backward() in its own backward pass is refused."""
    plain = torch.autograd.backward

    def refused(*args: Any, **options: Any) -> None:
        if torch._C._current_graph_task_id() != -1:
            raise ValueError(NEEDS_GRAD)
        plain(*args, **options)

    torch.autograd.backward = refused
    try:
        yield
    finally:
        torch.autograd.backward = plain


@contextmanager
def naming_parts_for_one_pass() -> Iterator[None]:
    """Within it, a part that was compiled or checkpointed for one pass is refused by name."""
    try:
        yield
    except RuntimeError as error:
        if "donated buffer" in str(error):
            raise ValueError(NEEDS_BUFFERS) from error
        if "an extra time" in str(error):
            raise ValueError(NEEDS_PASSES) from error
        raise
