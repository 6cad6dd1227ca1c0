"""Build the wheel and try it in two new environments: python -m tools.wheel

build/wheel/bare has the wheel alone, with the pinned versions of what it needs: there
tests/without_extras.py imports every module, trains a step, and looks at what functions say that
need more. build/wheel/notebooks has the extra `notebooks` as well: there the first cell of every
lesson runs, beside copies of `experiments` and `benchmarks`, which the wheel does not hold. Needs
the network, or a folder of wheels (PIP_FIND_LINKS), and some minutes.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

from notebook_gate import execute
from tools.notebooks import FOLDER, find, label, read

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "wheel"


def run(*command: str | Path, cwd: Path) -> None:
    """Run a program that finds neither this checkout nor the user's packages."""
    print("$", *command, flush=True)
    subprocess.run(["env", "-u", "PYTHONPATH", *command], cwd=cwd, check=True)


def environment(name: str, wheel: str) -> Path:
    """A new environment with a wheel and the pinned versions of what it needs; its Python."""
    folder = BUILD / name
    venv.create(folder, with_pip=True, clear=True)
    python = folder / "bin" / "python"
    pins = ROOT / "requirements.txt"
    run(python, "-m", "pip", "install", "--quiet", "-c", pins, wheel, cwd=BUILD)
    return python


def first_cells(folder: Path) -> Path:
    """A program that runs the first cell of each lesson, in a folder with what it imports."""
    for name in ("experiments", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name)
    lines = []
    for path in find():
        if path.parent == FOLDER:
            source = execute.code_cells(read(path))[0].source
            lines += [f"exec({source!r}, {{}})", f"print('first cell of', {label(path)!r})"]
    program = folder / "first_cells.py"
    program.write_text("\n".join(lines), encoding="utf-8")
    return program


def main() -> int:
    shutil.rmtree(BUILD, ignore_errors=True)
    BUILD.mkdir(parents=True)
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", BUILD, ROOT, cwd=BUILD)
    (wheel,) = BUILD.glob("*.whl")
    python = environment("bare", str(wheel))
    run(python, ROOT / "tests" / "without_extras.py", cwd=BUILD)
    python = environment("notebooks", f"{wheel}[notebooks]")
    run(python, first_cells(BUILD / "lessons"), cwd=BUILD / "lessons")
    print(f"✓ {wheel.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
