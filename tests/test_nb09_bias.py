"""The experiment on one-batch bias, small: what it calls exact is, and the bias is there."""

import pytest
import torch

from experiments.nb09_bias import RULES, SEEDS, SIZES, bias, contender, frozen, losses_of
from mtl_utils import records
from mtl_utils.gradients import jacobian
from mtl_utils.weighting import make_weighting
from tests.rules import float64  # noqa: F401


@pytest.mark.parametrize("rule", RULES)
def test_every_contender_ends_at_the_exact_weights_where_there_is_no_noise(rule):
    """On all rows, for all batches, which is what the experiment measures them against."""
    model, x, y = frozen(0)
    shared = list(model.trunk.parameters())
    full = jacobian(losses_of(model, x[:64], y[:64]), shared)
    wanted = make_weighting("mgda", 2).coefficients(full @ full.T)
    weighting = contender(rule, full @ full.T)
    for _ in range(300 * weighting.batches):
        model.zero_grad()
        weighting.backward(losses_of(model, x[:64], y[:64]), shared=shared)
    found = weighting.shares if rule == "moco" else weighting.weights
    torch.testing.assert_close(found, wanted, rtol=0, atol=0.03)
    update = torch.cat([p.grad.flatten() for p in shared])
    torch.testing.assert_close(update, wanted @ full, rtol=0, atol=0.05 * full.norm().item())


def test_one_batch_leads_away_from_the_noisy_task_and_tracking_and_two_batches_less():
    found = {rule: bias(rule, size=96, seed=0, steps=160) for rule in ("mgda", "moco", "modo")}
    exact = found["mgda"]["exact"]
    assert found["mgda"]["clean"] > exact + 0.25
    for rule in ("moco", "modo"):
        assert abs(found[rule]["clean"] - exact) < 0.5 * (found["mgda"]["clean"] - exact)
        assert found[rule]["off"] < 0.5 * found["mgda"]["off"]


def test_the_record_says_so_at_every_size_of_batches():
    table = records.read("09_bias")
    assert len(table) == len(RULES) * len(SIZES) * len(SEEDS) and table["failure"].isna().all()
    table["bias"] = table["clean"] - table["exact"]
    mean = table.groupby(["size", "rule"])[["bias", "off"]].mean()
    for size in SIZES:
        one = mean.loc[size, "mgda"]
        assert one["bias"] > 0.2
        for rule in ("moco", "modo", "sdmgrad"):
            assert abs(mean.loc[(size, rule), "bias"]) < one["bias"] / 2
            assert mean.loc[(size, rule), "off"] < 0.6 * one["off"]
        # an average of biased weights is as biased; only their spread is less
        assert mean.loc[(size, "cr_mogm"), "bias"] == pytest.approx(one["bias"], abs=0.01)
