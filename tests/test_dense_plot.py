"""Rooms as pictures: what is drawn is what was given."""

import pytest
import torch

from mtl_utils.datasets import rooms
from mtl_utils.plots import dense_plot
from mtl_utils.showing import kept

DATA = rooms(2, 1, 1, size=8, seed=0)
CLASSES = DATA.info["classes"]
TEXT = {"title": "Two rooms", "alt": "Two rows of four pictures each, one row a room."}


def room(index, image=True):
    x, classes, depth, normals = (t[index] for t in DATA.train)
    return (x if image else None), classes, depth, normals


def test_two_rows_share_a_scale_and_a_legend():
    with kept() as shown:
        dense_plot({"one": room(0), "two": room(1, image=False)}, CLASSES, **TEXT)
    (figure,) = shown
    lines = figure.text.splitlines()
    assert lines[0] == f"Figure: {TEXT['alt']}" and lines[1] == "Two rooms"
    assert sum(line.startswith("image: ") for line in lines) == 8  # 7, and the bar of the depth
    assert any(all(name in line for name in CLASSES) for line in lines if "legend" in line)


def test_it_refuses():
    with pytest.raises(ValueError, match="rows: there is nothing to draw"):
        dense_plot({}, CLASSES, **TEXT)
    with pytest.raises(ValueError, match="classes: 9 of them"):
        dense_plot({"one": room(0)}, ["x"] * 9, **TEXT)
    with pytest.raises(ValueError, match="alt: say what the figure shows"):
        dense_plot({"one": room(0)}, CLASSES, title="Two rooms", alt="")


def test_depth_is_drawn_in_its_unit():
    with kept() as shown:
        dense_plot({"one": room(0)}, CLASSES, **TEXT, unit="centimetres")
    assert "centimetres" in shown[0].text
    assert torch.isfinite(DATA.train[2]).all()
