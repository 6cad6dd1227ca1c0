"""Trunk and heads, and the few small networks of the course."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import Tensor, nn

from mtl_utils.gradients import fork


class HardSharing(nn.Module):
    """One trunk, one head for each task (hard parameter sharing, Caruana 1997).

    Args:
        trunk: module from inputs to a representation.
        heads: K modules from the representation to the tasks' outputs.
    """

    def __init__(self, trunk: nn.Module, heads: Iterable[nn.Module]) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ModuleList(heads)
        if len(self.heads) == 0:
            raise ValueError("heads: expected at least one, got none")

    @property
    def n_tasks(self) -> int:
        """Number of tasks K."""
        return len(self.heads)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Outputs of the K heads."""
        z = self.trunk(x)
        return [head(z) for head in self.heads]

    def forked(self, x: Tensor) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        """Outputs of the K heads, and the K aliases of the representation that they read, for
        `weighting.backward(..., features=...)`."""
        features = fork(self.trunk(x), self.n_tasks)
        return [head(z) for head, z in zip(self.heads, features, strict=True)], features


class SeparateModels(nn.Module):
    """K models that share nothing: the single-task baseline behind the same call.

    Args:
        models: K modules from inputs to a task's output.
    """

    def __init__(self, models: Iterable[nn.Module]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    @property
    def n_tasks(self) -> int:
        """Number of tasks K."""
        return len(self.models)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Outputs of the K models."""
        return [model(x) for model in self.models]


def mlp(*sizes: int, activation: type[nn.Module] = nn.ReLU, last: bool = False) -> nn.Sequential:
    """Linear layers with an activation between them.

    Args:
        sizes: widths, from input to output; at least two.
        activation: module class put between the layers.
        last: put an activation after the last layer too (for trunks).
    """
    if len(sizes) < 2:
        raise ValueError(f"sizes: expected at least input and output width, got {sizes}")
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    return nn.Sequential(*layers if last else layers[:-1])


def lenet_trunk(size: int = 36, width: int = 50) -> nn.Sequential:
    """LeNet-like trunk for `overlapping_digits`: [B, 1, size, size] -> [B, width].

    Two convolutions (10 and 20 channels) with max-pooling and one linear layer, as in Sener,
    Koltun, NeurIPS 2018; the second kernel is 3 instead of 5 wide for 18 x 18 images.

    Args:
        size: 36 or 18.
        width: of the representation.
    """
    if size not in (36, 18):
        raise ValueError(f"size: expected 36 or 18, got {size!r}")
    second = 5 if size == 36 else 3
    side = ((size - 4) // 2 - second + 1) // 2
    return nn.Sequential(
        nn.Conv2d(1, 10, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(10, 20, second),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(20 * side * side, width),
        nn.ReLU(),
    )


def digit_model(size: int = 36, width: int = 50) -> HardSharing:
    """LeNet trunk with two heads of width-50-10, for `overlapping_digits`."""
    heads = [mlp(width, 50, 10) for _ in range(2)]
    return HardSharing(lenet_trunk(size, width), heads)


class UNet(nn.Module):
    """A small U-Net, the trunk for a target in every pixel: [B, 3, H, W] -> [B, width, H, W].

    Three convolutions at full, half and a quarter of the size, each with twice the channels of the
    one before; two on the way back, which also get what was seen at their size on the way down.

    Args:
        width: channels at full size.
        channels: of the input.

    H and W have to be multiples of 4.

    Source: Ronneberger, Fischer, Brox, MICCAI 2015, with one convolution a level, strides instead
    of pooling, and no normalisation.

    >>> UNet(4)(torch.zeros(2, 3, 16, 24)).shape
    torch.Size([2, 4, 16, 24])
    """

    def __init__(self, width: int, channels: int = 3) -> None:
        super().__init__()
        self.fine = nn.Conv2d(channels, width, 3, padding=1)
        self.middle = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.coarse = nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1)
        self.middle_again = nn.Conv2d(6 * width, 2 * width, 3, padding=1)
        self.fine_again = nn.Conv2d(3 * width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Features of every pixel."""
        fine = self.fine(x).relu()
        middle = self.middle(fine).relu()
        coarse = self.coarse(middle).relu()
        middle = self.middle_again(torch.cat([middle, _doubled(coarse)], -3)).relu()
        return self.fine_again(torch.cat([fine, _doubled(middle)], -3)).relu()


def _doubled(x: Tensor) -> Tensor:
    """Images [..., H, W] with every pixel four times, [..., 2 H, 2 W]."""
    return x.repeat_interleave(2, -1).repeat_interleave(2, -2)


def count_parameters(module: nn.Module) -> int:
    """Number of parameters that learn."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def flat_parameters(module: nn.Module) -> Tensor:
    """All parameters in one vector, detached, for comparing two networks."""
    return torch.cat([p.detach().flatten() for p in module.parameters()])


class TextRCNN(nn.Module):
    """Small recurrent convolutional network for texts: word numbers [B, L] -> [B, width].

    Each word is represented by its embedding between the states of a recurrent layer that read
    what stands before and after it; a linear layer mixes the three, and the largest value over the
    words is taken.

    Args:
        n_words: size of the vocabulary; word 0 is padding.
        embedding: width of the word embeddings.
        hidden: width of each direction of the recurrent layer.
        width: of the representation.

    Source: Lai, Xu, Liu, Zhao, AAAI 2015.
    """

    def __init__(
        self, n_words: int, embedding: int = 32, hidden: int = 32, width: int = 64
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(n_words, embedding, padding_idx=0)
        self.context = nn.GRU(embedding, hidden, batch_first=True, bidirectional=True)
        self.mix = nn.Linear(embedding + 2 * hidden, width)

    def forward(self, numbers: Tensor) -> Tensor:
        """Representation of texts, [B, width]."""
        embedded = self.embed(numbers)
        context, _ = self.context(embedded)
        mixed = torch.tanh(self.mix(torch.cat([context, embedded], -1)))
        mixed = mixed.masked_fill((numbers == 0)[..., None], -1.0)  # tanh is above -1
        return mixed.amax(1)
