"""The core of `mtl_utils` without the packages of the notebooks; the wheel itself: `make wheel`."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name as plain

from mtl_utils.extras import extra

ROOT = Path(__file__).resolve().parents[1]


def needed_by(names: set[str]) -> set[str]:
    """Names of packages that are installed, and of what they need."""
    found: set[str] = set()
    while names:
        found |= names
        lines = [Requirement(line) for name in names for line in requires(name) or []]
        wanted = {plain(r.name) for r in lines if not r.marker or r.marker.evaluate({"extra": ""})}
        names = {name for name in wanted - found if is_installed(name)}
    return found


def is_installed(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def test_without_the_packages_of_the_extras():
    core = needed_by({"torch", "numpy", "pandas", "tqdm"})
    mine = {"mtl-loss-weighting"}
    barred = [
        module
        for module, distributions in packages_distributions().items()
        if not {plain(name) for name in distributions} & (core | mine)
    ]
    assert {"matplotlib", "scipy", "IPython", "joblib"} <= set(barred)
    assert not {"torch", "numpy", "pandas", "tqdm", "sympy"} & set(barred)
    command = [sys.executable, str(ROOT / "tests" / "without_extras.py"), *barred]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    wanting = done.stdout.splitlines()[1:]
    assert {"mtl_utils.notebook", "mtl_utils.plots", "mtl_utils.sweep"} <= set(wanting)
    named = {"training", "models", "losses", "gradients", "solvers", "datasets", "weighting"}
    assert not {f"mtl_utils.{name}" for name in named} & set(wanting)


def test_what_is_missing_in_the_package_itself_is_no_matter_of_extras():
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'mtl_utils\.nothing'$"):
        with extra("notebooks"):
            import mtl_utils.nothing  # noqa: F401
