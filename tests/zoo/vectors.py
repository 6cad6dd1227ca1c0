"""How K losses become one vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mtl_utils.models import mlp
from tests.zoo import Situation, errors, hard, linears, numbers, situation


def joined(join) -> Situation:
    return hard(mlp(4, 6, last=True).double(), numbers(5, 4), 6, join=join)


@situation
def divided_after_the_stack() -> Situation:
    return joined(lambda losses: torch.stack(losses) / 4)


@situation
def clamped_after_the_stack() -> Situation:
    return joined(lambda losses: torch.stack(losses).clamp(max=1.0, min=0.01) + 0.1)


@situation
def logarithms_after_the_stack() -> Situation:
    return joined(lambda losses: torch.log1p(torch.stack(losses)))


@situation
def fixed_factors_after_the_stack() -> Situation:
    return joined(lambda losses: torch.stack(losses) * torch.tensor([1.0, 0.5, 3.0]).double())


@situation
def two_stacks_added() -> Situation:
    """Each task has two losses."""
    return joined(
        lambda losses: torch.stack(losses) + 0.3 * torch.stack([x.sqrt() for x in losses])
    )


@situation
def hook_on_the_stack() -> Situation:
    factors = torch.tensor([1.0, 3.0, 0.5]).double()

    def join(losses: list[Tensor]) -> Tensor:
        vector = torch.stack(losses)
        vector.register_hook(lambda gradient: gradient * factors)
        return vector

    return joined(join)


@situation
def joined_in_float32() -> Situation:
    found = joined(lambda losses: torch.stack(losses).float() * 2)
    found.tolerance = 1e-5
    return found


@situation
def concatenated() -> Situation:
    return joined(lambda losses: torch.cat([loss.reshape(1) for loss in losses]) / 2)


@situation
def stacked_with_a_dimension_of_one() -> Situation:
    return joined(lambda losses: torch.stack([loss.reshape(1) for loss in losses]).squeeze(1))


@situation
def written_into_a_vector() -> Situation:
    def join(losses: list[Tensor]) -> Tensor:
        vector = torch.zeros(len(losses), dtype=torch.float64)
        for k, loss in enumerate(losses):
            vector[k] = loss
        return vector

    return joined(join)


@situation
def stacked_twice() -> Situation:
    return joined(lambda losses: torch.stack(torch.stack(losses).unbind()))


@situation
def mean_over_rows_of_a_table() -> Situation:
    """The losses of one output layer for all tasks, never apart."""
    trunk, head, x = mlp(4, 6, last=True).double(), nn.Linear(6, 3).double(), numbers(5, 4)

    def forward() -> Tensor:
        return (head(trunk(x)) - torch.arange(3)).square().mean(0)

    return Situation([trunk, head], trunk.parameters(), forward)


@situation
def mixed_by_a_matrix() -> Situation:
    trunk, heads, x = mlp(4, 6, last=True).double(), linears(6), numbers(5, 4)
    mixing = torch.tensor([[1.0, 0.2, 0.0], [0.1, 1.0, 0.3], [0.5, 0.0, 1.0]]).double()

    def forward() -> Tensor:
        z = trunk(x)
        return mixing @ torch.stack(errors(head(z) for head in heads))

    return Situation([trunk, *heads], trunk.parameters(), forward)


@situation
def divided_by_their_sum() -> Situation:
    """Each loss depends on all others."""
    trunk, heads, x = mlp(4, 6, last=True).double(), linears(6), numbers(5, 4)

    def forward() -> Tensor:
        z = trunk(x)
        losses = torch.stack(errors(head(z) for head in heads))
        return losses / losses.sum() + losses

    return Situation([trunk, *heads], trunk.parameters(), forward)


@situation
def a_penalty_added_to_the_vector() -> Situation:
    trunk, heads, x = mlp(4, 6, last=True).double(), linears(6), numbers(5, 4)

    def forward() -> Tensor:
        z = trunk(x)
        penalty = sum(p.square().sum() for p in trunk.parameters())
        return torch.stack(errors(head(z) for head in heads)) + 0.1 * penalty

    return Situation([trunk, *heads], trunk.parameters(), forward)


@situation
def a_stack_of_losses_and_one_of_a_common_penalty() -> Situation:
    """Where a loss has two roots, one of them may be its own and the other common."""
    trunk, heads, x = mlp(4, 6, last=True).double(), linears(6), numbers(5, 4)

    def forward() -> Tensor:
        z = trunk(x)
        penalty = sum(p.square().sum() for p in trunk.parameters())
        return torch.stack(errors(head(z) for head in heads)) + torch.stack([0.1 * penalty] * 3)

    return Situation([trunk, *heads], trunk.parameters(), forward)


@situation
def learned_factors_outside_the_rule() -> Situation:
    """A parameter of the user's own multiplies the losses."""
    trunk, heads, x = mlp(4, 6, last=True).double(), linears(6), numbers(5, 4)
    factors = nn.Parameter(torch.tensor([1.0, 2.0, 0.5]).double())

    def forward() -> Tensor:
        z = trunk(x)
        return factors.square() * torch.stack(errors(head(z) for head in heads))

    return Situation([trunk, factors, *heads], trunk.parameters(), forward)
