"""What a backward pass meets: hooks, custom functions, checkpoints, compilation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.utils.checkpoint import checkpoint

from mtl_utils.models import mlp
from tests.zoo import Situation, doubles, errors, hard, linears, numbers, situation

# ---- custom functions ----------------------------------------------------------------------------


class Branch(Function):
    """The identity; its backward pass branches on a value."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        if gradient.isnan().any():
            raise ArithmeticError("a gradient is not a number")
        return 2 * gradient


class NumpySine(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.as_tensor(x.detach().numpy()).sin()

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return torch.from_numpy(gradient.numpy() * x.detach().cos().numpy())


class Reverse(Function):
    """The identity, whose gradient is reversed; keeps something under a name that autograd's own
    leaves have too."""

    @staticmethod
    def forward(ctx, x):
        ctx.variable = x
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        assert ctx.variable is not None
        return -0.5 * gradient


class Scaled(Function):
    """A product that gives its second factor no gradient."""

    @staticmethod
    def forward(ctx, x, factor):
        ctx.save_for_backward(factor)
        return x * factor

    @staticmethod
    def backward(ctx, gradient):
        (factor,) = ctx.saved_tensors
        return gradient * factor, None


class Rounded(Function):
    """Straight through: the gradient passes as if nothing was rounded; a second output has none."""

    @staticmethod
    def forward(ctx, x):
        rounded = (x * 4).round()
        ctx.mark_non_differentiable(rounded)
        return rounded / 4, rounded

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient, _):
        return gradient.clone()


