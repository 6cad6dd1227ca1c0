"""The one interface: losses in, gradients in place, task weights out.

A rule is a small class in a file of its own, `methods/<name>.py`. `kinds.py` has what rules have in
common: rules that read loss values say what they minimise, rules that read task gradients say how
they combine them.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from mtl_utils import gradients
from mtl_utils.engine import Accumulated, Mean
from mtl_utils.weighting.batch import Batch, Overflow, check_scaler, land_overflow
from mtl_utils.weighting.checks import (
    check_choice,
    check_count,
    check_vector,
    refuse_tasks,
)
from mtl_utils.weighting.present import check_present
from mtl_utils.weighting.state import Stateful
from mtl_utils.weighting.watch import Watch

# ---- the registry --------------------------------------------------------------------------------

READS = {
    "nothing": "weights chosen beforehand or by chance",
    "losses": "loss values of this step",
    "history": "how losses or metrics changed",
    "gradients": "a gradient of each task",
    "gramian": "inner products of all task gradients",
}


@dataclass(frozen=True)
class Card:
    """What there is to know about a method before reading its file.

    Attributes:
        name: as `make_weighting` knows it.
        title: as papers write it.
        year: of publication.
        reads: a key of `READS`.
        notebook: number of the notebook that teaches it.
        source: where to find the paper.
    """

    name: str
    title: str
    year: int
    reads: str
    notebook: str
    source: str

    def __post_init__(self) -> None:
        if self.reads not in READS:
            raise ValueError(f"reads: expected one of {', '.join(READS)}, got {self.reads!r}")


Rule = TypeVar("Rule", bound="type[Weighting]")
_REGISTRY: dict[str, type[Weighting]] = {}


def register(
    name: str, *, title: str, year: int, reads: str, notebook: str, source: str
) -> Callable[[Rule], Rule]:
    """Class decorator: make a rule known to `make_weighting` under `name`.

    Args:
        name, title, year, reads, notebook, source: the rule's card, see `Card`.

    Raises:
        ValueError: the name is taken, or `reads` is not in `READS`.
    """
    card = Card(name, title, year, reads, notebook, source)

    def decorate(cls: Rule) -> Rule:
        if name in _REGISTRY:
            raise ValueError(f"name: {name!r} is already taken by {_REGISTRY[name].__name__}")
        cls.name, cls.card = name, card
        _REGISTRY[name] = cls
        return cls

    return decorate


def cards() -> tuple[Card, ...]:
    """The card of every rule, in the order in which the course meets them: by notebook, within one
    by year and arXiv number."""
    found = [cls.card for cls in _REGISTRY.values()]
    return tuple(sorted(found, key=lambda c: (c.notebook, c.year, c.source.casefold(), c.name)))


def available_weightings() -> tuple[str, ...]:
    """Names that `make_weighting` knows, in the order in which the course meets them."""
    return tuple(card.name for card in cards())


def weighting_class(name: str) -> type[Weighting]:
    """The class behind a name of `available_weightings()`; ValueError lists them."""
    if name not in _REGISTRY:
        known = ", ".join(available_weightings())
        raise ValueError(f"name: no weighting is called {name!r}; known: {known}")
    return _REGISTRY[name]


def make_weighting(name: str, n_tasks: int, **options: Any) -> Weighting:
    """Make a weighting rule by name.

    Args:
        name: one of `available_weightings()`.
        n_tasks: number of tasks K, at least 1.
        options: of the rule itself, see its class; for rules on gradients also those of `use`.

    Raises:
        ValueError: unknown name (the message lists the known ones) or a bad value.
        TypeError: an option that the rule does not have, or lacks.

    Example:
        >>> make_weighting("fixed", 2, weights=[1.0, 0.5])
        Fixed(n_tasks=2)
    """
    cls = weighting_class(name)
    parameters = list(inspect.signature(cls).parameters.values())[1:]  # after n_tasks
    known_options = [p.name for p in parameters]
    required = [p.name for p in parameters if p.default is inspect.Parameter.empty]
    engine = {key: options.pop(key) for key in cls.engine_options if key in options}
    for option in options:
        if option not in known_options:
            expected = ", ".join([*known_options, *cls.engine_options]) or "none"
            raise TypeError(f"{option}: weighting {name!r} has no such option; it has: {expected}")
    for option in required:
        if option not in options:
            raise TypeError(f"{option}: weighting {name!r} needs this option")
    weighting = cls(n_tasks, **options)
    return weighting.use(**engine) if engine else weighting


# ---- the interface -------------------------------------------------------------------------------

NO_WEIGHTS = "weights: there are none before the first call of backward()"

OBSERVABLE = {
    "train_losses": "mean training loss of each task over an epoch, [K], once an epoch",
    "val_losses": "validation loss of each task, [K], once an iteration",
    "kpis": "key performance indicator of each task in [0, 1], [K]",
    "losses_after_step": "losses of the same batch after the optimiser step, [K]",
}


class Weighting(Stateful):
    """Base of every rule.

    As a `torch.nn.Module` it has `parameters()` (learned weights, to be handed to the optimiser),
    `to(device)`, `state_dict()` and `load_state_dict()`; see `Stateful` for what these hold.

    Attributes:
        n_tasks: K.
        name, card: as registered.
        needs_shared: True for rules that need task gradients of the shared parameters.
        needs_nonnegative: True for rules that refuse losses below 0.
        observes: names of the quantities that `observe` must be given, see `OBSERVABLE`.
        engine_options: which options of `use` the rule has.
        batches: how many independent batches a step takes, B; so many calls of `backward`, or a
            multiple of it, are one step, see `accumulate` of `use`.
        plan: in words, how the last call of `backward` found the gradients.
    """

    card: Card
    last_weights: Tensor
    needs_shared = False
    needs_nonnegative = False
    observes: tuple[str, ...] = ()
    engine_options: tuple[str, ...] = ()
    gramian = "exact"
    every = 1
    method = "auto"
    batches = 1
    accumulate = 1
    plan: str | None = None
    _mean: Mean | None = None
    _held: Accumulated | None = None

    def __init__(self, n_tasks: int) -> None:
        super().__init__(check_count("n_tasks", n_tasks))
        self.register_buffer("last_weights", torch.full((n_tasks,), torch.nan))
        self._memo: dict = {}  # what the engine found out about the network
        self._watch = Watch()

    # ---- what a training loop calls -------------------------------------------------------

    def backward(
        self,
        losses: Tensor,
        shared: Iterable[Tensor] | None = None,
        features: Sequence | None = None,
        present: Tensor | Sequence[bool] | None = None,
        scaler: torch.amp.GradScaler | None = None,
        retain_graph: bool = False,
    ) -> Tensor:
        """Fill `.grad` of every parameter that the losses reach, and of the rule's own parameters.

        Gradients are added to what `.grad` holds, as `Tensor.backward` does, with all that goes
        with it: hooks, sparse gradients, the reducer of DistributedDataParallel. A call that is
        refused changes nothing. The rule computes outside autocast, in float32 at least.

        Args:
            losses: task losses, [K], attached to the graph.
            shared: shared parameters, e.g. `model.trunk.parameters()`. Gradient rules need them;
                those that no loss reaches count as zero gradient and keep their `.grad`.
            features: the representation forked once for each head (`mtl_utils.gradients.fork`),
                K tensors. Optional; checks that each loss reads its own alone.
            present: which tasks have labels in this batch, [K], booleans; by default all. An absent
                task may hold NaN or a constant; the others are weighed as if they were all there
                are. It leaves no trace in the state of the rule, and its head keeps its `.grad`;
                its entry of a learned parameter gets the gradient 0 (which does not stop an
                optimiser's momentum). Where no task is present, nothing happens.
            scaler: hand over the losses unscaled. The rule sees them as they are, `.grad` holds
                scaled gradients, of the rule's own parameters too; an overflow gets to the scaler,
                which skips the step, and moves no state.
            retain_graph: keep the graph for another backward pass.

        Returns:
            Effective task weights, [K], detached: the derivative of the rule's objective with
            respect to each loss (loss rules), or the coefficients of the task gradients in the
            update of the shared parameters (gradient rules). 0 for absent tasks, after an overflow,
            and for all but the last of several micro-batches (see `use`).

        Raises:
            ValueError: losses of the wrong shape, detached, not finite, or negative where the rule
                cannot use that; shared empty or reached by no loss; features that do not fit;
                present not K booleans; scaler of another kind.

        Warns:
            UserWarning: once each: where a learned weight gets gradients and never moves; where
                there are several processes and the rule was told no group (see `use`); where the
                losses look as if a gradient scaler had multiplied them.
        """
        tasks = check_present(present, self.n_tasks)
        scale = check_scaler(scaler, losses)
        overflow = self._check_losses(losses, tasks, may_overflow=scale is not None)
        parameters = self._check_shared(shared)
        if scaler is None:
            self._watch.measure(self, losses)
        if features is not None:
            gradients.check_features(losses, features, parameters or [])
        with torch.autocast(losses.device.type, enabled=False):
            if overflow:
                land_overflow(losses)
                return torch.zeros_like(losses)
            weights = self._step(losses, parameters or [], tasks, scale, retain_graph)
        if losses.requires_grad:
            self._watch.look(self, losses)
            self._watch.count(self, self._mean is not None)
        return weights

    def _step(
        self,
        losses: Tensor,
        shared: list[Tensor],
        here: Tensor,
        scale: float | None,
        retain_graph: bool,
    ) -> Tensor:
        """A step of the tasks that are present in any process, by a rule for these alone; weights
        of all tasks, [K]."""
        if self.accumulate > 1:
            if self._held is None:
                each = self.accumulate // self.batches
                self._held = Accumulated(
                    shared, self.n_tasks, scale or 1.0, self._mean, self.batches, each, self._memo
                )
            self._held.add(losses, here.tolist(), retain_graph)
            if self._held.calls < self.accumulate:
                return torch.zeros_like(losses)
        held, self._held = self._held, None
        batch = Batch(
            losses,
            here.tolist(),
            shared,
            scale,
            self._mean,
            self.method,
            self._memo,
            retain_graph,
            held,
        )
        if not batch.all_present and not bool(batch.tasks.any()):
            self.last_weights = torch.zeros_like(self.last_weights)
            return torch.zeros_like(losses)
        undo = self._remembered() if scale is not None else None
        try:
            part = self if batch.all_present else self.on(batch.tasks)
            found = part._backward(batch).detach()
            if part is not self:
                self.take(part, batch.tasks)
            batch.settle()
        except Overflow:
            land_overflow(losses)
            return torch.zeros_like(losses)
        if undo is not None and not batch.is_finite():
            undo()
            return torch.zeros_like(losses)
        weights = found.to(losses)
        if not batch.all_present:
            weights = torch.zeros_like(losses)
            weights[batch.tasks.to(weights.device)] = found.to(weights)
        self.plan = batch.plan
        self.last_weights = weights.to(self.last_weights, copy=True)
        return weights

    def _remembered(self) -> Callable[[], None]:
        """Puts the state back as it is now."""
        buffers = [(module, dict(module._buffers)) for module in self.modules()]
        draws = None if self.generator is None else self.generator.get_state()

        def undo() -> None:
            for module, before in buffers:
                module._buffers = before
            if self.generator is not None and draws is not None:
                self.generator.set_state(draws)

        return undo

    def observe(self, **quantities: Tensor | Sequence[float]) -> None:
        """Hand over what a rule needs besides the batch; quantities it does not use are ignored.

        Args:
            quantities: any of `OBSERVABLE`, each [K]; NaN for a task that was not measured, whose
                state stays as it is.
        """
        checked = {}
        for key, values in quantities.items():
            if key not in OBSERVABLE:
                known = ", ".join(OBSERVABLE)
                raise TypeError(f"{key}: nothing to observe under this name; known: {known}")
            checked[key] = check_vector(key, values, self.n_tasks, may_lack=True)
        for key, vector in checked.items():
            if key in self.observes:
                vector = vector.to(self.last_weights)
                if self._mean is not None:
                    vector = self._mean.of_numbers(vector)
                measured = ~vector.isnan().cpu()
                self._check_measured(key, measured)
                self._observe_on(measured, key, vector)

    def _observe_on(self, tasks: Tensor, key: str, values: Tensor) -> None:
        """Let the rule see the values of the tasks that were measured."""
        if tasks.all():
            self._observe(key, values)
        elif tasks.any():
            part = self.on(tasks)
            part._observe(key, values[tasks.to(values.device)])
            self.take(part, tasks)

    def use(
        self,
        gramian: str = "exact",
        every: int = 1,
        method: str = "auto",
        group: Any = None,
        accumulate: int | None = None,
    ) -> Weighting:
        """Choose how gradients are found; returns the rule itself. What is not named is default.

        Args:
            gramian: "exact"; "representation" for that of dL_k/dz, z being what the heads read
                (no pass of each task through the trunk); "last_layer" for that of the last shared
                layer. All three then give the shared parameters sum_k alpha_k g_k exactly.
            every: find new coefficients every so many calls, at least 1, and use the last ones
                between.
            method: how rules on gradients find those of the tasks, see `gradients.METHODS`; "loop"
                makes a plain backward pass for each.
            group: a process group of `torch.distributed`, for a network in
                DistributedDataParallel: the rule then gives on R processes what one process gives
                on all their rows together, if each has equally many, and draws the same on all.
                Beside the one gradient that the reducer sends, rules on losses send 2 K numbers a
                step, rules on gradients also K gradients of the shared parameters ("last_layer" and
                GradNorm: of the last layer, "representation": K x K numbers; rules that take
                independent batches: 3 K gradients). A network sharded by
                FSDP2 goes with rules on losses; rules on gradients refuse it.
            accumulate: so many calls of `backward`, micro-batches of equally many rows, count as
                one batch: nothing lands before the last, and then what the whole batch gives. Do
                not divide the losses. Until then K gradients of what all tasks share, and one of
                each head, are kept. Default is 1; rules that take B independent batches have B, the
                default, or a multiple: the first of the calls are then the first batch, and so on.
                Where a task is absent from one of these batches, it is absent from the step.

        Raises:
            TypeError: an option that the rule does not have, see `engine_options`.
            ValueError: a value that is none of these.
        """
        for option, changed in {"gramian": gramian != "exact", "every": every != 1}.items():
            if changed and option not in self.engine_options:
                raise TypeError(f"{option}: weighting {self.name!r} has no such option")
        self.gramian = check_choice("gramian", gramian, ("exact", "representation", "last_layer"))
        self.every = check_count("every", every)
        self.method = check_choice("method", method, gradients.METHODS)
        self.accumulate = self.batches if accumulate is None else accumulate
        check_count("accumulate", self.accumulate)
        if self.accumulate % self.batches:
            raise ValueError(
                f"accumulate: {self.name} takes {self.batches} independent batches a step, each "
                f"handed over by a backward() of its own; expected {self.batches} or a multiple, "
                f"got {accumulate}"
            )
        self._held = None
        self._mean = None if group is None else Mean(group)
        if self._mean is not None and self.generator is not None:
            self.generator.set_state(self._mean.first(self.generator.get_state()))
        return self

    @property
    def waits(self) -> bool:
        """Whether calls of `backward` have been held back since the last step, see `accumulate`."""
        return self._held is not None

    def drop_held(self) -> None:
        """Forget the calls of `backward` that are held back for a step. (They are not in the state
        dict.)"""
        self._held = None

    def prepare(self, shared: Iterable[Tensor]) -> Weighting:
        """Give every tensor of the state its shape before the first call; returns the rule itself.

        Only needed where a copy of the state is made beforehand and has to fit: loading with
        `torch.distributed.checkpoint`, an average of the weights begun before the first step. Only
        rules that keep as many numbers as K gradients have such a tensor, [K, P]: `db_mtl`, `moco`,
        `excess_mtl`.

        Args:
            shared: the shared parameters, as `backward` will be given them.
        """
        gradients.check_shared(shared)
        return self

    @property
    def weights(self) -> Tensor:
        """Weights of the last `backward`, [K], detached, in the number type of the rule.

        Raises:
            AttributeError: there was none yet, so that `hasattr(weighting, "weights")` tells.
        """
        if bool(self.last_weights.isnan().any()):
            raise AttributeError(NO_WEIGHTS)
        return self.last_weights.clone()

    def __getattr__(self, name: str) -> Any:
        if name == "weights":  # the property raised; a module would forget why
            raise AttributeError(NO_WEIGHTS)
        return super().__getattr__(name)

    # ---- what a rule fills in --------------------------------------------------------------

    def _backward(self, batch: Batch) -> Tensor:
        """Land what the rule makes of a batch; returns the weights of its tasks."""
        raise NotImplementedError

    def _observe(self, key: str, values: Tensor) -> None:
        raise NotImplementedError

    def _check_measured(self, key: str, measured: Tensor) -> None:
        """ValueError if the rule cannot do without a task that was not measured, [K] booleans."""

    def extra_repr(self) -> str:
        return f"n_tasks={self.n_tasks}"

    # ---- checks ----------------------------------------------------------------------------

    def _check_losses(self, losses: Tensor, tasks: Tensor, may_overflow: bool) -> bool:
        """ValueError if the losses of these tasks, [K] booleans, cannot be used; True if they are
        not finite, and may be."""
        if not isinstance(losses, Tensor):
            raise ValueError(
                f"losses: expected a 1-D tensor, got {type(losses).__name__}; "
                "use torch.stack([loss_1, loss_2, ...])"
            )
        if losses.shape != (self.n_tasks,) or not losses.is_floating_point():
            check_vector("losses", losses, self.n_tasks)  # says what is wrong
        values = list(zip(losses.tolist(), tasks.tolist(), strict=True))  # waits for a GPU once
        bad = [here and not math.isfinite(value) for value, here in values]
        if any(bad) and not may_overflow:
            refuse_tasks("losses", losses.detach(), torch.tensor(bad), "expected finite values")
        if not losses.requires_grad and tasks.any():
            raise ValueError(
                "losses: expected a tensor attached to the graph, got a detached one; "
                "use torch.stack([...]) on the losses, not torch.tensor([...])"
            )
        negative = [here and value < 0 for value, here in values]
        if self.needs_nonnegative and any(negative):
            reason = f"{self.name} needs losses of at least 0"
            refuse_tasks("losses", losses.detach(), torch.tensor(negative), reason)
        for own in self.parameters():
            if getattr(self, "_is_fsdp_managed_module", False):
                raise ValueError(
                    "weighting: its parameters are sharded together with the network that holds it "
                    "(FSDP2); keep the weighting outside of the network"
                )
            if own.device != losses.device:
                raise ValueError(
                    f"losses: they are on {losses.device}, the weighting is on {own.device}; "
                    "move it with weighting.to(device)"
                )
        return any(bad)

    def _check_shared(self, shared: Iterable[Tensor] | None) -> list[Tensor] | None:
        if shared is None:
            if self.needs_shared:
                raise ValueError(
                    f"shared: {self.name} needs the shared parameters, "
                    "e.g. shared=model.trunk.parameters()"
                )
            return None
        parameters = gradients.check_shared(shared)
        if self.needs_shared and any(hasattr(p, "placements") for p in parameters):
            raise ValueError(
                f"shared: they are sharded over processes (FSDP2), and {self.name} needs them "
                "whole; use DistributedDataParallel and use(group=...), or a rule on losses"
            )
        return parameters
