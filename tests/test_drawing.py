"""The drawing verbs: what is drawn of a long table, and that it can be read by everybody."""

import doctest
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text
from scipy import stats

from mtl_utils import catalogue, plots
from mtl_utils.plots import canvas, fronts, style

SAID = {"title": "A finding", "alt": "what the figure shows"}
RULES = ["equal", "mgda", "famo", "dwa", "random"]


@pytest.fixture(autouse=True)
def _style():
    with plt.rc_context():
        plots.set_style()
        yield
        plt.close("all")


@pytest.fixture
def shown(monkeypatch) -> list:
    """The figures that verbs show, each with its alt text."""
    found = []
    monkeypatch.setattr(canvas, "show", lambda fig, alt: found.append((fig, alt)))
    return found


def history(n_rules: int = 3, seeds: int = 5) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "epoch": e,
            "loss": (k + 1) / e + 0.1 * rng.normal(),
            "weight": 1.0,
            "rule": rule,
            "seed": s,
        }
        for s in range(seeds)
        for k, rule in enumerate(RULES[:n_rules])
        for e in (1, 2, 4, 8)
    )


def differences() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    means = {"famo": 0.0, "mgda": 0.3, "dwa": -0.3}
    return pd.DataFrame(
        {"data": data, "method": method, "difference": scale * (mean + 0.1 * rng.normal())}
        for data, scale in (("digits", 1), ("films", 10))
        for method, mean in means.items()
        for _ in range(8)
    )


ARROWS = pd.DataFrame(
    [("task 1", 2.0, 0.2, "task"), ("task 2", -1.0, 1.0, "task"), ("mean", 0.5, 0.6, "update")],
    columns=["name", "x", "y", "kind"],
)
POINTS = pd.DataFrame(
    [
        ("sweep", 1.0, 3.0, 0.1),
        ("sweep", 2.0, 2.0, 0.5),
        ("sweep", 3.0, 1.0, 0.9),
        ("mgda", 2, 3, 0),
    ],
    columns=["rule", "loss 1", "loss 2", "w"],
)
PATHS = pd.DataFrame(
    {"x": start + t, "y": start * t, "rule": rule, "start": start}
    for rule in ("mgda", "equal")
    for start in (0.0, 1.0)
    for t in range(3)
)
FRONT = pd.DataFrame({"x": [0.0, 1.0], "y": [1.0, 0.0]})
TRUTHS = pd.DataFrame({"cheap": [True, False], "fair": [None, True]}, index=["equal", "mgda"])

VERBS = {
    "band_plot": lambda **o: plots.band_plot(history(), "epoch", "loss", "rule", **o),
    "weights_plot": lambda **o: plots.weights_plot(history(), by="rule", **o),
    "dots_plot": lambda **o: plots.dots_plot(history(), "loss", "rule", better="less", **o),
    "forest_plot": lambda **o: plots.forest_plot(differences(), better="less", **o),
    "matrix_plot": lambda **o: plots.matrix_plot(TRUTHS, **o),
    "arrow_plot": lambda **o: plots.arrow_plot(ARROWS, kind="kind", **o),
    "path_plot": lambda **o: plots.path_plot(PATHS, "x", "y", "rule", "start", front=FRONT, **o),
    "trade_off_plot": lambda **o: plots.trade_off_plot(
        POINTS, "loss 1", "loss 2", "rule", "w", **o
    ),
}
PANELS = ("band_plot", "dots_plot", "arrow_plot", "path_plot", "trade_off_plot")


def test_examples():
    found = doctest.testmod(style)
    assert found.attempted > 0 and found.failed == 0


# ---- what all have in common -----------------------------------------------------------------


@pytest.mark.parametrize("name", VERBS)
def test_a_figure_needs_a_finding_and_alt_text(name, shown):
    for said, missing in (({"alt": "x"}, "title: state"), ({"title": "x"}, "alt: say what")):
        with pytest.raises(ValueError, match=missing):
            VERBS[name](**{"title": "", "alt": "", **said})
    assert shown == []
    assert VERBS[name](**SAID) is None
    ((fig, alt),) = shown
    assert alt == SAID["alt"] and fig.get_suptitle() == SAID["title"]
    assert not plt.get_fignums(), "nothing is left for Jupyter to show a second time"


