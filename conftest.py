"""Loads the notebook gate. Imports nothing that starts threads before the environment is set."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("MPLBACKEND", "agg")  # of the unit tests; the notebooks' kernels draw inline

pytest_plugins = ["tests.gate.plugin"]
