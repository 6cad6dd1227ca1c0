"""Tables: several targets from the same row."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from mtl_utils.datasets.base import MultiTaskData, as_float, check_count

NUMERIC = ("carat", "depth", "table")
CATEGORICAL = ("cut", "color", "clarity")
TASKS = ("log price", "length x", "height z")


@cache
def _diamonds_table() -> pd.DataFrame:
    """The 53,940 diamonds as plotnine ships them, without the rows whose sizes are missing."""
    spec = importlib.util.find_spec("plotnine")  # found, not imported: importing it is slow
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            'diamonds: the table comes with plotnine: pip install "mtl-loss-weighting[notebooks]"'
        )
    table = pd.read_csv(Path(spec.origin).parent / "data" / "diamonds.csv")
    return table[(table[["x", "y", "z"]] > 0).all(axis=1)].reset_index(drop=True)


def diamonds(
    n_train: int = 8_000,
    n_test: int = 4_000,
    noise: Sequence[float] = (0.0, 0.0, 0.0),
    raw_price: bool = False,
    seed: int = 0,
) -> MultiTaskData:
    """Log price, length and height of a diamond from its weight, proportions and grades.

    Inputs are carat, depth, table (standardised) and one-hot cut, colour and clarity. Targets are
    standardised with the mean and standard deviation of the training rows.

    Args:
        n_train, n_test: rows, drawn without overlap.
        noise: standard deviation of Gaussian noise added to each standardised training target.
            Test targets stay clean.
        raw_price: the first target is the price in dollars, not standardised (its noise then is in
            dollars too).
        seed: of the rows and of the noise.

    Returns:
        inputs [N, 23], three targets [N, 1]; `info["price_std"]` is the spread of the first target
        in its own unit.

    Source: table of the R package ggplot2 (MIT), as shipped by plotnine (MIT).
    """
    check_count("n_train", n_train)
    check_count("n_test", n_test)
    table = _diamonds_table()
    if n_train + n_test > len(table):
        raise ValueError(f"n_train + n_test: there are {len(table)} rows, got {n_train + n_test}")
    if len(noise) != len(TASKS):
        raise ValueError(f"noise: expected {len(TASKS)} standard deviations, got {len(noise)}")
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(table))[: n_train + n_test]
    one_hot = pd.get_dummies(table[list(CATEGORICAL)].astype(str)).to_numpy(float)[rows]
    table = table.iloc[rows]
    numeric = table[list(NUMERIC)].to_numpy(float)
    price = table["price"].to_numpy(float)
    targets = np.c_[price if raw_price else np.log(price), table[["x", "z"]].to_numpy(float)]

    def standardise(columns: np.ndarray) -> np.ndarray:
        return (columns - columns[:n_train].mean(0)) / columns[:n_train].std(0)

    spread = targets[:n_train, 0].std()
    inputs = np.c_[standardise(numeric), one_hot]
    scaled = standardise(targets)
    if raw_price:
        scaled[:, 0] = targets[:, 0]
    noisy = scaled[:n_train] + rng.normal(size=(n_train, len(TASKS))) * np.asarray(noise)

    def split(rows: slice, wanted: np.ndarray) -> tuple[torch.Tensor, ...]:
        return (as_float(inputs[rows]), *(as_float(wanted[:, [k]]) for k in range(len(TASKS))))

    return MultiTaskData(
        "diamonds",
        ("price in dollars", *TASKS[1:]) if raw_price else TASKS,
        train=split(slice(None, n_train), noisy),
        test=split(slice(n_train, None), scaled[n_train:]),
        source="53,920 diamonds of ggplot2 (MIT), shipped by plotnine (MIT)",
        info={"price_std": float(spread)},
    )
