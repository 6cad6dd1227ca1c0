"""Rules that remember: dwa, dtp, loss_trend."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mtl_utils.weighting import make_weighting
from tests.rules import (
    few,
    float64,  # noqa: F401
    permutation,
    same_state,
    saved_and_loaded,
    step,
    tables,
    vector,
)

RULES = {
    "dwa": ("train_losses", {"temperature": 0.5}),
    "dtp": ("kpis", {"gamma": 1.5, "momentum": 0.6}),
    "loss_trend": ("val_losses", {"window": 2}),
}


def after(name, rows, **options):
    """The weights of a rule that has observed each row."""
    weighting = make_weighting(name, len(rows[0]), **options)
    for row in rows:
        weighting.observe(**{RULES[name][0]: row})
    return step(weighting, torch.ones(len(rows[0])))[0]


# ---- all three -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RULES)
@few
@given(rows=tables(8, 1e-6, 1), seed=st.integers(0, 99))
def test_weights_are_finite_not_negative_and_equivariant(name, rows, seed):
    options = RULES[name][1]
    weights = after(name, rows, **options)
    assert torch.isfinite(weights).all() and (weights >= 0).all()
    if name != "dtp":
        assert weights.sum().item() == pytest.approx(len(weights), rel=1e-12)
    order = permutation(len(weights), seed)
    torch.testing.assert_close(after(name, rows[:, order], **options), weights[order])


@pytest.mark.parametrize("name", RULES)
@few
@given(rows=tables(9, 1e-3, 1), cut=st.integers(1, 8))
def test_resumes_bit_for_bit(name, rows, cut):
    observed, options = RULES[name]
    n_tasks = rows.shape[1]
    through = make_weighting(name, n_tasks, **options)
    stopped = make_weighting(name, n_tasks, **options)
    for weighting in (through, stopped):
        for row in rows[:cut]:
            weighting.observe(**{observed: row})
            step(weighting, row)
    resumed = saved_and_loaded(stopped, make_weighting(name, n_tasks, **options))
    for row in rows[cut:]:
        for weighting in (through, resumed):
            weighting.observe(**{observed: row})
        assert torch.equal(step(through, row)[0], step(resumed, row)[0])
    assert same_state(through.state_dict(), resumed.state_dict())


@pytest.mark.parametrize("name", RULES)
def test_a_state_that_was_saved_does_not_change_later(name):
    observed, options = RULES[name]
    weighting = make_weighting(name, 2, **options)
    values = vector([0.5, 0.25])
    weighting.observe(**{observed: values})
    state = saved_and_loaded(weighting, make_weighting(name, 2, **options)).state_dict()
    kept = weighting.state_dict()
    weighting.observe(**{observed: [0.1, 0.9]})
    values.fill_(7.0)
    assert same_state(kept, state)


@pytest.mark.parametrize("name", RULES)
def test_the_losses_of_the_step_do_not_matter_and_may_be_negative_or_zero(name):
    observed, options = RULES[name]
    weighting = make_weighting(name, 3, **options)
    for row in [[0.4, 0.3, 0.2], [0.3, 0.3, 0.1], [0.3, 0.2, 0.3], [0.1, 0.2, 0.3]]:
        weighting.observe(**{observed: row})
    weights, _ = step(weighting, [1.0, 2.0, 3.0])
    assert torch.equal(step(weighting, [-5.0, 0.0, 1e6])[0], weights)


@pytest.mark.parametrize("name", RULES)
def test_other_quantities_are_ignored_and_bad_ones_change_nothing(name):
    observed, options = RULES[name]
    weighting = make_weighting(name, 2, **options)
    weighting.observe(**{observed: [0.5, 0.4]})
    before = weighting.state_dict()
    for other in {"train_losses", "val_losses", "kpis", "losses_after_step"} - {observed}:
        weighting.observe(**{other: [0.1, 0.2]})
    for bad in ([0.1], [[0.1, 0.2]], [0.1, -math.inf], [math.inf, 0.2]):
        with pytest.raises(ValueError, match=observed):
            weighting.observe(**{observed: bad})
    assert same_state(weighting.state_dict(), before)


# ---- dwa -------------------------------------------------------------------------------------


def test_dwa_first_two_epochs_have_ones():
    weighting = make_weighting("dwa", 2)
    for row in [[9.0, 1.0], [3.0, 0.9]]:
        assert torch.equal(step(weighting, [1.0, 1.0])[0], vector([1.0, 1.0]))
        weighting.observe(train_losses=row)
    ratio = [3 / 9, 0.9]
    total = sum(math.exp(r / 2) for r in ratio)
    expected = [2 * math.exp(r / 2) / total for r in ratio]
    torch.testing.assert_close(step(weighting, [1.0, 1.0])[0].tolist(), expected, rtol=1e-6, atol=0)


def test_dwa_sees_only_the_last_two_epochs():
    rows = [[5.0, 1.0], [4.0, 7.0], [3.0, 1.0], [2.0, 0.5]]
    assert torch.equal(after("dwa", rows), after("dwa", rows[-2:]))


@few
@given(rows=tables(2), scale=tables(1), temperature=st.floats(0.1, 10))
def test_dwa_does_not_see_the_size_of_a_loss(rows, scale, temperature):
    scale = scale[0, :1]  # by one constant, and each task by its own
    own = torch.logspace(-2, 2, rows.shape[1], dtype=torch.float64)
    weights = after("dwa", rows, temperature=temperature)
    for c in (scale, own):
        scaled = after("dwa", rows * c, temperature=temperature)
        torch.testing.assert_close(scaled, weights, rtol=1e-9, atol=1e-12)


@few
@given(before=tables(1, 0.1, 10), seed=st.integers(0, 999), temperature=st.floats(0.2, 5))
def test_dwa_range_while_no_loss_grows(before, seed, temperature):
    generator = torch.Generator().manual_seed(seed)
    fall = torch.rand(before.shape[1], generator=generator, dtype=torch.float64)
    weights = after("dwa", [before[0], before[0] * fall], temperature=temperature)
    assert weights.max() / weights.min() <= math.exp(1 / temperature) * (1 + 1e-12)


def test_dwa_largest_ratio_is_165():
    weights = after("dwa", [vector([1.0, 1.0]), vector([0.0, 1.0])])
    assert (weights[1] / weights[0]).item() == pytest.approx(math.exp(0.5), rel=1e-12)
    assert math.exp(0.5) == pytest.approx(1.65, abs=0.005)


@pytest.mark.parametrize(("temperature", "expected"), [(0.2, (0.54, 1.46)), (2.0, (0.95, 1.05))])
def test_dwa_example(temperature, expected):
    weights = after("dwa", [[1.0, 1.0], [0.9, 1.1]], temperature=temperature)
    torch.testing.assert_close(weights.tolist(), list(expected), rtol=0, atol=0.005)


def test_dwa_equal_ratios_and_high_temperature_give_ones():
    one = vector([1.0, 1.0, 1.0])
    rows = vector([[1.0, 10.0, 100.0], [0.5, 5.0, 50.0]])
    torch.testing.assert_close(after("dwa", rows), one)
    rows = vector([[1.0, 1.0, 1.0], [0.1, 1.0, 3.0]])
    torch.testing.assert_close(after("dwa", rows, temperature=1e9), one, rtol=0, atol=1e-8)
    assert torch.equal(after("dwa", rows, temperature=math.inf), one)


@pytest.mark.parametrize("temperature", [1e-300, 2.0])
def test_dwa_without_a_ratio_counts_as_unchanged(temperature):
    expected = after("dwa", vector([[1.0, 1.0], [1.0, 0.5]]), temperature=temperature)
    for now in (0.0, 5.0):
        rows = vector([[0.0, 1.0], [now, 0.5]])
        assert torch.equal(after("dwa", rows, temperature=temperature), expected)
    overflow = vector([[1e-300, 1.0], [1e300, 0.5]])
    assert torch.equal(after("dwa", overflow, temperature=temperature), expected)


def test_dwa_takes_a_temperature_however_low():
    """The largest ratio over the temperature is 1e310 here: infinite."""
    weights = after("dwa", vector([[1.0, 1.0], [1e10, 0.5]]), temperature=1e-300)
    assert weights.tolist() == [2.0, 0.0]


def test_dwa_refuses_negative_losses_and_bad_temperatures():
    with pytest.raises(ValueError, match=r"train_losses: dwa needs .* task 1 is -2"):
        make_weighting("dwa", 2).observe(train_losses=[1.0, -2.0])
    for bad in (0, -1.0, math.nan, "2", True):
        with pytest.raises(ValueError, match="temperature"):
            make_weighting("dwa", 2, temperature=bad)


def test_dwa_one_task_has_weight_1():
    assert after("dwa", [[3.0], [0.1]]).tolist() == [1.0]


# ---- dtp -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kpi", "gamma", "expected"),
    [
        (0.01, 0, 4.61),
        (0.01, 2, 4.51),
        (0.01, 5, 4.38),
        (0.5, 0, 0.693),
        (0.5, 2, 0.173),
        (0.5, 5, 0.022),
        (0.9, 0, 0.105),
        (0.9, 2, 0.001),
        (0.9, 5, 0.0),
    ],
)
def test_dtp_table(kpi, gamma, expected):
    digits = 2 if expected > 1 else 3
    assert round(after("dtp", [[kpi]], gamma=gamma).item(), digits) == expected


@few
@given(low=st.floats(0.01, 1), high=st.floats(0.01, 1), gamma=st.floats(0, 5))
def test_dtp_falls_with_the_kpi(low, high, gamma):
    low, high = sorted((low, high))
    weights = after("dtp", [vector([low, high])], gamma=gamma)
    assert weights[0] >= weights[1] >= 0
    expected = -((1 - low) ** gamma) * math.log(low)
    assert weights[0].item() == pytest.approx(expected, rel=1e-12, abs=1e-300)


def test_dtp_gamma_0_is_the_negative_logarithm_and_a_perfect_task_gets_0():
    weights = after("dtp", [vector([0.2, 0.7, 1.0])], gamma=0)
    torch.testing.assert_close(weights, vector([-math.log(0.2), -math.log(0.7), 0.0]))
    for gamma in (0, 0.5, 3):
        assert after("dtp", [[1.0]], gamma=gamma).item() == 0
    assert after("dtp", [[1.0, 1.0]]).tolist() == [0.0, 0.0]  # then nothing is learned any more


def test_dtp_range():
    for kpi_min, kpi in ((0.01, 0.0), (0.01, 0.005), (0.2, 0.1)):
        weights = after("dtp", [vector([kpi])], gamma=1, kpi_min=kpi_min)
        assert weights.item() == pytest.approx(-(1 - kpi_min) * math.log(kpi_min), rel=1e-12)
    usual = after("dtp", [vector([0.0])], gamma=0)  # kpi_min = 0.01
    assert usual.item() == pytest.approx(math.log(100), rel=1e-12)


@few
@given(rows=tables(6, 1e-2, 1), momentum=st.floats(0, 0.99))
def test_dtp_moving_average_closed_form(rows, momentum):
    mean = momentum ** (len(rows) - 1) * rows[0]
    for age, row in enumerate(rows[1:].flip(0)):
        mean = mean + (1 - momentum) * momentum**age * row
    expected = -torch.log(mean)
    weights = after("dtp", rows, gamma=0, momentum=momentum)
    torch.testing.assert_close(weights, expected, rtol=1e-9, atol=1e-12)


def test_dtp_recovers_from_kpis_below_the_range():
    weights = after("dtp", [vector([0.0]), vector([1.0])], gamma=0, momentum=0.5)
    assert weights.item() == pytest.approx(math.log(2), rel=1e-12)  # the average is of raw values


def test_dtp_takes_one_gamma_a_task():
    weights = after("dtp", [vector([0.5, 0.5])], gamma=(0, 2))
    torch.testing.assert_close(weights, vector([math.log(2), math.log(2) / 4]))


def test_dtp_says_what_to_call():
    weighting = make_weighting("dtp", 2)
    with pytest.raises(RuntimeError, match=r"weighting\.observe\(kpis="):
        step(weighting, [1.0, 1.0])
    with pytest.raises(ValueError, match=r"kpis: dtp needs .* task 0 is 92"):
        weighting.observe(kpis=[92.0, 0.5])
    for bad in (-0.1, 1.01):
        with pytest.raises(ValueError, match=rf"kpis: dtp needs .* task 1 is {bad}"):
            weighting.observe(kpis=[0.2, bad])
    weighting.observe(kpis=[0.0, 1.0])


@pytest.mark.parametrize(
    "options",
    [
        {"gamma": -1},
        {"gamma": (1.0, 2.0, 3.0)},
        {"gamma": (1.0, -2.0)},
        {"gamma": math.inf},
        {"momentum": 1.0},
        {"momentum": -0.1},
        {"kpi_min": 0.0},
        {"kpi_min": 1.0},
    ],
)
def test_dtp_refuses_bad_options(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        make_weighting("dtp", 2, **options)


# ---- loss_trend ------------------------------------------------------------------------------


def paper(rows, window):
    """The paper's three steps, as written there."""
    previous, current = rows[-2 * window : -window].mean(0), rows[-window:].mean(0)
    trend = (current - previous).abs() / current
    product = (trend / trend.mean()) * (current / current.mean())
    return product / product.mean()


