"""The attributes of rendered glyphs."""

import string
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from PIL import ImageFont
from scipy import stats
from scipy.ndimage import label

from mtl_utils.datasets.glyphs import (
    CHARACTER_TASKS,
    CHARACTERS,
    FONTS,
    TASKS,
    _glyphs,
    _place,
    _placing,
    glyph_attributes,
)


@pytest.fixture(scope="module")
def data():
    return glyph_attributes(n_train=3000, n_val=500, n_test=500)


def column(name):
    return TASKS.index(name) + 1


def attribute(font, character, name):
    row = list(FONTS).index(font) * len(CHARACTERS) + CHARACTERS.index(character)
    return bool(_glyphs()[1][row, TASKS.index(name)])


def test_shapes_and_values(data):
    assert data.n_tasks == len(set(TASKS)) == 20
    for split, n in (("train", 3000), ("val", 500), ("test", 500)):
        images, *targets = getattr(data, split)
        assert images.shape == (n, 1, 32, 32) and images.dtype == torch.get_default_dtype()
        assert 0 <= images.min() and images.max() <= 1
        for target in targets:
            assert target.shape == (n,) and set(target.unique().tolist()) == {0.0, 1.0}


def test_splits_share_no_pair_of_font_and_character(data):
    splits = [set(data.info["pairs"][split].tolist()) for split in ("train", "val", "test")]
    assert not splits[0] & splits[1] and not splits[0] & splits[2] and not splits[1] & splits[2]
    other = glyph_attributes(n_train=3000, n_val=500, n_test=500, seed=1).info["pairs"]
    assert not set(other["train"].tolist()) & (splits[1] | splits[2])  # the same for every seed
    for pairs in (p % 62 for p in data.info["pairs"].values()):
        assert len(pairs.unique()) > 50  # of the 62 characters
    assert len((data.info["pairs"]["test"] // 62).unique()) == len(FONTS) == 21


def test_draw_is_repeatable_and_changes_with_the_seed(data):
    again = glyph_attributes(n_train=3000, n_val=500, n_test=500)
    for split in ("train", "val", "test"):
        for a, b in zip(getattr(data, split), getattr(again, split), strict=True):
            assert torch.equal(a, b)
    other = glyph_attributes(n_train=3000, n_val=500, n_test=500, seed=1)
    assert not torch.equal(data.train[0], other.train[0])


def test_frequencies_are_graded(data):
    positive = torch.stack(data.train[1:]).mean(1)
    assert 0.01 < positive.min() < 0.06 and 0.5 < positive.max() < 0.65


def test_targets_belong_to_the_pair(data):
    glyph = _glyphs()[1][data.info["pairs"]["train"]]
    torch.testing.assert_close(torch.stack(data.train[1:16], 1), glyph.float())
    digit = data.train[column("digit")].bool()
    assert torch.equal(digit, data.info["pairs"]["train"] % 62 >= 52)


def test_attributes_that_follow_from_the_ink():
    holes = {c for c in CHARACTERS if attribute("DejaVuSans", c, "hole")}
    assert holes == set("abdegopqABDOPQR04689")
    assert {c for c in CHARACTERS if attribute("DejaVuSans", c, "two holes")} == set("B8")
    assert attribute("cmr10", "g", "two holes") and not attribute("DejaVuSans", "g", "two holes")
    assert {c for c in CHARACTERS if attribute("cmr10", c, "descender")} == set("gjpqyQ")
    assert attribute("DejaVuSans", "J", "descender")


def test_strokes_that_touch_in_a_slanted_cut_make_no_hole():
    """A pixel or two between them is no hole: these characters have none in any font."""
    for character in "CEFGHIJKLMNSTUVWXYZcfhijklmnrstuvwxyz12357":
        assert not any(attribute(font, character, "hole") for font in FONTS), character


def font_file(font):
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"


@pytest.mark.parametrize("font", FONTS)
def test_attributes_of_the_font(font):
    """As the file names itself; those of Knuth say it in letters: b bold, ti italic, ss sans."""
    found = ImageFont.truetype(font_file(font), 48)
    family, style = found.getname()
    knuth = family.removeprefix("cm")[:2] if family.startswith("cm") else "  "
    wanted = {
        "bold": "Bold" in style or knuth[0] == "b",
        "slanted": "Italic" in style or "Oblique" in style or knuth == "ti",
        "serif": not ("Sans" in family or knuth == "ss"),
        "monospaced": len({found.getlength(character) for character in "iMw1"}) == 1,
    }
    for character in CHARACTERS:
        assert {name: attribute(font, character, name) for name in wanted} == wanted


def drawn(character, size=200):
    """The ink of a sans-serif character, without a margin."""
    mask = ImageFont.truetype(font_file("DejaVuSans"), size).getmask(character, mode="L")
    ink = np.asarray(mask).reshape(mask.size[::-1]) > 127
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def test_attributes_of_the_character_are_those_of_its_outline():
    """A font without serifs shows a character's own strokes."""
    font = ImageFont.truetype(font_file("DejaVuSans"), 480)
    own = FontProperties(fname=str(font_file("DejaVuSans")))
    curves = {TextPath.CURVE3, TextPath.CURVE4}
    wanted = {
        "straight": {c for c in CHARACTERS if not curves & {*TextPath((0, 0), c, prop=own).codes}},
        "dotted": {c for c in CHARACTERS if label(drawn(c))[1] == 2},
        "ascender": {
            c
            for c in set(string.ascii_lowercase) - set("ij")  # their dots are not strokes
            if font.getbbox("x", anchor="ls")[1] / font.getbbox(c, anchor="ls")[1] < 0.8
        },
        "vowel": {c for c in CHARACTERS if c.lower() in {"a", "e", "i", "o", "u"}},
        "upper case": {c for c in CHARACTERS if c.isupper()},
        "digit": {c for c in CHARACTERS if c.isdigit()},
    }
    for name, characters in wanted.items():
        assert set(CHARACTER_TASKS[name]) == characters, name


def test_mirrored_characters_are_the_listed_ones():
    """Capitals as every book lists them; lower case and digits, left to right, by their picture."""
    mirror = {name: set(CHARACTER_TASKS[f"mirror {name}"]) for name in ("left-right", "up-down")}
    assert mirror["up-down"] == set("BCDEHIKOX") | set("clox") | set("038")
    capitals = set(string.ascii_uppercase)
    assert mirror["left-right"] & capitals == set("AHIMOTUVWXY")
    alike = set()
    for c in set(CHARACTERS) - capitals:
        ink, turned = drawn(c), drawn(c)[:, ::-1]
        if (ink & turned).sum() > 0.85 * (ink | turned).sum():
            alike.add(c)
    assert mirror["left-right"] - capitals == alike


def test_views_come_as_often_as_they_say(data):
    """More than ten degrees in a normal law of eight; the others by their own shares."""
    rotated = 2 * stats.norm.sf(10 / 8)
    shares = {"rotated": rotated, "small": 0.25, "inverted": 0.1, "noisy": 0.15, "left": 0.3}
    for name, share in shares.items():
        found = torch.cat([getattr(data, split)[column(name)] for split in ("train", "val")])
        assert abs(found.mean().item() - share) < 4 * np.sqrt(share * (1 - share) / len(found))


def test_bold_has_more_ink():
    """Labels and pictures belong together: each bold cut is darker than its regular one."""
    ink = _glyphs()[0].mean((1, 2, 3)).reshape(len(FONTS), -1).mean(1)
    ink = dict(zip(FONTS, ink.tolist(), strict=True))
    for regular, bold in {
        "DejaVuSans": "DejaVuSans-Bold",
        "DejaVuSansMono": "DejaVuSansMono-Bold",
        "DejaVuSerif": "DejaVuSerif-Bold",
        "STIXGeneral": "STIXGeneralBol",
        "cmr10": "cmb10",
    }.items():
        assert ink[bold] > 1.1 * ink[regular]


def test_no_glyph_touches_the_edge_of_its_canvas():
    canvases = _glyphs()[0]
    for edge in (canvases[..., 0, :], canvases[..., -1, :], canvases[..., 0], canvases[..., -1]):
        assert edge.max() == 0


def test_attributes_of_the_view_are_seen(data):
    """A statistic of the image tells each of them, where it should."""
    images = data.train[0][:, 0]
    target = {name: data.train[column(name)].bool() for name in TASKS[-5:]}
    edge = torch.cat([images[:, 0], images[:, -1]], 1)
    assert torch.equal(edge.median(1).values > 0.5, target["inverted"])
    assert ((edge.std(1) > 0.06) == target["noisy"]).float().mean() > 0.99
    ink = torch.where(target["inverted"][:, None, None], 1 - images, images) > 0.4
    ink[target["noisy"]] = False
    has_ink = ink.any(2).any(1)
    columns = torch.arange(32.0) - 15.5
    middle = (ink.float().sum(1) @ columns) / ink.sum((1, 2)).clamp_min(1)
    left = has_ink & target["left"]
    assert middle[left].mean() < -3 and middle[has_ink & ~left].mean() > 0
    assert left.sum() > 100
    height = ink.any(2).sum(1).float()
    small = has_ink & target["small"]
    assert height[small].mean() < 0.75 * height[has_ink & ~small].mean()


@pytest.mark.parametrize("character", ["I", "g"])
def test_placing_turns_scales_and_moves(character):
    canvas = _glyphs()[0][[CHARACTERS.index(character)]]
    y, x = torch.meshgrid(*[torch.arange(64.0) - 31.5] * 2, indexing="ij")

    def measure(angle=0.0, em=0.5, right_by=0.0, down_by=0.0):
        """Centre, and mean squares of x and y about it, in pixels."""
        options = (np.array([value]) for value in (em, angle, right_by, down_by))
        image = _place(canvas, _placing(*options), 64)[0, 0]
        image = image / image.sum()
        cx, cy = (image * x).sum(), (image * y).sum()
        spread = [(image * (x - cx) ** 2).sum().item(), (image * (y - cy) ** 2).sum().item()]
        return [cx.item(), cy.item()], spread

    centre, spread = measure()
    turned_centre, turned = measure(angle=90)
    assert turned == pytest.approx(spread[::-1], rel=0.02)
    assert np.hypot(*turned_centre) == pytest.approx(np.hypot(*centre), abs=0.1)
    assert sum(measure(angle=30)[1]) == pytest.approx(sum(spread), rel=0.02)
    assert sum(measure(em=0.25)[1]) == pytest.approx(sum(spread) / 4, rel=0.1)
    for angle in (0, 30):
        centre, _ = measure(angle)
        moved, _ = measure(angle, right_by=0.125, down_by=-0.0625)
        assert moved == pytest.approx([centre[0] + 8, centre[1] - 4], abs=0.05)


@pytest.mark.parametrize("options", [{"n_train": 0}, {"n_val": -1}, {"n_test": 1.5}, {"size": 8}])
def test_bad_arguments_are_refused_by_name(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        glyph_attributes(**options)


@pytest.mark.parametrize("size", [16, 48])
def test_other_sizes(size):
    data = glyph_attributes(n_train=4, n_val=2, n_test=2, size=size)
    assert data.train[0].shape == (4, 1, size, size)
