"""The networks whose training steps `step_cost.py` times: small, but of the kinds that people have.

Each is a `Work`: its losses for a fixed batch, its parameters, and which of them are shared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from mtl_utils.models import HardSharing, lenet_trunk, mlp


@dataclass
class Work:
    """A network and a batch.

    Attributes:
        network: with all parameters.
        shared: those that are shared.
        losses: a forward pass, K losses in a list.
        hard: the network, where it is one trunk and a head for each task; else None.
        batch: inputs and targets of such a network.
    """

    network: nn.Module
    shared: list[Tensor]
    losses: Callable[[], list[Tensor]]
    hard: HardSharing | None = None
    batch: tuple[Tensor, Tensor] | None = None


def errors(outputs: Iterable[Tensor], targets: Iterable[Tensor]) -> list[Tensor]:
    """Squared errors of numbers, cross-entropy of classes."""
    found = []
    for out, target in zip(outputs, targets, strict=True):
        if target.is_floating_point():
            found.append((out.reshape(target.shape) - target).square().mean())
        else:
            found.append(functional.cross_entropy(out, target))
    return found


def hard(trunk: nn.Module, heads: Iterable[nn.Module], x: Tensor, y: Tensor) -> Work:
    """One trunk, one head for each task."""
    network = HardSharing(trunk, heads)
    shared = list(trunk.parameters())
    return Work(network, shared, lambda: errors(network(x), y), network, (x, y))


def made(name: str, n_tasks: int, device: str) -> Work:
    """A network by its name in `MODELS`, with `n_tasks` tasks."""
    torch.manual_seed(0)
    with torch.device(device):
        return MODELS[name](n_tasks)


# ---- one trunk, K heads --------------------------------------------------------------------------


def perceptron(n_tasks: int, *hidden: int) -> Work:
    heads = [mlp(512, *hidden, 1) for _ in range(n_tasks)]
    return hard(
        mlp(256, 512, 512, last=True), heads, torch.randn(128, 256), torch.randn(n_tasks, 128)
    )


def lenet(n_tasks: int) -> Work:
    heads = [mlp(50, 50, 10) for _ in range(n_tasks)]
    y = torch.randint(10, (n_tasks, 256))
    return hard(lenet_trunk(36), heads, torch.randn(256, 1, 36, 36), y)


class Block(nn.Module):
    """A residual block of two convolutions."""

    def __init__(self, fan_in: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(fan_in, out, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(out) for _ in range(2 + (fan_in != out)))
        self.aside = nn.Conv2d(fan_in, out, 1, stride, bias=False) if fan_in != out else None

    def forward(self, x: Tensor) -> Tensor:
        h = functional.relu(self.norms[0](self.first(x)), inplace=True)
        h = self.norms[1](self.second(h))
        h += x if self.aside is None else self.norms[2](self.aside(x))
        return functional.relu(h, inplace=True)


def resnet18(n_tasks: int, width: int = 16) -> Work:
    """ResNet-18 for images of 32 x 32, of a quarter of its width."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)]
    layers.append(nn.ReLU(inplace=True))
    channels = width
    for stage in range(4):
        for stride in (1 if stage == 0 else 2, 1):
            layers.append(Block(channels, width * 2**stage, stride))
            channels = width * 2**stage
    trunk = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    heads = [nn.Linear(channels, 10) for _ in range(n_tasks)]
    return hard(trunk, heads, torch.randn(32, 3, 32, 32), torch.randint(10, (n_tasks, 32)))


class MeanOverPlaces(nn.Module):
    def forward(self, h: Tensor) -> Tensor:
        return h.mean(1)


