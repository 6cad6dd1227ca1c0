"""What the README shows is there and works."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_table_and_picture_are_up_to_date():
    command = [sys.executable, "tools/readme.py", "--check"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


def test_a_stale_table_is_noticed():
    sys.path.insert(0, str(ROOT / "tools"))
    import readme

    assert readme.with_table(README) == README
    assert readme.with_table(README.replace("Start here", "Begin here")) == README


def test_front_matter_of_the_wrong_form_is_named(tmp_path):
    import nbformat.v4 as v4

    sys.path.insert(0, str(ROOT / "tools"))
    import readme

    path = tmp_path / "07_x.ipynb"
    import nbformat

    nbformat.write(v4.new_notebook(cells=[v4.new_markdown_cell("# 07 · X\n\nno promise")]), path)
    with pytest.raises(ValueError, match=r"07_x\.ipynb: the first cell has no promise"):
        readme.front_matter(path)


def test_python_blocks_run_in_order(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 2
    script = tmp_path / "readme_blocks.py"
    script.write_text("\n".join(blocks), encoding="utf-8")
    found = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"`make ([a-z]+)", README))
    assert {"run", "test", "lab"} <= named <= targets


def test_links_and_pictures_resolve():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if not target.startswith(("http://", "https://", "#")):
            assert (ROOT / target).exists(), target
    for name in re.findall(r"`((?:tests|notebooks|tools|docs)/[\w./-]+)`", README):
        if name != "notebooks/student/":  # generated
            assert (ROOT / name).exists(), name
