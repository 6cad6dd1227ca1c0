"""Toy regressions."""

from __future__ import annotations

import numpy as np

from mtl_utils.datasets.base import MultiTaskData, as_float, check_count


def two_regressions(
    n: int = 100, seed: int = 0, n_test: int = 0, sigma: tuple[float, float] = (10.0, 1.0)
) -> MultiTaskData:
    """The published toy of uncertainty weighting: y1 = 2x + 8 + 10 e1, y2 = 3x + 3 + e2.

    x, e1, e2 ~ N(0, 1), drawn in this order from NumPy's legacy generator, so that n=100, seed=0
    are the very numbers of the published example.

    Args:
        n: number of training points.
        seed: of NumPy's legacy generator.
        n_test: number of test points, drawn after the training points.
        sigma: standard deviations of the noise of the two tasks.

    Returns:
        inputs [n, 1], targets [n, 1] and [n, 1].

    Source: the example that Kendall, Gal, Cipolla (CVPR 2018, arXiv 1705.07115) publish with
    their paper.
    """
    check_count("n", n)
    check_count("n_test", n_test, least=0)
    rng = np.random.RandomState(seed)

    def draw(count: int) -> tuple:
        x = rng.randn(count, 1)
        y1 = 2.0 * x + 8.0 + sigma[0] * rng.randn(count, 1)
        y2 = 3.0 * x + 3.0 + sigma[1] * rng.randn(count, 1)
        return as_float(x), as_float(y1), as_float(y2)

    train = draw(n)
    test = draw(n_test) if n_test else ()
    source = f"generated, NumPy legacy seed {seed}, noise {sigma[0]:g} and {sigma[1]:g}"
    return MultiTaskData("two regressions", ("y1", "y2"), train, test=test, source=source)
