"""The one interface: losses in, gradients in place, task weights out.

A rule is a small class. Rules that read loss values derive from `LossWeighting` and say what they
minimise (`objective`). Rules that read task gradients derive from `GradientWeighting` and say how
they combine them, as a function of the K x K Gramian (`coefficients`).
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from mtl_utils import gradients
from mtl_utils.engine import landing

_REGISTRY: dict[str, type[Weighting]] = {}

OBSERVABLE = {
    "train_losses": "mean training loss of each task over an epoch, [K], once an epoch",
    "val_losses": "validation loss of each task, [K], once an iteration",
    "kpis": "key performance indicator of each task in [0, 1], [K]",
    "losses_after_step": "losses of the same batch after the optimiser step, [K]",
}


def register(name: str) -> Callable[[type[Weighting]], type[Weighting]]:
    """Class decorator: make a rule known to `make_weighting` under `name`."""

    def decorate(cls: type[Weighting]) -> type[Weighting]:
        if name in _REGISTRY:
            raise ValueError(f"name: {name!r} is already taken by {_REGISTRY[name].__name__}")
        cls.name = name
        _REGISTRY[name] = cls
        return cls

    return decorate


def available_weightings() -> tuple[str, ...]:
    """Names that `make_weighting` knows, in the order in which the course meets them."""
    return tuple(_REGISTRY)


def make_weighting(name: str, n_tasks: int, **options: Any) -> Weighting:
    """Make a weighting rule by name.

    Args:
        name: one of `available_weightings()`.
        n_tasks: number of tasks K, at least 1.
        options: of the rule itself, see its class.

    Raises:
        ValueError: unknown name (the message lists the known ones) or a bad value.
        TypeError: an option that the rule does not have, or lacks.
    """
    if name not in _REGISTRY:
        known = ", ".join(available_weightings())
        raise ValueError(f"name: no weighting is called {name!r}; known: {known}")
    cls = _REGISTRY[name]
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
    if isinstance(weighting, GradientWeighting) and engine:
        weighting.use(**engine)
    return weighting


class Weighting(nn.Module):
    """Base of every rule.

    As a `torch.nn.Module` it has `parameters()` (learned weights, to be handed to the optimiser),
    `to(device)`, `state_dict()` and `load_state_dict()`. Whatever else must survive a resume lives
    in `self.memory` (plain values and tensors), which the state dict carries too.

    Attributes:
        n_tasks: K.
        needs_shared: True for rules that need task gradients of the shared parameters.
        observes: names of the quantities that `observe` must be given, see `OBSERVABLE`.
    """

    name = "weighting"
    needs_shared = False
    needs_nonnegative = False
    observes: tuple[str, ...] = ()
    engine_options: tuple[str, ...] = ()
    generator: torch.Generator | None = None

    def __init__(self, n_tasks: int) -> None:
        super().__init__()
        if isinstance(n_tasks, bool) or not isinstance(n_tasks, int) or n_tasks < 1:
            raise ValueError(f"n_tasks: expected an integer of at least 1, got {n_tasks!r}")
        self.n_tasks = n_tasks
        self.memory: dict[str, Any] = {}

    # ---- what a training loop calls -------------------------------------------------------

    def backward(
        self,
        losses: Tensor,
        shared: Iterable[Tensor] | None = None,
        features: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Fill `.grad` of every parameter that the losses reach, and of the rule's own parameters.

        Gradients are added to what `.grad` holds, as `Tensor.backward` does. A call that is
        refused changes nothing.

        Args:
            losses: task losses, [K], attached to the graph.
            shared: shared parameters, e.g. `model.trunk.parameters()`. Gradient rules need them;
                those that no loss reaches count as zero gradient and keep their `.grad`.
            features: the representation forked once for each head (`mtl_utils.gradients.fork`),
                K tensors. Optional; lets gradient rules reach all heads in one backward pass.

        Returns:
            Effective task weights, [K], detached: the derivative of the rule's objective with
            respect to each loss (loss rules), or the coefficients of the task gradients in the
            update of the shared parameters (gradient rules).

        Raises:
            ValueError: losses of the wrong shape, detached, not finite, or negative where the rule
                cannot use that; shared empty or reached by no loss; features that do not fit.
        """
        self._check_losses(losses)
        shared_list = self._check_shared(shared)
        weights = self._backward(losses, shared_list, features).detach()
        self.memory["weights"] = weights.clone()
        return weights

    def observe(self, **quantities: Tensor | Sequence[float]) -> None:
        """Hand over what a rule needs besides the batch; quantities it does not use are ignored.

        Args:
            quantities: any of `OBSERVABLE`, each [K] and finite.
        """
        checked = {}
        for key, values in quantities.items():
            if key not in OBSERVABLE:
                known = ", ".join(OBSERVABLE)
                raise TypeError(f"{key}: nothing to observe under this name; known: {known}")
            checked[key] = self._check_vector(key, values)
        for key, vector in checked.items():
            if key in self.observes:
                self._observe(key, vector)

    @property
    def weights(self) -> Tensor:
        """Weights that the last `backward` returned, [K], detached."""
        if "weights" not in self.memory:
            raise RuntimeError("weights: there are none before the first call of backward()")
        return self.memory["weights"]

    # ---- what a rule fills in --------------------------------------------------------------

    def _backward(
        self, losses: Tensor, shared: list[Tensor] | None, features: Sequence[Tensor] | None
    ) -> Tensor:
        raise NotImplementedError

    def _observe(self, key: str, values: Tensor) -> None:
        raise NotImplementedError

    # ---- state -----------------------------------------------------------------------------

    def get_extra_state(self) -> dict[str, Any]:
        state = {"rule": [self.name, self.n_tasks], **copy.deepcopy(self.memory)}
        if self.generator is not None:
            state["generator"] = self.generator.get_state()
        return state

    def set_extra_state(self, state: dict[str, Any]) -> None:
        state = copy.deepcopy(state)
        rule = state.pop("rule", None)
        if rule != [self.name, self.n_tasks]:
            given = "no weighting" if rule is None else f"{rule[0]} with n_tasks={rule[1]}"
            raise ValueError(
                f"state_dict: expected that of {self.name} with n_tasks={self.n_tasks}, "
                f"got that of {given}"
            )
        if self.generator is not None:
            self.generator.set_state(state.pop("generator"))
        self.memory = state

    def extra_repr(self) -> str:
        return f"n_tasks={self.n_tasks}"

    # ---- checks ----------------------------------------------------------------------------

    def _check_vector(self, key: str, values: Tensor | Sequence[float]) -> Tensor:
        try:
            if hasattr(values, "to_list"):  # a pandas series
                values = values.to_list()
            vector = torch.as_tensor(values).detach()
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{key}: expected {self.n_tasks} numbers, got {values!r}") from error
        if vector.shape != (self.n_tasks,):
            raise ValueError(
                f"{key}: expected a 1-D tensor of K = {self.n_tasks} values, "
                f"got shape {tuple(vector.shape)}"
            )
        if vector.is_complex():
            raise ValueError(f"{key}: expected real numbers, got {vector.dtype}")
        if not vector.is_floating_point():
            vector = vector.to(torch.get_default_dtype())
        _refuse_tasks(key, vector, ~torch.isfinite(vector), "expected finite values")
        return vector

    def _check_losses(self, losses: Tensor) -> None:
        if not isinstance(losses, Tensor):
            raise ValueError(
                f"losses: expected a 1-D tensor, got {type(losses).__name__}; "
                "use torch.stack([loss_1, loss_2, ...])"
            )
        if (
            losses.shape != (self.n_tasks,)
            or not losses.is_floating_point()
            or not _all_finite(losses.detach())
        ):
            self._check_vector("losses", losses)  # says what is wrong
        if not losses.requires_grad:
            raise ValueError(
                "losses: expected a tensor attached to the graph, got a detached one; "
                "use torch.stack([...]) on the losses, not torch.tensor([...])"
            )
        if self.needs_nonnegative and min(losses.tolist()) < 0:
            reason = f"{self.name} needs losses of at least 0"
            _refuse_tasks("losses", losses.detach(), losses.detach() < 0, reason)
        for own in self.parameters():
            if own.device != losses.device:
                raise ValueError(
                    f"losses: they are on {losses.device}, the weighting is on {own.device}; "
                    "move it with weighting.to(device)"
                )

    def _check_shared(self, shared: Iterable[Tensor] | None) -> list[Tensor] | None:
        if shared is None:
            if self.needs_shared:
                raise ValueError(
                    f"shared: {self.name} needs the shared parameters, "
                    "e.g. shared=model.trunk.parameters()"
                )
            return None
        return gradients.check_shared(shared)


