"""pyproject.toml is the source; requirements.txt, environment.yml and the workflows follow it."""

import importlib.metadata
import json
import os
import re
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import mtl_utils

ROOT = Path(__file__).resolve().parents[1]
CONDA_NAMES = {"pytorch": "torch"}
UNPINNED = "MTL_UNPINNED" in os.environ
OF_THE_PINS = pytest.mark.skipif(UNPINNED, reason="MTL_UNPINNED: other versions on purpose")


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


def pins() -> list[tuple[str, Requirement]]:
    """Every line of requirements.txt; a name may have several, for several Pythons or systems."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return [(canonicalize_name(r.name), r) for r in requirements]


def pins_here() -> dict[str, Version]:
    """The pins that hold for this Python on this system: one a name."""
    here = [(name, r) for name, r in pins() if r.marker is None or r.marker.evaluate()]
    found = {name: pinned_version(r) for name, r in here}
    assert len(found) == len(here), "two pins of one package hold at once"
    return found


def pinned_version(requirement: Requirement) -> Version:
    (specifier,) = requirement.specifier
    assert specifier.operator == "==", f"{requirement} is not pinned"
    assert "*" not in specifier.version, f"{requirement} is not pinned"
    return Version(specifier.version)


def test_requirements_pin_the_whole_set_inside_the_ranges():
    allowed = ranges()
    for name, requirement in pins():
        version = pinned_version(requirement)
        if name in allowed:
            assert version in allowed[name].specifier, f"{allowed[name]}, pinned {version}"
    missing = set(allowed) - set(pins_here())
    assert not missing, f"not in requirements.txt, run make lock: {missing}"
    assert pins_here()["torch"] == Version("2.13.0")


@OF_THE_PINS
def test_requirements_hold_what_the_pinned_packages_ask_for():
    """The pins are closed: no package asks for one that is not pinned (torch's CUDA set aside)."""
    pinned = pins_here()
    for name in pinned:
        for requirement in map(Requirement, importlib.metadata.requires(name) or []):
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
    assert itself == "-e ."  # conda hands these lines to pip as a file, which takes no --no-deps
    found = {}
    for line in [*conda, *from_pip]:
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        found[CONDA_NAMES.get(name, name)] = str(requirement.specifier)
    assert found.pop("python") == project()["requires-python"]
    assert found.pop("pip")
    assert found == {name: str(r.specifier) for name, r in ranges().items()}


@OF_THE_PINS
def test_the_running_environment_is_the_pinned_one():
    for name, pinned in pins_here().items():
        installed = Version(importlib.metadata.version(name))
        assert Version(installed.public) == pinned, f"{name} {installed}, pinned {pinned}"


def test_the_running_environment_is_inside_the_ranges():
    for_contributors = {Requirement(r).name for r in project()["optional-dependencies"]["dev"]}
    for name, requirement in ranges().items():
        if UNPINNED and name in for_contributors:
            continue  # that extra is not installed there
        assert requirement.specifier.contains(importlib.metadata.version(name), prereleases=True)


def test_the_package_itself_needs_only_its_core_dependencies():
    """`pip install mtl-loss-weighting` without extras gives what a training loop imports."""
    extras = project()["optional-dependencies"]
    names = {canonicalize_name(Requirement(r).name) for extra in extras.values() for r in extra}
    spelled = {
        "scikit-learn": "sklearn",
        "pillow": "PIL",
        "pyyaml": "yaml",
        "pytest-xdist": "xdist",
    }
    modules = {spelled.get(name, name.replace("-", "_")) for name in names} - {"sympy"}  # of torch
    program = "import sys, mtl_utils.models, mtl_utils.training\nprint(*sys.modules, sep='\\n')"
    command = [sys.executable, "-c", program]
    loaded = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not modules & {name.split(".")[0] for name in loaded.split()}


def runs(job: dict) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def test_ci_runs_the_readmes_commands():
    run = ROOT / ".ci" / "run"
    assert run.read_text(encoding="utf-8").splitlines()[-1] == "make test"
    assert os.name == "nt" or run.stat().st_mode & stat.S_IXUSR
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]
    assert {"make test", "make run", "make lint"} == set(runs(jobs["pinned"]))
    for command in runs(jobs["pinned"]):
        assert f"`{command}`" in readme
    (block,) = re.findall(r"```powershell\n(.*?)```", readme, re.DOTALL)
    of_readme = [line.split("Scripts\\")[1] for line in block.splitlines() if "Scripts" in line]
    of_ci = runs(jobs["systems"])
    assert [line.removeprefix("python -m ") for line in of_ci] == [
        line.removeprefix("python -m ") for line in of_readme
    ]


def test_ci_covers_the_systems_and_the_range_of_torch():
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]
    systems = {"ubuntu-latest", "macos-latest", "windows-latest"}
    assert set(jobs["systems"]["strategy"]["matrix"]["os"]) == systems - {jobs["pinned"]["runs-on"]}
    matrix = jobs["torch-range"]["strategy"]["matrix"]
    assert set(matrix["os"]) == systems
    assert matrix["torch"] == ["torch"]  # the newest
    (specifier,) = ranges()["torch"].specifier
    (oldest,) = matrix["include"]
    assert specifier.operator == ">="
    assert oldest == {"os": "ubuntu-latest", "torch": f"torch=={specifier.version}.*"}
    assert all("MTL_UNPINNED" in jobs[name]["env"] for name in ("torch-range", "conda"))
    install = runs(jobs["torch-range"])[1]
    assert install.split()[-1] == f"matplotlib=={pins_here()['matplotlib']}"


@pytest.mark.parametrize("path", sorted(ROOT.glob(".github/workflows/*.yml")), ids=lambda p: p.name)
def test_workflows_run_what_the_makefile_has(path):
    """All that can be known of them without GitHub."""
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert "permissions" in workflow
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 90
        assert re.fullmatch(r"\w+-latest|\$\{\{ matrix\.os \}\}", job["runs-on"])
        for step in job["steps"]:
            assert re.search(r"@v\d+$", step["uses"]) if "uses" in step else step["run"]
        for command in re.findall(r"^make (\S+)", "\n".join(runs(job)), re.MULTILINE):
            assert command in targets()


def targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))


def test_the_container_sets_up_what_make_does():
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text(encoding="utf-8"))
    assert container["postCreateCommand"] == "make .venv/.ready"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "VENV := .venv\n" in makefile and "READY := $(VENV)/.ready\n" in makefile
    oldest = project()["requires-python"].removeprefix(">=")
    assert container["image"].endswith(f"python:{oldest}")


def test_one_version_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    log = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\d\S*) - (\S+)$", log, re.MULTILINE)
    assert newest is not None
    version, date = newest.groups()
    assert version == project()["version"] == mtl_utils.__version__ == citation["version"]
    assert date == str(citation["date-released"])
