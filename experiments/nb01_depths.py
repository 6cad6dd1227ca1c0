"""Heads at several depths (notebook 01): twenty seeds and two widths, too long for the notebook.

python -m experiments.nb01_depths    writes results/01_depths.csv (about 4 minutes)

Five easy and five abstract attributes of rendered characters, a network of three hidden layers,
and where each group is read. Seeds are trained in pairs, so that a pair can be run again alone.
A record that is there is completed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks.record import Record
from mtl_utils import make_weighting
from mtl_utils.datasets import MultiTaskData, glyph_attributes
from mtl_utils.ensemble import train_many
from mtl_utils.models import mlp

FILE = Path(__file__).resolve().parents[1] / "results" / "01_depths.csv"
SEEDS, WIDTHS, EPOCHS, BATCH, RATE = range(20), (16, 32), 15, 50, 3e-3
SIZES = {"n_train": 1500, "n_val": 1, "n_test": 2000, "size": 16}
GROUPS = {
    "easy": ("noisy", "left", "small", "inverted", "bold"),
    "abstract": ("digit", "upper case", "hole", "dotted", "straight"),
}
BOTH = ("easy", "abstract")
# name: the layer after which each head reads, the group that it predicts, its weight
SETTINGS = {
    "easy 1, abstract 3": ((1, 3), BOTH, (1.0, 1.0)),
    "easy 3, abstract 1": ((3, 1), BOTH, (1.0, 1.0)),
    "easy 3, abstract 3": ((3, 3), BOTH, (1.0, 1.0)),
    "easy 1, abstract 1": ((1, 1), BOTH, (1.0, 1.0)),
    "easy alone 1": ((1,), ("easy",), (1.0,)),
    "abstract alone 3": ((3,), ("abstract",), (1.0,)),
    "abstract 3, supervised at 1 and 2": ((3, 1, 2), ("abstract",) * 3, (1.0, 0.3, 0.3)),
}


class HeadsAtDepths(nn.Module):
    """Three hidden layers; a head with five outputs after each of the layers in `places`."""

    def __init__(self, places: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.places = places
        self.blocks = nn.ModuleList(mlp(n, width, last=True) for n in (256, width, width))
        self.heads = nn.ModuleList(nn.Linear(width, 5) for _ in places)

    def forward(self, x: Tensor) -> list[Tensor]:
        z = [x]
        for block in self.blocks:
            z.append(block(z[-1]))
        return [head(z[place]) for head, place in zip(self.heads, self.places, strict=True)]


def losses(model: nn.Module, x: Tensor, *labels: Tensor) -> Tensor:
    pairs = zip(model(x), labels, strict=True)
    return torch.stack([binary_cross_entropy_with_logits(out, y) for out, y in pairs])


def split(sets: list[MultiTaskData], which: str) -> dict[str, Tensor]:
    """Images [S, N, 256] and the labels of each group [S, N, 5] of a split."""
    parts = [getattr(data, which) for data in sets]
    tasks = sets[0].tasks
    tensors = {"images": torch.stack([part[0].flatten(1) for part in parts])}
    for group, names in GROUPS.items():
        columns = [1 + tasks.index(name) for name in names]
        tensors[group] = torch.stack([torch.stack([p[c] for c in columns], 1) for p in parts])
    return tensors


def draw(seeds: Sequence[int]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Training and test images of these seeds, with the labels of both groups."""
    sets = [glyph_attributes(seed=seed, **SIZES) for seed in seeds]
    return split(sets, "train"), split(sets, "test")


def scores(
    name: str, width: int, seeds: Sequence[int], train: dict, test: dict, epochs: int = EPOCHS
) -> Tensor:
    """Area under the ROC curve of each head, mean over its five attributes, [heads, S]."""
    places, groups, weights = SETTINGS[name]
    trained = train_many(
        lambda: (
            HeadsAtDepths(places, width),
            make_weighting("fixed", len(groups), weights=weights),
        ),
        losses,
        [train["images"], *(train[group] for group in groups)],
        seeds,
        epochs,
        BATCH,
        lambda p: torch.optim.Adam(p.values(), lr=RATE, fused=True),
        generator=torch.Generator().manual_seed(1),
        own_data=True,
        progress=False,
    )
    found = []
    for out, group in zip(trained.predict(test["images"]), groups, strict=True):
        found.append(
            [
                sum(float(roc_auc_score(y[:, j], o[:, j])) for j in range(5)) / 5
                for o, y in zip(out, test[group], strict=True)
            ]
        )
    return torch.tensor(found)


def main() -> None:
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    columns = ["setting", "width", "seed", *BOTH]
    record = Record(FILE, columns, key=columns[:3])
    for first in SEEDS[::2]:
        seeds = [first, first + 1]
        train, test = draw(seeds)
        for name, (_, groups, _) in SETTINGS.items():
            for width in WIDTHS:
                if (name, width, seeds[1]) in record:
                    continue
                found = scores(name, width, seeds, train, test)
                for seed, values in zip(seeds, found.T.tolist(), strict=True):
                    by = dict(zip(reversed(groups), reversed(values), strict=True))
                    shown = [f"{by[g]:.5f}" if g in by else "" for g in BOTH]
                    record.add([[name, width, seed, *shown]])


if __name__ == "__main__":
    main()
