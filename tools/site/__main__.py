"""python -m tools.site    assembles build/site/source and builds build/site/html from it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tools.site import api, methods, notebooks

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "site"


def assemble(source: Path) -> None:
    """Write all pages, in Markdown or as notebooks, and the configuration of Sphinx."""
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(ROOT / "docs" / "site", source)
    for name in ("README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    (source / "docs").mkdir()
    for path in [*ROOT.glob("docs/*.md"), *ROOT.glob("docs/*.png")]:
        shutil.copy(path, source / "docs")
    _chinese(source / "docs" / "zh")
    notebooks.write(source)
    methods.write(source)
    api.write(source)


def _chinese(target: Path) -> None:
    """The Chinese pages, their index with the contents that Sphinx wants."""
    shutil.copytree(ROOT / "docs" / "zh", target)
    names = sorted(path.stem for path in target.glob("[0-9]*.md"))
    contents = ["", "```{toctree}", ":hidden:", ":maxdepth: 1", *names, "```", ""]
    with (target / "index.md").open("a", encoding="utf-8") as index:
        index.write("\n".join(contents))


def build(source: Path, target: Path, **options: Any) -> subprocess.CompletedProcess:
    """Run Sphinx, for which a link that leads nowhere is an error.

    Args:
        source: what `assemble` wrote.
        target: for the pages.
        options: of `subprocess.run`.
    """
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    return subprocess.run([*command, str(source), str(target)], cwd=ROOT, **options)


def main() -> int:
    assemble(BUILD / "source")
    done = build(BUILD / "source", BUILD / "html")
    if done.returncode == 0:
        print(f"{BUILD / 'html' / 'index.html'}")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
