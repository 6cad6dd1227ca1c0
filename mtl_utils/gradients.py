"""Gradients of K task losses in the shared parameters, and their Gramian, as cheaply as autograd
allows.

Ways to the Jacobian J [K, P], row k = gradient of loss k in the P shared parameters:

    loop     K backward passes through heads and trunk
    batched  one vectorised backward pass (vmap over the K losses)
    cut      find the representation z, where the heads leave the trunk; each loss is taken back
             through its own head once, to dL_k/dz, and from there through the trunk
    forked   the same where the representation was forked once for each head (`fork`), so that one
             backward pass gives every dL_k/dz and all head gradients

The Gramian J J' needs no J. For a linear layer with inputs a [R, in] and output gradients d_k
[R, out] of loss k,

    <g_k, g_l> = sum of (a a' + 1 1') * (d_k d_l')        (1 1' is the bias)

so with a cut only the d_k travel back through the trunk, and the gradient of the weight in the
update is (sum_k alpha_k d_k)' a. `mtl_utils.layers` has the formulas.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from mtl_utils import layers

METHODS = ("auto", "loop", "batched", "cut", "forked")


def fork(representation: Tensor, n_tasks: int) -> tuple[Tensor, ...]:
    """K aliases of a representation, one for each head, that autograd can tell apart.

    Args:
        representation: output of the trunk, any shape, attached to the graph.
        n_tasks: K.

    Returns:
        K tensors with the values and the storage of `representation`.
    """
    return tuple(representation.view_as(representation) for _ in range(n_tasks))


def accumulate(parameter: Tensor, gradient: Tensor | None, fresh: bool = False) -> None:
    """Add a gradient to `parameter.grad`, as `Tensor.backward` does.

    Args:
        fresh: nobody else holds the memory of `gradient`, so it need not be copied.
    """
    if gradient is None:
        return
    gradient = gradient.detach().to(parameter.dtype)
    if parameter.grad is None:
        parameter.grad = gradient if fresh else gradient.clone()
    else:
        parameter.grad.add_(gradient)


def check_shared(shared: Iterable[Tensor]) -> list[Tensor]:
    """The shared parameters that learn, as a list.

    Raises:
        ValueError: no parameters, something else than leaf tensors, or all of them frozen.
    """
    if isinstance(shared, Tensor):
        shared = [shared]
    if not isinstance(shared, Iterable):
        raise ValueError(
            "shared: expected parameters, e.g. model.trunk.parameters(), "
            f"got {type(shared).__name__}"
        )
    parameters = list(shared)
    if not parameters:
        raise ValueError(
            "shared: expected at least one parameter, got none "
            "(a generator such as model.parameters() is empty the second time)"
        )
    for parameter in parameters:
        if not isinstance(parameter, Tensor) or not parameter.is_leaf:
            raise ValueError(
                f"shared: expected parameters (leaf tensors), got {type(parameter).__name__}"
                f"{' that is not a leaf' if isinstance(parameter, Tensor) else ''}"
            )
    unique = {id(p): p for p in parameters if p.requires_grad}
    if not unique:
        raise ValueError("shared: expected parameters that learn, got only frozen ones")
    return list(unique.values())


def _leaves(root: torch.autograd.graph.Node | None, stop: set) -> tuple[list[Tensor], set]:
    """Leaf tensors under a graph node, and which of the nodes in `stop` were met on the way."""
    leaves: dict[int, Tensor] = {}
    met, seen, stack = set(), set(), [root]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node in stop:
            met.add(node)
            continue
        if hasattr(node, "variable"):  # AccumulateGrad: the end of the graph
            leaves[id(node.variable)] = node.variable
        stack += [next_node for next_node, _ in node.next_functions]
    return list(leaves.values()), met


def _last_layer(shared: Sequence[Tensor]) -> list[Tensor]:
    """The last tensor with two or more dimensions and what follows it (its bias)."""
    matrices = [i for i, p in enumerate(shared) if p.dim() >= 2]
    return list(shared[matrices[-1] :] if matrices else shared[-1:])


class TaskGradients:
    """Gradients of K losses; what is not asked for is not computed.

    Ask for `gramian()` or `jacobian` or neither, then `fill()` once.

    Attributes:
        shared: the shared parameters.
        reached: whether any loss reaches each of them.
        method: "loop", "batched", "cut" or "forked".
        plan: in words, how the work was done so far.
    """

    def __init__(
        self,
        losses: Tensor,
        shared: list[Tensor],
        features: Sequence[Tensor] | None,
        method: str,
        retain_graph: bool,
        head_weights: Tensor | None,
    ) -> None:
        self.losses, self.shared, self.retain_graph = losses, shared, retain_graph
        self.head_weights = (
            torch.ones_like(losses) if head_weights is None else head_weights.detach().to(losses)
        )
        if not bool((self.head_weights > 0).all()):
            raise ValueError(
                f"head_weights: expected numbers above 0, got {self.head_weights.tolist()}"
            )
        shared_ids = {id(p) for p in shared}
        edge, self.features = None, features
        if method == "forked":
            _check_features(losses, features, shared_ids)
            assert features is not None
            edge = GradientEdge(*features[0].grad_fn.next_functions[0])  # type: ignore[union-attr]
        elif method in ("auto", "cut"):
            edge = _find_cut(losses, shared_ids)
            if edge is None and method == "cut":
                raise ValueError(
                    "method: 'cut' needs losses from torch.stack([...]) and a representation that "
                    "all of them read and nothing else of the trunk; there is none"
                )
            method = "loop" if edge is None else "cut"
        self.method, self.edge = method, edge
        if edge is None:
            leaves = _leaves(losses.grad_fn, set())[0]
        else:
            self._above = [_leaves(n, {edge.node})[0] for n, _ in losses.grad_fn.next_functions]  # type: ignore[union-attr]
            self._below = _leaves(edge.node, set())[0]
            unique = {id(q): q for part in [*self._above, self._below] for q in part}
            leaves = list(unique.values())
        leaf_ids = {id(leaf) for leaf in leaves}
        self.reached = [id(p) in leaf_ids for p in shared]
        if not any(self.reached):
            raise ValueError(
                "shared: no loss reaches any of these parameters; are they of this model?"
            )
        self.live = [p for p, r in zip(shared, self.reached, strict=True) if r]
        self.others = [leaf for leaf in leaves if id(leaf) not in shared_ids]
        self.plan = {
            "loop": "a backward pass for each task",
            "batched": "one vectorised backward pass",
            "cut": "each head once",
            "forked": "all heads in one pass",
        }[method]
        self._jacobian: Tensor | None = None
        self._layers: layers.Plan | None = None
        self._at_cut: Tensor | None = None  # dL_k/dz, [K, *z.shape]
        self._other_gradients: list[Tensor | None] | None = None
        if method == "forked":
            self._from_forks()
        elif method == "cut":
            self._from_heads()

    # ---- what a rule asks for ----------------------------------------------------------------

    @property
    def jacobian(self) -> Tensor:
        """[K, P], row k is the gradient of loss k in the shared parameters, flattened and in the
        order of `shared`; zeros where a loss does not reach a parameter. At least float32."""
        if self._jacobian is None:
            if self.edge is not None:
                blocks = self._through_trunk(self.live, self.retain_graph)
            elif self.method == "batched":
                blocks = self._batched()
            else:
                blocks = self._loop()
            self._jacobian = self._rows(blocks)
        return self._jacobian

    def gramian(self, last_layer: bool = False) -> Tensor:
        """Inner products of the task gradients, [K, K].

        Args:
            last_layer: only those of the last shared layer.
        """
        if not last_layer and (self._jacobian is not None or self.edge is None):
            return self.jacobian @ self.jacobian.T
        wanted = {id(p) for p in _last_layer(self.shared)} if last_layer else None
        part = [p for p in self.live if wanted is None or id(p) in wanted]
        if not part:
            raise ValueError("shared: no loss reaches the last shared layer")
        if self.edge is None:
            rows = []
            for loss in _single_losses(self.losses):
                found: Sequence[Tensor] = [torch.zeros_like(p) for p in part]
                if loss is not None:
                    one = torch.ones_like(self.head_weights[0])
                    found = torch.autograd.grad(
                        loss, part, one, retain_graph=True, materialize_grads=True
                    )
                rows.append(torch.cat([g.flatten() for g in found]))
            stacked = _at_least_single(torch.stack(rows))
            self.plan += "; Gramian of the last shared layer"
            return stacked @ stacked.T
        plan = layers.plan(self.edge, part, len(self.losses))
        keep = last_layer or self.retain_graph
        gramian = plan.gramian(self._through_trunk([*plan.edges, *plan.remaining], keep))
        self.plan += "; " + plan.words
        if not last_layer:
            self._layers = plan
        return gramian

    def representation_gramian(self) -> Tensor:
        """Inner products of the gradients dL_k/dz of the representation, [K, K].

        Raises:
            ValueError: there is no one representation that all heads read.
        """
        if self._at_cut is None:
            raise ValueError(
                "features: the Gramian of the representation needs features=fork(z, n_tasks), or "
                "losses from torch.stack([...]) that read one representation"
            )
        rows = _at_least_single(self._at_cut.reshape(len(self._at_cut), -1))
        self.plan += "; Gramian of the representation"
        return rows @ rows.T

    def fill(self, coefficients: Tensor) -> None:
        """Add sum_k coefficients[k] g_k to `.grad` of the shared parameters, and sum_k
        head_weights[k] dL_k to that of all others."""
        if self._jacobian is not None:
            self.fill_with(coefficients.to(self._jacobian) @ self._jacobian)
            return
        if self._layers is not None:
            for parameter, gradient in self._layers.update(coefficients):
                accumulate(parameter, gradient, fresh=True)
            self._fill_others()
            return
        if self.edge is not None:
            assert self._at_cut is not None
            rows = _at_least_single(self._at_cut.reshape(len(self._at_cut), -1))
            combined = (coefficients.to(rows) @ rows).view(self._at_cut.shape[1:])
            found = torch.autograd.grad(
                [self.edge],
                self.live,
                [combined.to(self._at_cut)],
                retain_graph=self.retain_graph,
                allow_unused=True,
            )
        else:
            others = self._sum_gradients(self.others, retain_graph=True)
            self._other_gradients = others
            found = torch.autograd.grad(
                self.losses,
                self.live,
                coefficients.to(self.losses),
                retain_graph=self.retain_graph,
                allow_unused=True,
            )
        for parameter, gradient in zip(self.live, found, strict=True):
            accumulate(parameter, gradient)
        self._fill_others()

    def fill_with(self, update: Tensor) -> None:
        """Add an update [P], flattened in the order of `shared`, to `.grad` of the shared
        parameters, and their gradients to that of all others."""
        sizes = [p.numel() for p in self.shared]
        for parameter, reached, part in zip(
            self.shared, self.reached, update.split(sizes), strict=True
        ):
            if reached:
                accumulate(parameter, part.view_as(parameter))
        self._fill_others()

    def _fill_others(self) -> None:
        assert self._other_gradients is not None
        seen: set[int] = set()
        for parameter, gradient in zip(self.others, self._other_gradients, strict=True):
            accumulate(parameter, gradient, fresh=_is_alone(gradient, seen))

    # ---- heads -------------------------------------------------------------------------------

    def _from_forks(self) -> None:
        """dL_k/dz and the gradients of all others in one backward pass."""
        assert self.features is not None
        found = self._sum_gradients([*self.features, *self.others], retain_graph=True)
        at_features = [
            torch.zeros_like(feature) if gradient is None else gradient
            for feature, gradient in zip(self.features, found, strict=False)
        ]
        self._set_cut(torch.stack(at_features), found[len(at_features) :])

    def _from_heads(self) -> None:
        """dL_k/dz and the gradients of all others, each loss through its own head."""
        assert self.edge is not None
        places = {id(leaf): i for i, leaf in enumerate(self.others)}
        totals: list[Tensor | None] = [None] * len(self.others)
        at_cut: list[Tensor | None] = []
        for k, loss in enumerate(_single_losses(self.losses)):
            if loss is None:
                at_cut.append(None)
                continue
            leaves = [q for q in self._above[k] if id(q) in places]
            targets: list[Any] = [self.edge, *leaves]
            found = torch.autograd.grad(
                loss,
                targets,
                self.head_weights[k],
                retain_graph=True,
                allow_unused=True,
            )
            at_cut.append(found[0])
            _add(totals, [places[id(q)] for q in leaves], found[1:])
        example = next(d for d in at_cut if d is not None)
        stacked = torch.stack([torch.zeros_like(example) if d is None else d for d in at_cut])
        below = [q for q in self._below if id(q) in places]
        if below:  # parts of the trunk that are not shared: they get the plain sum
            found = torch.autograd.grad([self.edge], below, [stacked.sum(0)], retain_graph=True)
            _add(totals, [places[id(q)] for q in below], found)
        self._set_cut(stacked, totals)

    def _set_cut(self, at_cut: Tensor, others: Sequence[Tensor | None]) -> None:
        factors = self.head_weights.view(-1, *[1] * (at_cut.dim() - 1))
        if not bool((factors == 1).all()):
            at_cut = at_cut / factors.to(at_cut)
        self._at_cut, self._other_gradients = at_cut, list(others)

    def _sum_gradients(self, targets: Sequence[Tensor], retain_graph: bool):
        if not targets:
            return []
        return torch.autograd.grad(
            self.losses, targets, self.head_weights, retain_graph=retain_graph, allow_unused=True
        )

    # ---- trunk -------------------------------------------------------------------------------

    def _through_trunk(self, targets: Sequence, retain_graph: bool) -> list[Tensor]:
        """dL_k/dz of all tasks taken back to parameters or edges: blocks [K, *shape]."""
        assert self.edge is not None and self._at_cut is not None
        if not targets:
            return []
        batched = layers.vectorises(self.edge)
        self.plan += f"; trunk {'vectorised' if batched else 'once for each task'}"
        if batched:
            return list(
                torch.autograd.grad(
                    [self.edge],
                    targets,
                    [self._at_cut],
                    is_grads_batched=True,
                    retain_graph=retain_graph,
                    materialize_grads=all(isinstance(t, Tensor) for t in targets),
                )
            )
        n_tasks = len(self.losses)
        blocks: list[Tensor] = []
        for k in range(n_tasks):
            keep = retain_graph or k < n_tasks - 1
            found = torch.autograd.grad(
                [self.edge], targets, [self._at_cut[k]], retain_graph=keep, allow_unused=True
            )
            if not blocks:
                blocks = [_block(n_tasks, t, g) for t, g in zip(targets, found, strict=True)]
            _put(blocks, k, found)
        return blocks

    # ---- without a representation ------------------------------------------------------------

    def _loop(self) -> list[Tensor]:
        targets = [*self.live, *self.others]
        n_tasks = len(self.losses)
        blocks = [p.new_zeros(n_tasks, *p.shape) for p in self.live]
        totals: list[Tensor | None] = [None] * len(self.others)
        for k, loss in enumerate(_single_losses(self.losses)):
            if loss is None:
                continue
            keep = self.retain_graph or k < n_tasks - 1
            one = torch.ones_like(self.head_weights[k])
            found = torch.autograd.grad(loss, targets, one, retain_graph=keep, allow_unused=True)
            _put(blocks, k, found[: len(blocks)])
            scaled = [None if g is None else g * self.head_weights[k] for g in found[len(blocks) :]]
            _add(totals, range(len(totals)), scaled)
        self._other_gradients = totals
        return blocks

    def _batched(self) -> list[Tensor]:
        blocks = torch.autograd.grad(
            self.losses,
            self.live,
            torch.eye(len(self.losses)).to(self.losses),
            is_grads_batched=True,
            retain_graph=True,
            materialize_grads=True,
        )
        self._other_gradients = self._sum_gradients(self.others, self.retain_graph)
        return list(blocks)

    def _rows(self, blocks: Sequence[Tensor]) -> Tensor:
        n_tasks = len(self.losses)
        by_id = dict(zip(map(id, self.live), blocks, strict=True))
        columns = []
        for parameter in self.shared:
            block = by_id.get(id(parameter))
            if block is None:
                block = parameter.new_zeros(n_tasks, *parameter.shape)
            columns.append(block.detach().reshape(n_tasks, -1))
        return _at_least_single(torch.cat(columns, 1))


def _is_alone(gradient: Tensor | None, seen: set[int]) -> bool:
    """Whether a gradient fills memory of its own, shared with none of those seen."""
    if gradient is None or gradient.is_sparse or not gradient.is_contiguous():
        return False
    storage = gradient.untyped_storage()
    alone = storage.nbytes() == gradient.nbytes and storage.data_ptr() not in seen
    seen.add(storage.data_ptr())
    return alone and gradient._base is None


def _at_least_single(rows: Tensor) -> Tensor:
    """Half-precision numbers in float32: their inner products soon overflow."""
    return rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows


def _block(n_tasks: int, target, gradient: Tensor | None) -> Tensor:
    like = target if gradient is None else gradient
    return torch.zeros(n_tasks, *like.shape, dtype=like.dtype, device=like.device)


def _put(blocks: Sequence[Tensor], k: int, found: Sequence[Tensor | None]) -> None:
    """Write row k of each block."""
    for block, gradient in zip(blocks, found, strict=True):
        if gradient is not None:
            block[k] = gradient.to_dense() if gradient.is_sparse else gradient


def _add(totals: list, places: Iterable[int], found: Sequence[Tensor | None]) -> None:
    """Add gradients to totals at the given places."""
    for place, gradient in zip(places, found, strict=True):
        if gradient is not None:
            total = totals[place]
            totals[place] = gradient if total is None else total + gradient


def task_gradients(
    losses: Tensor,
    shared: Iterable[Tensor],
    features: Sequence[Tensor] | None = None,
    method: str = "auto",
    retain_graph: bool = False,
    head_weights: Tensor | None = None,
) -> TaskGradients:
    """Gradients of K losses in the shared parameters and in all others.

    Args:
        losses: [K], attached to the graph; a `torch.stack` of K scalars for "cut" and "forked",
            which also saves "loop" from passing through all K heads K times.
        shared: the shared parameters.
        features: `fork(z, K)`, where head k read features[k] and nothing else of the trunk.
        method: one of `METHODS`; "auto" takes "forked" where there are features, else "cut" where
            it finds one representation that all heads read, else "loop".
        retain_graph: keep the graph for another backward pass.
        head_weights: [K] above 0, factor of each loss in the gradients of all parameters that are
            not shared; 1 if not given.

    Raises:
        ValueError: unknown method; features missing or of the wrong number; a loss that reaches
            the trunk on another way than through its own feature; no shared parameter is reached.
    """
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    if method == "auto" and features is not None:
        method = "forked"
    parameters = check_shared(shared)
    return TaskGradients(losses, parameters, features, method, retain_graph, head_weights)


def jacobian(
    losses: Tensor,
    shared: Iterable[Tensor],
    features: Sequence[Tensor] | None = None,
    method: str = "auto",
) -> Tensor:
    """Jacobian of the losses in the shared parameters, [K, P]; the graph is kept.

    Arguments and errors as in `task_gradients`.
    """
    return task_gradients(losses, shared, features, method, retain_graph=True).jacobian


def gramian(
    losses: Tensor,
    shared: Iterable[Tensor],
    features: Sequence[Tensor] | None = None,
    method: str = "auto",
) -> Tensor:
    """Gramian of the task gradients in the shared parameters, [K, K]; the graph is kept.

    Arguments and errors as in `task_gradients`.
    """
    return task_gradients(losses, shared, features, method, retain_graph=True).gramian()


def _single_losses(losses: Tensor) -> Sequence[Tensor | GradientEdge | None]:
    """Where the backward pass of each loss begins; None for a loss that is a constant.

    A loss taken out of the stack sends zeros back through all the others: K passes through K heads
    each, and NaN where a zero meets an infinite derivative. So begin behind the stack.
    """
    stacked = losses.grad_fn
    if stacked is None or type(stacked).__name__ != "StackBackward0":
        return losses.unbind()
    edges = stacked.next_functions
    return [None if node is None else GradientEdge(node, output) for node, output in edges]


def _find_cut(losses: Tensor, shared_ids: set) -> GradientEdge | None:
    """The first tensor through which all losses reach the shared parameters, or None.

    Nodes are taken in topological order; where only one edge is left to follow, that is it.
    """
    stacked = losses.grad_fn
    if stacked is None or type(stacked).__name__ != "StackBackward0":
        return None
    roots = {(node, nr) for node, nr in stacked.next_functions if node is not None}
    leads: dict = {}  # node -> whether it leads to a shared parameter
    stack = [node for node, _ in roots]
    while stack:
        node = stack[-1]
        children = [child for child, _ in node.next_functions if child is not None]
        fresh = [child for child in children if child not in leads]
        if node not in leads and fresh:
            leads[node] = False
            stack += fresh
            continue
        stack.pop()
        own = hasattr(node, "variable") and id(node.variable) in shared_ids
        leads[node] = own or any(leads.get(child, False) for child in children)
    incoming: dict = {}
    for node in leads:
        if leads[node]:
            for child in {c for c, _ in node.next_functions if leads.get(c, False)}:
                incoming[child] = incoming.get(child, 0) + 1
    frontier: set[Any] = {(node, nr) for node, nr in roots if leads[node]}
    while frontier:
        if len(frontier) == 1:
            node, nr = next(iter(frontier))
            if incoming.get(node, 0) == 0:
                return None if hasattr(node, "variable") else GradientEdge(node, nr)
        ready = next((pair for pair in frontier if incoming.get(pair[0], 0) == 0), None)
        if ready is None:
            return None
        node = ready[0]
        if hasattr(node, "variable"):  # a shared parameter that is read above any cut
            return None
        frontier = {pair for pair in frontier if pair[0] is not node}
        for child, nr in node.next_functions:
            if leads.get(child, False):
                frontier.add((child, nr))
        for child in {c for c, _ in node.next_functions if leads.get(c, False)}:
            incoming[child] -= 1
    return None


def _are_fork(features: Sequence[Tensor]) -> bool:
    """Whether these are different views of one tensor that differ in nothing but their node."""
    nodes = [feature.grad_fn for feature in features]
    if any(node is None or type(node).__name__ != "ViewBackward0" for node in nodes):
        return False
    parents = {node.next_functions for node in nodes if node is not None}
    shapes = {feature.shape for feature in features}
    return len(parents) == len(shapes) == 1 and len(set(nodes)) == len(nodes)


def _check_features(losses: Tensor, features: Sequence[Tensor] | None, shared_ids: set) -> None:
    """Make sure that loss k reaches the shared parameters through features[k] alone."""
    if features is None or isinstance(features, Tensor) or len(features) != len(losses):
        given = "none" if features is None else f"{len(features)}"
        raise ValueError(
            f"features: expected {len(losses)} tensors, fork(z, n_tasks={len(losses)}), got {given}"
        )
    stacked = losses.grad_fn
    if stacked is None or type(stacked).__name__ != "StackBackward0":
        raise ValueError(
            "losses: with features they have to come from torch.stack([loss_1, ...]), "
            f"got the result of {type(stacked).__name__}"
        )
    nodes = [feature.grad_fn for feature in features]
    if not _are_fork(features):
        raise ValueError(
            "features: expected K different aliases of one representation, as fork() makes them, "
            "attached to the graph and not changed in place"
        )
    for k, (loss_node, _) in enumerate(stacked.next_functions):
        leaves, met = _leaves(loss_node, set(nodes))
        foreign = [j for j in range(len(nodes)) if j != k and nodes[j] in met]
        if foreign:
            raise ValueError(
                f"features: loss {k} reads features[{foreign[0]}], expected only [{k}]"
            )
        if any(id(leaf) in shared_ids for leaf in leaves):
            raise ValueError(
                f"features: loss {k} reaches the shared parameters without passing features[{k}]"
            )
