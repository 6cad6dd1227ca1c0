"""A figure with knobs: what a reader with a kernel gets, and what stands on a page without one."""

import re

import matplotlib.pyplot as plt
import pytest
from ipywidgets import Dropdown, FloatLogSlider, FloatSlider, IntSlider, Label
from nbformat import v4

from mtl_utils import showing, widgets
from mtl_utils.widgets import explore
from notebook_gate import execute


@pytest.fixture
def shown(monkeypatch):
    """What is handed to Jupyter."""
    found = []
    monkeypatch.setattr("IPython.display.display", lambda data, **_: found.append(data))
    return found


@pytest.fixture
def boxes(monkeypatch):
    """The box of knobs and picture."""
    made = []

    class Box(widgets.VBox):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            made.append(self)

    monkeypatch.setattr(widgets, "VBox", Box)
    return made


def height(of, plus=0):
    """A figure that says its value."""
    if of == 3:
        raise RuntimeError("three <is> too many")
    fig, ax = plt.subplots(figsize=(3, 2), dpi=50)
    ax.bar([0], [of + plus])
    ax.set_title("wide " * of)
    showing.show(fig, alt=f"A bar of the height {of + plus}.")
    return f"{of} & {plus}"


def knob(**options):
    return IntSlider(1, min=0, max=5, description="height (m)", **options)


def test_one_output_with_widget_figure_and_text(shown):
    explore(height, of=knob(), plus=Dropdown(options=[0, 1], description="plus"))
    (data,) = shown
    assert set(data) == {execute.WIDGET_VIEW, "text/html", "text/plain"}
    assert data["text/html"].count("<img ") == 1
    assert 'alt="A bar of the height 1."' in data["text/html"]
    assert "<p>1 &amp; 0</p>" in data["text/html"]
    sentence = "Run this cell in JupyterLab to move height (m) (0 to 5); plus (0, 1)."
    assert data["text/html"].endswith(f"<p><em>{sentence}</em></p>")
    lines = data["text/plain"].splitlines()
    assert lines[0] == "Figure: A bar of the height 1." and lines[-2:] == ["1 & 0", sentence]


def test_the_ends_of_a_logarithmic_knob_are_values_not_exponents(shown):
    slider = FloatLogSlider(1.0, base=10, min=-2, max=1, description="μ")
    explore(lambda mu: height(int(mu)), mu=slider)
    assert "to move μ (0.01 to 10)." in shown[0]["text/plain"]


def test_what_is_stored_has_no_widget(shown):
    explore(height, of=knob())
    output = v4.new_output("display_data", shown[0])
    (kept,) = execute.without_widgets([output])
    assert set(kept.data) == {"text/html", "text/plain"}
    assert execute.WIDGET_VIEW in output.data, "what was handed over is left alone"


def test_a_knob_that_is_moved_draws_anew_in_the_same_size(shown, boxes):
    slider = knob()
    explore(height, of=slider)
    (box,) = boxes
    _, picture, keys = box.children
    sizes = []
    for value in (1, 2, 5):
        slider.value = value
        assert f"A bar of the height {value}." in picture.value
        sizes.append(re.findall(r'(?:width|height)="\d+"', picture.value))
    assert sizes == 3 * [['width="150"', 'height="100"']]
    assert len(shown) == 1, "drawn in its place, not below"
    assert "Tab" in keys.value and "←" in keys.value
    assert not plt.get_fignums()


def test_a_drag_draws_when_it_ends(shown):
    sliders = knob(), FloatSlider(description="plus")
    explore(height, of=sliders[0], plus=sliders[1])
    assert [slider.continuous_update for slider in sliders] == [False, False]


def test_an_error_is_seen_and_passes(shown, boxes):
    slider = knob()
    explore(height, of=slider)
    with pytest.raises(RuntimeError, match="three <is> too many"):
        slider.value = 3
    assert boxes[0].children[1].value == "<pre>RuntimeError: three &lt;is&gt; too many</pre>"
    slider.value = 4
    assert "A bar of the height 4." in boxes[0].children[1].value


@pytest.mark.parametrize(
    ("draw", "knobs", "error"),
    [
        (height, {}, "knobs: expected at least one"),
        (height, {"of": IntSlider(1)}, "of: needs a description"),
        (height, {"of": 3}, "of: expected a slider or a menu, got int"),
        (lambda of: None, {"of": knob()}, "draw: it shows nothing"),
        (lambda of: None, {"of": Label("x", description="x")}, "draw: it shows nothing"),
    ],
)
def test_explore_refuses(shown, draw, knobs, error):
    with pytest.raises((ValueError, TypeError), match=error):
        explore(draw, **knobs)
    assert shown == []


def test_what_is_kept_is_not_shown(shown):
    with showing.kept() as outer:
        showing.show([{"x": 1}])
        with showing.kept() as inner:
            showing.show([{"y": 2}])
    showing.show([{"z": 3}])
    assert [[s.text.split() for s in kept] for kept in (outer, inner)] == [
        [["x", "1"]],
        [["y", "2"]],
    ]
    assert [s.text.split() for s in shown] == [["z", "3"]]
