"""Published against reproduced: read from stored notebooks, judged by the numbers."""

from dataclasses import replace

import nbformat
import pytest

from experiments import published
from experiments.published import HOLDS, NOT, OPEN, SETTING, Row

VERDICTS = (HOLDS, SETTING, NOT, OPEN)


@pytest.mark.parametrize("row", published.ROWS, ids=lambda r: f"{r.number} {r.what}"[:40])
def test_our_number_is_there_and_the_verdict_is_that_of_the_numbers(row):
    path, _, ours = published.judged(row)
    assert path.name.startswith(f"{row.number}_") and any(c.isdigit() for c in ours)


def test_there_are_enough_rows_and_each_has_a_source():
    assert len(published.ROWS) >= 12
    assert {row.verdict for row in published.ROWS} == set(VERDICTS)
    assert all(row.source and (row.why or row.verdict == HOLDS) for row in published.ROWS)


@pytest.mark.parametrize("row", published.ROWS, ids=lambda r: f"{r.number} {r.what}"[:40])
def test_published_decimals_are_those_that_the_notebook_names(row):
    path, *_ = published.measure(row)
    source = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
    numbers = [n for n in published.NUMBER.findall(row.published) if "." in n]
    if numbers == ["-3.57"]:  # points; the notebook has both shares
        assert ".1071" in source and ".0714" in source
        assert float(numbers[0]) == pytest.approx(100 * (0.0714 - 0.1071))
        return
    assert all(number.rstrip("0") in source for number in numbers)


# ---- a notebook of our own -----------------------------------------------------------------------

OUTPUT = "rule   error\nequal  +0.30 [-0.10, +0.70]\nmgda   -0.20 [-0.30, -0.10]\n"
ROW = Row(
    "toy",
    "0.3",
    "table 1",
    "77",
    "rule error",
    "equal ",
    ours=published.with_interval,
    judge=lambda theirs, ours: HOLDS if theirs[0] == ours[0][0] else NOT,
    verdict=HOLDS,
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "NOTEBOOKS", tmp_path)
    (tmp_path / "research").mkdir()
    return tmp_path


def write(path, *texts):
    out = [nbformat.v4.new_output("stream", text=text) for text in texts]
    cells = [nbformat.v4.new_markdown_cell("# 77\n\n## A toy")]
    cells += [nbformat.v4.new_code_cell("", outputs=[output]) for output in out]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    published.outputs.cache_clear()


def test_a_number_is_read_wherever_its_cell_went(folder):
    write(folder / "77_toy.ipynb", "nothing here 0.5")
    write(folder / "research" / "77_toy.ipynb", OUTPUT)
    path, section, ours = published.judged(ROW)
    assert path.parent.name == "research" and ours == "+0.30 [-0.10, +0.70]"
    assert section == "A toy"
    line = published.markdown([ROW]).splitlines()[-1]
    assert "0.3 (table 1)" in line and "([77, A toy](notebooks/research/77_toy.ipynb))" in line
    assert published.table([ROW]).iloc[0].tolist()[3:] == [HOLDS, "77, report"]


def test_a_number_that_is_gone_is_named(folder):
    write(folder / "77_toy.ipynb", "rule error\nfamo 0.1")
    with pytest.raises(ValueError, match=r"toy: expected one stored output.*found 0"):
        published.measure(ROW)


def test_a_number_in_two_places_is_named(folder):
    write(folder / "77_toy.ipynb", OUTPUT, OUTPUT)
    with pytest.raises(ValueError, match="found 2"):
        published.measure(ROW)


def test_a_verdict_that_the_numbers_contradict_is_refused(folder):
    write(folder / "77_toy.ipynb", OUTPUT)
    with pytest.raises(ValueError, match=f"says '{NOT}', its numbers '{HOLDS}'"):
        published.judged(replace(ROW, verdict=NOT))
    write(folder / "77_toy.ipynb", OUTPUT.replace("0.30", "0.31"))
    with pytest.raises(ValueError, match=f"says '{HOLDS}', its numbers '{NOT}'"):
        published.judged(ROW)


# ---- judges --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("low", "high", "verdict"), [(-2, -1, HOLDS), (-1, 1, OPEN), (1, 2, NOT)])
def test_an_order_is_judged_by_its_interval(low, high, verdict):
    interval = [[(low + high) / 2, low, high]]
    assert published.less(interval) == verdict
    assert published.more([[-(low + high) / 2, -high, -low]]) == verdict


def test_other_judges_see_both_sides():
    assert published.within_spread([1.0], [[0.9], [1.1]]) == HOLDS
    assert published.within_spread([1.2], [[0.9], [1.1]]) == NOT
    assert published.within_two_deviations([], [[8, 8, 2.1]]) == NOT
    assert published.coefficient([-3.0], [[-2, -4, 0], [0, -1, 1]]) == SETTING
    assert published.matches([22.6], [[22.4]]) == NOT
    fronts = [[0.1, 0, 0.2], [0.3, 0.25, 0.35], [0.5, 0.4, 0.6]]
    assert published.ordered_fronts([], fronts) == HOLDS
    assert published.ordered_fronts([], fronts[::-1]) == NOT


def test_toys_are_judged_by_where_paths_end():
    middle, side, valley = [0.0, -8.35], [5.7, -8.41], [5.0, 4.9]
    assert published.in_the_middle(middle + side + valley) == 1
    assert published.above(middle + side + valley) == 1
    assert published.aligned([], [5 * middle, 4 * side + valley]) == SETTING
    assert published.aligned([], [5 * middle, 5 * side]) == HOLDS
    assert published.aligned([], [4 * middle + valley, 5 * side]) == NOT
    assert published.nash([1.0], [4 * side + valley, 5 * side]) == HOLDS
    assert published.nash([1.0], [5 * side, 5 * side]) == NOT
    assert published.famo([], [[0, 0, *middle, *valley]]) == SETTING
    assert published.famo([], [[0, 0, *side, *valley]]) == NOT
