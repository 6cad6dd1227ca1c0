"""Sphinx: MyST-NB, the book theme, mathematics without a network. Used by `make site`."""

import os

from docutils import nodes

project = "Loss weighting in multi-task learning"
author = "the authors of the collection"
extensions = ["myst_nb", "sphinx-mathjax-offline", "sphinx_copybutton"]
html_theme = "sphinx_book_theme"
html_title = "Loss weighting in multi-task learning"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_theme_options = {
    "home_page_in_toc": True,
    "show_navbar_depth": 1,
    "use_download_button": True,
    "use_fullscreen_button": False,
    "navbar_persistent": [],  # the search stands beside the contents
}
if "GITHUB_REPOSITORY" in os.environ:  # in a workflow: there are copies for Colab (make colab)
    html_theme_options |= {
        "repository_url": f"https://github.com/{os.environ['GITHUB_REPOSITORY']}",
        "repository_branch": "colab",
        "use_repository_button": True,
        "launch_buttons": {"colab_url": "https://colab.research.google.com"},
    }
html_show_copyright = False
html_last_updated_fmt = None

nb_execution_mode = "off"  # the stored outputs are what the tests compare
nb_merge_streams = True
nb_render_markdown_format = "myst"
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3
myst_dmath_double_inline = True
copybutton_exclude = ".linenos, .gp, .go"
suppress_warnings = ["mystnb.unknown_mime_type", "myst.header"]


def _language(app, pagename, templatename, context, doctree):
    """Browsers and screen readers are told of the pages that are in Chinese."""
    if pagename.startswith("docs/zh/"):
        context["language"] = "zh-Hans"


def _numbers(app, doctree):
    """A number in a formula of several lines: Sphinx would wrap it in an environment without."""
    for formula in doctree.findall(nodes.math_block):
        text = formula.astext()
        if r"\tag" in text and r"\\" in text:
            formula["nowrap"] = formula["no-wrap"] = True
            formula.children = [nodes.Text(rf"\begin{{equation}}{text}\end{{equation}}")]


def setup(app):
    app.connect("html-page-context", _language)
    app.connect("doctree-read", _numbers)
