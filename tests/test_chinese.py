"""The Chinese pages: one a lesson, complete, and of the English that is there today."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from tools import chinese
from tools import notebooks as tool

HAN = re.compile(r"[\u4e00-\u9fff]")
GLOSSARY = chinese.ROOT / "docs" / "glossary.md"
LESSONS = [path for path in tool.find() if path.parent == tool.FOLDER]
each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=tool.label)


def page(lesson: Path) -> str:
    return chinese.page_of(lesson).read_text(encoding="utf-8")


def terms(lesson: Path) -> list[list[str]]:
    """Chinese, English and meaning of each term of a page."""
    return chinese.rows(chinese.section(page(lesson), "术语"))


def glossary() -> dict[str, str]:
    """Chinese for the English of the course's glossary."""
    found = {}
    for english, zh, _ in chinese.rows(GLOSSARY.read_text(encoding="utf-8")):
        names = re.sub(r" ?\(.*?\)", "", english).split(", ")
        found.update(dict.fromkeys(names, re.sub(r"（.*?）", "", zh)))
    return found


def unlike_glossary(rows: list[list[str]]) -> list[str]:
    """English terms for which the glossary has other Chinese."""
    known = glossary()
    return [english for zh, english, _ in rows if zh not in known.get(english, zh)]


def test_a_page_for_each_lesson_and_none_besides():
    there = {path.stem for path in chinese.PAGES.glob("*.md")} - {"index"}
    assert there == {path.stem for path in LESSONS}


@each_lesson
def test_it_is_complete(lesson):
    text, parts, wanted = page(lesson), chinese.chinese(page(lesson)), chinese.english(lesson)
    assert re.match(rf"# {lesson.name[:2]} · ", text)
    assert "**本课目标。** " in text and chinese.section(text, "你需要")
    for name, one, other in zip(parts._fields, parts, wanted, strict=True):
        assert len(one) == len(other), f"{name}: {len(one)} here, {len(other)} in the lesson"
        assert all(HAN.search(line) for line in one), f"{name}: not all is Chinese"


@each_lesson
def test_it_is_of_the_english_that_is_there(lesson):
    assert chinese.is_current(lesson), chinese.advice(lesson)


@each_lesson
def test_its_terms_are_those_of_the_lesson(lesson):
    rows = terms(lesson)
    assert len(rows) >= 5 and all(len(row) == 3 and all(row) for row in rows)
    said = re.sub(r"\s+", " ", "\n".join(chinese.texts(lesson)).replace("*", "")).lower()
    assert [row[1] for row in rows if row[1].lower() not in said] == []
    assert unlike_glossary(rows) == []


def test_the_index_has_the_title_of_every_page():
    index = (chinese.PAGES / "index.md").read_text(encoding="utf-8")
    pages = sorted(set(chinese.PAGES.glob("*.md")) - {chinese.PAGES / "index.md"})
    titles = [(path.read_text(encoding="utf-8").splitlines()[0][2:], path.name) for path in pages]
    assert re.findall(r"^- \[(.+)\]\((.+)\)$", index, re.MULTILINE) == titles


@pytest.mark.parametrize("path", tool.find(), ids=tool.label)
def test_notebooks_are_in_one_language(path):
    assert not any(HAN.search(cell.source) for cell in nbformat.read(path, as_version=4).cells)


def test_changes_are_seen(tmp_path, monkeypatch):
    """A point more, another word in the summary; but not another reading time."""
    monkeypatch.setattr(chinese, "PAGES", tmp_path)
    lesson = tmp_path / "03.ipynb"
    summary = "## Summary\n\n- A.\n\n| | |\n|---|---|\n| **It costs** | C |\n\n## Exercises\n"
    front = "# 03 · T\n\n| | |\n|---|---|\n| You will be able to | a · b |\n| Time | 5 min |\n"

    def write(front: str, summary: str) -> None:
        cells = [nbformat.v4.new_markdown_cell(front), nbformat.v4.new_markdown_cell(summary)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), lesson)

    write(front, summary)
    assert chinese.english(lesson) == (["a", "b"], ["A."], ["C"])
    (tmp_path / "03.md").write_text("# 03\n")
    assert not chinese.is_current(lesson)
    chinese.record(lesson)
    chinese.record(lesson)
    assert chinese.is_current(lesson)
    assert (tmp_path / "03.md").read_text().count("English:") == 1
    write(front.replace("5 min", "9 min"), summary)
    assert chinese.is_current(lesson)
    for changed in (
        (front.replace("a · b", "a"), summary),
        (front.replace("T", "U"), summary),
        (front, summary.replace("- A.", "- A.\n- B.")),
        (front, summary.replace("| C |", "| D |")),
    ):
        write(*changed)
        assert not chinese.is_current(lesson)
    assert chinese.english(lesson).box == ["D"]


def test_a_table_of_situations_counts_as_points():
    summary = "| situation | what |\n|---|---|\n| a | b |\n| c | d |"
    assert chinese.points(summary) == ["a", "c"] and chinese.box(summary) == []


def test_a_term_that_the_glossary_translates_otherwise_is_seen():
    right, wrong = ["帕累托前沿", "Pareto front", "-"], ["主干", "Pareto front", "-"]
    assert unlike_glossary([right]) == [] and unlike_glossary([wrong]) == ["Pareto front"]
