"""Networks of the kinds that people have, small."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mtl_utils.models import lenet_trunk, mlp
from tests.zoo import Situation, doubles, errors, hard, linears, numbers, situation


@situation
def perceptron() -> Situation:
    return hard(mlp(4, 8, 6, last=True).double(), numbers(5, 4), 6)


@situation
def wide_perceptron() -> Situation:
    """Wide enough for formulas."""
    trunk = mlp(24, 64, 64, activation=nn.Tanh, last=True).double()
    return hard(trunk, numbers(3, 24), 64, n_tasks=4)


@situation
def lenet() -> Situation:
    return hard(lenet_trunk(18, 6).double(), numbers(3, 1, 18, 18), 6, n_tasks=2)


class Block(nn.Module):
    """A residual block."""

    def __init__(self, fan_in: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(fan_in, out, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(out) for _ in range(3))
        self.aside = nn.Conv2d(fan_in, out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = functional.relu(self.norms[0](self.first(x)), inplace=True)
        h = self.norms[1](self.second(h))
        h += self.norms[2](self.aside(x))
        return functional.relu(h, inplace=True)


@situation
def resnet_with_batch_norm() -> Situation:
    trunk = nn.Sequential(
        nn.Conv2d(3, 4, 3, 1, 1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        Block(4, 4, 1),
        Block(4, 6, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ).double()
    return hard(trunk.train(), numbers(4, 3, 6, 6), 6)


class ViT(nn.Module):
    """Patches, a class token, positions, one block."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.positions = nn.Parameter(torch.randn(1, 5, 8) / 10)
        self.norms = nn.ModuleList(nn.LayerNorm(8) for _ in range(2))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.mixer = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

    def forward(self, x: Tensor) -> Tensor:
        h = self.patches(x).flatten(2).transpose(1, 2)
        h = torch.cat([self.token.expand(len(x), -1, -1), h], 1) + self.positions
        n = self.norms[0](h)
        h = h + self.attention(n, n, n, need_weights=False)[0]
        h = h + self.mixer(self.norms[1](h))
        return h[:, 0]


@situation
def vision_transformer() -> Situation:
    return hard(ViT().double(), numbers(3, 1, 8, 8), 8)


@situation
def transformer_with_dropout() -> Situation:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, batch_first=True)
    trunk = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).double().train()
    return hard(trunk, numbers(3, 4, 8), 8, read=lambda h: h.mean(1))


@situation
def bert() -> Situation:
    """Heads for tokens, for the pooled text, and for the words (tied with the embedding)."""
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"vocab_size": 30, "intermediate_size": 16, "max_position_embeddings": 8}
    config = BertConfig(**sizes)
    trunk = BertModel(config).double().train()
    heads = [nn.Linear(8, 3).double() for _ in range(2)]
    words, tags = torch.randint(30, (3, 5)), torch.randint(3, (3, 5))
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]])

    def forward() -> list[Tensor]:
        out = trunk(words, attention_mask=mask)
        h = out.last_hidden_state
        logits = h @ trunk.embeddings.word_embeddings.weight.T
        return [
            functional.cross_entropy(heads[0](h).flatten(0, 1), tags.flatten()),
            functional.cross_entropy(heads[1](out.pooler_output), tags[:, 0]),
            functional.cross_entropy(logits.flatten(0, 1), words.flatten()),
        ]

    return Situation([trunk, *heads], trunk.parameters(), forward)


