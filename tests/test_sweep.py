"""Sweeps: every run once, whatever is killed; the same results wherever they run."""

import doctest
import gzip
import importlib
import json
import multiprocessing
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from distributed import Client, LocalCluster
from nbclient import NotebookClient

from mtl_utils import records, sweep, workers
from tests.sweep_experiment import RUNS, main, train, train_many

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
    environment = {"SWEEP_TEST_LOG": str(log), "MTL_RESULTS": str(results)}
    fresh = multiprocessing.get_context("forkserver")  # new processes, torch in them already
    fresh.set_forkserver_preload(["tests.sweep_experiment"])

    def content():
        return path.read_bytes() if path.exists() else b""

    def starts():
        lines = log.read_text().splitlines() if log.exists() else []
        return [tuple(map(int, line.split())) for line in lines]

    for place in range(10):
        before = len(starts())
        done = {line["config"]["seed"] for line in map(json.loads, kept.splitlines())}
        started.append((before, done))
        n_jobs = "2" if place % 4 == 0 else "1"
        process = fresh.Process(target=main, args=(["--jobs", n_jobs],), kwargs=environment)
        process.start()
        if place == 0:
            time.sleep(rng.uniform(0, 4))  # while it and its workers start
        else:
            while len(content()) <= len(kept) and process.is_alive():
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 0.5))
        process.kill()
        process.join()
        assert process.exitcode == -9
        after = content()
        assert after.startswith(kept)  # what was written stays, byte for byte
        kept = after[: after.rfind(b"\n") + 1]
    assert 0 < kept.count(b"\n") < len(RUNS)

    deadline = time.monotonic() + 10  # no worker outlives its sweep
    pids = {pid for pid, _ in starts()}
    while any(psutil.pid_exists(pid) and not ended(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.1)

    command = [sys.executable, "-m", "tests.sweep_experiment", "--jobs", "2"]
    environment |= {**os.environ, "PYTHONPATH": str(ROOT)}
    last = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True)
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


# ---- where it runs -------------------------------------------------------------------------------

CONFIGS = sweep.grid(seed=range(4), lr=[0.1])
FAILURES = [{"seed": 4, "end": end} for end in ("raise", "exit", "die")]


def check_failures(runs, results):
    """Four runs that went well, and three that did not."""
    with torch.random.fork_rng():
        assert found(runs[runs["failure"].isna()]) == plain_loop(CONFIGS)
    assert runs["failure"].tolist()[4:] == [
        "FileNotFoundError: [Errno 2] No such file or directory: 'data.csv'",
        "SystemExit: out of patience",
        "ProcessDied: the worker process died: out of memory, or a crash in compiled code",
    ]
    assert runs["slope"].isna().tolist() == [False] * 4 + [True] * 3
    text = (results / "failures.jsonl").read_text()
    assert "nowhere" not in text
    assert str(ROOT) not in text
    (error,) = [e["error"] for e in map(json.loads, text.splitlines()) if "FileNot" in str(e)]
    assert error["traceback"][0].startswith("sweep_experiment.py:")
    assert error["traceback"][0].endswith(' train: open("data.csv")')


def test_two_processes_give_what_a_loop_gives_and_failures_stop_nothing(results):
    with pytest.warns(UserWarning, match="3 of 7 runs failed, the first with FileNotFoundError"):
        runs = run(train, [*CONFIGS, *FAILURES], "failures", n_jobs=2)
    check_failures(runs, results)
    text = (results / "failures.jsonl").read_text()
    with pytest.warns(UserWarning):  # failed runs are not run again
        assert run(train, FAILURES[1:], "failures", n_jobs=2)["failure"].notna().all()
    assert (results / "failures.jsonl").read_text() == text
    with pytest.warns(UserWarning):  # unless it is asked for
        run(train, [*CONFIGS, *FAILURES[:2]], "failures", retry_failed=True)
    assert (results / "failures.jsonl").read_text().count("\n") == 7 + 2
    assert len(records.read("failures")) == 7


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    """A Dask scheduler and two worker processes, as their commands start them."""
    file = tmp_path_factory.mktemp("dask") / "scheduler.json"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        # Not one death: what a dying worker has just finished, unheard, counts as its death too.
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "2",
    }
    local = ["--host", "127.0.0.1", "--dashboard-address", ":0", "--scheduler-file", str(file)]
    two = ["--nworkers", "2", "--nthreads", "1", "--local-directory", str(file.parent)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "dask", *command, *local],
            env=environment,
            cwd=file.parent,
            stderr=subprocess.DEVNULL,
        )
        for command in (["scheduler", "--port", "0"], ["worker", *two])
    ]
    try:
        with Client(scheduler_file=str(file), set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
            yield client.scheduler.address
    finally:
        for process in reversed(processes):  # the workers first, or they look for their scheduler
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()


def test_a_dask_cluster_gives_what_a_loop_gives_and_failures_stop_nothing(scheduler, results):
    options = sweep.options(arguments=["--backend", "dask", "--scheduler", scheduler])
    with pytest.warns(UserWarning, match="3 of 7 runs failed, the first with FileNotFoundError"):
        runs = run(train, [*CONFIGS, *FAILURES], "failures", **options)
    check_failures(runs, results)
    again = run(train, CONFIGS, "failures", **options)
    assert found(again) == found(runs[:4])


def test_dask_workers_with_several_threads_or_other_code_are_refused(scheduler, monkeypatch):
    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0"
    ) as cluster:
        with pytest.raises(ValueError, match="scheduler: its workers need one thread each"):
            run(train, CONFIGS, backend="dask", scheduler=cluster)
    monkeypatch.setattr(workers, "fingerprint", lambda function: "00000000")
    with pytest.raises(RuntimeError, match="another state of tests"):
        run(train, CONFIGS, backend="dask", scheduler=scheduler)


