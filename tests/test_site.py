"""The site: docstrings as Markdown, a page for each method and module, no broken link."""

import inspect
import re
from pathlib import Path

import nbformat
import pytest

import mtl_utils.weighting
from mtl_utils import available_weightings
from mtl_utils.weighting.base import weighting_class
from tools.site import api, docstrings, methods, notebooks
from tools.site.__main__ import assemble, build

ROOT = Path(__file__).resolve().parents[1]
DOCSTRING = """Make a number.

Formula:
    x_k = a * b_k   for all k

A second [text] with `code_k` and *no* emphasis.

Args:
    a, b: factors, above 0.
    c: something
        longer.

Returns:
    the number x_k.

Raises:
    ValueError: a is below 0.

>>> 1 + 1
2
"""


def test_sections_of_a_docstring():
    text = docstrings.markdown(DOCSTRING)
    assert "**Formula**\n\n```text\nx_k = a * b_k   for all k\n```" in text
    assert r"A second \[text\] with `code_k` and \*no\* emphasis." in text
    assert "- `a, b`: factors, above 0.\n- `c`: something longer." in text
    assert r"**Returns** the number x\_k." in text
    assert "**Errors**\n\n- `ValueError`: a is below 0." in text
    assert text.endswith("```pycon\n>>> 1 + 1\n2\n```")


def test_a_definition_around_definitions():
    inner = docstrings.directive("method", "f(x)", "What.")
    outer = docstrings.directive("class", "A()", inner)
    assert outer.startswith("::::{py:class} A()") and outer.endswith(":::\n\n::::")


def test_signatures_have_no_types():
    def function(a: int, *, b: "float" = 1.0) -> str: ...

    assert docstrings.signature("f", function) == "f(a, *, b=1.0)"


@pytest.mark.parametrize("name", available_weightings())
def test_the_page_of_a_method_has_all_of_its_docstring(name):
    cls = weighting_class(name)
    page = methods.page(cls.card)
    assert page.startswith(f"# {cls.card.title}\n")
    shown = set(re.findall(r"[\w^]+", page.replace("\\", "")))
    told = set(re.findall(r"[\w^]+", inspect.cleandoc(cls.__doc__)))
    heads = {"Args", "Raises", "Returns", "Formula", "Example", "Deviations", "Source"}
    assert told - heads <= shown
    assert f'make_weighting("{name}", n_tasks' in page


def test_the_page_of_a_module_has_its_functions_and_methods():
    page = api.page(mtl_utils.weighting)
    for head in ("{py:function} make_weighting(name, n_tasks, **options)", "{py:method} observe("):
        assert head in page


def test_folded_cells_say_what_they_are():
    cells = [
        nbformat.v4.new_code_cell(
            "# 3 checks\ncheck()", metadata={"jupyter": {"source_hidden": True}}
        ),
        nbformat.v4.new_code_cell("a = 1"),
    ]
    folded, plain = notebooks.page(nbformat.v4.new_notebook(cells=cells)).cells
    assert folded.metadata["tags"] == ["hide-input"]
    assert folded.metadata["mystnb"]["code_prompt_show"] == "Show: 3 checks"
    assert "tags" not in plain.metadata


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built; Sphinx fails for a link that leads nowhere, also within the site."""
    folder = tmp_path_factory.mktemp("site")
    assemble(folder / "source")
    done = build(folder / "source", folder / "html", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "html"


def test_every_notebook_method_and_module_has_a_page(site):
    for path in [
        *(ROOT / "notebooks").glob("*.ipynb"),
        *(ROOT / "notebooks/research").glob("*.ipynb"),
    ]:
        assert (site / path.relative_to(ROOT)).with_suffix(".html").is_file()
    for name in available_weightings():
        assert (site / "methods" / f"{name}.html").is_file()
    for name in api.MODULES:
        assert (site / "api" / f"{name}.html").is_file()


def test_chinese_pages_say_that_they_are(site):
    page = (site / "docs" / "zh" / "03_homoscedastic_uncertainty.html").read_text(encoding="utf-8")
    assert '<html lang="zh-Hans"' in page and "同方差不确定性" in page
    assert '<html lang="en"' in (site / "index.html").read_text(encoding="utf-8")


def test_every_figure_of_a_finished_lesson_has_a_text(site):
    page = (site / "notebooks" / "03_homoscedastic_uncertainty.html").read_text(encoding="utf-8")
    article = page[page.index("<article") : page.index("</article>")]
    pictures = re.findall(r"<img[^>]*>", article)
    assert pictures and all(re.search(r'alt="[^"]{20,}"', picture) for picture in pictures)


def test_nothing_is_fetched_from_elsewhere(site):
    for name in ("index.html", "notebooks/03_homoscedastic_uncertainty.html", "search.html"):
        page = (site / name).read_text(encoding="utf-8")
        fetched = re.findall(r'<(?:script|img)[^>]*src="(https?:[^"]*)"', page)
        fetched += re.findall(r'<link[^>]*rel="stylesheet"[^>]*href="(https?:[^"]*)"', page)
        assert fetched == []
