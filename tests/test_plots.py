"""Style, palette, the map of methods, and the older verbs that return axes."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from mtl_utils import catalogue, plots


@pytest.fixture(autouse=True)
def _clean():
    with plt.rc_context():
        yield
        plt.close("all")


def history():
    rows = [
        {"epoch": e, "task": task, "loss": e + 10.0 * k, "weight": 1.0 / e, "step": 5 * e}
        for e in (1, 2, 3)
        for k, task in enumerate(["left", "right", "middle"])
    ]
    return pd.DataFrame(rows)


def test_history_a_line_a_task_with_its_numbers():
    table = history()
    fig, axes = plots.plot_history(table)
    assert len(axes) == 2 and len(fig.axes) == 2
    for ax, column in zip(axes, ["loss", "weight"], strict=True):
        assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_yscale()) == ("epoch", column, "linear")
        assert [line.get_label() for line in ax.lines] == ["left", "right", "middle"]
        for k, line in enumerate(ax.lines):
            rows = table[table["task"] == line.get_label()]
            np.testing.assert_array_equal(line.get_xdata(), rows["epoch"])
            np.testing.assert_array_equal(line.get_ydata(), rows[column])
            assert to_hex(line.get_color()).upper() == plots.task_color(k)
            assert line.get_linestyle() == plots.task_style(k)["linestyle"]
    labels = [text.get_text() for text in axes[0].get_legend().get_texts()]
    assert labels == ["left", "right", "middle"]


def test_history_options():
    _, axes = plots.plot_history(history(), "loss", x="step", log=True)
    assert len(axes) == 1 and axes[0].get_yscale() == "log" and axes[0].get_xlabel() == "step"
    assert axes[0].lines[0].get_xdata().tolist() == [5, 10, 15]


def test_history_in_any_order_of_the_rows_and_as_categories():
    table = history().astype({"task": "category"})
    _, axes = plots.plot_history(table, "loss")
    assert [line.get_label() for line in axes[0].lines] == ["left", "right", "middle"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"y": "accuracy"}, "y: there is no column 'accuracy'; there are .*'loss'"),
        ({"y": ["loss", "rmse"]}, "y: there is no column 'rmse'"),
        ({"x": "iteration"}, "x: there is no column 'iteration'"),
    ],
)
def test_history_refuses_missing_columns(options, message):
    with pytest.raises(ValueError, match=message):
        plots.plot_history(history(), **options)
    with pytest.raises(ValueError, match="history: there is no column 'task'"):
        plots.plot_history(history().drop(columns="task"))
    assert not plt.get_fignums()  # nothing half drawn


def test_the_palette_is_fixed_and_every_task_looks_different():
    assert plots.task_color(0) == "#0072B2" and plots.task_color(1) == "#D55E00"
    assert len(set(plots.PALETTE)) == len(plots.PALETTE) == len(plots.STYLES)
    styles = [tuple(plots.task_style(k).values()) for k in range(len(plots.PALETTE))]
    assert len(set(styles)) == len(styles)
    assert plots.task_style(len(plots.PALETTE)) == plots.task_style(0)
    # in grey, neighbours among the first four are told apart by the line
    assert len({plots.task_style(k)["linestyle"] for k in range(4)}) == 4


def test_the_style_gives_lines_the_palette_in_order():
    plots.set_style()
    _, ax = plt.subplots()
    for k in range(3):
        (line,) = ax.plot([0, 1], [k, k])
        assert to_hex(line.get_color()).upper() == plots.task_color(k)
        assert line.get_linestyle() == plots.task_style(k)["linestyle"]
    assert not ax.spines["top"].get_visible()


def test_trade_off():
    _, ax = plt.subplots()
    points = pd.DataFrame({"a": [3.0, 1.0, 2.0], "b": [1.0, 3.0, 2.0], "w": [0.5, 0.25, 1.0]})
    plots.plot_trade_off(ax, points, "a", "b", label="fixed", annotate="w", color="black")
    (line,) = ax.lines
    assert line.get_xdata().tolist() == [3, 1, 2] and line.get_ydata().tolist() == [1, 3, 2]
    assert line.get_label() == "fixed" and line.get_color() == "black"
    assert [text.get_text() for text in ax.texts] == ["0.5", "0.25", "1"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("a", "b")


def test_method_map_shows_every_method_of_the_catalogue_once():
    methods = catalogue.methods_table()
    _, ax = plots.plot_method_map(methods, catalogue.READS)
    boxes = [text.get_text() for text in ax.texts if text.get_bbox_patch() is not None]
    titles = [f"{m.title.split(' (')[0]} · {m.notebook}" for m in methods.itertuples()]
    assert sorted(boxes) == sorted(titles)


def test_no_box_of_the_method_map_lies_on_another():
    plots.set_style()
    fig, ax = plots.plot_method_map(catalogue.methods_table(), catalogue.READS)
    fig.canvas.draw()
    patches = [text.get_bbox_patch() for text in ax.texts if text.get_bbox_patch() is not None]
    boxes = [patch.get_window_extent() for patch in patches]
    assert not [1 for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
