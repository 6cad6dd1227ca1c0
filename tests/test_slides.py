"""Slides: what stands on them, and that they need no network."""

import re

import pytest
from nbformat import v4

from tools import slides


def test_what_stands_on_a_slide():
    folded = v4.new_code_cell("# 3 checks", metadata={"jupyter": {"source_hidden": True}})
    figure = v4.new_output("display_data", {"image/png": "abc"})
    lesson = v4.new_notebook(
        cells=[
            v4.new_markdown_cell("# 99 · Title, [more](98_x.ipynb)"),
            v4.new_markdown_cell("Before."),
            v4.new_code_cell("a = 1"),
            folded,
            v4.new_markdown_cell("After."),
            v4.new_markdown_cell("Between.\n\n## A section"),
            v4.new_code_cell("plot()", outputs=[figure]),
            v4.new_code_cell("answer = ...", metadata={"tags": ["exercise"]}),
            v4.new_code_cell("answer = 3", metadata={"tags": ["solution"]}),
            v4.new_markdown_cell("## Next"),
        ]
    )
    made = slides.slides(lesson)
    assert [cell.source for cell in made.cells] == [
        "# 99 · Title, more",
        slides.BREAK,
        "Before.",
        "a = 1",
        "After.",
        "Between.\n\n## A section",
        "plot()",
    ]
    assert made.cells[-1].metadata.tags == ["remove-input"]
    assert len(lesson.cells) == 10 and lesson.cells[6].metadata == {}


def test_what_does_not_fit_stands_on_the_next_slide():
    """As many cells as fit; a heading of any depth begins a slide of its own, and no empty one."""
    long = "\n".join(f"a{i} = {i}" for i in range(16))
    sources = ["# 99 · Title", "## A section", long, "a = 1", long, "### A part", "a = 2"]
    texts = [v4.new_markdown_cell(s) if s[0] == "#" else v4.new_code_cell(s) for s in sources]
    made = slides.slides(v4.new_notebook(cells=texts))
    expected = [*sources[:4], slides.BREAK, *sources[4:]]
    assert [cell.source for cell in made.cells] == expected


def test_slides_of_a_lesson_need_no_network(tmp_path):
    pytest.importorskip("sphinx_revealjs", reason="needs the package sphinx-revealjs")
    (path,) = slides.write(["04"], tmp_path / "source")
    assert slides.build(tmp_path / "source", tmp_path / "html") == 0
    page = (tmp_path / "html" / f"{path.stem}.html").read_text(encoding="utf-8")
    assert page.count("<section") > 20 and page.count("<img") >= 3
    assert "a solution of" not in page and "✓" not in page
    for name in re.findall(r'<(?:script|img)[^>]*src="([^"]*)"|<link[^>]*href="([^"]*)"', page):
        assert not "".join(name).startswith("http")