@pytest.mark.parametrize("name", PANELS)
def test_a_panel_is_left_to_its_figure(name, shown):
    _, (left, right) = plt.subplots(1, 2)
    VERBS[name](ax=right, title="a panel")
    assert shown == [] and plt.get_fignums()
    assert right.get_title(loc="left") == "a panel" and not left.has_data() and right.has_data()
    with pytest.raises(ValueError, match=r"alt: a panel \(ax=\) has none"):
        VERBS[name](ax=right, title="a panel", alt="x")


def background(text: Text) -> str:
    box = text.get_bbox_patch()
    return "white" if box is None else to_hex(box.get_facecolor())


@pytest.mark.parametrize("name", [*VERBS, "method map"])
def test_text_can_be_read(name, shown):
    if name == "method map":
        fig, _ = plots.plot_method_map(catalogue.methods_table(), catalogue.READS)
    else:
        VERBS[name](**SAID)
        fig = shown[0][0]
    texts = [text for text in fig.findobj(Text) if text.get_text().strip()]
    assert len(texts) > 3
    for text in texts:
        assert plots.contrast(text.get_color(), background(text)) >= 4.5, text


LINES = ("band_plot", "weights_plot", "path_plot", "trade_off_plot", "forest_plot")


@pytest.mark.parametrize("name", LINES)
def test_what_the_legend_tells_apart_differs_in_more_than_colour(name, shown):
    """In dashes, in width, in markers, or in whether these are filled: what is left in grey."""

    def hollow(line):
        return to_hex(line.get_markerfacecolor()) == "#ffffff"

    VERBS[name](**SAID)
    (legend,) = shown[0][0].legends
    looks = [
        (line.get_linestyle(), line.get_linewidth(), line.get_marker(), hollow(line))
        for line in legend.legend_handles
    ]
    assert len(looks) > 1 and len(set(looks)) == len(looks)


def test_arrows_are_told_apart_by_names(shown):
    VERBS["arrow_plot"](**SAID)
    words = [text.get_text() for text in shown[0][0].axes[0].texts if text.get_text()]
    assert words == list(ARROWS["name"])


def test_marks_in_the_matrix_can_be_read_on_every_tint(shown):
    numbers = pd.DataFrame(np.linspace(0, 1, 30).reshape(6, 5))
    plots.matrix_plot(numbers, **SAID)
    (mesh,) = shown[0][0].axes[0].collections
    assert min(plots.contrast("black", to_hex(c)) for c in mesh.get_facecolors()) > 10


def words_of(fig) -> list:
    """All that is written, as far as it can be seen; a legend as one."""
    found = [fig._suptitle, *fig.legends]
    for ax in fig.axes:
        found += [*ax.texts, ax.title, ax._left_title, ax.xaxis.label, ax.yaxis.label]
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            labels = zip(axis.get_ticklabels(), axis.get_ticklocs(), strict=False)
            found += [label for label, place in labels if low <= place <= high]
    return [w for w in found if not isinstance(w, Text) or w.get_text().strip()]


@pytest.mark.parametrize("name", VERBS)
def test_words_do_not_cover_each_other(name, shown):
    VERBS[name](**SAID)
    fig = shown[0][0]
    fig.draw_without_rendering()
    for one, other in combinations(words_of(fig), 2):
        a, b = one.get_window_extent(), other.get_window_extent()
        both = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(both) < 1, f"{one} and {other}"


def test_columns_are_named_if_they_are_missing():
    with pytest.raises(ValueError, match=r"y: there is no column 'los'; there are .*'loss'"):
        plots.band_plot(history(), "epoch", "los", **SAID)
    with pytest.raises(ValueError, match="x: there is no column 'x'"):
        plots.path_plot(PATHS, "x", "y", front=history(), **SAID)
    with pytest.raises(ValueError, match="group: there is no column 'method'"):
        plots.dots_plot(history(), "loss", "method", **SAID)


def test_no_more_than_four_lines():
    with pytest.raises(ValueError, match="by: 'rule' has 5 values; a figure shows at most 4 lines"):
        plots.band_plot(history(5), "epoch", "loss", "rule", **SAID)


