"""Plain `pytest` as people call it: from elsewhere, without xdist, read-only, without a home."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from nbformat import NotebookNode, v4, write

from tests.test_gate import png

ROOT = Path(__file__).resolve().parents[1]
TEST = "def test_one():\n    pass\n\n\ndef test_two():\n    pass\n"
FIGURE = "import matplotlib.pyplot as plt\nplt.subplots(figsize=(1, 1), dpi=10)\nplt.show()"
OTHER = png((40, 40), line=20)
MOUNT = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'


def write_notebook(path: Path, source: str, output: NotebookNode) -> None:
    cell = v4.new_code_cell(source, execution_count=1, outputs=[output])
    kernel = {"name": "python3", "display_name": "Python 3"}
    write(v4.new_notebook(cells=[cell], metadata={"kernelspec": kernel}), path)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A checkout with one small notebook and one small test, in a folder with spaces."""
    folder = tmp_path_factory.mktemp("a folder") / "with spaces"
    for name in ("mtl_utils", "notebook_gate"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "tests").mkdir()
    (folder / "tests" / "test_small.py").write_text(TEST)
    (folder / "notebooks").mkdir()
    output = v4.new_output("stream", text="1\n")
    write_notebook(folder / "notebooks" / "00_small.ipynb", "print(1)", output)
    return folder


def run(*arguments: str, cwd: Path, prefix: tuple[str, ...] = (), **variables: str) -> str:
    """The last line of pytest's report."""
    environment = {**os.environ, **variables}
    environment.pop("PYTHONPATH", None)
    command = [*prefix, sys.executable, "-m", "pytest", "-q", "--color=no", *arguments]
    found = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert found.stdout, found.stderr
    return found.stdout.splitlines()[-1] if found.returncode == 0 else found.stdout + found.stderr


def test_in_the_checkout(checkout):
    assert "3 passed" in run(cwd=checkout)


def test_from_another_directory_without_xdist_and_without_a_home(checkout, tmp_path):
    """/dev/null is a home in which nobody can write, not even root."""
    arguments = ("-p", "no:xdist", str(checkout))
    assert "3 passed" in run(*arguments, cwd=tmp_path, HOME=os.devnull)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts as on Linux")
def test_in_a_read_only_checkout(checkout, tmp_path):
    folder = shutil.copytree(checkout, tmp_path / "read only")
    data = {"image/png": OTHER, "text/plain": "<Figure size 10x10 with 1 Axes>"}
    other = v4.new_output("display_data", data)
    write_notebook(folder / "notebooks" / "01_figure.ipynb", FIGURE, other)
    prefix = ()
    for path in [folder, *folder.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o222)
    if os.getuid() == 0:  # may write all the same
        prefix = ("unshare", "--mount", "sh", "-c", MOUNT, str(folder))
        if subprocess.run([*prefix, "true"], capture_output=True).returncode:
            pytest.skip("root may write anywhere, and mount nothing here")
    report = run("-n", "0", cwd=folder, prefix=prefix)
    assert "1 failed, 3 passed" in report
    assert "figure 1: the figure's size differs" in report
    assert "the pictures are not kept: [Errno " in report