@few
@given(windows=st.integers(2, 4), window=st.integers(1, 4), data=st.data())
def test_trend_is_the_formula_of_the_paper(windows, window, data):
    rows = data.draw(tables(windows * window))
    weights = after("loss_trend", rows, window=window)
    if (rows[-2 * window : -window].mean(0) != rows[-window:].mean(0)).any():
        torch.testing.assert_close(weights, paper(rows, window), rtol=1e-6, atol=1e-9)
    else:
        assert torch.equal(weights, torch.ones_like(weights))


def test_trend_rewards_over_fitting_and_switches_a_plateau_off():
    rows = vector([[0.5, 0.5, 0.5], [0.4, 0.6, 0.5]])
    torch.testing.assert_close(after("loss_trend", rows, window=1), vector([1.5, 1.5, 0.0]))


def test_trend_depends_on_the_size_of_a_loss():
    rows = vector([[0.5, 0.5, 0.5], [0.4, 0.6, 0.5]]) * vector([1.0, 100.0, 1.0])
    weights = after("loss_trend", rows, window=1)
    torch.testing.assert_close(weights, vector([3 / 101, 300 / 101, 0.0]))
    assert [round(w, 2) for w in weights.tolist()] == [0.03, 2.97, 0.0]


@few
@given(rows=tables(4), constant=st.floats(1e-3, 1e3))
def test_trend_does_not_see_a_common_scale(rows, constant):
    weights = after("loss_trend", rows, window=2)
    scaled = after("loss_trend", rows * constant, window=2)
    torch.testing.assert_close(scaled, weights, rtol=1e-6, atol=1e-9)