def test_panels_share_one_legend_and_one_look_for_one_name():
    fig, axes = plt.subplots(1, 2)
    table = history(3)
    plots.band_plot(table, "epoch", "loss", "rule", ax=axes[0])
    plots.band_plot(table[table["rule"] != "mgda"], "epoch", "loss", "rule", ax=axes[1])
    (legend,) = fig.legends
    assert [text.get_text() for text in legend.get_texts()] == RULES[:3]
    looks = [
        {line.get_label(): (line.get_color(), line.get_linestyle()) for line in ax.lines}
        for ax in axes
    ]
    assert looks[0]["famo"] == looks[1]["famo"] != looks[0]["mgda"]


# ---- lines -----------------------------------------------------------------------------------


def test_band_plot_draws_means_and_their_intervals(shown):
    table = history()
    plots.band_plot(table, "epoch", "loss", "rule", log="x", **SAID)
    (ax,) = shown[0][0].axes
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_xscale()) == ("epoch", "loss", "log")
    drawn = [line for line in ax.lines if len(line.get_xdata())]
    assert len(drawn) == len(ax.collections) == 3
    for k, (rule, line, band) in enumerate(zip(RULES, drawn, ax.collections, strict=False)):
        groups = table[table["rule"] == rule].groupby("epoch")["loss"]
        np.testing.assert_allclose(line.get_ydata(), groups.mean())
        assert to_hex(line.get_color()).upper() == plots.task_color(k)
        found = stats.ttest_1samp(groups.get_group(4), 0).confidence_interval(0.95)
        heights = [y for x, y in band.get_paths()[0].vertices if x == 4]
        assert (min(heights), max(heights)) == pytest.approx(tuple(found))
    styles = {str(line._unscaled_dash_pattern) for line in drawn}
    assert len(styles) == 3, "line style as well as colour"


def test_band_plot_of_one_seed_and_one_line_has_no_band_and_no_legend(shown):
    table = history(1, seeds=1)
    plots.band_plot(table, "epoch", "loss", **SAID)
    fig = shown[0][0]
    assert fig.legends == []
    (band,) = fig.axes[0].collections
    assert all(not np.isfinite(path.vertices[:, 1]).any() for path in band.get_paths())


def test_order_of_lines_is_that_of_the_categories_or_of_appearance(shown):
    table = history(3)
    plots.band_plot(table.iloc[::-1], "epoch", "loss", "rule", **SAID)
    categories = pd.Categorical(table["rule"], ["famo", "equal", "mgda"])
    plots.band_plot(table.assign(rule=categories), "epoch", "loss", "rule", **SAID)
    names = [[t.get_text() for t in fig.legends[0].get_texts()] for fig, _ in shown]
    assert names == [["famo", "mgda", "equal"], ["famo", "equal", "mgda"]]


def test_logarithmic_axes_have_numbers_that_can_be_read(shown):
    table = pd.DataFrame({"epoch": [1, 2, 3], "loss": [0.15, 0.4, 2.5]})
    plots.band_plot(table, "epoch", "loss", log="y", **SAID)
    ax = shown[0][0].axes[0]
    shown[0][0].draw_without_rendering()
    low, high = ax.get_ylim()
    texts = [
        label.get_text()
        for label, y in zip(ax.get_yticklabels(), ax.get_yticks(), strict=True)
        if low <= y <= high
    ]
    assert texts == ["0.2", "0.5", "1", "2"]


def test_numbers_of_an_axis_have_one_style(shown):
    table = pd.DataFrame({"epoch": [1, 2, 3], "loss": [3e-7, 1.0, 2e4]})
    plots.band_plot(table, "epoch", "loss", log="y", **SAID)
    narrow = pd.DataFrame({"epoch": [1, 2, 3], "loss": [1.2e-6, 2e-6, 2.4e-6]})
    plots.band_plot(narrow, "epoch", "loss", log="y", **SAID)
    for fig, _ in shown:
        fig.draw_without_rendering()
    texts = [{t.get_text() for t in fig.axes[0].get_yticklabels()} for fig, _ in shown]
    assert {"$10^{-6}$", "$10^{0}$", "$10^{4}$"} <= texts[0], "1e-06 beside 100"
    assert "$2\\cdot10^{-6}$" in texts[1]
    assert all(text.startswith("$") for text in texts[0] | texts[1])


