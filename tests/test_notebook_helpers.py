"""setup, claim, interval, and the like."""

import math

import numpy as np
import pytest
import sympy
import torch
from scipy import stats

from mtl_utils import notebook
from mtl_utils.notebook import (
    as_array,
    check_environment,
    claim,
    interval,
    needs_cuda,
    progress,
    setup,
)

# ---- claim -------------------------------------------------------------


@pytest.mark.parametrize(
    ("got", "want", "options"),
    [
        (True, True, {}),
        (np.bool_(True), True, {}),
        (np.array(True), True, {}),
        (torch.tensor(True), True, {}),
        (sympy.true, True, {}),
        (False, False, {}),
        ("gramian", "gramian", {}),
        (None, None, {}),
        (3, 3, {}),
        (0.1 + 0.2, 0.3, {}),
        (torch.tensor(2.0), 2, {}),
        (torch.tensor(2.0, requires_grad=True), 2, {}),
        (sympy.Rational(1, 3), 1 / 3, {}),
        (1 / 3, sympy.Rational(1, 3), {}),
        (sympy.sqrt(2), math.sqrt(2), {}),
        ([1.0, sympy.Rational(1, 2)], [1.0, 0.5], {}),
        ([torch.tensor(1.0), torch.tensor(2.0, requires_grad=True)], np.array([1.0, 2.0]), {}),
        (torch.ones(2, 3), 1, {}),  # against one number: every entry
        (torch.ones(2, 3), np.ones((2, 3)), {}),
        (np.array([1.0, 2.0]), (1.0, 2.0), {}),
        (torch.tensor([True, False]), [True, False], {}),
        (math.inf, math.inf, {}),
        (1.01, 1.0, {"rtol": 0.02}),
        (0.01, 0.0, {"atol": 0.02}),
    ],
)
def test_claims_that_hold(capsys, got, want, options):
    claim("it holds", got, want, **options)
    out = capsys.readouterr().out
    assert out.startswith("✓ it holds") and out.count("\n") == 1


@pytest.mark.parametrize(
    ("got", "want", "options", "message"),
    [
        (False, True, {}, "it holds: got False, expected True"),
        (torch.tensor(False), True, {}, "got False, expected True"),
        (np.bool_(True), False, {}, "got True, expected False"),
        (0.5, True, {}, "got 0.5, expected True"),
        (None, True, {}, "got None, expected True"),
        (sympy.Symbol("x") > 0, True, {}, "got x > 0, expected True"),
        ("gradients", "gramian", {}, "got 'gradients', expected 'gramian'"),
        (1.0, 1.1, {}, r"got 1.0, expected 1.1 \(largest difference 0.1, rtol 1e-09, atol 0\)"),
        (1e-8, 0, {}, "largest difference 1e-08"),
        (math.nan, 1.0, {}, "got nan, expected 1.0"),
        (math.nan, math.nan, {}, "got nan, expected nan"),
        (1.0, math.nan, {"atol": 10}, "expected nan"),
        ([1.0, math.nan], 1.0, {}, "got .*nan"),
        (torch.tensor([1.0, 2.0]), 1, {}, "largest difference 1,"),
        (1.0, [1.0, 1.0], {}, r"shapes \(\) and \(2,\) differ"),
        (torch.ones(2, 1), torch.ones(2), {}, r"shapes \(2, 1\) and \(2,\) differ"),
        (torch.ones(3), torch.ones(2), {}, r"shapes \(3,\) and \(2,\) differ"),
        (torch.ones(0), 1.0, {}, r"nothing to compare, shape \(0,\)"),
        ([], [], {}, r"nothing to compare"),
        (sympy.Rational(1, 3), 0.3333, {}, "got 1/3, expected 0.3333"),
    ],
)
def test_claims_that_fail(capsys, got, want, options, message):
    with pytest.raises(AssertionError, match=message):
        claim("it holds", got, want, **options)
    assert capsys.readouterr().out == ""


def test_claim_of_an_array_of_truths_needs_all_or_any():
    for got in (torch.tensor([True, True]), np.array([True])):
        with pytest.raises(TypeError, match=r"claim 'each': expected one value.*\.all\(\)"):
            claim("each", got)


def test_claim_shows_both_sides_where_the_tolerance_is_wide(capsys):
    claim("wide", torch.tensor(3.14159, dtype=torch.float64), 3.1416, rtol=1e-3)
    claim("tight", 2.0, 2.0)
    claim("many", [1.0, 2.0], [1.0, 2.0], rtol=0.1)
    assert capsys.readouterr().out == "✓ wide: 3.142 against 3.142\n✓ tight\n✓ many\n"


