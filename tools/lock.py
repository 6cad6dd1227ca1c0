"""Resolve pyproject.toml, with all its extras, into the pinned requirements.txt.

torch is held at the release that the course's outputs were recorded with. The CUDA packages that
torch itself asks for on Linux are left out: pip adds those that the build of torch at hand needs.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TORCH = "torch==2.13.0"
OF_TORCH = re.compile(r"(nvidia-|cuda-|triton)")
HEADER = """\
# The whole resolved set of pyproject.toml with all its extras, for every platform.
# Made by `make lock`; change the ranges in pyproject.toml, not this file.
"""


def main() -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraint:
        constraint.write(TORCH + "\n")
        constraint.flush()
        command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--quiet"]
        command += ["--universal", "--python-version", "3.11", "--all-extras", "--upgrade"]
        command += ["--no-annotate", "--no-header", "--constraint", constraint.name]
        found = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    pins = [line for line in found.stdout.splitlines() if not OF_TORCH.match(line)]
    (ROOT / "requirements.txt").write_text(HEADER + "\n".join(pins) + "\n", encoding="utf-8")
    print(f"requirements.txt: {len(pins)} packages")


if __name__ == "__main__":
    main()