def test_each_of_a_few_settings_has_its_tick(shown):
    table = pd.DataFrame({"rate": [0.04, 0.005, 0.01, 0.02], "loss": 1.0})
    plots.band_plot(table, "rate", "loss", log="x", **SAID)
    (ax,) = shown[0][0].axes
    shown[0][0].draw_without_rendering()
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0.005", "0.01", "0.02", "0.04"]


@pytest.mark.parametrize(("name", "rows"), [("a box", 1), ("a box with a very long name", 2)])
def test_a_legend_has_one_row_if_that_fits(name, rows):
    fig, ax = plt.subplots(figsize=(7.2, 3))
    for k in range(5):
        ax.scatter([], [], label=f"{name} {k}")
    canvas.legend_below(fig)
    (legend,) = fig.legends
    fig.draw_without_rendering()
    heights = {round(text.get_window_extent().y0) for text in legend.get_texts()}
    assert len(heights) == rows


def test_weights_stand_beside_the_losses(shown):
    plots.weights_plot(history(2), by="rule", **SAID)
    left, right = shown[0][0].axes
    assert (left.get_ylabel(), right.get_ylabel()) == ("loss", "weight")
    assert (left.get_yscale(), right.get_yscale(), right.get_ylim()[0]) == ("log", "linear", 0)
    assert len(shown[0][0].legends) == 1


# ---- comparisons -----------------------------------------------------------------------------


def test_whole_numbers_have_whole_ticks(shown):
    table = pd.DataFrame({"epoch": range(1, 21), "loss": 1.0, "seed": 0})
    plots.band_plot(table, "epoch", "loss", **SAID)
    ticks = shown[0][0].axes[0].get_xticks()
    assert len(ticks) > 4 and (ticks == ticks.round()).all()


def test_dots_plot_shows_every_seed_the_mean_and_the_interval(shown):
    table = history(2, seeds=6).query("epoch == 8")
    plots.dots_plot(table, "loss", "rule", better="less", **SAID)
    (ax,) = shown[0][0].axes
    assert ax.get_xlabel() == "loss\n← better"
    assert [t.get_text() for t in ax.get_yticklabels()] == RULES[:2]
    assert ax.yaxis_inverted(), "the first row is on top"
    for row, rule in enumerate(RULES[:2]):
        values = table[table["rule"] == rule]["loss"]
        dots, bar, mean = ax.lines[3 * row : 3 * row + 3]
        assert sorted(dots.get_xdata()) == sorted(values)
        assert mean.get_xdata()[0] == pytest.approx(values.mean())
        found = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        assert list(bar.get_xdata()) == pytest.approx(list(found))


def test_forest_plot_sorts_and_tells_what_leaves_zero_out(shown):
    plots.forest_plot(differences(), better="less", **SAID)
    fig = shown[0][0]
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["digits", "films"]
    assert [t.get_text() for t in fig.axes[0].get_yticklabels()] == ["dwa", "famo", "mgda"]
    for ax in fig.axes:
        assert ax.get_xlabel() == "difference\n← better"
        assert list(ax.lines[0].get_xdata()) == [0, 0], "the line at zero"
        marks = [line for line in ax.lines if line.get_marker() == "o" and len(line.get_xdata())]
        hollow = [mark.get_markerfacecolor() == "white" for mark in marks]
        assert hollow == [False, True, False]


def test_forest_plot_fills_what_is_decided(shown):
    table = differences()
    table["decided"] = table["method"] == "famo"  # whose interval holds 0
    plots.forest_plot(table, better="less", decided="decided", **SAID)
    fig = shown[0][0]
    for ax in fig.axes:
        marks = [line for line in ax.lines if line.get_marker() == "o" and len(line.get_xdata())]
        assert [mark.get_markerfacecolor() == "white" for mark in marks] == [True, False, True]
    texts = [text.get_text() for text in fig.legends[0].get_texts()]
    assert texts == ["decided after Holm's correction", "not decided"]
    with pytest.raises(ValueError, match="decided: there is no column 'told'"):
        plots.forest_plot(table, better="less", decided="told", **SAID)


