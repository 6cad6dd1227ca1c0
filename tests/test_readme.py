"""What the README shows is there and works."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tools import readme

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

LINK = "[00](../notebooks/00_start_here.ipynb)"


def test_table_and_picture_are_up_to_date():
    command = [sys.executable, "tools/readme.py", "--check"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A folder with what tools/readme.py reads and writes, up to date."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    (tmp_path / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks" / "00_start_here.ipynb", tmp_path / "notebooks")
    (tmp_path / "results").mkdir()
    shutil.copy(ROOT / "results" / "step_cost.csv", tmp_path / "results")
    (tmp_path / "README.md").write_text(README, encoding="utf-8")
    (tmp_path / "docs" / "teaching.md").write_text(f"| 1 | {LINK} | 99 | why |\n")
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    assert readme.main(["--check"]) == 1
    assert readme.main([]) == 0
    assert readme.main(["--check"]) == 0
    return tmp_path


def test_a_stale_table_is_noticed_and_mended(copy, capsys):
    path = copy / "README.md"
    fresh = path.read_text(encoding="utf-8")
    path.write_text(fresh.replace("[00 ·", "[09 ·"), encoding="utf-8")
    assert readme.main(["--check"]) == 1
    assert "\n-| [09 ·" in capsys.readouterr().out
    readme.main([])
    assert path.read_text(encoding="utf-8") == fresh


def test_the_minutes_of_a_plan_are_those_of_the_lessons(copy):
    first = readme.front_matter(copy / "notebooks" / "00_start_here.ipynb")["time"]
    plan = (copy / "docs" / "teaching.md").read_text(encoding="utf-8")
    assert plan == f"| 1 | {LINK} | {first.split()[0]} | why |\n"
    twice = readme.with_minutes(f"| 2 | {LINK}, {LINK} | 1 + 2 |\n| 3 | {LINK} | about 40 |\n")
    assert twice == f"| 2 | {LINK}, {LINK} | 30 + 30 |\n| 3 | {LINK} | about 40 |\n"


def test_a_report_stands_beside_its_lesson(copy):
    assert "research" not in readme.table()
    (copy / "notebooks" / "research").mkdir()
    for name in ("00_gallery.ipynb", "07_other.ipynb"):  # the number counts
        (copy / "notebooks" / "research" / name).touch()
    assert readme.table().count("[research]") == 1
    assert " · [research](notebooks/research/00_gallery.ipynb)" in readme.table()


def test_step_costs_follow_their_record(copy, capsys):
    path = copy / "results" / "step_cost.csv"
    record = path.read_text(encoding="utf-8").splitlines()
    columns = record[0].split(",")
    for place, line in enumerate(record):
        cells = line.split(",")
        if cells[:3] == ["mlp", "10", "ours: mgda"]:
            cells[columns.index("ratio")] = "77.7"
            record[place] = ",".join(cells)
    path.write_text("\n".join(record), encoding="utf-8")
    assert readme.main(["--check"]) == 1
    assert "| MGDA | " in capsys.readouterr().out


def test_a_stale_picture_is_noticed(copy):
    (copy / "docs" / "method_map.png").write_bytes(b"another")
    assert readme.main(["--check"]) == 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("# X\n\n**Promise.** a\n\n| Time | 5 min to read, 6 s to run |", "no title"),
        ("# 07 · X\n\n| Time | 5 min to read, 6 s to run |", "no promise"),
        ("# 07 · X\n\n**Promise.** a\n\n| Time | soon |", "no time"),
        ("# 08 · X\n\n**Promise.** a\n\n| Time | 5 min to read, 6 s to run |", "notebook 08"),
        (None, "no title"),
    ],
)
def test_front_matter_of_the_wrong_form_is_named(copy, text, complaint):
    cells = [] if text is None else [nbformat.v4.new_markdown_cell(text)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbformat.write(notebook, copy / "notebooks" / "07_x.ipynb")
    message = readme.main(["--check"])  # text: printed, and exit status 1
    assert isinstance(message, str)
    assert "07_x.ipynb: " in message
    assert complaint in message


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


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed (Windows)")
def test_make_knows_every_command_shown():
    """`make -n` reads the Makefile and prints what each command would do, without doing it."""
    for command in re.findall(r"`(make [^`]+)`", README):
        name, *arguments = command.split()
        found = subprocess.run([name, "-n", *arguments], cwd=ROOT, capture_output=True, text=True)
        assert found.returncode == 0, f"{command}: {found.stderr}"
        assert ".venv/bin/" in found.stdout, command


def test_files_that_are_named_are_there():
    for name in re.findall(r"`((?:tests|notebooks|tools|docs)/[\w./-]+)`", README):
        if name != "notebooks/student/":  # generated
            assert (ROOT / name).exists(), name
