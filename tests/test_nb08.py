"""What notebook 08 shows: its toys, and what a step passes through."""

import pytest
import torch

from experiments import nb08_gradnorm, nb08_passes, nb08_toys


def test_the_small_toy_has_a_large_easy_and_a_small_hard_task():
    data = nb08_toys.easy_and_hard(0)
    x, easy, hard = data.train
    assert x.shape == (3000, 20) and easy.shape == hard.shape == (3000, 10)
    assert easy.abs().max() < 10 and hard.abs().max() <= 1  # tanh, rounded
    mine = torch.cat([x, torch.ones(len(x), 1)], 1)

    def unexplained(y):
        line = torch.linalg.lstsq(mine, y).solution
        return ((y - mine @ line).square().sum() / (y - y.mean(0)).square().sum()).item()

    assert unexplained(easy) < 0.1 < unexplained(hard)


def test_a_seed_is_a_draw():
    same, other = nb08_toys.easy_and_hard(0), nb08_toys.easy_and_hard(1)
    assert torch.equal(same.train[0], nb08_toys.easy_and_hard(0).train[0])
    assert not torch.equal(same.train[0], other.train[0])


def test_standardised_targets_have_mean_0_and_spread_1_on_training_rows():
    study = nb08_toys.standardised(nb08_gradnorm.STUDY)
    data, raw = study.data["2 tasks"](3), nb08_gradnorm.two_tasks(3)
    for y, before in zip(data.train[1:], raw.train[1:], strict=True):
        torch.testing.assert_close(y.mean(0), torch.zeros(10), atol=1e-5, rtol=0)
        torch.testing.assert_close(y.std(0), torch.ones(10))
        torch.testing.assert_close(y * before.std(0) + before.mean(0), before)


def test_two_ways_with_equal_weights_is_a_geometric_series():
    table = nb08_toys.two_ways(None, steps=20)
    left = table.pivot(index="step", columns="task", values="left").to_numpy()
    wanted = torch.tensor([0.99**n for n in range(20)], dtype=torch.float64) ** 2
    torch.testing.assert_close(torch.tensor(left[:, 0]), wanted, rtol=1e-4, atol=0)
    torch.testing.assert_close(torch.tensor(left[:, 1]), wanted, rtol=1e-4, atol=0)


def test_two_ways_pulls_with_the_weighted_gradient():
    end = nb08_toys.two_ways(0.0, steps=250).tail(2)
    theta = (end["left"] * [1.0, 9.0]) ** 0.5
    torch.testing.assert_close(
        torch.tensor((end["weight"] * theta).to_numpy()),
        torch.tensor(end["pull"].to_numpy()),
        rtol=1e-4,
        atol=1e-6,
    )


@pytest.mark.parametrize(
    "kind, first, last",
    [("plain", 1, 1), ("last shared layer", 1, 3), ("all shared layers", 3, 3)],
)
def test_passes(kind, first, last):
    assert nb08_passes.passes(kind) == {"first": first, "last": last}


def test_passes_of_a_double_backward_and_of_another_word():
    assert nb08_passes.passes("double backward")["first"] > 1
    with pytest.raises(ValueError, match="kind"):
        nb08_passes.passes("single")
