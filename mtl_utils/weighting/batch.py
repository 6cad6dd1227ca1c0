"""A batch as a rule sees it: the losses of the tasks that are present, their gradients, and how a
result lands."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_utils.engine import Accumulated, Mean, TaskGradients, landing
from mtl_utils.engine.graph import NEEDS_STACK, find_stacks, leaves_of
from mtl_utils.engine.processes import naming_unused_parameters
from mtl_utils.weighting.checks import refuse_tasks
from mtl_utils.weighting.state import at_least_single


class Overflow(Exception):
    """Scaled gradients are not finite: the gradient scaler has to see them, and no rule."""


class Batch:
    """One batch, or several micro-batches taken together.

    K' tasks of the K are present (in any process); what a rule reads and gives is about these.

    Args:
        losses: [K], attached to the graph.
        here: [K], which tasks are present in this process.
        shared: the shared parameters, none for rules that do without.
        scale: of a gradient scaler: factor of the gradients that land.
        mean: the mean over the processes, if there are several.
        method, memo: of `TaskGradients`.
        retain_graph: keep the graph for another backward pass.
        held: micro-batches that are taken together; the losses then belong to the last of them.

    Raises:
        ValueError: a task is absent from losses that do not come from torch.stack.

    Attributes:
        tasks: [K], booleans, which tasks are present in any process; of several independent batches
            in each of them.
        all_present: whether all K are.
        values: their losses over all processes, [K'], detached, in single precision at least.
        plan: in words, how the gradients were found.
    """

    def __init__(
        self,
        losses: Tensor,
        here: Sequence[bool],
        shared: list[Tensor],
        scale: float | None = None,
        mean: Mean | None = None,
        method: str = "auto",
        memo: dict | None = None,
        retain_graph: bool = False,
        held: Accumulated | None = None,
    ) -> None:
        self.here, self.shared, self.mean = list(here), shared, mean
        if any(self.here) and not all(self.here) and find_stacks(losses) is None:
            raise ValueError(NEEDS_STACK)
        self.is_scaled, self.scale = scale is not None, 1.0 if scale is None else scale
        self.method, self.memo, self.retain_graph, self.held = method, memo, retain_graph, held
        self.plan = "one backward pass"
        self.found: TaskGradients | Accumulated | None = None
        if held is None and mean is None and all(self.here):  # nothing to share out
            self.losses, self.all_present = losses, True
            self.tasks = torch.ones(len(self.here), dtype=torch.bool)
            self.values = at_least_single(losses.detach()).clone()
            return
        counts = torch.tensor([self.here]) if held is None else held.counts  # [batches, K]
        values = losses.detach() if held is None else held.losses.to(losses.device)
        totals = counts.to(values.device, at_least_single(values).dtype)
        values = at_least_single(values).masked_fill(totals.sum(0) == 0, 0)
        if mean is not None:
            sums = mean.sum(torch.cat([(values * totals.sum(0))[None], totals]))
            own, totals = totals, sums[1:]
            values = sums[0] / totals.sum(0).clamp_min(1)
            if held is None:
                # DistributedDataParallel divides by the number of processes; this by those with
                # labels
                share = (mean.size * own / totals.clamp_min(1))[0]
                if not bool((share == 1).all()):
                    losses = losses * share.to(losses)
        self.losses = losses
        self.tasks = (totals > 0).all(0).cpu()
        if held is not None:
            held.totals = totals.cpu().double() / (1 if mean is None else mean.size)
            held.keep(self.tasks)
        self.all_present = bool(self.tasks.all())
        self.values = values[self.tasks.to(values.device)]

    def gradients(self, head_weights: Tensor | None = None) -> Found:
        """The task gradients in the shared parameters.

        Args:
            head_weights: [K'], above 0, of the losses in the gradients of all other parameters.
        """
        weights = [1.0] * len(self.here) if head_weights is None else self._all(head_weights, 1.0)
        found: TaskGradients | Accumulated
        if self.held is not None:
            found = self.held
            found.head_weights = weights
        else:
            found = TaskGradients(
                self.losses,
                self.shared,
                self.method,
                self.retain_graph,
                weights,
                None if all(self.here) else self.here,
                self.scale,
                self.mean,
                self.memo,
            )
        self.found = found
        return found if self.all_present else Part(found, self.tasks)

    def backward(self, weights: Tensor) -> None:
        """Land sum_k weights[k] dL_k in every leaf, in one backward pass.

        Args:
            weights: [K'].
        """
        everywhere = self._all(weights, 0.0)
        if self.held is not None:
            self.found = self.held
            self.held.head_weights = everywhere
            self.held.fill(torch.tensor(everywhere, dtype=torch.float64))
            self.plan = self.held.plan
            return
        scaled = torch.tensor([self.scale * w for w in everywhere], dtype=torch.float64)
        here = None if all(self.here) else self.here
        with naming_unused_parameters():
            landing.backward(self.losses, scaled, here, self.retain_graph)

    def settle(self) -> None:
        """Send zeros to leaves that only absent tasks reach in this process: the reducer of several
        processes waits for every parameter."""
        if self.mean is None or (all(self.here) and self.held is None):
            return
        if self.held is not None:
            reached = self.held.reached
        else:
            reached = {id(leaf) for leaf in leaves_of(self.losses, self.here)}
        if self.found is not None and self.found.fills_all_shared:
            reached |= {id(p) for p in self.shared}
        away = [leaf for leaf in leaves_of(self.losses) if id(leaf) not in reached]
        landing.onto_leaves(away, [torch.zeros_like(leaf) for leaf in away])

    def is_finite(self) -> bool:
        """Whether what landed is finite."""
        return are_finite(leaves_of(self.losses))

    def check_finite(self, numbers: Tensor, reason: str) -> None:
        """Refuse gradients that are not finite.

        Args:
            numbers: one of each task, [K'].

        Raises:
            Overflow: there is a gradient scaler, whose business that is.
            ValueError: there is none.
        """
        bad = ~torch.isfinite(numbers)
        if self.is_scaled and bool(bad.any()):
            raise Overflow
        if bool(bad.any()):
            reason += "; a gradient scaler is handed over as scaler=, and the losses unscaled"
            everywhere = numbers.new_zeros(len(self.here))
            tasks = self.tasks.to(numbers.device)
            everywhere[tasks] = numbers
            marked = torch.zeros_like(tasks)
            marked[tasks] = bad
            refuse_tasks("losses", everywhere, marked, reason)

    def _all(self, numbers: Tensor, absent: float) -> list[float]:
        """[K], from numbers of the tasks that are present, [K']."""
        if self.all_present:
            return numbers.detach().double().tolist()
        found = torch.full((len(self.here),), absent, dtype=torch.float64)
        found[self.tasks] = numbers.detach().double().cpu()
        return found.tolist()


class Part:
    """Task gradients of the tasks that are present.

    Args:
        found: of all tasks.
        tasks: [K], booleans.
    """

    def __init__(self, found: TaskGradients | Accumulated, tasks: Tensor) -> None:
        self.found, self.tasks = found, tasks

    @property
    def plan(self) -> str:
        """As of `TaskGradients`."""
        return self.found.plan

    @property
    def jacobian(self) -> Tensor:
        """[K', P]."""
        jacobian = self.found.jacobian
        return jacobian[self.tasks.to(jacobian.device)]

    def gramian(self, last_layer: bool = False) -> Tensor:
        """[K', K']."""
        return self._of_tasks(self.found.gramian(last_layer))

    def representation_gramian(self) -> Tensor:
        """[K', K']."""
        return self._of_tasks(self.found.representation_gramian())

    def product(self) -> Tensor:
        """[K', K'], as of `Accumulated`."""
        assert isinstance(self.found, Accumulated)
        return self._of_tasks(self.found.product())

    def fill(self, coefficients: Tensor, batch: int | None = None) -> None:
        """As of `TaskGradients` or `Accumulated`, from [K']."""
        everywhere = torch.zeros(len(self.tasks), dtype=torch.float64)
        everywhere[self.tasks] = coefficients.detach().double().cpu()
        if isinstance(self.found, Accumulated):
            self.found.fill(everywhere, batch)
        else:
            self.found.fill(everywhere)

    def fill_with(self, update: Tensor) -> None:
        """As of `TaskGradients`."""
        self.found.fill_with(update)

    def _of_tasks(self, gramian: Tensor) -> Tensor:
        tasks = self.tasks.to(gramian.device)
        return gramian[tasks][:, tasks]


Found = TaskGradients | Accumulated | Part


def check_scaler(scaler: torch.amp.GradScaler | None, losses: Tensor) -> float | None:
    """The factor by which gradients are scaled, None if they are not.

    Raises:
        ValueError: something else than a gradient scaler.
    """
    if scaler is None:
        return None
    if not isinstance(scaler, torch.amp.GradScaler):
        raise ValueError(f"scaler: expected a torch.amp.GradScaler, got {scaler!r}")
    if not scaler.is_enabled():
        return None
    scaler.scale(losses.new_ones(()))  # a scaler that never scaled anything refuses to step
    return scaler.get_scale()


def land_overflow(losses: Tensor) -> None:
    """Infinity in every `.grad` that the losses reach: a gradient scaler takes it for what it is,
    and the reducer of several processes hands it on."""
    leaves = leaves_of(losses)
    landing.onto_leaves(leaves, [torch.full_like(leaf, torch.inf) for leaf in leaves])


def are_finite(leaves: Sequence[Tensor]) -> bool:
    """Whether every number in the `.grad` of these is finite."""
    gradients = [leaf.grad for leaf in leaves if leaf.grad is not None]
    values = [g.coalesce().values() if g.is_sparse else g for g in gradients]
    return all(bool(torch.isfinite(v).all()) for v in values)
