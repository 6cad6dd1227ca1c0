"""Sweeps: every run once, whatever is killed; the same results wherever they run."""

import doctest
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from mtl_utils import records, sweep
from tests.sweep_experiment import RUNS, train

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    """A folder of records for each test."""
    folder = tmp_path / "results"
    folder.mkdir()
    monkeypatch.setenv("MTL_RESULTS", str(folder))
    return folder


def run(*args, **kwargs):
    """A sweep in this process, without a bar."""
    return sweep.run(*args, **{"n_jobs": 1, "progress": False, **kwargs})


def plain_loop(configs):
    """What the runs should give, made without a sweep."""
    rows = []
    for config in configs:
        result = train(**config)
        curve = [float(f"{value:.6g}") for value in result["loss"].tolist()]
        rows.append((config["seed"], float(f"{result['slope'].item():.6g}"), curve))
    return rows


def found(runs):
    return list(zip(runs["seed"], runs["slope"], runs["loss"], strict=True))


@pytest.mark.parametrize("module", [sweep, records])
def test_examples(module, monkeypatch):
    monkeypatch.delenv("MTL_RESULTS")
    outcome = doctest.testmod(module)
    assert outcome.attempted > 0
    assert outcome.failed == 0


# ---- killed --------------------------------------------------------------------------------------


def test_killed_ten_times_loses_nothing_and_repeats_nothing(results):
    log, path = results / "log", results / "killed.jsonl"
    rng = random.Random(os.getpid())
    started, kept = [], b""
    command = [sys.executable, "-m", "tests.sweep_experiment", "--jobs"]
    environment = {**os.environ, "SWEEP_TEST_LOG": str(log), "PYTHONPATH": str(ROOT)}

    def content():
        return path.read_bytes() if path.exists() else b""

    def starts():
        lines = log.read_text().splitlines() if log.exists() else []
        return [tuple(map(int, line.split())) for line in lines]

    for place in range(10):
        before = len(starts())
        done = {line["config"]["seed"] for line in map(json.loads, kept.splitlines())}
        started.append((before, done))
        process = subprocess.Popen(
            [*command, str(1 + place % 2)], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL
        )
        if place > 1:  # two may be killed while they start
            while len(content()) <= len(kept) and process.poll() is None:
                time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.5))
        process.kill()
        assert process.wait() == -9
        after = content()
        assert after.startswith(kept)  # what was written stays, byte for byte
        kept = after[: after.rfind(b"\n") + 1]
    assert 0 < kept.count(b"\n") < len(RUNS)

    deadline = time.monotonic() + 10  # no worker outlives its sweep
    pids = {pid for pid, _ in starts()}
    while any(psutil.pid_exists(pid) and not ended(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.1)

    last = subprocess.run([*command, "2"], cwd=ROOT, env=environment, capture_output=True)
    assert last.returncode == 0, last.stderr
    assert content().startswith(kept)
    lines = [json.loads(line) for line in content().splitlines()]
    assert sorted(line["config"]["seed"] for line in lines) == list(range(len(RUNS)))
    for before, done in started:
        assert not done & {seed for _, seed in starts()[before:]}
    assert len(starts()) <= len(RUNS) + 10 * 4  # two workers, each with one more at hand
    with torch.random.fork_rng():
        assert found(records.read("killed").sort_values("seed")) == plain_loop(RUNS)


def ended(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_line_torn_at_any_byte_is_dropped_and_its_run_repeated(results):
    configs = sweep.grid(seed=range(3))
    whole = run(train, configs, "torn")
    path = results / "torn.jsonl"
    content = path.read_bytes()
    end_of_second = content.index(b"\n", content.index(b"\n") + 1) + 1
    for length in range(end_of_second, len(content), 7):
        path.write_bytes(content[:length])
        assert len(records.read("torn")) == 2
        again = run(train, configs, "torn")
        assert found(again) == found(whole)
        assert path.read_bytes().startswith(content[:end_of_second])
        assert path.read_bytes().count(b"\n") == 3
        records.read("torn")


def test_a_damaged_line_is_named(results):
    run(train, sweep.grid(seed=range(3)), "damaged")
    path = results / "damaged.jsonl"
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], lines[1][:-5], lines[2], b""]))
    with pytest.raises(ValueError, match=r"damaged.jsonl: line 2 is damaged"):
        records.read("damaged")
    with pytest.raises(ValueError, match=r"damaged.jsonl: line 2 is damaged"):
        run(train, sweep.grid(seed=range(3)), "damaged")


def test_a_second_writer_is_refused(results):
    with records.Journal(results / "mine.jsonl"):
        with pytest.raises(RuntimeError, match=r"record: another sweep is writing mine.jsonl"):
            run(train, [{"seed": 0}], "mine")
    assert len(run(train, [{"seed": 0}], "mine")) == 1
