"""Odd layers, number types and parameters."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from mtl_utils.models import mlp
from tests.zoo import Situation, doubles, errors, hard, linears, numbers, situation


@situation
def convolutions_of_every_kind() -> Situation:
    trunk = nn.Sequential(
        nn.Conv2d(4, 4, 3, padding=1, groups=4),
        nn.Conv2d(4, 6, 1),
        nn.PReLU(6),
        nn.Conv2d(6, 4, 3, padding="same", dilation=2, padding_mode="circular"),
        nn.ConvTranspose2d(4, 3, 2, 2),
        nn.Tanh(),
        nn.Conv2d(3, 2, (1, 3), stride=(2, 1)),
        nn.Flatten(2),
        nn.Conv1d(2, 3, 5, stride=3),
        nn.Flatten(),
    ).double()
    return hard(trunk, numbers(2, 4, 4, 4), 21)


@situation
def norms_of_every_kind() -> Situation:
    trunk = nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4, affine=False),
        nn.GroupNorm(2, 4),
        nn.InstanceNorm2d(4, affine=True),
        nn.Flatten(),
        nn.LayerNorm(16),
        nn.Linear(16, 6),
        nn.RMSNorm(6),
    ).double()
    return hard(trunk, numbers(3, 2, 4, 4), 6)


@situation
def batch_norm_of_an_evaluated_model() -> Situation:
    trunk = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6)).double().eval()
    return hard(trunk, numbers(5, 4), 6)


@situation
def weight_norm() -> Situation:
    trunk = nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 16)), nn.Tanh()).double()
    return hard(trunk, numbers(3, 4), 16)


@situation
def spectral_norm() -> Situation:
    layer = nn.Linear(4, 6).double()
    trunk = nn.Sequential(parametrizations.spectral_norm(layer), nn.Tanh()).train()
    return hard(trunk, numbers(5, 4), 6)


@situation
def orthogonal_weight() -> Situation:
    layer = nn.Linear(4, 4).double()
    trunk = nn.Sequential(parametrizations.orthogonal(layer), nn.Tanh())
    return hard(trunk, numbers(5, 4), 4)


@situation
def one_table_with_two_paddings() -> Situation:
    """One of the two readers of the table has padding, the other has none."""
    table, padded = nn.Embedding(20, 6).double(), nn.Embedding(20, 6, padding_idx=0)
    padded.weight = table.weight
    heads = linears(6, 2)
    first, second = torch.tensor([0, 1, 0, 2]), torch.tensor([0, 3, 1, 0])

    def forward() -> list[Tensor]:
        z = torch.tanh(table(first) + padded(second))
        return errors(head(z) for head in heads)

    return Situation([table, *heads], table.parameters(), forward)


@situation
def two_tables_with_different_paddings() -> Situation:
    table = nn.Parameter(numbers(20, 6))
    heads, words = linears(6, 2), torch.tensor([0, 1, 2, 1, 0, 3])

    def forward() -> list[Tensor]:
        a = functional.embedding(words, table, padding_idx=0)
        b = functional.embedding(words.flip(0), table, padding_idx=1)
        c = functional.embedding(words, table, padding_idx=3, scale_grad_by_freq=True)
        z = torch.tanh(a + b * c)
        return errors(head(z) for head in heads)

    return Situation([table, *heads], [table], forward)


@situation
def embedding_without_an_index() -> Situation:
    """A batch in which no example has a value of an optional field."""
    table, layer, heads, x = nn.Embedding(50, 6), nn.Linear(4, 6), linears(6), numbers(5, 4)
    doubles(table, layer)

    def forward() -> list[Tensor]:
        z = torch.tanh(layer(x) + table(torch.zeros(0, dtype=torch.long)).sum(0))
        return errors(head(z) for head in heads)

    shared = [*table.parameters(), *layer.parameters()]
    return Situation([table, layer, *heads], shared, forward)


@situation
def one_bias_for_all_outputs() -> Situation:
    w, b = nn.Parameter(numbers(32, 12) / 4), nn.Parameter(numbers(1))
    heads, x = linears(32), numbers(3, 12)

    def forward() -> list[Tensor]:
        z = torch.tanh(functional.linear(x, w, b))
        return errors(head(z) for head in heads)

    return Situation([w, b, *heads], [w, b], forward)


@situation
def one_bias_in_two_layers() -> Situation:
    v, w = (nn.Parameter(numbers(24, n) / 4) for n in (12, 24))
    b, heads, x = nn.Parameter(numbers(24)), linears(24), numbers(3, 12)

    def forward() -> list[Tensor]:
        z = torch.tanh(functional.linear(torch.tanh(functional.linear(x, v, b)), w, b))
        return errors(head(z) for head in heads)

    return Situation([v, w, b, *heads], [v, w, b], forward)


@situation
def scaled_matrix_products() -> Situation:
    """addmm with factors, products from the left, and a weight that one layer transposes."""
    u, v, w = (nn.Parameter(numbers(16, 16) / 4) for _ in range(3))
    b, heads, x = nn.Parameter(numbers(16)), linears(16), numbers(3, 16)

    def forward() -> list[Tensor]:
        h = torch.tanh(torch.addmm(b, x, u, beta=0.5, alpha=2.0))
        h = torch.tanh(h @ w + functional.linear(h, w))
        h = torch.tanh((v @ h.T).T)
        return errors(head(h) for head in heads)

    return Situation([u, v, w, b, *heads], [u, v, w, b], forward)


@situation
def sparse_input_of_a_layer() -> Situation:
    """Bags of words as a sparse matrix, multiplied by the weight with a bias."""
    w, b, heads = nn.Parameter(numbers(40, 16)), nn.Parameter(numbers(16)), linears(16)
    x = (torch.rand(3, 40) > 0.8).double().to_sparse()

    def forward() -> list[Tensor]:
        z = torch.tanh(torch.addmm(b, x, w))
        return errors(head(z) for head in heads)

    return Situation([w, b, *heads], [w, b], forward)


@situation
def complex_weights() -> Situation:
    """A layer in the frequencies, as in Fourier neural operators."""
    lift, heads, x = nn.Linear(4, 16).double(), linears(16), numbers(3, 4)
    w = nn.Parameter(torch.randn(16, 16, dtype=torch.cdouble) / 4)
    shift = nn.Parameter(torch.randn(16, dtype=torch.cdouble) / 4)

    def forward() -> list[Tensor]:
        z = torch.fft.fft(torch.tanh(lift(x))) @ w + shift
        z = torch.fft.ifft(z).real
        return errors(head(z) for head in heads)

    return Situation([lift, w, shift, *heads], [*lift.parameters(), w, shift], forward)


@situation
def heads_read_a_complex_representation() -> Situation:
    w = nn.Parameter(torch.randn(8, 8, dtype=torch.cdouble) / 4)
    own, heads = nn.Parameter(torch.randn(8, dtype=torch.cdouble)), linears(8)
    x = numbers(3, 8)

    def forward() -> list[Tensor]:
        z = torch.fft.fft(x) @ w
        return errors([heads[0](z.real), heads[1]((z * own).abs()), heads[2](z.imag)])

    return Situation([w, own, *heads], [w], forward)


@situation
def solving_linear_equations() -> Situation:
    a, heads, x = nn.Parameter(numbers(4, 4) / 4), linears(4), numbers(5, 4)

    def forward() -> list[Tensor]:
        matrix = torch.eye(4).double() * 2 + a
        z = torch.linalg.solve(matrix, x.T).T
        return errors([*(head(z) for head in heads[:2]), torch.linalg.eigvalsh(a + a.T)])

    return Situation([a, *heads[:2]], [a], forward)


@situation
def float32_losses_of_a_float64_trunk() -> Situation:
    trunk, heads, x = mlp(4, 6, last=True).double(), linears(6), numbers(5, 4)

    def forward() -> list[Tensor]:
        z = trunk(x)
        return [loss.float() for loss in errors(head(z) for head in heads)]

    return Situation([trunk, *heads], trunk.parameters(), forward, tolerance=1e-5)


@situation
def float32_heads_of_a_float64_trunk() -> Situation:
    trunk, x = mlp(4, 6, last=True).double(), numbers(5, 4)
    heads = [nn.Linear(6, 1) for _ in range(3)]

    def forward() -> list[Tensor]:
        z = trunk(x)
        return errors(head(z.float()) for head in heads)

    return Situation([trunk, *heads], trunk.parameters(), forward, tolerance=1e-4)


@situation
def channels_last() -> Situation:
    trunk = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3)
    )
    trunk = trunk.double().to(memory_format=torch.channels_last)
    x = numbers(2, 3, 6, 6).contiguous(memory_format=torch.channels_last)
    return hard(trunk, x, 64, read=lambda z: z.flatten(1))


@situation
def bfloat16() -> Situation:
    trunk = mlp(4, 16, 8, activation=nn.Tanh, last=True)
    found = hard(trunk, torch.randn(6, 4).bfloat16(), 8, tolerance=0.05)
    for parameter in found.parameters:
        parameter.data = parameter.data.bfloat16()
    return found


@situation
def autocast() -> Situation:
    trunk, x = mlp(4, 16, 8, activation=nn.Tanh, last=True), torch.randn(6, 4)
    heads = [nn.Linear(8, 1) for _ in range(3)]

    def forward() -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            z = trunk(x)
            outputs = [head(z) for head in heads]
        return errors(out.float() for out in outputs)

    return Situation([trunk, *heads], trunk.parameters(), forward, tolerance=0.05)


@situation
def batched_matrix_products() -> Situation:
    """Weights of several layers in one tensor."""
    w, b = nn.Parameter(numbers(3, 4, 5) / 2), nn.Parameter(numbers(3, 1, 5))
    heads, x = linears(5), numbers(3, 6, 4)

    def forward() -> list[Tensor]:
        z = torch.tanh(torch.baddbmm(b, x, w))
        return errors(head(z[k] + z.mean(0)) for k, head in enumerate(heads))

    return Situation([w, b, *heads], [w, b], forward)


@situation
def forward_under_vmap() -> Situation:
    """An ensemble of trunks that torch.func runs at once."""
    w, heads, x = nn.Parameter(numbers(3, 6, 4)), linears(6), numbers(5, 4)

    def forward() -> list[Tensor]:
        z = torch.vmap(lambda one: torch.tanh(x @ one.T))(w)
        return errors(head(z.mean(0) * z[k]) for k, head in enumerate(heads))

    return Situation([w, *heads], [w], forward)


# ---- a part of a layer learns --------------------------------------------------------------------


def biases_of(trunk: nn.Module, x: Tensor, also: Iterable[Tensor] = (), **options) -> Situation:
    """All weights are frozen but those of `also`."""
    keep = {id(p) for p in also}
    for name, parameter in trunk.named_parameters():
        parameter.requires_grad_(name.endswith("bias") or id(parameter) in keep)
    return hard(trunk, x, 6, **options)


@situation
def biases_alone() -> Situation:
    return biases_of(mlp(4, 6, 6, last=True).double(), numbers(5, 4))


@situation
def biases_and_one_wide_weight() -> Situation:
    trunk = mlp(4, 300, 6, last=True).double()
    return biases_of(trunk, numbers(5, 4), [trunk[2].weight])


@situation
def the_bias_of_a_convolution_alone() -> Situation:
    trunk = nn.Conv2d(1, 6, 2).double()
    return biases_of(trunk, numbers(2, 1, 5, 4), read=lambda z: z.flatten(2).mean(2))


@situation
def convolutions_with_one_number_for_both_directions() -> Situation:
    v, w = nn.Parameter(numbers(5, 1, 2, 2)), nn.Parameter(numbers(6, 5, 2, 2) / 4)
    heads, x = linears(6), numbers(2, 1, 5, 4)

    def forward() -> list[Tensor]:
        h = torch.tanh(functional.conv2d(x, v, padding=(1,)))
        z = functional.conv2d(h, w, stride=(2,)).flatten(2).mean(2)
        return errors(head(z) for head in heads)

    return Situation([v, w, *heads], [v, w], forward)


@situation
def rows_of_different_length() -> Situation:
    trunk, heads, x = mlp(4, 6, last=True).double(), linears(6), numbers(5, 4)

    def forward() -> list[Tensor]:
        rows = torch.nested.nested_tensor([x[:2], x[2:]], layout=torch.jagged)
        z = torch.nested.to_padded_tensor(trunk(rows), 0.0)
        return errors(head(z) for head in heads)

    return Situation([trunk, *heads], trunk.parameters(), forward)