def test_forest_plot_takes_intervals_as_they_are(shown):
    table = differences().groupby(["method", "data"], sort=False, as_index=False)["difference"]
    table = table.mean().assign(low=lambda t: t["difference"] - 3, high=lambda t: t["difference"])
    plots.forest_plot(table, better="less", ends=("low", "high"), **SAID)
    fig = shown[0][0]
    for ax in fig.axes:
        lines = [line for line in ax.lines[1:] if len(line.get_xdata()) == 2]
        here = table[table["data"] == ax.get_title(loc="left")]
        assert {tuple(line.get_xdata()) for line in lines} == set(
            zip(here["low"], here["high"], strict=True)
        )
    with pytest.raises(ValueError, match="low: there is no column 'least'"):
        plots.forest_plot(table, better="less", ends=("least", "high"), **SAID)
    with pytest.raises(ValueError, match="ends: expected a row for each method and data set"):
        plots.forest_plot(pd.concat([table, table]), better="less", ends=("low", "high"), **SAID)


def test_forest_plot_keeps_the_order_of_categories(shown):
    table = differences()
    names = sorted(table["method"].unique(), reverse=True)
    plots.forest_plot(
        table.assign(method=pd.Categorical(table["method"], names)), better="less", **SAID
    )
    fig = shown[0][0]
    assert [tick.get_text() for tick in fig.axes[0].get_yticklabels()] == names


def test_forest_plot_the_other_way_round(shown):
    plots.forest_plot(differences(), better="more", **SAID)
    axes = shown[0][0].axes
    assert [t.get_text() for t in axes[0].get_yticklabels()] == ["mgda", "famo", "dwa"]
    assert axes[0].get_xlabel() == "difference\nbetter →"
    with pytest.raises(ValueError, match=r"better: expected .*, got 'up'"):
        plots.forest_plot(differences(), better="up", **SAID)
    many = pd.concat([differences().assign(data=str(k)) for k in range(5)])
    with pytest.raises(ValueError, match="data: 5 data sets; a figure shows at most 4 panels"):
        plots.forest_plot(many, better="less", **SAID)


