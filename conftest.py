"""Loads the notebook gate. Imports nothing that starts threads before the environment is set."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("MPLBACKEND", "agg")  # of the unit tests; the notebooks' kernels draw inline

pytest_plugins = ["notebook_gate.plugin"]


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Two workers, unless the command line says how many; each file, so each notebook, on one.

    Not in `addopts`, where `-n` is an error without pytest-xdist (`-p no:xdist`).
    """
    options = config.option
    if not config.pluginmanager.hasplugin("xdist") or hasattr(config, "workerinput"):
        return
    if options.numprocesses is None and not options.usepdb:
        options.numprocesses = 2
    if options.numprocesses and options.dist == "no":
        options.dist = "loadfile"
