"""The passes that find task gradients: through the heads to the gates, and on through the trunk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from mtl_utils.engine import heads, trunk
from mtl_utils.engine.graph import Graph
from mtl_utils.engine.retained import Retained
from mtl_utils.engine.rows import Block

NEEDS_BUFFERS = (
    "losses: a part of the trunk was compiled so that it can be passed back only once, and rules "
    "on gradients pass it once for each task; set torch._functorch.config.donated_buffer = False "
    "before the model is compiled"
)


class Passes:
    """Passes through one graph. They touch no `.grad`, and hooks of leaves do not see them.

    Args:
        graph: what the losses reach.
        head_weights: [K], above 0, of the losses in the gradients of all leaves but shared ones.
        scale: factor of all gradients.
        method: "loop" or "batched" says how the trunk is passed, anything else leaves it open.
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
        self._retained = Retained(graph.every, memo)
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
            with heads.hooks_off(self.leaves):
                self._partials, found = heads.at_gates(
                    self.graph, self.head_weights, self.scale, leaves, keep
                )
            self._retained.restore()
        return self._partials, found

    def through_trunk(self, targets: Sequence[Any], keep: bool) -> list[Block | None]:
        """What the tasks want, taken back from the gates to parameters or edges.

        Args:
            targets: tensors or edges.
            keep: the graph of the trunk for another pass.
        """
        partials, _ = self.at_gates()
        kinds = frozenset(type(node).__name__ for node in self.graph.nodes)
        known = self.memo.get(kinds)  # whether a graph of these nodes can be vectorised
        if self.method == "batched":
            known = True
        elif self.method == "loop" or not trunk.vectorises(self.graph, partials):
            known = False
        try:
            with heads.hooks_off(self.leaves):
                if known is not False:
                    keep_it = keep or not known  # until it is known, it may be passed again
                    try:
                        found = trunk.at_once(self.graph, partials, targets, keep_it)
                    except Exception:
                        if known:
                            raise
                        self.memo[kinds] = False
                    else:
                        self.memo.setdefault(kinds, True)
                        self.words = "trunk vectorised"
                        return found
                self.words = "trunk once for each task"
                if self.memo.get(kinds) is False:
                    self.words += ", as it cannot be vectorised"
                return trunk.one_by_one(self.graph, partials, targets, keep)
        except RuntimeError as error:
            if "donated buffer" in str(error):
                raise ValueError(NEEDS_BUFFERS) from error
            raise
        finally:
            self._retained.restore()