def _refuse_tasks(key: str, values: Tensor, bad: Tensor, reason: str) -> None:
    """Raise if any task is marked bad, naming the tasks and their values."""
    if bool(bad.any()):
        tasks = bad.nonzero().flatten().tolist()
        listed = ", ".join(f"task {k} is {values[k].item():.6g}" for k in tasks)
        raise ValueError(f"{key}: {reason}, got: {listed}")


def _all_finite(values: Tensor) -> bool:
    """As torch.isfinite(values).all(), faster for a handful of numbers."""
    return all(map(math.isfinite, values.flatten().tolist()))


def check_number(name: str, value: float, interval: str) -> float:
    """The option `value` as a float; ValueError if it lies outside an interval such as "[0, 1)"."""
    low, high = (float(end) for end in interval[1:-1].split(","))
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if is_number:
        above = value >= low if interval[0] == "[" else value > low
        below = value <= high if interval[-1] == "]" else value < high
        if above and below:
            return float(value)
    raise ValueError(f"{name}: expected a number in {interval}, got {value!r}")


def check_generator(generator: torch.Generator | None) -> torch.Generator:
    """A generator on the CPU; without one, one seeded from torch's global generator, so that
    `torch.manual_seed` governs it."""
    if generator is None:
        return torch.Generator().manual_seed(int(torch.randint(2**31, (1,))))
    if not isinstance(generator, torch.Generator) or generator.device.type != "cpu":
        raise ValueError(f"generator: expected a torch.Generator on the CPU, got {generator!r}")
    return generator


