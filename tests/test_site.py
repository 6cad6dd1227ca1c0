"""The site: docstrings as Markdown, a page for each method and module, no broken link, and what
a reader with a browser sees."""

import functools
import inspect
import re
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import nbformat
import pytest

import mtl_utils.weighting
from mtl_utils import available_weightings
from mtl_utils.weighting.base import weighting_class
from tests.chromium import in_browser
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


def test_code_in_a_docstring_keeps_its_indents_and_stays_in_one_piece():
    code = "    def f():\n        return 1\n\n    f()"
    text = docstrings.markdown(f"Try it:\n\n{code}\n\nThat was all.")
    assert "```text\ndef f():\n    return 1\n\nf()\n```\n\nThat was all." in text


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


def test_intervals_and_places_are_not_broken_into_two_lines():
    table = "<table><td>+0.1 [-0.2, 0.4] *</td><td>(1.5e-3, -2)</td><td>equal, [a, b]</td></table>"
    output = nbformat.v4.new_output("display_data", data={"text/html": table})
    cell = nbformat.v4.new_code_cell("show(rows)", outputs=[output])
    (shown,) = notebooks.page(nbformat.v4.new_notebook(cells=[cell])).cells[0].outputs
    kept = {"-0.2, ": "-0.2,&nbsp;", "e-3, ": "e-3,&nbsp;", "] *": "]&nbsp;*"}
    for broken, whole in kept.items():
        table = table.replace(broken, whole)
    assert shown.data["text/html"] == table


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


def test_formulas_of_several_lines_may_have_a_number(site):
    for path in (site / "notebooks").glob("**/*.html"):
        page = path.read_text(encoding="utf-8")
        wrapped = re.findall(r"\\begin\{split\}.*?\\end\{split\}", page, re.DOTALL)
        assert not any(r"\tag" in formula for formula in wrapped), path


def test_nothing_is_fetched_from_elsewhere(site):
    for name in ("index.html", "notebooks/03_homoscedastic_uncertainty.html", "search.html"):
        page = (site / name).read_text(encoding="utf-8")
        fetched = re.findall(r'<(?:script|img)[^>]*src="(https?:[^"]*)"', page)
        fetched += re.findall(r'<link[^>]*rel="stylesheet"[^>]*href="(https?:[^"]*)"', page)
        assert fetched == []


# ---- in a browser ----------------------------------------------------------------------------

LESSON = "notebooks/03_homoscedastic_uncertainty.html"
# What the theme logs on a first visit, and an icon that browsers ask every server for.
HARMLESS = ("Got invalid theme mode", "/favicon.ico")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """No line for each file."""


@pytest.fixture(scope="module")
def address(site) -> Iterator[str]:
    """The site as a server gives it."""
    handler = functools.partial(Quiet, directory=site)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def page(browser, address, screenshots, request):
    """A tab; at the end no error was reported and nothing was asked of another server."""
    page = browser.new_page(viewport={"width": 1200, "height": 1000}, base_url=address)
    page.set_default_timeout(60_000)
    wrong = []

    def listen(message):
        said = f"{message.text} {message.location['url']}"
        if message.type == "error" and not any(part in said for part in HARMLESS):
            wrong.append(said)

    page.on("console", listen)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda r: r.url.startswith((address, "data:")) or wrong.append(r.url))
    yield page
    page.screenshot(path=screenshots / f"site-{request.node.name}.png")
    page.close()
    assert wrong == []


def in_the_browser(test):
    for mark in in_browser:
        test = mark(test)
    return test


@in_the_browser
def test_the_search_finds_the_page_of_a_method(page):
    page.goto("/search.html?q=GradNorm")
    page.locator("#search-results a[href*='methods/gradnorm.html']").first.wait_for()


@in_the_browser
def test_formulas_have_their_numbers_and_a_folded_check_opens(page):
    page.goto(f"/{LESSON}")
    page.locator("mjx-container").first.wait_for()
    numbers = page.locator("mjx-mlabeledtr").all_inner_texts()
    assert len(numbers) >= 5
    folded = page.locator("article details.hide", has_text="checks").first
    code = folded.locator("pre").first
    assert not code.is_visible()
    folded.locator("summary").click()
    code.wait_for(state="visible")


# Formulas that MathJax refuses, or that are wider than the page; open code that is.
UNFIT = """() => [
    ...document.querySelectorAll('mjx-merror'),
    ...[...document.querySelectorAll('div.math, div.cell_input pre')]
        .filter(box => box.clientWidth > 0 && box.scrollWidth > box.clientWidth + 1)
].map(box => box.innerText.slice(0, 80))"""


@in_the_browser
def test_every_formula_and_every_line_of_code_fits_on_the_page(page, site):
    for path in sorted((site / "notebooks").glob("**/[01]*.html")):
        page.goto(f"/{path.relative_to(site)}")
        if page.locator(".math").count():  # notebook 00 has no formula
            page.locator("mjx-container").first.wait_for(state="attached")
            page.evaluate("MathJax.startup.promise.then(() => true)")
        assert page.evaluate(UNFIT) == [], path


BRIGHTNESS = """() => ['backgroundColor', 'color'].map(name => {
    const color = getComputedStyle(document.querySelector('article p'))[name];
    const shown = color === 'rgba(0, 0, 0, 0)' ? getComputedStyle(document.body)[name] : color;
    return shown.match(/\\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0) / 3;
})"""


@in_the_browser
def test_light_and_dark(page):
    """As the reader's system has it."""
    page.goto(f"/{LESSON}")
    background, text = page.evaluate(BRIGHTNESS)
    assert background > 230 and text < 100
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("() => document.documentElement.dataset.theme === 'dark'")
    background, text = page.evaluate(BRIGHTNESS)
    assert background < 60 and text > 180


@in_the_browser
def test_on_a_telephone_no_page_is_wider_than_the_screen(page, site):
    page.set_viewport_size({"width": 480, "height": 900})
    lessons = sorted(path.relative_to(site) for path in (site / "notebooks").glob("[01]*.html"))
    others = ("index.html", "README.html", "methods/mgda.html", "docs/zh/index.html")
    for path in (*lessons, *others):
        page.goto(f"/{path}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 480, path


@in_the_browser
def test_that_a_page_which_is_too_wide_would_be_seen(page):
    page.set_viewport_size({"width": 480, "height": 900})
    page.goto("/index.html")
    page.evaluate("document.querySelector('article').style.width = '700px'")
    assert page.evaluate("document.documentElement.scrollWidth") > 480
