"""The course's drawing verbs: a long table, one call, a title that states the finding, alt text.

    band_plot(history, x="epoch", y="loss", by="rule", title="...", alt="...")

Each verb draws and shows a figure of its own, or draws into `ax=` as a panel of a larger one, which
`mtl_utils.notebook.show(fig, alt="...")` then shows. Columns are named as the axes are to be
labelled, with units. A figure has at most four lines, told apart by colour and by line style.
"""

from mtl_utils.extras import extra

with extra("notebooks"):
    from mtl_utils.plots.comparisons import dots_plot, forest_plot, matrix_plot
    from mtl_utils.plots.fronts import arrow_plot, path_plot, trade_off_plot
    from mtl_utils.plots.guide import plot_guide
    from mtl_utils.plots.images import dense_plot
    from mtl_utils.plots.lines import band_plot, weights_plot
    from mtl_utils.plots.method_map import plot_method_map
    from mtl_utils.plots.older import plot_history, plot_trade_off
    from mtl_utils.plots.ranks import ranks_plot
    from mtl_utils.plots.style import (
        PALETTE,
        STYLES,
        contrast,
        readable,
        set_style,
        task_color,
        task_style,
    )

__all__ = [
    "PALETTE",
    "STYLES",
    "arrow_plot",
    "band_plot",
    "contrast",
    "dense_plot",
    "dots_plot",
    "forest_plot",
    "matrix_plot",
    "path_plot",
    "plot_guide",
    "plot_history",
    "plot_method_map",
    "plot_trade_off",
    "ranks_plot",
    "readable",
    "set_style",
    "task_color",
    "task_style",
    "trade_off_plot",
    "weights_plot",
]
