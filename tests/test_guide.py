"""The decision guide: branches rest on checks that passed, and the picture can be read."""

from dataclasses import replace

import matplotlib.pyplot as plt
import pytest

from experiments import guide
from mtl_utils.plots import plot_guide

EVERY = (guide.ALWAYS, *guide.BRANCHES)


@pytest.mark.parametrize("branch", EVERY, ids=lambda branch: branch.know)
def test_a_branch_rests_on_checks_that_passed(branch):
    assert len(guide.grounds(branch)) >= 1
    assert all((branch.first, branch.cost, branch.not_expected))


def test_a_check_that_is_gone_is_named():
    branch = replace(guide.ALWAYS, rests_on=(("08", "a check that nobody wrote"),))
    with pytest.raises(ValueError, match=r"notebook 08 has no check 'a check that nobody"):
        guide.grounds(branch)


def test_words_in_the_middle_of_a_check_are_not_that_check():
    branch = replace(guide.ALWAYS, rests_on=(("07", "networks: 16 of 16"),))
    with pytest.raises(ValueError, match="no check"):
        guide.grounds(branch)


def test_the_first_row_needs_no_rule():
    table = guide.table()
    assert table.columns[0] == "what you know" and len(table) == len(EVERY)
    first = table.iloc[0]["try first"]
    assert first.startswith("standardise") and "learning rate" in first


def test_the_table_of_the_readme_links_every_notebook_that_it_names():
    rows = guide.markdown().splitlines()[2:]
    for row, number in zip(rows, guide.table()["measured in"], strict=True):
        assert all(f"[{n}](notebooks/{n}_" in row for n in number.split(", "))


def test_every_text_of_the_picture_lies_in_its_box_and_boxes_apart():
    fig, ax = plot_guide(guide.table())
    fig.draw_without_rendering()
    renderer = fig.canvas.get_renderer()
    boxes = [patch.get_window_extent(renderer) for patch in ax.patches]
    _, *texts = (t.get_window_extent(renderer) for t in ax.texts if t.get_text())  # but the title
    assert len(boxes) == len(texts) == 2 * len(guide.BRANCHES) + 1
    for box, text in zip(boxes, texts, strict=True):
        assert box.x0 < text.x0 and text.x1 < box.x1 and box.y0 < text.y0 and text.y1 < box.y1
    assert not any(a.overlaps(b) for a in boxes for b in boxes if a is not b)
    assert fig.get_size_inches()[0] <= 6.4, "to be read on a small screen"
    plt.close(fig)
