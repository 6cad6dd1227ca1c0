"""Cells that are compared less strictly than the others are listed, each with its reason."""

from pathlib import Path

from notebook_gate.rules import exemptions
from tools.notebooks import FOLDER, find

ROOT = Path(__file__).resolve().parents[1]


def test_exemptions_are_the_listed_ones():
    lines = (ROOT / "tests" / "exemptions.txt").read_text(encoding="utf-8").splitlines()
    listed = [line for line in lines if line and not line.startswith("#")]
    found = [line for path in find() for line in exemptions(path, FOLDER)]
    new, stale = sorted({*found} - {*listed}), sorted({*listed} - {*found})
    assert not new, "not in tests/exemptions.txt:\n" + "\n".join(new)
    assert not stale, "no longer true, remove from tests/exemptions.txt:\n" + "\n".join(stale)
    assert len(listed) == len(found), "a line of tests/exemptions.txt is there twice"
