"""Claims in a block, tables, figures and intervals: what readers see and what the gate reads."""

import base64
import doctest
import io
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from PIL import Image

from mtl_utils import claims, drawn, intervals, plots, showing
from mtl_utils.claims import checks, claim
from mtl_utils.intervals import interval_text
from mtl_utils.showing import number_text, show


@pytest.fixture(autouse=True)
def _clean():
    with plt.rc_context():
        yield
        plt.close("all")


@pytest.fixture
def shown(monkeypatch) -> list[dict[str, str]]:
    """What is handed to Jupyter, as Jupyter formats it."""
    found = []

    def display(what):
        data, _ = DisplayFormatter().format(what)
        found.append(data)

    monkeypatch.setattr("IPython.display.display", display)
    return found


@pytest.mark.parametrize("module", [claims, drawn, intervals, showing])
def test_examples(module):
    found = doctest.testmod(module)
    assert found.attempted > 0 and found.failed == 0


# ---- claims in a block -----------------------------------------------------------------------


def test_a_block_of_claims_is_one_line_with_the_list_behind_it(shown, capsys):
    with checks("the optimum"):
        claim("a < b", True)
        claim("wide", 3.14159, 3.1416, rtol=1e-3)
    (data,) = shown
    assert capsys.readouterr().out == ""
    assert data["text/plain"] == "2 checks, the optimum\n✓ a < b\n✓ wide: 3.142 against 3.142"
    assert data["text/html"] == (
        "<details><summary>✓ 2 checks, the optimum: a &lt; b; wide</summary>"
        "<ul><li>a &lt; b</li><li>wide: 3.142 against 3.142</li></ul></details>"
    )


def test_many_claims_are_cut_short_in_the_line_and_whole_in_the_list(shown):
    with checks():
        for k in range(9):
            claim(f"claim number {k} holds as the text says", k, k)
    (data,) = shown
    (summary,) = re.findall("<summary>(.*)</summary>", data["text/html"])
    assert summary.startswith("✓ 9 checks: claim number 0 holds") and summary.endswith(" …")
    assert len(summary) < 130
    assert data["text/html"].count("<li>") == data["text/plain"].count("✓") == 9


def test_a_failing_claim_raises_at_once_and_names_itself(shown, capsys):
    with pytest.raises(AssertionError, match=r"^the second: got 1, expected 2"), checks("x"):
        claim("the first", True)
        claim("the second", 1, 2)
        claim("the third", True)
    assert shown == []
    claim("outside", True)
    assert capsys.readouterr().out == "✓ outside\n"


def test_a_block_without_claims_is_no_check():
    with pytest.raises(AssertionError, match="there is no claim in it"), checks("nothing"):
        pass
    with pytest.raises(RuntimeError, match="another block of claims"), checks("a"), checks("b"):
        pass
    with checks("usable again"):
        claim("yes", True)


# ---- tables ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.00"),
        (-0.012345, "-0.0123"),
        (0.0001, "0.000100"),
        (0.00009, "9.00e-05"),
        (0.9996, "1.00"),
        (99.96, "100.0"),
        (1234.56, "1234.6"),
        (12345678.0, "1.23e+07"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
    ],
)
def test_numbers_show_three_digits_and_a_decimal(value, text):
    assert number_text(value) == text


def test_number_text_against_python():
    for value in np.random.default_rng(0).normal(size=200) * 10.0 ** np.arange(-100, 100):
        assert float(number_text(value, 4)) == pytest.approx(value, rel=5.1e-4)
        assert "." in number_text(value, 1)


def test_table(shown):
    rows = [
        {"rule": "a < b", "loss (m²)": 1 / 3, "steps": 10, "ok": True},
        {"rule": "mgda", "loss (m²)": torch.tensor(20.0), "steps": None, "ok": np.bool_(False)},
    ]
    show(rows, caption="ten seeds")
    (data,) = shown
    assert data["text/plain"].splitlines() == [
        "ten seeds",
        " rule loss (m²) steps    ok",
        "a < b     0.333    10  True",
        " mgda      20.0       False",
    ]
    assert data["text/html"] == (
        "<table>\n<caption>ten seeds</caption>\n"
        '<thead><tr><th style="text-align: left">rule</th><th style="text-align: right">loss (m²)'
        '</th><th style="text-align: right">steps</th><th style="text-align: left">ok</th></tr>'
        '</thead>\n<tbody>\n<tr><td style="text-align: left">a &lt; b</td>'
        '<td style="text-align: right">0.333</td><td style="text-align: right">10</td>'
        '<td style="text-align: left">True</td></tr>\n<tr><td style="text-align: left">mgda</td>'
        '<td style="text-align: right">20.0</td><td style="text-align: right"></td>'
        '<td style="text-align: left">False</td></tr>\n</tbody>\n</table>'
    )


def test_an_index_is_shown_if_it_has_a_name(shown):
    frame = pd.DataFrame({"x": [1.0, 2.0]}, index=["a", "b"])
    show(frame)
    show(frame.rename_axis("row"))
    texts = [data["text/plain"].split() for data in shown]
    assert texts == [["x", "1.00", "2.00"], ["row", "x", "a", "1.00", "b", "2.00"]]
    assert list(frame.index.names) == [None], "what was handed over is left alone"