class UNet(nn.Module):
    """Two levels with skips."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)])
        self.bottleneck = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Tanh())
        self.up = nn.ModuleList([nn.ConvTranspose2d(4, 4, 2, 2), nn.ConvTranspose2d(8, 3, 2, 2)])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = torch.tanh(self.down[0](x))
        second = torch.tanh(self.down[1](functional.max_pool2d(first, 2)))
        z = self.bottleneck(functional.avg_pool2d(second, 2))
        h = torch.cat([self.up[0](z), second], 1)
        return torch.cat([self.up[1](torch.tanh(h)), first], 1), z


def unet(shared: str) -> Situation:
    trunk = UNet().double()
    heads = doubles(nn.Conv2d(6, 1, 1), nn.Conv2d(6, 2, 3, padding=1), nn.Linear(4, 1))
    x = numbers(2, 1, 8, 8)

    def forward() -> list[Tensor]:
        h, z = trunk(x)
        return errors([heads[0](h), heads[1](h), heads[2](z.mean((2, 3)))])

    return Situation([trunk, *heads], trunk.get_submodule(shared).parameters(), forward)


@situation
def unet_all_shared() -> Situation:
    return unet("")


@situation
def unet_bottleneck_shared() -> Situation:
    return unet("bottleneck")


@situation
def feature_pyramid() -> Situation:
    """Each head reads three maps of the trunk."""
    trunk = nn.ModuleList([nn.Conv2d(1, 3, 3, padding=1) for _ in range(1)])
    trunk += [nn.Conv2d(3, 3, 3, 2, 1) for _ in range(2)]
    trunk = trunk.double()
    heads = [nn.ModuleList(nn.Conv2d(3, 1, 1) for _ in range(3)).double() for _ in range(3)]
    x = numbers(2, 1, 8, 8)

    def forward() -> list[Tensor]:
        maps = []
        h = x
        for layer in trunk:
            h = torch.tanh(layer(h))
            maps.append(h)
        outputs = []
        for head in heads:
            read = [
                functional.interpolate(own(m), size=8) for own, m in zip(head, maps, strict=True)
            ]
            outputs.append(read[0] + read[1] * read[2])
        return errors(outputs)

    return Situation([trunk, *heads], trunk.parameters(), forward)


def mixture(shared: str) -> Situation:
    """Multi-gate mixture of experts over a common embedding."""
    words = nn.Embedding(9, 4).double()
    experts = nn.ModuleList(mlp(8, 6, last=True) for _ in range(3)).double()
    gates = [nn.Linear(8, 3).double() for _ in range(3)]
    towers = [mlp(6, 4, 1).double() for _ in range(3)]
    x = torch.randint(9, (5, 2))

    def forward() -> list[Tensor]:
        h = words(x).flatten(1)
        each = torch.stack([expert(h) for expert in experts], 1)
        outputs = []
        for gate, tower in zip(gates, towers, strict=True):
            share = torch.softmax(gate(h), 1)
            outputs.append(tower((share[:, :, None] * each).sum(1)))
        return errors(outputs)

    parts = {"experts": [experts], "all": [words, experts]}[shared]
    shared_parameters = [p for part in parts for p in part.parameters()]
    return Situation([words, experts, *gates, *towers], shared_parameters, forward)


@situation
def mmoe_experts_shared() -> Situation:
    return mixture("experts")


@situation
def mmoe_embedding_and_experts_shared() -> Situation:
    return mixture("all")


@situation
def cross_stitch() -> Situation:
    """A network for each task; units between them mix what they hold."""
    layers = [nn.ModuleList(nn.Linear(4, 4) for _ in range(3)).double() for _ in range(2)]
    units = [nn.Parameter(torch.eye(3).double() * 0.8 + 0.1) for _ in range(2)]
    heads, x = linears(4), numbers(5, 4)

    def forward() -> list[Tensor]:
        each = [x, x, x]
        for own, unit in zip(layers, units, strict=True):
            mixed = torch.einsum("kl,lbd->kbd", unit, torch.stack(each))
            each = [torch.tanh(layer(h)) for layer, h in zip(own, mixed, strict=True)]
        return errors(head(h) for head, h in zip(heads, each, strict=True))

    shared = [*units, *layers[0].parameters(), *layers[1].parameters()]
    return Situation([*layers, *units, *heads], shared, forward)


class Recurrent(nn.Module):
    """Words, a recurrent layer, its last state."""

    def __init__(self, kind: type[nn.Module], **options) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 3)
        self.layer = kind(3, 4, batch_first=True, **options)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.words(x))[0][:, -1]


@situation
def lstm() -> Situation:
    return hard(Recurrent(nn.LSTM).double(), torch.randint(9, (3, 5)), 4)


@situation
def gru_two_ways_two_layers() -> Situation:
    trunk = Recurrent(nn.GRU, num_layers=2, bidirectional=True, dropout=0.3).double()
    return hard(trunk, torch.randint(9, (3, 5)), 8)


@situation
def lstm_heads_read_output_and_state() -> Situation:
    layer, heads, x = nn.LSTM(3, 4, batch_first=True).double(), linears(4), numbers(2, 5, 3)

    def forward() -> list[Tensor]:
        out, (h, c) = layer(x)
        return errors([heads[0](out), heads[1](h[0]), heads[2](c[0])])

    return Situation([layer, *heads], layer.parameters(), forward)


def recommender(sparse: bool) -> Situation:
    users, items = nn.Embedding(200, 4, sparse=sparse), nn.Embedding(50, 4, padding_idx=0)
    bags = nn.EmbeddingBag(100, 4, mode="mean", sparse=sparse)
    mixer = nn.Linear(12, 6)
    doubles(users, items, bags, mixer)
    heads = linears(6)
    who, what = torch.randint(200, (5,)), torch.randint(50, (5,))
    history, starts = torch.randint(100, (12,)), torch.tensor([0, 2, 2, 5, 9])

    def forward() -> list[Tensor]:
        read = torch.cat([users(who), items(what), bags(history, starts)], 1)
        z = torch.tanh(mixer(read))
        return errors(head(z) for head in heads)

    parts = [users, items, bags, mixer]
    shared = [p for part in parts for p in part.parameters()]
    return Situation([*parts, *heads], shared, forward)


@situation
def recommender_with_sparse_tables() -> Situation:
    return recommender(True)


@situation
def recommender_with_dense_tables() -> Situation:
    return recommender(False)


@situation
def sparse_table_with_a_batch_for_each_task() -> Situation:
    table, heads = nn.Embedding(60, 4, sparse=True).double(), linears(4)
    rows = [torch.randint(60, (n,)) for n in (2, 5, 9)]

    def forward() -> list[Tensor]:
        return errors(head(table(words)) for head, words in zip(heads, rows, strict=True))

    return Situation([table, *heads], table.parameters(), forward)


def graph_network(form: str) -> Situation:
    adjacency = getattr((torch.rand(6, 6) > 0.6).double(), form)()
    layers, x = doubles(nn.Linear(4, 5), nn.Linear(5, 5)), numbers(6, 4)
    heads = linears(5)

    def forward() -> list[Tensor]:
        h = torch.tanh(adjacency @ layers[0](x))
        h = adjacency @ layers[1](h)
        return errors(head(h) for head in heads)

    shared = [p for layer in layers for p in layer.parameters()]
    return Situation([*layers, *heads], shared, forward)


@situation
def graph_network_coo() -> Situation:
    return graph_network("to_sparse")


@situation
def graph_network_csr() -> Situation:
    return graph_network("to_sparse_csr")


@situation
def variational_autoencoder() -> Situation:
    """Reconstruction, Kullback-Leibler term, and a class: three losses of one encoder."""
    encoder, decoder, head = doubles(mlp(6, 8, 4), mlp(2, 8, 6), nn.Linear(2, 1))
    x = numbers(5, 6)

    def forward() -> list[Tensor]:
        mean, log_var = encoder(x).chunk(2, 1)
        code = mean + torch.randn_like(mean) * torch.exp(0.5 * log_var)
        divergence = 0.5 * (mean**2 + log_var.exp() - 1 - log_var).sum(1).mean()
        return [(decoder(code) - x).square().mean(), divergence, *errors([head(mean)])]

    return Situation([encoder, decoder, head], encoder.parameters(), forward)


@situation
def physics_informed() -> Situation:
    """Losses of derivatives of the network: a graph through a backward pass."""
    network = mlp(2, 8, 8, 1, activation=nn.Tanh).double()
    points, border = torch.rand(6, 2).double(), torch.rand(4, 2).double()

    def forward() -> list[Tensor]:
        at = points.clone().requires_grad_()
        u = network(at)
        first = torch.autograd.grad(u.sum(), at, create_graph=True)[0]
        second = torch.autograd.grad(first[:, 0].sum(), at, create_graph=True)[0]
        residual = first[:, 1] - second[:, 0] + torch.sin(at[:, 0])
        return [residual.square().mean(), *errors([network(border), network(border[:2])])]

    return Situation([network], network.parameters(), forward)


@situation
def gradient_penalty_in_one_loss() -> Situation:
    trunk, heads, x = mlp(4, 6, activation=nn.Tanh, last=True).double(), linears(6), numbers(5, 4)

    def forward() -> list[Tensor]:
        at = x.clone().requires_grad_()
        found = errors(head(trunk(at)) for head in heads)
        slope = torch.autograd.grad(found[0], at, create_graph=True)[0]
        return [found[0], found[1] + slope.square().sum(), found[2]]

    return Situation([trunk, *heads], trunk.parameters(), forward)


@situation
def losses_after_an_inner_step() -> Situation:
    """Meta-learning: each task takes a step of its own from the shared start."""
    start = [nn.Parameter(numbers(4, 3) / 2), nn.Parameter(numbers(3))]
    rate = nn.Parameter(torch.tensor(0.1).double())
    x = numbers(3, 5, 4)

    def forward() -> list[Tensor]:
        found = []
        for k in range(3):
            inner = errors([torch.tanh(x[k] @ start[0] + start[1])])[0]
            slopes = torch.autograd.grad(inner, start, create_graph=True)
            w, b = (p - rate * g for p, g in zip(start, slopes, strict=True))
            found += errors([torch.tanh(x[k] @ w + b) * (k + 1)])
        return found

    return Situation([*start, rate], start, forward)


@situation
def hypernetwork() -> Situation:
    """The shared network writes the heads' weights."""
    network, codes = mlp(2, 6, 5).double(), [nn.Parameter(numbers(2)) for _ in range(3)]
    x = numbers(6, 4)

    def forward() -> list[Tensor]:
        weights = [network(code) for code in codes]
        return errors(torch.tanh(x @ w[:4] + w[4]) for w in weights)

    return Situation([network, *codes], network.parameters(), forward)