def test_trend_is_1_before_2_windows_and_new_after_each_window():
    window = 3
    rows = torch.rand(4 * window, 2, dtype=torch.float64, generator=torch.manual_seed(0))
    weighting = make_weighting("loss_trend", 2, window=window)
    for iteration, row in enumerate(rows, start=1):
        weighting.observe(val_losses=row)
        weights, _ = step(weighting, [1.0, 1.0])
        complete = iteration // window * window
        expected = paper(rows[:complete], window) if complete >= 2 * window else torch.ones(2)
        torch.testing.assert_close(weights, expected.double())


def test_trend_identical_tasks_have_1():
    rows = vector([[0.5] * 3, [0.3] * 3, [0.2] * 3, [0.25] * 3])
    torch.testing.assert_close(after("loss_trend", rows, window=2), torch.ones(3).double())


@pytest.mark.parametrize("value", [0.0, 0.1, 7.3, 1e300])
def test_trend_falls_back_to_1_where_all_tasks_plateau(value):
    rows = [vector([value, value / 3])] * 6
    assert torch.equal(after("loss_trend", rows, window=3), torch.ones(2).double())


def test_trend_takes_losses_that_are_zero_or_negative():
    rows = vector([[0.5, 0.3, -1.0], [0.0, 0.2, -1.2]])
    torch.testing.assert_close(
        after("loss_trend", rows, window=1), vector([0.5, 0.1, 0.2]) / 0.8 * 3
    )


