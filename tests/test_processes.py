"""Every rule on two processes gives the parameters that one process gives on all rows together."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mtl_utils.weighting.base import weighting_class
from tests import processes
from tests.rules import NAMES, make

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What each of two processes found, by case and rule."""
    folder = tmp_path_factory.mktemp("processes")
    command = [sys.executable, "-m", "tests.processes"]
    runs = [
        subprocess.Popen(
            [*command, str(rank), "2", str(folder / "rendezvous"), str(folder / "out")],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for run in runs:
        _, error = run.communicate(timeout=300)
        assert run.returncode == 0, error
    return [torch.load(folder / f"out.{rank}") for rank in range(2)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", processes.CASES)
def test_two_processes_are_as_one(two, case, name):
    first, second = (found[case, name] for found in two)
    if case == "sharded" and weighting_class(name).needs_shared:
        assert first == second
        assert first.startswith("ValueError: shared: they are sharded over processes (FSDP2)")
        return
    assert isinstance(first, torch.Tensor), first
    assert isinstance(second, torch.Tensor), second
    torch.testing.assert_close(first, second, rtol=0, atol=1e-12)
    torch.testing.assert_close(first, processes.train(name, case), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", [processes.UNUSED, processes.SHARDED])
def test_a_weighting_inside_is_refused_where_its_parameters_would_be_lost(two, case, name):
    first, second = (found[case, name] for found in two)
    needs_whole = case == processes.SHARDED and weighting_class(name).needs_shared
    if needs_whole or [*make(name, processes.K).parameters()]:
        assert first == second
        wanted = "(FSDP2), and" if needs_whole else "keep the weighting outside of the network"
        assert first.startswith("ValueError: ") and wanted in first
    else:
        torch.testing.assert_close(first, second, rtol=0, atol=1e-12)
        torch.testing.assert_close(first, processes.train(name, "plain"), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_a_rule_that_was_not_told_of_other_processes_says_so_once(two, name):
    said = [text for text in two[0][processes.ALONE, name] if "there are 2 processes" in text]
    assert len(said) == (name not in ("equal", "fixed"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", ["plain", "last layer"])
def test_what_a_rule_sends_is_what_its_documentation_says(two, case, name):
    """In numbers a step, beside what the reducer sends."""
    model = processes.build()
    shared, last = (sum(p.numel() for p in m.parameters()) for m in (model.trunk, model.trunk[-2]))
    rule = make(name, processes.K)
    if not rule.needs_shared:
        gradients = 0
    elif name == "gradnorm" or (case == "last layer" and "gramian" in rule.engine_options):
        gradients = last
    else:
        gradients = shared
    if rule.batches > 1:  # those of the first, of the second, and of the update
        gradients = 3 * shared
    observed = 2 * processes.K * len(rule.observes)
    wanted = processes.K * (1 + rule.batches + gradients) + observed
    assert [found["sent", case, name] for found in two] == [wanted, wanted]