@situation
def contrastive_twins() -> Situation:
    """One trunk reads two views; one loss compares them."""
    trunk, heads = mlp(4, 8, 5, activation=nn.Tanh).double(), linears(5, 2)
    views = numbers(6, 4), numbers(6, 4)

    def forward() -> list[Tensor]:
        a, b = (functional.normalize(trunk(view), dim=1) for view in views)
        contrast = functional.cross_entropy(a @ b.T / 0.5, torch.arange(6))
        return [contrast, *errors([heads[0](a), heads[1](a * b)])]

    return Situation([trunk, *heads], trunk.parameters(), forward)


def lora(frozen_bias: bool) -> Situation:
    """Adapters of low rank on frozen layers."""
    base = doubles(nn.Linear(6, 6), nn.Linear(6, 6))
    down = [nn.Parameter(numbers(2, 6) / 3) for _ in base]
    up = [nn.Parameter(numbers(6, 2) / 3) for _ in base]
    heads, x = linears(6), numbers(5, 6)
    for layer in base:
        layer.weight.requires_grad_(False)
        layer.bias.requires_grad_(not frozen_bias)

    def forward() -> list[Tensor]:
        h = x
        for layer, a, b in zip(base, down, up, strict=True):
            h = torch.tanh(layer(h) + functional.dropout(h, 0.1) @ a.T @ b.T)
        return errors(head(h) for head in heads)

    return Situation([*base, *down, *up, *heads], [*down, *up], forward)


@situation
def lora_adapters_on_a_frozen_base() -> Situation:
    return lora(True)


@situation
def lora_adapters_with_biases_that_learn_aside() -> Situation:
    return lora(False)
