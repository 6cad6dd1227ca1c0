"""A zoo of models and situations that plain PyTorch trains, for the tests of the engine.

Each is a function that makes a `Situation`; what it draws at random is the same in every call.

    networks        of the kinds that people have
    structures      what heads and trunk share, and how
    layers          odd layers, types and parameters
    passes          what a backward pass meets: hooks, custom functions, checkpoints, compilation
    vectors         how K losses become one vector
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

Make = Callable[[], "Situation"]
SITUATIONS: dict[str, Make] = {}


@dataclass
class Situation:
    """A model, ready for one training step.

    Attributes:
        parts: modules or leaf tensors; all that may learn.
        shared: as handed to `backward`.
        forward: one forward pass: the K losses, in a list, or as one vector.
        join: from the list to the vector [K]; entry k depends on loss k alone.
        tolerance: largest difference from plain passes, as a share of the length of what is
            compared.
    """

    parts: Iterable[nn.Module | Tensor]
    shared: Iterable[Tensor]
    forward: Callable[[], list[Tensor] | Tensor]
    join: Callable[[list[Tensor]], Tensor] = torch.stack
    tolerance: float = 1e-7
    parameters: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.shared = list(self.shared)
        found = []
        for part in self.parts:
            found += [part] if isinstance(part, Tensor) else list(part.parameters())
        self.parameters = list({id(p): p for p in found}.values())

    def losses(self) -> Tensor:
        """[K], of a forward pass that draws the same random numbers in every call."""
        torch.manual_seed(1)
        found = self.forward()
        return found if isinstance(found, Tensor) else self.join(found)

    def loss(self, k: int) -> Tensor:
        """Loss k of a forward pass, without what the others hold."""
        torch.manual_seed(1)
        found = self.forward()
        if isinstance(found, Tensor):
            return found[k]
        return self.join([one if j == k else one.detach() for j, one in enumerate(found)])[k]


def situation(make: Make) -> Make:
    """Decorator: put a situation into the zoo, under the name of the function."""
    name = make.__name__

    def seeded() -> Situation:
        torch.manual_seed(0)
        return make()

    assert name not in SITUATIONS
    SITUATIONS[name] = seeded
    return seeded


# ---- what many situations have in common ---------------------------------------------------------


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def doubles(*modules: nn.Module) -> list[nn.Module]:
    return [module.double() for module in modules]


def linears(width: int, n_tasks: int = 3, out: int = 1) -> list[nn.Module]:
    """Linear heads."""
    return [nn.Linear(width, out).double() for _ in range(n_tasks)]


def errors(outputs: Iterable[Tensor]) -> list[Tensor]:
    """Mean squared errors, of targets that differ between the tasks and rows; above 0."""
    found = []
    for k, out in enumerate(outputs):
        target = torch.linspace(-1, 1 + k, out.numel()).view_as(out).to(out)
        found.append((k + 1) * (out - target).square().mean())
    return found


def hard(
    trunk: nn.Module,
    x: Tensor,
    width: int,
    shared: Iterable[Tensor] | None = None,
    n_tasks: int = 3,
    read: Callable[[Tensor], Tensor] | None = None,
    **options,
) -> Situation:
    """A trunk and linear heads on what `read` makes of its output."""
    heads = linears(width, n_tasks)

    def forward() -> list[Tensor]:
        z = trunk(x)
        z = z if read is None else read(z)
        return errors(head(z) for head in heads)

    shared = trunk.parameters() if shared is None else shared
    return Situation([trunk, *heads], shared, forward, **options)


from tests.zoo import layers, networks, passes, structures, vectors  # noqa: E402, F401
