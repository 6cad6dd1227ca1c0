"""pyproject.toml is the source; requirements.txt, environment.yml and the workflows follow it."""

import importlib.metadata
import os
import re
import stat
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
CONDA_NAMES = {"pytorch": "torch"}


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def ranges() -> dict[str, Requirement]:
    """Every direct dependency of the project, extras included."""
    table = project()
    lines = list(table["dependencies"])
    for extra in table["optional-dependencies"].values():
        lines += extra
    requirements = [Requirement(line) for line in lines]
    names = [canonicalize_name(r.name) for r in requirements]
    assert len(set(names)) == len(names), "a dependency is listed twice"
    return dict(zip(names, requirements, strict=True))


def pins() -> dict[str, Requirement]:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(r.name): r for r in requirements}


def pinned_version(requirement: Requirement) -> Version:
    (specifier,) = requirement.specifier
    assert specifier.operator == "==", f"{requirement} is not pinned"
    assert "*" not in specifier.version, f"{requirement} is not pinned"
    return Version(specifier.version)


def test_requirements_pin_the_whole_set_inside_the_ranges():
    pinned = {name: pinned_version(r) for name, r in pins().items()}
    for name, requirement in ranges().items():
        assert name in pinned, f"{name} is not in requirements.txt: make lock"
        assert pinned[name] in requirement.specifier, f"{requirement}, pinned {pinned[name]}"
    assert pinned["torch"] == Version("2.13.0")


def test_requirements_hold_what_the_pinned_packages_ask_for():
    """The pins are closed: no package asks for one that is not pinned (torch's CUDA set aside)."""
    pinned = pins()
    for name in pinned:
        try:
            asked = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform
        for requirement in map(Requirement, asked):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                need = canonicalize_name(requirement.name)
                of_torch = name == "torch" and re.match("nvidia|cuda|triton", need)
                assert need in pinned or of_torch, f"{name} needs {need}"


def test_environment_yml_names_the_same_set_with_a_reason_each():
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.strip().startswith("- ") and not line.strip().startswith("- pip:"):
            assert re.search(r"  # \S", line), f"environment.yml: no reason given in {line!r}"
    *conda, pip = yaml.safe_load(text)["dependencies"]
    *from_pip, itself = pip["pip"]
    assert itself == "--no-deps -e ."
    found = {}
    for line in [*conda, *from_pip]:
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        found[CONDA_NAMES.get(name, name)] = str(requirement.specifier)
    assert found.pop("python") == project()["requires-python"]
    assert found.pop("pip")
    assert found == {name: str(r.specifier) for name, r in ranges().items()}


@pytest.mark.skipif("MTL_UNPINNED" in os.environ, reason="MTL_UNPINNED: other versions on purpose")
def test_the_running_environment_is_the_pinned_one():
    for name, requirement in pins().items():
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        installed = Version(importlib.metadata.version(name))
        assert Version(installed.public) == pinned_version(requirement), name


def test_the_running_environment_is_inside_the_ranges():
    for name, requirement in ranges().items():
        if "MTL_UNPINNED" in os.environ and name in ("ruff", "mypy", "jupytext", "uv"):
            continue  # the extra for contributors is not installed there
        assert requirement.specifier.contains(importlib.metadata.version(name), prereleases=True)


def test_ci_calls_the_readmes_test_command():
    run = ROOT / ".ci" / "run"
    assert "make test" in run.read_text(encoding="utf-8")
    assert os.name == "nt" or run.stat().st_mode & stat.S_IXUSR
    assert "`make test`" in (ROOT / "README.md").read_text(encoding="utf-8")
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    steps = [step.get("run", "") for step in workflow["jobs"]["pinned"]["steps"]]
    assert "make test" in steps
    oldest = workflow["jobs"]["torch-range"]["strategy"]["matrix"]["torch"][0]
    lower = re.search(r">=([\d.]+)", str(ranges()["torch"].specifier)).group(1)
    assert oldest == f"torch=={lower}.*", "CI's oldest torch is not the oldest that is supported"
    matrix = workflow["jobs"]["systems"]["strategy"]["matrix"]["os"]
    assert {name.split("-")[0] for name in matrix} == {"macos", "windows"}
