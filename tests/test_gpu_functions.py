"""What runs on a graphics card, small on the CPU; and the runner, with parts that go wrong."""

import ast
import importlib
import os
import time

import numpy as np
import pandas as pd
import pytest
import torch
from nbformat import read

from experiments.gpu import nb04, nb10, nb12
from experiments.gpu.pieces import Failed, carry_out
from experiments.gpu.runner import PARTS, Part, run_all
from mtl_utils import make_weighting
from mtl_utils.ensemble_rules import Known, Rules, _home
from notebook_gate import execute
from tests.test_notebooks_static import NOTEBOOKS


@pytest.mark.parametrize("name", PARTS)
def test_each_part_small(name, tmp_path):
    part = PARTS[name]
    before = torch.get_default_dtype()
    table = part.run("cpu", 60, tmp_path, part.small)
    assert torch.get_default_dtype() == before
    assert table.attrs["left_out"] == []
    written = pd.read_csv(tmp_path / f"{part.record}.csv")
    assert list(written.columns) == list(table.columns) and len(written) == len(table)
    assert np.isfinite(written.select_dtypes("number").to_numpy()).mean() > 0.6  # gaps are few
    module = importlib.import_module(part.run.__module__)
    assert len(module.summary(table)) > 0


def test_every_gpu_cell_calls_what_a_test_runs():
    for path in NOTEBOOKS:
        for cell in execute.code_cells(read(path, 4)):
            if "gpu" not in execute.tags(cell) or "experiments.gpu" not in cell.source:
                continue
            imports, call = ast.parse(cell.source).body[0].body
            assert imports.module == "experiments.gpu"
            (alias,) = imports.names
            module = importlib.import_module(f"experiments.gpu.{alias.name}")
            assert module.run in [part.run for part in PARTS.values()]
            run = f"({alias.name}.summary({alias.name}.run('cuda')))"
            assert ast.unparse(call) in (f"display{run}", f"show{run}")


def test_a_piece_that_fails_stops_no_other(tmp_path):
    def bad():
        raise ValueError("bad piece")

    with pytest.raises(Failed, match="second: ValueError: bad piece"):
        carry_out(
            "x",
            {"first": lambda: [{"a": 1}], "second": bad, "third": lambda: [{"a": 3}]},
            10,
            tmp_path,
        )
    assert pd.read_csv(tmp_path / "x.csv").a.tolist() == [1, 3]


def test_no_piece_is_begun_that_would_not_fit(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def slow():
        clock[0] += 2.0
        return [{"a": torch.get_default_dtype() == torch.float32}]

    table = carry_out("x", dict.fromkeys("abcd", slow), 5.0, tmp_path)
    assert table.a.all() and table.attrs["left_out"] == ["c", "d"]


def good(device, seconds, folder, size):
    return carry_out("good", {"one": lambda: [{"device": device, "size": size}]}, seconds, folder)


def raises(device, seconds, folder, size):
    raise RuntimeError("no such thing")


def hangs(device, seconds, folder, size):
    carry_out("hangs", {"one": lambda: [{"a": 1}]}, seconds, folder)
    time.sleep(60)


def dies(device, seconds, folder, size):
    os._exit(7)


def test_runner_goes_on_and_says_what_happened(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.gpu.runner.GRACE", 0.0)
    runs = {"raises": raises, "dies": dies, "hangs": hangs, "good": good}
    budgets = {"raises": 50, "dies": 50, "hangs": 30, "good": 50}
    parts = {n: Part(run, n, budgets[n], "full", "small") for n, run in runs.items()}
    outcomes = run_all(parts, "cpu", tmp_path, small=True)
    assert [o.status for o in outcomes] == ["failed", "failed", "time-out", "done"]
    assert outcomes[0].note == "RuntimeError: no such thing"
    assert "exit status 7" in outcomes[1].note
    assert pd.read_csv(tmp_path / "hangs.csv").a.tolist() == [1]
    assert pd.read_csv(tmp_path / "good.csv").iloc[0].tolist() == ["cpu", "small"]
    assert pd.read_csv(tmp_path / "gpu.csv").status.tolist() == [o.status for o in outcomes]


def test_budgets_and_files():
    assert sum(part.seconds for part in PARTS.values()) <= 480  # seconds, eight minutes
    assert len({part.record for part in PARTS.values()} | {"gpu"}) <= 9


# ---- the pieces of arithmetic -------------------------------------------------------------------


def test_conflict_against_numpy():
    rows = torch.randn(8, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = nb12.conflict(rows @ rows.T)
    unit = (rows / rows.norm(dim=1, keepdim=True)).numpy()
    cosine = unit @ unit.T
    one = cosine[:4, :4][~np.eye(4, dtype=bool)]
    assert found["cosine, two tasks"] == pytest.approx(one.mean())
    assert found["negative, share of pairs"] == pytest.approx((one < 0).mean())
    assert found["cosine, one task, two batches"] == pytest.approx(np.diag(cosine[:4, 4:]).mean())


def test_updates_of_orthogonal_unit_gradients():
    found = nb12.updates(torch.eye(4, dtype=torch.float64))
    assert found["length / mean, mgda"] == pytest.approx(1)
    assert found["length / mean, pcgrad"] == pytest.approx(4)
    for rule in nb12.RULES:
        assert found[f"cosine to mean, {rule}"] == pytest.approx(1)
        assert found[f"least cosine, {rule}"] == pytest.approx(0.5)


def test_area_of_some_networks():
    table = pd.DataFrame({"network": [0, 1, 2], "test left": [0.5, 0.2, 0.1], "test right": 0.5})
    assert nb10.area(table, "test") == pytest.approx(0.45)
    assert nb10.area(table, "test", 1) == pytest.approx(0.25)


def test_errors_of_the_true_lines():
    x = torch.linspace(-2, 2, 5)[:, None]
    outputs = [(2 * x + 8)[None], (3 * x + 4)[None]]
    assert nb04.errors(outputs, x).tolist() == [[0.0, pytest.approx(1.0)]]


# ---- where the rules of an ensemble compute -----------------------------------------------------


@pytest.mark.parametrize(
    ("names", "home"),
    [
        (("equal", "equal"), "meta"),
        (("uncertainty", "uncertainty"), "meta"),
        (("mgda", "mgda"), "cpu"),
        (("gradnorm",), "cpu"),
        (("equal", "loss_trend"), "cpu"),
        (("mgda", "uncertainty"), "meta"),
        (("graddrop", "mgda"), "meta"),
    ],
)
def test_home_of_rules(names, home):
    rules = [make_weighting(name, 2) for name in names]
    assert _home(rules, "meta") == home
    assert Rules(rules, "cpu").home == "cpu"


def test_a_rule_computes_at_home_while_gradients_stay_where_they_are():
    """Stands in for two devices: values in float64, gradients in float32."""
    jacobian = torch.tensor([[2.0, 0.0], [0.0, 1.0]], dtype=torch.float32)
    known = Known(torch.ones(2, dtype=torch.float64), jacobian, [torch.Size([2])])
    make_weighting("mgda", 2)._backward(known)
    assert known.update.dtype == torch.float32
    torch.testing.assert_close(known.update, torch.tensor([0.4, 0.8], dtype=torch.float32))
    known.backward(torch.tensor([1.0, 3.0], dtype=torch.float64))
    torch.testing.assert_close(known.update, torch.tensor([2.0, 3.0], dtype=torch.float32))
