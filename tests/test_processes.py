"""Every rule on two processes gives the parameters that one process gives on all rows together."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests import processes
from tests.rules import NAMES

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
    assert isinstance(first, torch.Tensor), first
    assert isinstance(second, torch.Tensor), second
    torch.testing.assert_close(first, second, rtol=0, atol=1e-12)
    torch.testing.assert_close(first, processes.train(name, case), rtol=1e-6, atol=1e-9)
