"""A figure with knobs: moved, it is drawn anew; where there is no kernel, it stands by itself."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from typing import Any

from mtl_utils.extras import extra
from mtl_utils.showing import Shown, kept

with extra("notebooks"):
    from ipywidgets import HTML, Layout, ValueWidget, VBox

KEYS = (
    "Keys: Tab goes to the next knob; ← and → move it by one step, Page Down and Page Up by "
    "several, Home and End to its ends."
)


def explore(draw: Callable[..., str | None], **knobs: ValueWidget) -> None:
    """Show what `draw` draws, and draw it anew when a knob was moved.

    On a page without a kernel stands the first picture, with a sentence that says what could be
    moved; so a lesson needs no second figure beside it.

    A knob that is dragged draws once, when it is let go, not at each value on its way: otherwise
    pictures queue up and the last one comes late.

    Args:
        draw: called with the values of the knobs by name; shows a figure, and a table if it likes,
            with `show` or the verbs of `mtl_utils.plots`; may return a sentence to stand below. Its
            figures have one size for all values, so that the page does not jump.
        knobs: ipywidgets' sliders or menus, each with its first value and a `description` that has
            the name and the unit, such as `FloatSlider(4.0, min=2, max=20, description="σ (m)")`.

    Raises:
        ValueError: no knob, or one without a description.
        TypeError: a knob that has no value to move.
    """
    if not knobs:
        raise ValueError('knobs: expected at least one, such as sigma=FloatSlider(description="σ")')
    for name, knob in knobs.items():
        if not isinstance(knob, ValueWidget):
            raise TypeError(f"{name}: expected a slider or a menu, got {type(knob).__name__}")
        if not getattr(knob, "description", ""):
            raise ValueError(f"{name}: needs a description, its name and unit for readers")
    first = _drawn(draw, knobs)
    picture = HTML(first.page)

    def redraw(_: Any) -> None:
        try:
            picture.value = _drawn(draw, knobs).page
        except Exception as error:  # it would only reach a log that nobody opens
            picture.value = f"<pre>{html.escape(f'{type(error).__name__}: {error}')}</pre>"
            raise

    label = f"{1 + max(len(knob.description) for knob in knobs.values())}ch"
    for knob in knobs.values():
        knob.style.description_width = label
        knob.layout = Layout(width="min(34rem, 98%)")
        if knob.has_trait("continuous_update"):
            knob.continuous_update = False
        knob.observe(redraw, "value")
    box = VBox([*knobs.values(), picture, HTML(f"<small>{KEYS}</small>")])
    _display(box, first, _sentence(knobs))


def _drawn(draw: Callable[..., str | None], knobs: Mapping[str, Any]) -> Shown:
    """What is shown, and said, for the values that the knobs have now."""
    with kept() as parts:
        said = draw(**{name: knob.value for name, knob in knobs.items()})
    if not parts:
        raise ValueError("draw: it shows nothing; end it in show(fig, alt=...) or a drawing verb")
    if said:
        parts.append(Shown(f"<p>{html.escape(said, quote=False)}</p>", said))
    return Shown("\n".join(p.page for p in parts), "\n".join(p.text for p in parts))


def _sentence(knobs: Mapping[str, Any]) -> str:
    """What could be moved, for pages without a kernel."""
    ranges = []
    for knob in knobs.values():
        if hasattr(knob, "options"):
            options = [str(o[0] if isinstance(o, tuple) else o) for o in knob.options]
            ranges.append(f"{knob.description} ({', '.join(options)})")
        else:
            base = getattr(knob, "base", None)  # a logarithmic slider's ends are exponents
            low, high = (base**end if base else end for end in (knob.min, knob.max))
            ranges.append(f"{knob.description} ({low:g} to {high:g})")
    return f"Run this cell in JupyterLab to move {'; '.join(ranges)}."


def _display(box: VBox, first: Shown, sentence: str) -> None:
    """One output: the widget where there is a kernel, else the figure and the sentence."""
    from IPython.display import display

    data = {
        **box._repr_mimebundle_(),
        "text/html": f"{first.page}\n<p><em>{html.escape(sentence, quote=False)}</em></p>",
        "text/plain": f"{first.text}\n{sentence}",
    }
    display(data, raw=True)