class LossWeighting(Weighting):
    """Rules that read loss values: one weighted backward pass, whatever K is.

    A rule gives its `objective`, a function of the K losses and of its own parameters. Its
    derivative with respect to each loss is the effective weight, so that the gradient of the
    objective in any model parameter is sum_k weights[k] * dL_k.
    """

    def objective(self, losses: Tensor) -> Tensor:
        """What the rule minimises: a scalar, from losses [K]."""
        raise NotImplementedError

    def _backward(
        self, losses: Tensor, shared: list[Tensor] | None, features: Sequence[Tensor] | None
    ) -> Tensor:
        leaf = losses.detach().requires_grad_()
        own = [p for p in self.parameters() if p.requires_grad]
        with torch.enable_grad():
            objective = self.objective(leaf)
        weights, *own_gradients = torch.autograd.grad(objective, [leaf, *own])
        reason = f"the weights of {self.name} are no longer finite; its losses or parameters are"
        reason += " out of range"
        if not _all_finite(weights):
            _refuse_tasks("weights", weights, ~torch.isfinite(weights), reason)
        if not all(_all_finite(gradient) for gradient in own_gradients):
            raise ValueError(
                f"losses: the gradient in the parameters of {self.name} is not finite; its losses "
                f"or parameters are out of range, got losses {losses.detach().tolist()}"
            )
        losses.backward(weights)
        landing.onto_leaves(own, own_gradients)
        return weights


class ConstantWeighting(LossWeighting):
    """Rules whose weights are constants of a step: they minimise sum_k weights[k] L_k."""

    def weights_now(self) -> Tensor:
        """Weights of the next step, [K]."""
        raise NotImplementedError

    def objective(self, losses: Tensor) -> Tensor:
        return (self.weights_now().to(losses) * losses).sum()

    def _backward(
        self, losses: Tensor, shared: list[Tensor] | None, features: Sequence[Tensor] | None
    ) -> Tensor:
        weights = self.weights_now().to(losses, copy=True)  # the derivative needs no autograd
        losses.backward(weights)
        return weights


class GradientWeighting(Weighting):
    """Rules that read task gradients of the shared parameters.

    The shared parameters get sum_k alpha_k g_k; every other parameter gets the gradient of its own
    loss(es), unweighted, as in the methods' official code.

    A rule gives `coefficients`, a function of the Gramian, or `_merge`, if it reads coordinates.

    Attributes:
        plan: in words, how the last call found the task gradients.
    """

    needs_shared = True
    engine_options: tuple[str, ...] = ("gramian", "every")
    gramian = "exact"
    every = 1
    plan: str | None = None

    def use(self, gramian: str = "exact", every: int = 1) -> GradientWeighting:
        """Choose how the Gramian is found; returns the rule itself.

        Args:
            gramian: "exact"; "representation" for that of dL_k/dz, z being what the heads read
                (no pass of each task through the trunk); "last_layer" for that of the last shared
                layer. All three then give the shared parameters sum_k alpha_k g_k exactly.
            every: find new coefficients every so many calls, at least 1, and use the last ones
                between.
        """
        kinds = ("exact", "representation", "last_layer")
        if gramian not in kinds:
            raise ValueError(f"gramian: expected one of {', '.join(kinds)}, got {gramian!r}")
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(f"every: expected an integer of at least 1, got {every!r}")
        self.gramian, self.every = gramian, every
        return self

    def coefficients(self, gramian: Tensor) -> Tensor:
        """alpha, [K], from the Gramian of the task gradients, [K, K], entry (k, l) = <g_k, g_l>."""
        raise NotImplementedError

    def _combine(self, gramian: Tensor, losses: Tensor) -> Tensor:
        """alpha, [K], for rules that read the losses too."""
        return self.coefficients(gramian)

    def _backward(
        self, losses: Tensor, shared: list[Tensor] | None, features: Sequence[Tensor] | None
    ) -> Tensor:
        assert shared is not None  # needs_shared
        found = gradients.task_gradients(losses, shared, features)
        calls = self.memory.get("calls", 0)
        if self.every > 1 and calls % self.every and "alpha" in self.memory:
            alpha = self.memory["alpha"].to(losses)
            found.plan += "; coefficients of an earlier call"
        else:
            alpha = self._combine(self._gramian(found, losses), losses)
            reason = f"{self.name} found no finite coefficients"
            _refuse_tasks("weights", alpha, ~torch.isfinite(alpha), reason)
        found.fill(alpha)
        self.plan = found.plan
        if self.every > 1:
            self.memory |= {"calls": calls + 1, "alpha": alpha.detach().clone()}
        return alpha

    def _gramian(self, found: gradients.TaskGradients, losses: Tensor) -> Tensor:
        if self.gramian == "representation":
            gramian = found.representation_gramian()
        elif self.gramian == "last_layer":
            gramian = found.gramian(last_layer=True)
        else:
            gramian = found.gramian()
        squares = gramian.diagonal()
        reason = "the gradient in the shared parameters is not finite (squared norm shown)"
        _refuse_tasks("losses", squares, ~torch.isfinite(squares), reason)
        return gramian