class LastState(nn.Module):
    """The last output of a recurrent layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0][:, -1]


def transformer(n_tasks: int) -> Work:
    """Four layers of width 128, 32 places."""
    layer = nn.TransformerEncoderLayer(128, 4, 512, dropout=0.1, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
    heads = [nn.Linear(128, 1) for _ in range(n_tasks)]
    trunk = nn.Sequential(encoder, MeanOverPlaces())
    return hard(trunk, heads, torch.randn(16, 32, 128), torch.randn(n_tasks, 16))


def lstm(n_tasks: int) -> Work:
    """Two layers of width 128, 32 steps."""
    trunk = LastState(nn.LSTM(64, 128, 2, batch_first=True))
    heads = [mlp(128, 64, 1) for _ in range(n_tasks)]
    return hard(trunk, heads, torch.randn(32, 32, 64), torch.randn(n_tasks, 32))


# ---- heads that read more of the trunk -----------------------------------------------------------


def bert(n_tasks: int) -> Work:
    """From a configuration: four layers of width 128, 64 places. Every second task labels words,
    the others label texts."""
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4}
    trunk = BertModel(BertConfig(vocab_size=5000, intermediate_size=512, **sizes)).train()
    heads = nn.ModuleList(nn.Linear(128, 5) for _ in range(n_tasks))
    words, tags = torch.randint(5000, (8, 64)), torch.randint(5, (n_tasks, 8, 64))

    def losses() -> list[Tensor]:
        out = trunk(words)
        found = []
        for k, head in enumerate(heads):
            if k % 2:
                logits = head(out.last_hidden_state).flatten(0, 1)
                found.append(functional.cross_entropy(logits, tags[k].flatten()))
            else:
                found.append(functional.cross_entropy(head(out.pooler_output), tags[k][:, 0]))
        return found

    return Work(nn.ModuleList([trunk, heads]), list(trunk.parameters()), losses)


def mmoe(n_tasks: int) -> Work:
    """Eight experts, a gate and a tower for each task."""
    experts = nn.ModuleList(mlp(128, 256, 64, last=True) for _ in range(8))
    gates = nn.ModuleList(nn.Linear(128, 8) for _ in range(n_tasks))
    towers = nn.ModuleList(mlp(64, 32, 1) for _ in range(n_tasks))
    x, y = torch.randn(256, 128), torch.randn(n_tasks, 256)

    def losses() -> list[Tensor]:
        each = torch.stack([expert(x) for expert in experts], 1)
        outputs = []
        for gate, tower in zip(gates, towers, strict=True):
            share = torch.softmax(gate(x), 1)
            outputs.append(tower((share[:, None] @ each)[:, 0]))
        return errors(outputs, y)

    return Work(nn.ModuleList([experts, gates, towers]), list(experts.parameters()), losses)


def recommender(n_tasks: int) -> Work:
    """Four tables of 50,000 rows, three layers above them."""
    tables = nn.ModuleList(nn.Embedding(50_000, 16) for _ in range(4))
    mixer = mlp(64, 128, 64, last=True)
    heads = nn.ModuleList(mlp(64, 32, 1) for _ in range(n_tasks))
    x, y = torch.randint(50_000, (4, 512)), torch.randn(n_tasks, 512)

    def losses() -> list[Tensor]:
        z = mixer(torch.cat([table(words) for table, words in zip(tables, x, strict=True)], 1))
        return errors([head(z) for head in heads], y)

    shared = [*tables.parameters(), *mixer.parameters()]
    return Work(nn.ModuleList([tables, mixer, heads]), shared, losses)


class UNet(nn.Module):
    """Three levels with skips, for images of 64 x 64."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        sizes = [1, width, 2 * width, 4 * width]
        pairs = list(pairwise(sizes))
        self.down = nn.ModuleList(self.two(a, b) for a, b in pairs)
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, 2) for a, b in pairs[1:])
        self.merge = nn.ModuleList(self.two(2 * a, a) for a, _ in pairs[1:])

    @staticmethod
    def two(fan_in: int, out: int) -> nn.Sequential:
        first, second = nn.Conv2d(fan_in, out, 3, 1, 1), nn.Conv2d(out, out, 3, 1, 1)
        return nn.Sequential(first, nn.ReLU(), second, nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        levels = []
        for i, layer in enumerate(self.down):
            x = layer(functional.max_pool2d(x, 2) if i else x)
            levels.append(x)
        for i in (1, 0):
            x = self.merge[i](torch.cat([self.up[i](x), levels[i]], 1))
        return x


def unet(n_tasks: int) -> Work:
    heads = [nn.Conv2d(12, 1, 1) for _ in range(n_tasks)]
    return hard(UNet(), heads, torch.randn(4, 1, 64, 64), torch.randn(n_tasks, 4, 64, 64))


MODELS: dict[str, Callable[[int], Work]] = {
    "mlp": perceptron,
    "mlp-deep-heads": lambda n_tasks: perceptron(n_tasks, 64),
    "lenet": lenet,
    "resnet18": resnet18,
    "transformer": transformer,
    "bert": bert,
    "mmoe": mmoe,
    "recommender": recommender,
    "lstm": lstm,
    "unet": unet,
}
# how many tasks each is timed with
TASKS: dict[str, tuple[int, ...]] = dict.fromkeys(MODELS, (6,))
TASKS |= dict.fromkeys(("mlp", "mlp-deep-heads", "lenet"), (2, 10, 40))
