"""Notebook 02: does a coefficient of 0.08 on the loss help a text classifier?

python -m experiments.nb02_coefficient    writes results/02_coefficient.jsonl

Genres of films from title and people, a small TextRCNN, SGD and Adam. Not a comparison of weighting
rules: there is one loss, and its coefficient is the only thing that differs. Each coefficient is
tried at many learning rates on five seeds; twenty others report it at the rate of the comparison
that is criticised, and at its own best rate. A seed draws films, initial weights and order of rows.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from mtl_utils import sweep
from mtl_utils.datasets import movie_genres
from mtl_utils.metrics import multi_label_metrics
from mtl_utils.models import TextRCNN
from mtl_utils.training import batches

N_WORDS = 3000
THRESHOLD = -0.8  # a genre is predicted where its probability is above 0.31: about two a film
EPOCHS = 6
COEFFICIENTS = (1.0, 0.08)
METRICS = ("accuracy", "precision", "recall", "f1", "one_error")
OPTIMISERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
SAME_RATE = {"sgd": 0.3, "adam": 0.005}  # both coefficients at the rate of c = 1
RATES = {
    ("sgd", 1.0): [0.15 * 2**i for i in range(8)],
    ("sgd", 0.08): [1.2 * 2**i for i in range(8)],
    ("adam", 1.0): [0.00125 * 2**i for i in range(5)],
    ("adam", 0.08): [0.00125 * 2**i for i in range(5)],
}
PICKING, REPORTING = range(100, 105), range(20)


def films(seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Word numbers [N, 12] and genres [N, 13] of each split."""
    sizes = {"n_train": 3000, "n_val": 1000, "n_test": 1500, "length": 12, "n_words": N_WORDS}
    data = movie_genres(text="title+people", seed=seed, **sizes)
    splits = {split: getattr(data, split) for split in ("train", "val", "test")}
    return {split: (rows[0], torch.stack(rows[1:], 1)) for split, rows in splits.items()}


def classifier(frequencies: Tensor) -> nn.Sequential:
    """A small TextRCNN that starts by predicting how frequent each genre is."""
    network = nn.Sequential(TextRCNN(N_WORDS, 16, 16, 32), nn.Linear(32, len(frequencies)))
    network[1].bias.data = torch.logit(frequencies)
    return network


def train(optimiser: str, c: float, rate: float, seed: int, stage: str) -> dict[str, Any]:
    """One training; the five metrics on validation ("pick") or test rows ("report") by epoch."""
    torch.manual_seed(seed)
    splits = films(seed)
    x_train, y_train = splits["train"]
    x, y = splits["val" if stage == "pick" else "test"]
    network = classifier(y_train.mean(0))
    optimizer = OPTIMISERS[optimiser](network.parameters(), lr=rate)
    loader = batches((x_train, y_train), 50, torch.Generator().manual_seed(seed))
    by_epoch = []
    for _ in range(EPOCHS):
        for inputs, labels in loader:
            optimizer.zero_grad()
            by_label = binary_cross_entropy_with_logits(network(inputs), labels, reduction="none")
            (c * by_label.sum(1).mean()).backward()
            optimizer.step()
        with torch.no_grad():
            by_epoch.append(multi_label_metrics(network(x), y, threshold=THRESHOLD))
    return {metric: [found[metric] for found in by_epoch] for metric in METRICS}


def picked(runs: pd.DataFrame) -> dict[tuple[str, float], float]:
    """The learning rate of each optimiser and coefficient with the best accuracy of any epoch, mean
    over the picking seeds."""
    trials = runs[runs["stage"] == "pick"]
    score = trials["accuracy"].map(max).groupby([trials[k] for k in ("optimiser", "c", "rate")])
    best = score.mean().unstack("rate").idxmax(axis=1)
    return best.to_dict()


def main() -> None:
    torch.set_default_dtype(torch.float64)
    options = sweep.options(__doc__)
    trials = [
        {"optimiser": optimiser, "c": c, "rate": rate, "seed": seed, "stage": "pick"}
        for (optimiser, c), rates in RATES.items()
        for rate in rates
        for seed in PICKING
    ]
    best = picked(sweep.run(train, trials, record="02_coefficient", **options))
    reports = [
        {"optimiser": optimiser, "c": c, "rate": rate, "seed": seed, "stage": "report"}
        for (optimiser, c), own in best.items()
        for rate in dict.fromkeys((SAME_RATE[optimiser], own))
        for seed in REPORTING
    ]
    sweep.run(train, reports, record="02_coefficient", **options)


if __name__ == "__main__":
    main()