class Overwriting(Function):
    """A gradient reversal that writes into what it gets."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient.neg_().mul_(0.5)


def between(change: Callable[[Tensor], Tensor]) -> Situation:
    """Something that happens in the middle of a trunk."""
    layers, heads, x = doubles(nn.Linear(4, 6), nn.Linear(6, 6)), linears(6), numbers(5, 4)

    def forward() -> list[Tensor]:
        z = torch.tanh(layers[1](change(torch.tanh(layers[0](x)))))
        return errors(head(z) for head in heads)

    shared = [p for layer in layers for p in layer.parameters()]
    return Situation([*layers, *heads], shared, forward)


def after(change: Callable[[Tensor], Tensor]) -> Situation:
    """Something that happens to the representation."""
    trunk, heads, x = mlp(4, 6, last=True).double(), linears(6), numbers(5, 4)

    def forward() -> list[Tensor]:
        z = change(trunk(x))
        return errors(head(z) for head in heads)

    return Situation([trunk, *heads], trunk.parameters(), forward)


@situation
def function_that_branches() -> Situation:
    return between(Branch.apply)


@situation
def function_through_numpy() -> Situation:
    return between(NumpySine.apply)


@situation
def function_that_reverses_and_keeps_a_variable() -> Situation:
    return between(Reverse.apply)


@situation
def function_that_rounds() -> Situation:
    return between(lambda h: Rounded.apply(h)[0])


@situation
def function_that_overwrites_its_gradient() -> Situation:
    return between(Overwriting.apply)


@situation
def function_that_overwrites_the_gradient_of_the_representation() -> Situation:
    return after(Overwriting.apply)


@situation
def function_that_overwrites_before_a_checkpoint_with_dropout() -> Situation:
    drop = nn.Dropout(0.3)
    return after(
        lambda z: Overwriting.apply(checkpoint(lambda x: drop(x.sin()), z, use_reentrant=False))
    )


@situation
def function_without_a_gradient_for_a_parameter() -> Situation:
    factor = nn.Parameter(numbers(6))
    found = between(lambda h: Scaled.apply(h, factor))
    found.shared.append(factor)
    found.parameters.append(factor)
    return found


@situation
def functions_in_the_heads() -> Situation:
    trunk, heads, x = mlp(4, 6, last=True).double(), linears(6), numbers(5, 4)
    factor = nn.Parameter(numbers(6))

    def forward() -> list[Tensor]:
        z = trunk(x)
        read = [Branch.apply(z), Scaled.apply(NumpySine.apply(z), factor), Reverse.apply(z)]
        return errors(head(h) for head, h in zip(heads, read, strict=True))

    return Situation([trunk, factor, *heads], trunk.parameters(), forward)


# ---- hooks ---------------------------------------------------------------------------------------


def with_hook(hook: Callable) -> Callable[[Tensor], Tensor]:
    def register(h: Tensor) -> Tensor:
        h = h * 1.0
        h.register_hook(hook)
        return h

    return register


def reads_a_number(gradient: Tensor) -> None:
    assert gradient.norm().item() >= 0


@situation
def hook_that_scales_an_activation() -> Situation:
    return between(with_hook(lambda gradient: 0.1 * gradient))


@situation
def hook_that_scales_the_representation() -> Situation:
    return after(with_hook(lambda gradient: 0.1 * gradient))


@situation
def hook_that_overwrites_the_gradient_of_an_activation() -> Situation:
    return between(with_hook(lambda gradient: gradient.mul_(0.1)))


@situation
def hook_that_overwrites_the_gradient_of_the_representation() -> Situation:
    return after(with_hook(lambda gradient: gradient.mul_(0.1)))


@situation
def hooks_that_overwrite_the_gradients_of_parameters() -> Situation:
    found = between(torch.sin)
    for parameter in found.parameters:
        parameter.register_hook(lambda gradient: gradient.mul_(0.1))
    return found


@situation
def hook_that_reads_a_number() -> Situation:
    return between(with_hook(reads_a_number))


@situation
def hook_that_reads_a_number_of_the_representation() -> Situation:
    return after(with_hook(reads_a_number))


@situation
def hooks_in_heads() -> Situation:
    trunk, heads, x = mlp(4, 6, last=True).double(), linears(6), numbers(5, 4)

    def forward() -> list[Tensor]:
        z = trunk(x)
        factors = [0.5, 2.0, -1.0]
        own = [with_hook(lambda g, f=f: f * g)(z) for f in factors]
        return errors(head(h) for head, h in zip(heads, own, strict=True))

    return Situation([trunk, *heads], trunk.parameters(), forward)


@situation
def module_hooks() -> Situation:
    trunk = mlp(4, 6, 6, last=True).double()
    trunk[0].register_full_backward_hook(lambda module, into, out: (None,))
    trunk[2].register_full_backward_hook(lambda module, into, out: (0.3 * into[0],))
    trunk[2].register_full_backward_pre_hook(lambda module, out: (2 * out[0],))
    return hard(trunk, numbers(5, 4), 6)


def masked(width: int) -> Situation:
    """Pruned entries of a weight, frozen rows of a table, a scaled bias, a masked head."""
    words, layer = doubles(nn.Embedding(50, 16), nn.Linear(16, width))
    heads, x = linears(width), torch.randint(50, (3,))
    mask = (torch.rand(width, 16) > 0.5).double()
    rows = (torch.arange(50) > 25).double()[:, None]
    layer.weight.register_hook(lambda gradient: gradient * mask)
    layer.bias.register_hook(lambda gradient: gradient * 0.5)
    words.weight.register_hook(lambda gradient: gradient * rows)
    heads[0].weight.register_hook(lambda gradient: gradient * 0.1)

    def forward() -> list[Tensor]:
        z = torch.tanh(layer(words(x)))
        return errors(head(z) for head in heads)

    return Situation([words, layer, *heads], [*words.parameters(), *layer.parameters()], forward)


@situation
def masks_on_narrow_parameters() -> Situation:
    return masked(16)


@situation
def masks_on_wide_parameters() -> Situation:
    return masked(512)


@situation
def mask_below_the_shared_part() -> Situation:
    stem, last, heads = *doubles(nn.Linear(4, 6), nn.Linear(6, 6)), linears(12)
    stem.weight.register_hook(lambda gradient: gradient * 0.25)
    x = numbers(5, 4)

    def forward() -> list[Tensor]:
        h = torch.tanh(stem(x))
        z = torch.tanh(last(h))
        return errors(head(torch.cat([z, h], 1)) for head in heads)

    return Situation([stem, last, *heads], last.parameters(), forward)


# ---- checkpoints and compilation -----------------------------------------------------------------


@situation
def checkpoint_with_dropout() -> Situation:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, batch_first=True).double().train()
    heads, x = linears(8), numbers(3, 4, 8)

    def forward() -> list[Tensor]:
        z = checkpoint(layer, x, use_reentrant=False).mean(1)
        return errors(head(z) for head in heads)

    return Situation([layer, *heads], layer.parameters(), forward)


@situation
def checkpoints_in_trunk_and_heads() -> Situation:
    trunk, heads = mlp(4, 16, 6, last=True).double(), [mlp(6, 4, 1).double() for _ in range(3)]
    x = numbers(5, 4)

    def forward() -> list[Tensor]:
        z = checkpoint(trunk, x, use_reentrant=False)
        return errors(checkpoint(head, z, use_reentrant=False) for head in heads)

    return Situation([trunk, *heads], trunk.parameters(), forward)


@situation
def saved_tensors_packed() -> Situation:
    """Activations are kept elsewhere and fetched back, as offloading to a slower memory does."""
    trunk, heads, x = mlp(4, 16, 6, last=True).double(), linears(6), numbers(5, 4)

    def forward() -> list[Tensor]:
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t.numpy(force=True), torch.tensor):
            z = trunk(x)
            return errors(head(z) for head in heads)

    return Situation([trunk, *heads], trunk.parameters(), forward)


def compiled(what: str) -> Situation:
    """Compiled, but for the last step that needs a compiler; `test_zoo.py` does that one too."""
    trunk, heads = mlp(4, 16, 6, last=True), [mlp(6, 4, 1, activation=nn.Tanh) for _ in range(3)]
    doubles(trunk, *heads)
    x = numbers(5, 4)
    faster = [torch.compile(part, backend="aot_eager") for part in [trunk, *heads]]
    whole = torch.compile(lambda x: [head(trunk(x)) for head in heads], backend="aot_eager")

    def forward() -> list[Tensor]:
        if what == "all":
            return errors(whole(x))
        z = faster[0](x) if what == "trunk" else trunk(x)
        return errors(head(z) for head in (faster[1:] if what == "heads" else heads))

    return Situation([trunk, *heads], trunk.parameters(), forward)


@situation
def compiled_trunk() -> Situation:
    return compiled("trunk")


@situation
def compiled_heads() -> Situation:
    return compiled("heads")


@situation
def compiled_whole_model() -> Situation:
    return compiled("all")
