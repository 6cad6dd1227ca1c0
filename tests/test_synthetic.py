"""The two tasks of adjustable relatedness."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mtl_utils.datasets.base import MultiTaskData
from mtl_utils.datasets.synthetic import RelatedTasks, related_regressions
from tests.rules import few


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@few
@given(p=st.floats(-1, 1), seed=st.integers(0, 99), n_features=st.integers(2, 30))
def test_directions_have_length_1_and_cosine_p(p, seed, n_features):
    tasks = RelatedTasks(p, n_features=n_features, seed=seed)
    expected = torch.tensor([[1.0, p], [p, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(tasks.w @ tasks.w.T, expected, rtol=0, atol=1e-12)


def test_formula():
    tasks = RelatedTasks(0.5, n_features=3, n_waves=2, noise=0.0)
    x, y1, y2 = tasks.draw(4, generator())
    for k, y in enumerate((y1, y2)):
        for row in range(4):
            t = sum(w * v for w, v in zip(tasks.w[k].tolist(), x[row].tolist(), strict=True))
            beta = tasks.beta.tolist()
            expected = t + math.sin(t + beta[0]) + math.sin(2 * t + beta[1])
            assert y[row].item() == pytest.approx(expected, abs=1e-5)


def test_p_1_is_the_same_task_and_p_turns_only_the_second():
    _, y1, y2 = RelatedTasks(1.0, noise=0.0).draw(50, generator())
    assert torch.equal(y1, y2)
    for p in (-1.0, 0.0, 0.5):
        x, first, second = RelatedTasks(p, noise=0.0).draw(50, generator())
        assert torch.equal(first, y1) and not torch.equal(second, y2)
        assert torch.equal(x, RelatedTasks(1.0).draw(50, generator())[0])


def test_linear_parts_have_correlation_p_and_targets_follow():
    correlations = []
    for p in (0.0, 0.5, 0.9, 1.0):
        x, y1, y2 = RelatedTasks(p, n_waves=0, noise=0.0).draw(20_000, generator())
        assert torch.corrcoef(torch.cat([y1, y2], 1).T)[0, 1].item() == pytest.approx(p, abs=0.02)
        y = RelatedTasks(p, noise=0.0).targets(x)
        correlations.append(torch.corrcoef(y.T)[0, 1].item())
    assert correlations == sorted(correlations)
    assert abs(correlations[0]) < 0.03 and correlations[-1] == pytest.approx(1)


def test_noise_has_the_stated_size():
    x, *y = RelatedTasks(0.5, noise=0.3).draw(20_000, generator())
    residual = torch.cat(y, 1) - RelatedTasks(0.5).targets(x)
    torch.testing.assert_close(residual.std(0), torch.full((2,), 0.3), rtol=0.03, atol=0)
    assert abs(torch.corrcoef(residual.T)[0, 1]) < 0.03


def test_draws_are_fresh_and_repeatable():
    tasks, one = RelatedTasks(0.5), generator(3)
    first, second = tasks.draw(8, one), tasks.draw(8, one)
    assert not torch.equal(first[0], second[0])
    again = tasks.draw(8, generator(3))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_data_set():
    data = related_regressions(0.5, 30, 20, 10, n_features=5, function_seed=4)
    assert isinstance(data, MultiTaskData) and data.tasks == ("y1", "y2")
    assert [t.shape for t in data.train] == [(30, 5), (30, 1), (30, 1)]
    assert len(data.val[0]) == 20 and len(data.test[0]) == 10
    rows = torch.cat([data.train[0], data.val[0], data.test[0]])
    assert len(rows.unique(dim=0)) == 60
    again = related_regressions(0.5, 30, 20, 10, n_features=5, function_seed=4)
    assert all(torch.equal(a, b) for a, b in zip(data.train, again.train, strict=True))
    other = related_regressions(0.5, 30, 20, 10, n_features=5, function_seed=5)
    assert torch.equal(data.train[0], other.train[0])
    assert not torch.equal(data.train[1], other.train[1])
    x, *_ = data.info["tasks"].draw(4, generator())
    assert x.shape == (4, 5)


@pytest.mark.parametrize(
    "options",
    [
        {"p": 1.1},
        {"p": math.nan},
        {"noise": -1.0},
        {"n_features": 1},
        {"n_waves": -1},
        {"n_train": 0},
    ],
)
def test_bad_arguments_are_refused_by_name(options):
    name = "n" if "n_train" in options else next(iter(options))
    with pytest.raises(ValueError, match=f"^{name}:"):
        related_regressions(**{"p": 0.5, **options})
