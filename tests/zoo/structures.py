"""What trunk and heads have in common, and how losses hang together."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mtl_utils.models import mlp
from tests.zoo import Situation, doubles, errors, hard, linears, numbers, situation


@situation
def stem_outside_shared_with_a_skip() -> Situation:
    """The stem reaches one loss through the shared layer and beside it."""
    stem, last = doubles(nn.Linear(4, 8), nn.Linear(8, 8))
    heads = doubles(nn.Linear(8, 1), nn.Linear(16, 1))
    x = numbers(6, 4)

    def forward() -> list[Tensor]:
        h = torch.tanh(stem(x))
        z = torch.tanh(last(h))
        return errors([heads[0](z), heads[1](torch.cat([z, h], 1))])

    return Situation([stem, last, *heads], last.parameters(), forward)


@situation
def stem_outside_shared_with_skips_to_all() -> Situation:
    stem, middle, last = doubles(nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 6))
    heads, x = linears(12), numbers(6, 4)

    def forward() -> list[Tensor]:
        h = torch.tanh(stem(x))
        z = torch.tanh(last(torch.tanh(middle(h))))
        return errors(head(torch.cat([z, h], 1)) for head in heads)

    return Situation([stem, middle, last, *heads], last.parameters(), forward)


@situation
def tied_words_around_a_shared_encoder() -> Situation:
    words, encoder, tag = doubles(nn.Embedding(9, 6), nn.Linear(6, 6), nn.Linear(6, 1))
    x = torch.randint(9, (4, 3))

    def forward() -> list[Tensor]:
        z = torch.tanh(encoder(words(x)))
        logits = (z @ words.weight.T).flatten(0, 1)
        return [functional.cross_entropy(logits, x.flatten()), *errors([tag(z.mean(1))])]

    return Situation([words, encoder, tag], encoder.parameters(), forward)


@situation
def tied_words_shared() -> Situation:
    words, encoder, tag = doubles(nn.Embedding(30, 6), nn.Linear(6, 6), nn.Linear(6, 1))
    x = torch.randint(30, (4, 3))

    def forward() -> list[Tensor]:
        z = torch.tanh(encoder(words(x)))
        logits = (z @ words.weight.T).flatten(0, 1)
        return [functional.cross_entropy(logits, x.flatten()), *errors([tag(z.mean(1))])]

    return Situation([words, encoder, tag], [*words.parameters(), *encoder.parameters()], forward)


@situation
def transposed_weight_read_by_trunk_and_head() -> Situation:
    """The transpose is made once; the trunk multiplies by it, and a head reads it."""
    w, heads, x = nn.Parameter(numbers(24, 16) / 4), linears(24, 2), numbers(3, 16)

    def forward() -> list[Tensor]:
        wt = w.t()
        z = torch.tanh(x @ wt)
        return [*errors(head(z) for head in heads), (wt * wt.detach().cos()).sum().square()]

    return Situation([w, *heads], [w], forward)


@situation
def siamese_trunk_used_twice() -> Situation:
    trunk, heads = mlp(4, 16, 6, activation=nn.Tanh, last=True).double(), linears(6)
    left, right = numbers(5, 4), numbers(5, 4)

    def forward() -> list[Tensor]:
        a, b = trunk(left), trunk(right)
        return errors([heads[0](a), heads[1](b), heads[2](a - b)])

    return Situation([trunk, *heads], trunk.parameters(), forward)


@situation
def a_batch_for_each_task() -> Situation:
    trunk, heads = mlp(4, 16, 6, last=True).double(), linears(6)
    batches = [numbers(n, 4) for n in (2, 4, 7)]

    def forward() -> list[Tensor]:
        return errors(head(trunk(x)) for head, x in zip(heads, batches, strict=True))

    return Situation([trunk, *heads], trunk.parameters(), forward)


@situation
def one_layer_again_and_again() -> Situation:
    """A weight that is used five times, as in an unrolled solver."""
    layer, gain = nn.Linear(5, 5).double(), nn.Parameter(torch.tensor(0.5).double())
    heads, x = linears(5), numbers(4, 5)

    def forward() -> list[Tensor]:
        h = x
        for _ in range(5):
            h = h + gain * torch.tanh(layer(h))
        return errors(head(h) for head in heads)

    return Situation([layer, gain, *heads], [*layer.parameters(), gain], forward)


@situation
def one_head_for_two_losses() -> Situation:
    trunk, heads, x = mlp(4, 6, last=True).double(), linears(6, 2, out=2), numbers(5, 4)

    def forward() -> list[Tensor]:
        z = trunk(x)
        y = heads[0](z)
        return errors([y[:, 0], y[:, 1], heads[1](z)])

    return Situation([trunk, *heads], trunk.parameters(), forward)


@situation
def head_that_reads_another_head() -> Situation:
    """The second task is told what the first one says."""
    trunk, x = mlp(4, 6, last=True).double(), numbers(5, 4)
    heads = doubles(nn.Linear(6, 2), nn.Linear(8, 1), nn.Linear(6, 1))

    def forward() -> list[Tensor]:
        z = trunk(x)
        first = heads[0](z)
        return errors([first, heads[1](torch.cat([z, first], 1)), heads[2](z)])

    return Situation([trunk, *heads], trunk.parameters(), forward)


@situation
def heads_with_a_common_parameter() -> Situation:
    trunk, heads, x = mlp(4, 6, last=True).double(), linears(6, 2), numbers(5, 4)
    scale = nn.Parameter(numbers(6))

    def forward() -> list[Tensor]:
        z = trunk(x)
        return errors(head(z * scale) for head in heads)

    return Situation([trunk, scale, *heads], trunk.parameters(), forward)


@situation
def losses_of_different_depth() -> Situation:
    trunk, x = mlp(4, 6, 6, last=True).double(), numbers(5, 4)
    heads = doubles(nn.Linear(6, 1), mlp(6, 5, 5, 5, 1), mlp(6, 4, 1))

    def forward() -> list[Tensor]:
        z = trunk(x)
        return errors(head(z) for head in heads)

    return Situation([trunk, *heads], trunk.parameters(), forward)


@situation
def deep_supervision() -> Situation:
    """Heads on three depths of the trunk, one of which reads two of them."""
    layers = doubles(*(nn.Linear(n, 6) for n in (4, 6, 6)))
    heads = doubles(nn.Linear(6, 1), nn.Linear(12, 1), nn.Linear(6, 1))
    x = numbers(5, 4)

    def forward() -> list[Tensor]:
        first = torch.tanh(layers[0](x))
        second = torch.tanh(layers[1](first))
        third = torch.tanh(layers[2](second))
        read = [first, torch.cat([first, second], 1), third]
        return errors(head(h) for head, h in zip(heads, read, strict=True))

    shared = [p for layer in layers for p in layer.parameters()]
    return Situation([*layers, *heads], shared, forward)


@situation
def only_the_middle_is_shared() -> Situation:
    layers = doubles(*(nn.Linear(n, 6) for n in (4, 6, 6)))
    heads, x = linears(6), numbers(5, 4)

    def forward() -> list[Tensor]:
        h = x
        for layer in layers:
            h = torch.tanh(layer(h))
        return errors(head(h) for head in heads)

    return Situation([*layers, *heads], layers[1].parameters(), forward)


@situation
def loss_that_is_part_of_another() -> Situation:
    trunk, heads, x = mlp(4, 6, last=True).double(), linears(6), numbers(5, 4)

    def forward() -> list[Tensor]:
        z = trunk(x)
        first, second, third = errors(head(z) for head in heads)
        return [first, second + 0.3 * first, third + 0.1 * second]

    return Situation([trunk, *heads], trunk.parameters(), forward)


@situation
def the_same_loss_twice() -> Situation:
    trunk, heads, x = mlp(4, 6, last=True).double(), linears(6, 2), numbers(5, 4)

    def forward() -> list[Tensor]:
        z = trunk(x)
        first, second = errors(head(z) for head in heads)
        return [first, second, first]

    return Situation([trunk, *heads], trunk.parameters(), forward)


@situation
def penalty_on_shared_parameters_in_one_loss() -> Situation:
    trunk, heads, x = mlp(4, 6, last=True).double(), linears(6), numbers(5, 4)

    def forward() -> list[Tensor]:
        z = trunk(x)
        first, second, third = errors(head(z) for head in heads)
        penalty = sum(p.square().sum() for p in trunk.parameters())
        return [first, second + 0.1 * penalty, third]

    return Situation([trunk, *heads], trunk.parameters(), forward)


@situation
def penalty_in_all_losses() -> Situation:
    trunk, heads, x = mlp(4, 6, last=True).double(), linears(6), numbers(5, 4)

    def forward() -> list[Tensor]:
        z = trunk(x)
        penalty = sum(p.square().sum() for p in trunk.parameters())
        return [loss + 0.1 * penalty for loss in errors(head(z) for head in heads)]

    return Situation([trunk, *heads], trunk.parameters(), forward)


@situation
def loss_that_is_a_constant() -> Situation:
    trunk, heads, x = mlp(4, 6, last=True).double(), linears(6, 2), numbers(5, 4)

    def forward() -> list[Tensor]:
        z = trunk(x)
        first, second = errors(head(z) for head in heads)
        return [first, torch.tensor(0.5).double(), second]

    return Situation([trunk, *heads], trunk.parameters(), forward)


@situation
def loss_that_does_not_reach_the_trunk() -> Situation:
    trunk, heads, x = mlp(4, 6, last=True).double(), linears(6), numbers(5, 4)

    def forward() -> list[Tensor]:
        z = trunk(x)
        return errors([heads[0](z), heads[1](z.detach()), heads[2](z)])

    return Situation([trunk, *heads], trunk.parameters(), forward)


@situation
def head_that_stops_a_part_of_the_gradient() -> Situation:
    trunk, heads, x = mlp(4, 6, last=True).double(), linears(6), numbers(5, 4)

    def forward() -> list[Tensor]:
        z = trunk(x)
        half = torch.cat([z[:, :3], z[:, 3:].detach()], 1)
        return errors([heads[0](z), heads[1](half), heads[2](z * z.detach())])

    return Situation([trunk, *heads], trunk.parameters(), forward)


@situation
def frozen_head() -> Situation:
    found = hard(mlp(4, 6, last=True).double(), numbers(5, 4), 6)
    for parameter in found.parameters[-2:]:
        parameter.requires_grad_(False)
    return found


@situation
def frozen_trunk_but_for_its_last_layer() -> Situation:
    trunk = mlp(4, 6, 6, last=True).double()
    trunk[0].requires_grad_(False)
    return hard(trunk, numbers(5, 4), 6)


@situation
def shared_given_twice_with_frozen_and_unreached_ones() -> Situation:
    trunk = mlp(4, 6, 6, last=True).double()
    trunk[0].bias.requires_grad_(False)
    aside = nn.Linear(6, 6).double()
    found = hard(trunk, numbers(5, 4), 6, [*aside.parameters(), *trunk.parameters()])
    found.parameters += list(aside.parameters())
    found.shared += list(trunk.parameters())
    return found


@situation
def one_task() -> Situation:
    return hard(mlp(4, 6, last=True).double(), numbers(5, 4), 6, n_tasks=1)


@situation
def seven_tasks() -> Situation:
    return hard(mlp(4, 6, last=True).double(), numbers(5, 4), 6, n_tasks=7)


@situation
def all_parameters_shared() -> Situation:
    found = hard(mlp(4, 6, last=True).double(), numbers(5, 4), 6)
    found.shared = found.parameters
    return found


@situation
def heads_read_shared_parameters_and_the_trunk() -> Situation:
    """A temperature and a vector of the trunk appear in the losses again."""
    trunk, heads, x = mlp(4, 6, last=True).double(), linears(6), numbers(5, 4)
    temperature = nn.Parameter(torch.tensor(1.5).double())

    def forward() -> list[Tensor]:
        z = trunk(x)
        bias = trunk[0].bias
        outputs = [heads[0](z), heads[1](z + bias), heads[2](z) / temperature]
        return errors(outputs)

    return Situation([trunk, temperature, *heads], [*trunk.parameters(), temperature], forward)


@situation
def a_shared_parameter_that_one_head_alone_reads() -> Situation:
    trunk, heads, x = mlp(4, 6, last=True).double(), linears(6), numbers(5, 4)
    own = nn.Linear(6, 6).double()

    def forward() -> list[Tensor]:
        z = trunk(x)
        return errors([heads[0](z), heads[1](torch.tanh(own(z))), heads[2](z)])

    return Situation([trunk, own, *heads], [*trunk.parameters(), *own.parameters()], forward)


@situation
def tasks_that_share_in_pairs() -> Situation:
    """No parameter is read by all three."""
    layers, heads, x = [mlp(4, 6, last=True).double() for _ in range(3)], linears(12), numbers(5, 4)

    def forward() -> list[Tensor]:
        z = [layer(x) for layer in layers]
        pairs = [torch.cat([z[k], z[(k + 1) % 3]], 1) for k in range(3)]
        return errors(head(pair) for head, pair in zip(heads, pairs, strict=True))

    shared = [p for layer in layers for p in layer.parameters()]
    return Situation([*layers, *heads], shared, forward)


@situation
def parts_of_one_output() -> Situation:
    """Heads read slices, chunks and unbound rows of what one node gives."""
    trunk, heads = mlp(4, 12, last=True).double(), linears(4, 4)
    x = numbers(5, 4)

    def forward() -> list[Tensor]:
        z = trunk(x)
        first, second, third = z.chunk(3, 1)
        row = z.view(5, 3, 4).unbind(1)[1]
        read = [first, second * third, row, z[:, 2:6]]
        return errors(head(h) for head, h in zip(heads, read, strict=True))

    return Situation([trunk, *heads], trunk.parameters(), forward)


@situation
def changed_in_place_between_heads() -> Situation:
    """A view of the representation is changed after one head has read it, before another does."""
    trunk, heads, x = nn.Linear(4, 6).double(), linears(6), numbers(5, 4)

    def forward() -> list[Tensor]:
        z = trunk(x) * 1.0
        first = heads[0](z.clone())
        z[:, :3] *= 2.0
        second = heads[1](z.clone())
        z[:, 3:].add_(z[:, :3].detach())
        return errors([first, second, heads[2](z)])

    return Situation([trunk, *heads], trunk.parameters(), forward)


@situation
def a_common_vector_broadcast_by_heads() -> Situation:
    vector, number = nn.Parameter(numbers(4)), nn.Parameter(torch.tensor(0.7).double())
    heads, x = linears(4), numbers(5, 4)

    def forward() -> list[Tensor]:
        wide = torch.tanh(vector).expand(5, 4)
        twice = torch.tanh(vector * number)
        return errors([heads[0](x * wide), heads[1](x + twice), heads[2](x) * torch.exp(number)])

    return Situation([vector, number, *heads], [vector, number], forward)
