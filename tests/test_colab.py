"""Copies for Colab: the badge, the first cell, the links; the gate runs them, too."""

import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from notebook_gate import execute
from tools import colab
from tools import notebooks as tool

ROOT = Path(__file__).resolve().parents[1]
REPOSITORY = "some-one/some.name"
HERE = f"https://colab.research.google.com/github/{REPOSITORY}/blob/colab/notebooks/"
GITHUB = f"https://github.com/{REPOSITORY}/blob/{colab.TAG}/"


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> dict[str, Path]:
    """The copies by their names."""
    target = tmp_path_factory.mktemp("build") / "colab"
    paths = colab.write(REPOSITORY, target)
    return {path.relative_to(target / "notebooks").as_posix(): path for path in paths}


def test_there_is_a_copy_of_each_and_a_page_that_lists_them(written):
    assert [*written] == [f"{tool.label(path)}.ipynb" for path in tool.find()]
    page = (written["00_start_here.ipynb"].parents[1] / "README.md").read_text(encoding="utf-8")
    assert re.findall(rf"{HERE}([\w/]+\.ipynb)", page) == [*written]


@pytest.mark.parametrize("path", tool.find(), ids=tool.label)
def test_badge_and_first_cell_and_nothing_else(written, path):
    name = f"{tool.label(path)}.ipynb"
    original, made = tool.read(path), tool.read(written[name])
    assert f"]({HERE}{name})" in made.cells[0].source.splitlines()[2]
    added = made.cells.pop(1)
    assert added.source.startswith("#@title ") and added.metadata.jupyter.source_hidden
    assert f"-b {colab.TAG} https://github.com/{REPOSITORY} course" in added.source
    assert len(original.cells) == len(made.cells)
    pairs = zip(execute.code_cells(original), execute.code_cells(made), strict=True)
    for before, after in pairs:
        assert (before.source, before.metadata) == (after.source, after.metadata)
        assert len(before.outputs) == len(after.outputs)


def test_every_link_leads_to_a_copy_or_to_a_file_of_the_repository(written):
    for path in written.values():
        cells = [cell for cell in tool.read(path).cells if cell.cell_type == "markdown"]
        for link in re.findall(r"\]\(([^)\s]+)\)", "\n".join(cell.source for cell in cells)):
            assert re.match("https?:|#|attachment:", link), f"{path.name}: {link}"
            name = link.partition("#")[0]
            if link.startswith(HERE):
                assert name.removeprefix(HERE) in written
            if link.startswith(GITHUB):
                assert (ROOT / name.removeprefix(GITHUB)).exists()


def test_the_same_bytes_every_time(written, tmp_path):
    for path in colab.write(REPOSITORY, tmp_path / "colab"):
        name = path.relative_to(tmp_path / "colab" / "notebooks").as_posix()
        assert path.read_bytes() == written[name].read_bytes()


def test_elsewhere_the_first_cell_does_nothing_and_the_gate_is_green(written, tmp_path):
    """The first cells of a copy, in a folder of its own; without git and pip to call."""
    notebook = tool.read(written["00_start_here.ipynb"])
    third = [n for n, cell in enumerate(notebook.cells) if cell.cell_type == "code"][2]
    notebook.cells = notebook.cells[: third + 1]
    nbformat.write(notebook, tmp_path / "test_copy.ipynb")
    shutil.copy(ROOT / "conftest.py", tmp_path)
    command = [sys.executable, "-m", "pytest", "--nbval", "-n", "0", "-p", "no:cacheprovider", "."]
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0 and "3 passed" in done.stdout, done.stdout + done.stderr
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix != "") == [
        "conftest.py",
        "test_copy.ipynb",
    ]


def test_the_button_of_the_site_leads_to_the_copies(monkeypatch):
    """It is there where a workflow builds the site, and then the theme makes its address."""
    settings = str(ROOT / "docs" / "site" / "conf.py")
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    assert "launch_buttons" not in runpy.run_path(settings)["html_theme_options"]
    monkeypatch.setenv("GITHUB_REPOSITORY", REPOSITORY)
    options = runpy.run_path(settings)["html_theme_options"]
    assert options["repository_url"] == f"https://github.com/{REPOSITORY}"
    colab_url, branch = options["launch_buttons"]["colab_url"], options["repository_branch"]
    assert HERE == f"{colab_url}/github/{REPOSITORY}/blob/{branch}/notebooks/"


class Shell:
    """Stands for IPython's, and writes down what it is asked to do."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def system(self, command: str) -> None:
        self.asked.append(command)

    def run_line_magic(self, name: str, line: str) -> None:
        self.asked.append(f"%{name} {line}")


@pytest.mark.parametrize("folder", ["notebooks", "notebooks/research"])
def test_on_colab_it_installs_once(written, folder, tmp_path, monkeypatch):
    path = next(path for path in tool.find() if path.parent == ROOT / folder)
    code = TransformerManager().transform_cell(colab.first_cell(path, "ADDRESS").source)
    monkeypatch.setitem(sys.modules, "google.colab", object())
    monkeypatch.setattr(sys, "path", [])
    (tmp_path / "course" / folder).mkdir(parents=True)
    (tmp_path / "course" / "mtl_utils").mkdir()
    shell = Shell()
    for place in (tmp_path, tmp_path / "course" / folder):
        monkeypatch.chdir(place)
        exec(code, {"get_ipython": lambda: shell})
    clone, install, change = shell.asked
    assert f"-b {colab.TAG} ADDRESS course" in clone
    assert install == '%pip install --quiet -e "course[notebooks]"'
    assert change == f"%cd -q course/{folder}"
    assert len(sys.path) == 1


@pytest.mark.parametrize("arguments", [[], ["name"], ["a/b", "c/d"], ["https://github.com/a/b"]])
def test_it_says_what_is_missing(arguments, capsys):
    assert colab.main(arguments) == 2
    assert "make colab REPO=owner/name" in capsys.readouterr().err