def test_columns_of_two_levels_and_of_one_name(shown):
    columns = pd.MultiIndex.from_product([["12 units", "32 units"], ["left", "right"]])
    show(pd.DataFrame([[0.5, 0.25, 0.125, 1.0]], pd.Index([2], name="w"), columns))
    show(pd.DataFrame([[1, 2]], columns=["x", "x"]))
    heads = [re.findall("<th [^>]*>([^<]*)", data["text/html"]) for data in shown]
    two = ["w", "12 units, left", "12 units, right", "32 units, left", "32 units, right"]
    assert heads == [two, ["x", "x"]]


@pytest.mark.parametrize(
    ("what", "options", "error"),
    [
        ([], {}, "the table is empty"),
        (pd.DataFrame({"x": [1]}), {"alt": "a table"}, "alt: belongs to a figure"),
        (3, {}, "what: expected a table or a figure, got int"),
    ],
)
def test_show_refuses(what, options, error):
    with pytest.raises((ValueError, TypeError), match=error):
        show(what, **options)


def test_interval_text():
    values = [0.1, 0.2, 0.3]
    half = 4.302653 * 0.1 / 3**0.5  # t of two degrees of freedom
    assert interval_text(values) == f"+0.200 [{0.2 - half:+.3f}, {0.2 + half:+.3f}]"
    assert interval_text([-v for v in values], 1) == f"-0.2 [{-0.2 - half:+.1f}, {half - 0.2:+.1f}]"
    assert interval_text(values, sign=False).startswith("0.200 [-0.0")


# ---- figures ---------------------------------------------------------------------------------


def picture(data: dict[str, str]) -> tuple[dict[str, str], Image.Image]:
    """Attributes and picture of the one img in an output."""
    (tag,) = re.findall("<img [^>]*>", data["text/html"])
    attributes = dict(re.findall(r'(\w+)="([^"]*)"', tag))
    kind, code = attributes["src"].split(",")
    assert kind == "data:image/png;base64"
    return attributes, Image.open(io.BytesIO(base64.b64decode(code)))


def test_figure_has_alt_text_and_twice_the_pixels(shown):
    plots.set_style()
    fig, ax = plt.subplots()
    ax.plot([0, 1])
    show(fig, alt='it says "up" & <rises>')
    (data,) = shown
    assert set(data) == {"text/html", "text/plain"}, "the picture is there once"
    attributes, stored = picture(data)
    assert attributes["alt"] == "it says &quot;up&quot; &amp; &lt;rises&gt;"
    assert data["text/plain"].startswith('Figure: it says "up" & <rises>\naxes:')
    assert abs(stored.size[0] / 2 - int(attributes["width"])) <= 0.5
    assert 450 < int(attributes["width"]) < 550, "6.4 inches of 80 pixels"
    assert "Software" not in stored.info
    assert not plt.get_fignums(), "nothing is left for Jupyter to show a second time"


def test_a_figure_without_alt_text_is_refused(shown):
    fig, _ = plt.subplots()
    for alt in ({}, {"alt": " "}):
        with pytest.raises(ValueError, match="alt: say in a sentence what the figure shows"):
            show(fig, **alt)
    assert shown == []


def test_the_text_of_a_figure_tells_what_the_picture_may_hide():
    def text(first="a", second="b", shift=0.0):
        fig, ax = plt.subplots()
        x = np.linspace(0, 10, 50)
        ax.plot(x, np.sin(x) + shift, label=first)
        ax.plot(x, np.cos(x), "--", label=second)
        ax.legend()
        ax.set(title="two", xlabel="x")
        return drawn.drawn(fig)

    assert text() == text()
    assert text("b", "a") != text(), "names that changed places"
    assert text(shift=0.01) != text(), "a curve that moved by half a per cent of the axis"
    assert text()[0] == "axes: two | x"
    assert text()[-1] == "legend: a #1f77b4 -; b #ff7f0e --"


def test_the_text_of_a_figure_knows_every_kind_of_artist():
    fig, axes = plt.subplots(2, 3, layout="constrained")
    axes = axes.flat
    axes[0].scatter([0, 1, 2], [2, 1, 0], c=["red", "blue", "lime"], label="dots")
    axes[1].fill_between([0, 1], [0.25, 1], [2, 3], color="black")
    axes[2].bar([0, 1], [0.5, 2.5], color="red")
    axes[3].imshow(np.arange(4.0).reshape(2, 2) / 7)
    axes[4].annotate("here", (1, 2), xytext=(0, 0), arrowprops={"arrowstyle": "->"})
    axes[4].text(0, 0, "word")
    axes[5].errorbar([1.0], [2.0], yerr=[0.5], color="black")
    fig.suptitle("all")
    lines = drawn.drawn(fig)
    assert lines[0] == "all"
    for wanted in (
        "dots #ff0000 #0000ff #00ff00: (0, 2) (1, 1) (2, 0)",
        "#ff0000: (-0.4000, 0) (0.4000, 0.5000)",
        "image: 0 0.1429 0.2857 0.4286",
        "arrow here: (0, 0) (1, 2)",
        "text: word",
        "#000000: (1, 1.500) (1, 2.500)",
    ):
        assert wanted in lines, lines
    assert any(re.match(r"#000000: \(0, 0.250\)|#000000: \(0, 2\)", line) for line in lines)