def test_in_a_notebook_a_function_of_a_cell_runs_in_processes(results):
    cells = [
        "from mtl_utils import records, sweep",
        "scale = 10\ndef train(lr):\n    return {'loss': lr * scale}",
        "runs = sweep.run(train, sweep.grid(lr=[1, 2, 3]), 'cells', n_jobs=2)\n"
        "print(runs['loss'].tolist(), records.read('cells')['lr'].sum())",
        "def train(lr):\n    return {'loss': 0.0}",
        "sweep.run(train, sweep.grid(lr=[1, 2, 3]), 'cells', n_jobs=2)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = NotebookClient(notebook, allow_errors=True, resources={"metadata": {"path": results}})
    client.execute()
    outputs = notebook.cells[2].outputs
    printed = "".join(output.text for output in outputs if output.get("name") == "stdout")
    assert printed == "[10, 20, 30] 6\n"
    (error,) = [o for o in notebook.cells[4].outputs if o.output_type == "error"]
    assert error.evalue.startswith("record: 3 of the runs asked for were made by another state")


def test_a_run_has_one_thread_and_the_number_type_of_the_caller():
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    try:
        torch.set_num_threads(2)
        torch.set_default_dtype(torch.float64)
        runs = run(surroundings, [{"i": 0}, {"i": 1}], n_jobs=2)
        assert (torch.get_num_threads(), torch.get_default_dtype()) == (2, torch.float64)
        here = run(surroundings, [{"i": 0}, {"i": 1}])
        assert (torch.get_num_threads(), torch.get_default_dtype()) == (2, torch.float64)
    finally:
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
    assert here["threads"].tolist() == runs["threads"].tolist() == [1, 1]
    assert here["dtype"].tolist() == runs["dtype"].tolist() == ["torch.float64"] * 2
    assert runs["omp"].tolist() == ["1", "1"]


def surroundings(i):
    threads = torch.get_num_threads()
    torch.set_num_threads(3)  # what a run changes, it changes for itself
    dtype = str(torch.get_default_dtype())
    torch.set_default_dtype(torch.float32)
    return {"threads": threads, "dtype": dtype, "omp": os.environ.get("OMP_NUM_THREADS")}


def test_the_sweep_costs_little():
    """Far below 2 % of ten seconds (0.2 s) a run, on a busy machine too."""
    with records.Journal(None):  # imports are over
        run(nothing, [{"i": -1}])
    start = time.perf_counter()
    run(nothing, sweep.grid(i=range(100)), "nothing")
    assert (time.perf_counter() - start) / 100 < 0.05


def nothing(i):
    return {"loss": i}


# ---- what is run, and what is not ----------------------------------------------------------------


def test_a_record_is_completed_and_its_lines_hold_all_that_made_them(results):
    first = run(train, sweep.grid(seed=[2, 0, 2]), "toy")
    assert first["seed"].tolist() == [2, 0]  # in their order, each once
    runs = run(train, sweep.grid(seed=range(3)), "toy")
    assert runs["seed"].tolist() == [0, 1, 2]
    assert records.read("toy")["seed"].tolist() == [2, 0, 1]
    assert list(runs.columns) == ["seed", "slope", "loss", "run_seconds", "failure"]
    line = json.loads((results / "toy.jsonl").read_text().splitlines()[0])
    assert list(line) == ["function", "config", "result", "seconds", "versions"]
    assert line["function"] == "train"
    assert line["config"] == {"seed": 2}
    assert len(line["result"]["loss"]) == 3
    assert 0 < line["seconds"] < 60
    made_by = line["versions"]
    assert made_by["torch"] == torch.__version__
    assert made_by["python"] == ".".join(map(str, sys.version_info[:3]))
    assert made_by["code"] == workers.fingerprint(train)
    assert made_by["dtype"] == "float32"
    told = records.read("toy", versions=True).iloc[0]
    assert told["code"] == made_by["code"]
    assert told["function"] == "train"


def test_many_members_of_one_call_are_as_many_rows(results):
    runs = run(train_many, [{"first": 0, "n_seeds": 2}, {"first": 2, "n_seeds": 2}], "members")
    assert runs["seed"].tolist() == [0, 1, 2, 3]
    assert runs["first"].tolist() == [0, 0, 2, 2]
    assert (results / "members.jsonl").read_text().count("\n") == 2
    with torch.random.fork_rng():
        assert found(runs) == plain_loop(CONFIGS)


def test_two_functions_may_share_a_record():
    run(train, [{"seed": 0}], "shared")
    run(nothing, [{"i": 0}], "shared")
    assert len(records.read("shared")) == 2


def test_runs_of_other_code_are_not_taken_for_ours(results, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)

    def module(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        return importlib.import_module(name).train

    one = module("one", 'def train(a):\n    return {"b": a + 1}')
    layout = module("layout", '"What."\n\ndef train(a):  # who\n    "Why."\n    return {"b": a+1}')
    two = module("two", 'def train(a):\n    return {"b": a + 2}')
    assert workers.fingerprint(layout) != workers.fingerprint(two)
    run(one, [{"a": 0}], "code")
    assert run(layout, [{"a": 0}], "code")["b"].tolist() == [1]
    with pytest.raises(ValueError, match="record: 1 of the runs asked for were made by another"):
        run(two, [{"a": 0}, {"a": 1}], "code")
    assert run(two, [{"a": 1}], "code")["b"].tolist() == [3]
    assert run(two, [{"a": 0}, {"a": 1}], "code", keep_old=True)["b"].tolist() == [1, 3]
    assert records.read("code", versions=True)["code"].nunique() == 2


def test_every_version_of_python_reads_the_same_code(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    # 3.12 writes the quotes of this f-string otherwise, and gives functions and classes type_params
    text = 'class A:\n    b = 1\n\ndef train(a):\n    return {"b": f"{a["b"]!r:>3} it\'s"}\n'
    (tmp_path / "quoted.py").write_text(text.replace('a["b"]', "a['b']"))
    assert workers.fingerprint(importlib.import_module("quoted").train) == "6efeca67"


def test_the_code_of_an_experiment_includes_what_it_uses_of_its_package(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    study = """
from mtl_utils import workers
from .protocol import fit
def train(a):
    return {"b": fit(a)}
if __name__ == "__main__":
    print(workers.fingerprint(train))
"""
    for name, factor in (("trials_a", 1), ("trials_b", 1), ("trials_c", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
        (tmp_path / name / "unused.py").write_text(f"NAME = {name!r}")
        (tmp_path / name / "protocol.py").write_text(f"def fit(a):\n    return {factor} * a\n")
        (tmp_path / name / "study.py").write_text(study)
    a, b, c = (
        workers.fingerprint(importlib.import_module(f"{name}.study").train)
        for name in ("trials_a", "trials_b", "trials_c")
    )
    assert a == b != c
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    command = [sys.executable, "-m", "trials_a.study"]
    printed = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True)
    assert printed.stdout.decode().strip() == a


@pytest.mark.parametrize(
    ("function", "configs", "options", "error", "message"),
    [
        (train, [{"seed": 0, "rate": 1}], {}, TypeError, r"configs\[0\] of train: .*'rate'"),
        (train, [{"seed": 0}, {}], {}, TypeError, r"configs\[1\] of train: .*'seed'"),
        (train, [{"seed": object()}], {}, TypeError, "expected numbers, text, .* got object"),
        (lambda seed: {}, [], {}, TypeError, "function: expected a named function"),
        (train, [{"seed": 0}], {"backend": "dask"}, ValueError, "scheduler: Dask needs one"),
        (train, [{"seed": 0}], {"scheduler": "tcp://x:1"}, ValueError, "scheduler: Dask needs"),
        (train, [{"seed": 0}], {"backend": "slurm"}, ValueError, "backend: expected 'processes'"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(
    function, configs, options, error, message, results
):
    with pytest.raises(error, match=message):
        run(function, configs, "refused", **options)
    assert not (results / "refused.jsonl").exists()


def test_results_that_no_table_can_hold_are_failures():
    answers = [[], 3.0, {"a": object()}, {"failure": "x"}, [{"a": 1}, 2]]

    def answer(i):
        return answers[i]

    with pytest.warns(UserWarning, match="5 of 5 runs failed"):
        runs = run(answer, sweep.grid(i=range(5)))
    assert runs["failure"].str.contains("expected|is taken").all()


def test_grid_wants_lists():
    assert sweep.grid() == [{}]
    for values in ("equal", 3):
        with pytest.raises(TypeError, match="rule: expected a list of values"):
            sweep.grid(rule=values)


def test_the_bar_shows_the_time_left_and_the_failures(capsys):
    with pytest.warns(UserWarning):
        run(train, [*CONFIGS, FAILURES[0], {"seed": 9, "wait": 0.2}], "bar", progress=True)
    bar = capsys.readouterr().err
    assert "bar:" in bar
    assert "6/6" in bar or "5/6" in bar
    assert "failed=1" in bar


# ---- records -------------------------------------------------------------------------------------


def test_a_record_is_found_from_every_folder_of_the_repository(tmp_path, monkeypatch):
    monkeypatch.delenv("MTL_RESULTS")
    (tmp_path / "results").mkdir(exist_ok=True)
    run(train, CONFIGS, tmp_path / "results" / "99_toy")
    for folder in (".", "notebooks", "notebooks/research", "notebooks/student", "a b/c"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(tmp_path / folder)
        assert len(records.read("99_toy")) == 4
        assert len(records.read(records.find("99_toy"))) == 4
        assert records.place("new") == tmp_path / "results" / "new.jsonl"
    assert len(records.read("step_cost")) > 10  # of the repository that the package lies in
    with pytest.raises(FileNotFoundError) as error:
        records.read("99_tay")
    assert str(tmp_path / "a b" / "results") in str(error.value)
    assert "did you mean '99_toy'?" in str(error.value)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("MTL_RESULTS", str(tmp_path / "elsewhere"))
    with pytest.raises(FileNotFoundError, match=r"no record '99_toy' .* in any of \S*elsewhere$"):
        records.read("99_toy")


def test_curves_by_epoch():
    run(train, CONFIGS[:2], "curves")
    whole = records.read("curves")
    long = records.read("curves", by_epoch=["loss"])
    assert long["epoch"].tolist() == [1, 2, 3, 1, 2, 3]
    assert long["loss"].tolist() == [*whole["loss"][0], *whole["loss"][1]]
    assert long["loss"].dtype == float
    assert long["seed"].tolist() == [0, 0, 0, 1, 1, 1]
    with pytest.raises(ValueError, match="by_epoch: no column 'los'"):
        records.read("curves", by_epoch=["los"])
    with pytest.raises(ValueError, match="are not of one length"):
        records.explode(pd.DataFrame({"a": [[1, 2]], "b": [[1]]}), ["a", "b"])


def test_a_packed_record_is_read_and_gone_on_with(results):
    whole = run(train, sweep.grid(seed=range(3)), "packed")
    lines = (results / "packed.jsonl").read_bytes()
    with (results / "packed.jsonl").open("ab") as file:
        file.write(b'{"torn')
    path = records.pack("packed")
    assert path.name == "packed.jsonl.gz"
    assert not (results / "packed.jsonl").exists()
    assert gzip.decompress(path.read_bytes()) == lines
    content = path.read_bytes()
    assert records.pack("packed").read_bytes() == content
    assert found(records.read("packed")) == found(whole)
    run(train, sweep.grid(seed=range(3)), "packed")
    assert path.read_bytes() == content  # there was nothing to do
    run(train, sweep.grid(seed=range(4)), "packed")
    assert not path.exists()
    assert (results / "packed.jsonl").read_bytes().startswith(lines)
    assert len(records.read("packed")) == 4


def test_plain_values():
    value = {
        "a": np.float64(1 / 3),
        "b": np.arange(2),
        "c": (True, None, "x"),
        "d": torch.tensor([0.1], requires_grad=True),
        "e": np.int64(3),
        "f": float("nan"),
    }
    assert records.plain(value, digits=6) == {
        "a": 0.333333,
        "b": [0, 1],
        "c": [True, None, "x"],
        "d": [0.1],
        "e": 3,
        "f": pytest.approx(float("nan"), nan_ok=True),
    }
    assert records.plain(1 / 3) == 1 / 3
    json.dumps(records.plain(value))