def test_as_array():
    parameter = torch.ones(2, dtype=torch.float16, requires_grad=True)
    assert as_array(parameter).dtype == np.float64
    assert as_array([[torch.tensor(1), 2], [sympy.Integer(3), np.float32(4)]]).tolist() == [
        [1, 2],
        [3, 4],
    ]


# ---- interval -------------------------------------------------------------


def test_interval_against_the_table_of_student():
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    mean, low, high = interval(values)
    half = 2.776445 * math.sqrt(2.5) / math.sqrt(5)  # t of 4 degrees of freedom, 95 %
    assert mean == 3 and (low, high) == pytest.approx((3 - half, 3 + half), abs=1e-6)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99])
def test_interval_against_scipy(level):
    values = np.random.default_rng(0).normal(size=7)
    mean, *ends = interval((v for v in values), level)
    wanted = stats.ttest_1samp(values, 0).confidence_interval(level)
    assert mean == pytest.approx(values.mean()) and ends == pytest.approx(list(wanted), rel=1e-12)
    assert interval(torch.tensor(values), level) == pytest.approx((mean, *ends))


def test_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(1)
    found = [interval(rng.normal(size=5), 0.8) for _ in range(1000)]
    covered = np.mean([low <= 0 <= high for _, low, high in found])
    assert covered == pytest.approx(0.8, abs=4 * math.sqrt(0.8 * 0.2 / 1000))


def test_interval_refuses():
    for values in ([], [1.0], [[1.0, 2.0], [3.0, 4.0]]):
        with pytest.raises(ValueError, match="values: expected at least two numbers, got shape"):
            interval(values)
    for level in (0, 1, 95, math.nan):
        with pytest.raises(ValueError, match=r"level: expected a number in \(0, 1\), got"):
            interval([1.0, 2.0], level)


# ---- setup and what depends on the machine ------------------------------------------------------


@pytest.fixture
def _restore(monkeypatch):
    import matplotlib.pyplot as plt

    dtype, threads, state = (
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.get_rng_state(),
    )
    with plt.rc_context():
        yield
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)
    torch.set_rng_state(state)


@pytest.mark.usefixtures("_restore")
def test_setup(monkeypatch):
    monkeypatch.delenv("MTL_THREADS", raising=False)
    first = setup(seed=3)
    assert torch.get_default_dtype() == torch.float64 and torch.get_num_threads() == 1
    drawn, own = torch.randn(3), torch.randn(3, generator=first)
    second = setup(3)
    assert torch.equal(torch.randn(3), drawn) and torch.equal(torch.randn(3, generator=second), own)
    assert not torch.equal(torch.randn(3, generator=setup(4)), own)
    setup(dtype=torch.float32)
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.usefixtures("_restore")
def test_setup_takes_the_threads_from_the_environment(monkeypatch):
    monkeypatch.setenv("MTL_THREADS", "2")
    setup()
    assert torch.get_num_threads() == 2


def test_needs_cuda(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert needs_cuda("a thousand seeds") is False
    assert capsys.readouterr().out == "no CUDA device: skipped here, a thousand seeds\n"
    assert notebook.device() == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert needs_cuda("a thousand seeds") is True and capsys.readouterr().out == ""
    assert notebook.device() == torch.device("cuda")


def test_progress_hands_everything_through():
    assert list(progress(range(3), desc="seeds")) == [0, 1, 2]
    assert list(progress((x for x in "ab"), total=2)) == ["a", "b"]


@pytest.mark.parametrize(
    ("requirements", "versions", "lines"),
    [
        (["numpy>=2.0"], {"numpy": "2.3"}, ["✓ environment: all 1 packages are there"]),
        (["numpy>=2.4"], {"numpy": "2.3"}, ["✗ numpy 2.3 is installed, needed: numpy>=2.4"]),
        (["scipy>=1"], {}, ['✗ scipy is missing: pip install "scipy>=1"']),
        (["x>=1; extra == 'test'"], {}, ["✓ environment: all 0 packages are there"]),
        (["x>=1; extra == 'notebooks'"], {}, ["✗ x is missing"]),
    ],
)
def test_check_environment(capsys, monkeypatch, requirements, versions, lines):
    def version(name):
        if name not in versions:
            raise notebook.importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(notebook.importlib.metadata, "requires", lambda name: requirements)
    monkeypatch.setattr(notebook.importlib.metadata, "version", version)
    check_environment()
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == len(lines)
    assert all(line.startswith(start) for line, start in zip(printed, lines, strict=True))


def test_check_environment_without_the_package(capsys, monkeypatch):
    def requires(name):
        raise notebook.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(notebook.importlib.metadata, "requires", requires)
    check_environment()
    assert capsys.readouterr().out.startswith("✗ mtl_utils is not installed here")
