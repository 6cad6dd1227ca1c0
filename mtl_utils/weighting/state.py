"""What a rule remembers: plain tensors with fixed names, saved, loaded and moved as a module's are.

A rule keeps its state in buffers (`register_buffer`) and in parameters that the user's optimiser
moves. "Not yet seen" is NaN, or a count of 0. A rule replaces a buffer (`self.mean = ...`) instead
of writing into it, so that a state dict taken before keeps what it holds.

The first dimension of each of these tensors is that of the tasks, one without dimensions belongs to
all of them. So a rule can be had for some of its tasks (`on`), make its step there, and be taken
back (`take`): that is how a task sits out a step, for every rule.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from mtl_utils.engine import landing


class Stateful(nn.Module):
    """A module whose state dict holds, besides its tensors, what they belong to.

    rule             name of the rule, in bytes
    n_tasks          K
    options.<name>   every option: numbers in float64 (None is NaN), text in bytes
    generator        state of the random generator, in bytes, for rules that draw

    Loading a state of another rule, K or option raises ValueError; the generator goes on from where
    the state left off.

    Attributes:
        n_tasks: K.
        name: of the rule.
        generator: source of the rule's random numbers, None for rules that draw none.
        task_dims: names of tensors of which other dimensions than the first are those of the tasks.
    """

    name = "weighting"
    generator: torch.Generator | None = None
    task_dims: ClassVar[dict[str, tuple[int, ...]]] = {}

    def __init__(self, n_tasks: int) -> None:
        super().__init__()
        self.n_tasks = n_tasks

    @property
    def options(self) -> dict[str, Any]:
        """The rule's options by name, with their values; without its generator."""
        names = [*inspect.signature(type(self)).parameters][1:]  # after n_tasks
        return {n: getattr(self, n) for n in names if n != "generator" and hasattr(self, n)}

    def _belonging(self) -> dict[str, Tensor]:
        """What the state dict holds besides parameters and buffers."""
        found = {"rule": encode(self.name), "n_tasks": encode(self.n_tasks)}
        found |= {f"options.{name}": encode(value) for name, value in self.options.items()}
        if self.generator is not None:
            found["generator"] = self.generator.get_state()
        return found

    # ---- saved and loaded --------------------------------------------------------------------

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for key, value in self._belonging().items():
            destination[prefix + key] = value

    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        own = self._belonging()
        self._refuse_another(state_dict, prefix, own)
        inside = [key for key in state_dict if key.startswith(prefix)]
        self._make_room({key.removeprefix(prefix): state_dict[key] for key in inside})
        surprises: list[str] = []
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, surprises, error_msgs
        )
        unexpected_keys += [key for key in surprises if key.removeprefix(prefix) not in own]
        if strict:
            missing_keys += [prefix + key for key in own if prefix + key not in state_dict]
        if self.generator is not None and prefix + "generator" in state_dict:
            self.generator.set_state(state_dict[prefix + "generator"].cpu())

    def _make_room(self, saved: dict[str, Tensor]) -> None:
        """For rules with tensors whose shape follows from the run: take that of the saved ones."""

    def _refuse_another(self, state_dict: Any, prefix: str, own: dict[str, Tensor]) -> None:
        """ValueError if the state is that of another rule, number of tasks or option."""
        given = {key: state_dict[prefix + key] for key in own if prefix + key in state_dict}
        if any(key in given and differ(given[key], own[key]) for key in ("rule", "n_tasks")):
            whose = f"{decode(given['rule'])} with n_tasks={decode(given['n_tasks'])}"
            raise ValueError(
                f"state_dict: expected that of {self.name} with n_tasks={self.n_tasks}, "
                f"got that of {whose}"
            )
        for key, value in given.items():
            if key.startswith("options.") and differ(value, own[key]):
                raise ValueError(
                    f"{prefix}{key}: the state has {decode(value)!r}, this {self.name} has "
                    f"{decode(own[key])!r}; make it with the options of the run that it goes on"
                )

    # ---- for some of its tasks -----------------------------------------------------------------

    def on(self, tasks: Tensor) -> Self:
        """A copy of the rule for some of its tasks, with their part of the state.

        Args:
            tasks: [K], booleans, which ones.
        """
        part = copy.copy(self)
        part.n_tasks = int(tasks.sum())
        part._buffers, part._parameters = dict(self._buffers), dict(self._parameters)
        for name, tensor in self._tensors().items():
            chosen = tensor.detach()[self._index(name, tensor, tasks)].clone()
            if name in self._parameters:
                part._parameters[name] = nn.Parameter(chosen, tensor.requires_grad)
            else:
                part._buffers[name] = chosen
        return part

    def take(self, part: Self, tasks: Tensor) -> None:
        """Take over the buffers, and the gradients of the parameters, of a copy that `on` made.

        In an absent entry a parameter gets the gradient 0.
        """
        for name, tensor in self._tensors().items():
            index = self._index(name, tensor, tasks)
            if name in self._parameters:
                gradient = part._parameters[name].grad  # type: ignore[union-attr]
                if gradient is not None:
                    whole = torch.zeros_like(tensor)
                    whole[index] = gradient
                    landing.onto_leaves([tensor], [whole])
                continue
            own = part._buffers[name]
            assert own is not None
            if own.shape != tensor[index].shape:  # the part was the first to know its shape
                tensor = own.new_zeros(self.n_tasks, *own.shape[1:])
            whole = tensor.to(own, copy=True)
            whole[index] = own
            self._buffers[name] = whole

    def _tensors(self) -> dict[str, Tensor]:
        """The rule's own tensors by name."""
        return {n: t for n, t in (self._buffers | self._parameters).items() if t is not None}

    def _index(self, name: str, tensor: Tensor, tasks: Tensor) -> tuple[Any, ...]:
        """Index of the chosen tasks in one of the rule's tensors."""
        chosen = tasks.nonzero().flatten().to(tensor.device)
        dims = self.task_dims.get(name, (0,) if tensor.dim() else ())
        index: list[Any] = [slice(None)] * tensor.dim()
        for place, dim in enumerate(dims):
            index[dim] = chosen.view(-1, *[1] * (len(dims) - 1 - place))
        return tuple(index)

    # ---- moved -------------------------------------------------------------------------------

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """As for any module, but no number falls below single precision: in half precision a
        learned weight stops moving as soon as its steps are smaller than its last digit."""

        def wide(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            if is_half(moved.dtype) and not is_half(tensor.dtype):
                moved = tensor.to(moved.device)
            return moved

        return super()._apply(wide, recurse)


def is_half(dtype: torch.dtype) -> bool:
    """Whether numbers of this type are floating-point ones of fewer than 32 bits."""
    return dtype.is_floating_point and dtype.itemsize < 4


def at_least_single(tensor: Tensor) -> Tensor:
    """The tensor itself, or in float32 if its numbers have fewer bits."""
    return tensor.float() if is_half(tensor.dtype) else tensor


# ---- options as tensors --------------------------------------------------------------------------


def encode(value: Any) -> Tensor:
    """An option as a tensor on the CPU: numbers in float64, None as NaN, text in bytes."""
    if value is None:
        value = math.nan
    if isinstance(value, str):
        value = (value,)
    if isinstance(value, tuple) and all(isinstance(text, str) for text in value):
        return torch.tensor(list("\n".join(value).encode()), dtype=torch.uint8)
    return torch.as_tensor(value, dtype=torch.float64).detach().cpu().clone()


def decode(tensor: Tensor) -> Any:
    """An option from a tensor that `encode` made: a number or None, a list, or text."""
    if tensor.dtype == torch.uint8:
        return ", ".join(bytes(tensor.tolist()).decode().split("\n"))
    found = tensor.tolist()
    if isinstance(found, list):
        return found
    if math.isnan(found):
        return None
    return int(found) if found.is_integer() else found


def differ(a: Tensor, b: Tensor) -> bool:
    """Whether two encoded options differ by more than single precision does."""
    a, b = a.cpu(), b.cpu()
    if a.dtype != b.dtype or a.shape != b.shape:
        return True
    if a.dtype == torch.uint8:
        return not torch.equal(a, b)
    return not torch.allclose(a, b, rtol=1e-6, atol=0.0, equal_nan=True)