def test_matrix_says_in_words_what_it_says_in_colour(shown):
    plots.matrix_plot(TRUTHS, **SAID)
    plots.matrix_plot(pd.DataFrame({"a": [0.25, np.nan]}), form="{:.0%}", **SAID)
    truths, numbers = ([t.get_text() for t in fig.axes[0].texts] for fig, _ in shown)
    assert truths == ["✓", "–", "✗", "✓"] and numbers == ["25%", "–"]
    for table, message in (
        (pd.DataFrame(), "nothing to draw"),
        (TRUTHS.map(lambda _: 2), "0 to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            plots.matrix_plot(table, **SAID)


# ---- two tasks in the plane ------------------------------------------------------------------


def test_arrows_start_at_the_origin_and_are_named(shown):
    plots.arrow_plot(ARROWS, kind="kind", **SAID)
    (ax,) = shown[0][0].axes
    arrows = [text for text in ax.texts if text.arrow_patch is not None]
    assert [tuple(a.xy) for a in arrows] == [tuple(v) for v in ARROWS[["x", "y"]].to_numpy()]
    assert all(a.xyann == (0, 0) for a in arrows)
    widths = [a.arrow_patch.get_linewidth() for a in arrows]
    assert widths[0] == widths[1] < widths[2], "updates are not told by colour alone"
    assert [t.get_text() for t in ax.texts if t.arrow_patch is None] == list(ARROWS["name"])
    assert ax.get_aspect() == 1


def test_directions_that_conflict_with_no_gradient_are_shaded(shown):
    plots.arrow_plot(ARROWS, kind="kind", shade=True, **SAID)
    (sector,) = shown[0][0].axes[0].patches
    corners = sector.get_xy()
    gradients = ARROWS.loc[ARROWS["kind"] != "update", ["x", "y"]].to_numpy(dtype=float)
    assert (corners @ gradients.T > -1e-6).all()
    edges = np.sort((corners[[1, -2]] @ gradients.T).min(1))  # each at right angles to one
    assert edges == pytest.approx([0, 0], abs=0.02 * np.abs(corners).max())


def test_no_direction_is_shaded_where_every_one_conflicts():
    around = np.array([[1.0, 0.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert len(fronts._harmless(around)) == 0
    assert len(fronts._harmless(around[:1])) == 721  # a half plane, each quarter of a degree


def test_low_ground_is_dark(shown):
    plots.path_plot(PATHS, "x", "y", ground=lambda points: points[:, 0], **SAID)
    (ground,) = shown[0][0].axes[0].collections
    shades = ground.get_facecolor()[:, :3].mean(1)
    assert (np.diff(shades) > 0).all() and ground.get_zorder() < 0


def test_paths_go_from_ring_to_star(shown):
    plots.path_plot(PATHS, "x", "y", "rule", "start", front=FRONT, **SAID)
    fig = shown[0][0]
    (ax,) = fig.axes
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["Pareto front", "mgda", "equal"]
    rings = [line for line in ax.lines if line.get_marker() == "o"]
    stars = [line for line in ax.lines if line.get_marker() == "*"]
    ends = [[(*line.get_xdata(), *line.get_ydata()) for line in lines] for lines in (rings, stars)]
    assert ends == [[(0, 0), (1, 0)] * 2, [(2, 0), (3, 2)] * 2]


def test_trade_off_fills_what_no_other_point_dominates(shown):
    plots.trade_off_plot(POINTS, "loss 1", "loss 2", "rule", "w", **SAID)
    (ax,) = shown[0][0].axes
    marked = [line for line in ax.lines if line.get_linestyle() == "None" and len(line.get_xdata())]
    filled = [line for line in marked if line.get_markerfacecolor() != "white"]
    hollow = [line for line in marked if line.get_markerfacecolor() == "white"]
    assert [sorted(line.get_xdata()) for line in filled] == [[1, 2, 3]]
    assert [list(line.get_xdata()) for line in hollow] == [[2]]
    assert ax.get_xlabel() == "loss 1 (less is better)"
    (region,) = ax.patches
    assert region.contains_point(ax.transData.transform((2.5, 2.5)))
    assert not region.contains_point(ax.transData.transform((1.5, 1.5)))
    assert {t.get_text() for t in ax.texts} == {"0.1", "0.5", "0.9", "0"}
    handles = shown[0][0].legends[0].legend_handles
    assert [handle.get_markerfacecolor() == "white" for handle in handles] == [False, True]


def test_trade_off_where_more_is_better(shown):
    plots.trade_off_plot(POINTS, "loss 1", "loss 2", better="more", **SAID)
    (ax,) = shown[0][0].axes
    (region,) = ax.patches
    assert region.contains_point(ax.transData.transform((1.5, 1.5)))
    assert not region.contains_point(ax.transData.transform((2.5, 2.5)))


def test_the_front_against_its_definition():
    rng = np.random.default_rng(0)
    for _ in range(20):
        points = rng.integers(0, 6, (15, 2))
        wanted = [not any((q <= p).all() and (q < p).any() for q in points) for p in points]
        assert fronts.on_front(points).tolist() == wanted


def test_labels_keep_off_lines_and_each_other():
    _, ax = plt.subplots()
    x = np.linspace(0, 1, 12)
    ax.plot(x, x**2)
    points = np.stack([x, x**2], 1)
    canvas.place_labels(ax, points, [f"{v:.2f}" for v in x])
    assert len(ax.texts) > 8
    ink = canvas._ink(ax)
    boxes = [text.get_window_extent() for text in ax.texts]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    assert not any(((ink > b.min) & (ink < b.max)).all(1).any() for b in boxes)
    canvas.place_labels(ax, np.zeros((30, 2)), ["the same place"] * 30)
    assert len(ax.texts) < 30, "what finds no place is left out"


def test_colours():
    assert plots.contrast("black", "white") == pytest.approx(21)
    assert plots.contrast("#777777", "white") == pytest.approx(4.48, abs=0.01)  # by WebAIM
    for color in plots.PALETTE:
        assert plots.contrast(plots.readable(color), "white") >= 4.5
        assert plots.contrast("black", style.tint(color)) > 10
    assert plots.readable("#000000") == "#000000"
    with pytest.raises(ValueError, match="background: too dark for any shade"):
        plots.readable("#333333", "#333333")
