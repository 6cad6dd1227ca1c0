"""The function of notebook 04's GPU cell, small on the CPU."""

import numpy as np
import pytest
import torch

from experiments.nb04_spread import sigmas
from mtl_utils.datasets import two_regressions


@pytest.mark.parametrize("own_data", [False, True])
def test_the_learned_sigma_is_near_the_least_squares_residual(own_data):
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        found = sigmas(3, own_data, epochs=600)
    finally:
        torch.set_default_dtype(before)
    assert found.shape == (3, 2)
    for seed in range(3):
        x, *targets = two_regressions(n=100, seed=seed if own_data else 0).train
        for k, y in enumerate(targets):
            design = np.c_[x.numpy(), np.ones(100)]
            residual = np.linalg.lstsq(design, y.numpy(), rcond=None)[1].item()
            assert found[seed, k].item() == pytest.approx((residual / 100) ** 0.5, rel=0.08)
