"""The critical-difference diagram says what its table says."""

import pandas as pd
import pytest

from mtl_utils.plots import ranks_plot
from mtl_utils.showing import kept

RANKS = pd.Series({"b": 2.5, "a": 1.25, "c": 3.5, "d": 2.75})
WORDS = {"title": "a is ahead of c", "alt": "Four mean ranks and two bars beside them."}


def test_dots_bars_and_the_critical_difference():
    with kept() as shown:
        ranks_plot(RANKS, 1.6, [("a", "d"), ("b", "c")], **WORDS)
    text = str(shown[0])
    assert "(1.250, 0) (2.500, 1) (2.750, 2) (3.500, 3)" in text, "the best on top"
    assert "(4.220, -0.200) (4.220, 2.200)" in text and "(4.440, 0.800) (4.440, 3.200)" in text
    assert "(1, 4.100) (2.600, 4.100)" in text and "critical difference 1.60" in text


def test_a_bar_of_somebody_without_a_rank_is_named():
    with pytest.raises(ValueError, match="no rank is given for e"):
        ranks_plot(RANKS, 1.6, [("a", "e")], **WORDS)


def test_thirty_methods_have_a_figure_too():
    many = pd.Series({f"rule {k}": 1.0 + 0.9 * k for k in range(30)})
    bars = [(f"rule {k}", f"rule {k + 9}") for k in range(20)]
    with kept() as shown:
        ranks_plot(many, 9.0, bars, **WORDS)
    assert str(shown[0]).count("#333333 -:") == 20