def test_trend_takes_changes_of_any_size():
    for scale in (1e-300, 1e300):
        weights = after("loss_trend", vector([[1.0, 2.0], [2.0, 5.0]]) * scale, window=1)
        torch.testing.assert_close(weights, vector([0.5, 1.5]))


def test_trend_one_task_has_weight_1():
    assert after("loss_trend", [[0.5], [0.4]], window=1).tolist() == [1.0]
    assert after("loss_trend", [[0.5], [0.5]], window=1).tolist() == [1.0]


def test_trend_says_what_to_call():
    weighting = make_weighting("loss_trend", 2, window=3)
    for _ in range(6):
        step(weighting, [1.0, 1.0])
    with pytest.raises(RuntimeError, match=r"weighting\.observe\(val_losses="):
        step(weighting, [1.0, 1.0])
    weighting.observe(val_losses=[1.0, 2.0])
    step(weighting, [1.0, 1.0])
    for bad in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="window"):
            make_weighting("loss_trend", 2, window=bad)


def test_trend_of_noise_never_settles():
    """Two means of k values of noise differ by 2 s / sqrt(pi k) on average: 1.13 s / sqrt(k)."""
    noise = torch.randn(2000, 2, 20, generator=torch.manual_seed(0), dtype=torch.float64)
    change = (noise[:, 0].mean(-1) - noise[:, 1].mean(-1)).abs().mean().item()
    assert change == pytest.approx(2 / math.sqrt(math.pi * 20), rel=0.05)
    assert 2 / math.sqrt(math.pi) == pytest.approx(1.13, abs=0.005)
