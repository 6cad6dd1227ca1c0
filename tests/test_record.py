"""The table of a long experiment."""

import pytest

from benchmarks.record import Record, short

COLUMNS = ["rule", "seed", "error"]


def test_a_record_is_taken_up_where_it_ended(tmp_path):
    path = tmp_path / "results" / "00_x.csv"
    first = Record(path, COLUMNS, key=("rule", "seed"))
    first.add([["equal", 0, "0.5"], ["a, b", 1, ""]])
    first.add([])
    again = Record(path, COLUMNS, key=("rule", "seed"))
    assert again.rows == first.rows
    assert again.rows[1] == {"rule": "a, b", "seed": "1", "error": ""}
    assert ("equal", 0) in again
    assert ("a, b", 1) in again
    assert ("equal", 1) not in again
    again.add(["equal", seed, short(1 / 3)] for seed in (1,))
    assert ("equal", 1) in again
    text = path.read_bytes().decode()
    assert text == 'rule,seed,error\nequal,0,0.5\n"a, b",1,\nequal,1,0.3333\n'


def test_other_columns_and_short_rows_are_refused(tmp_path):
    path = tmp_path / "00_x.csv"
    record = Record(path, COLUMNS)
    before = path.read_text()
    with pytest.raises(ValueError, match="rows: expected 3 values each, got"):
        record.add([["equal", 0, 1.0], ["equal", 1]])
    assert path.read_text() == before
    with pytest.raises(ValueError, match=r"00_x.csv: expected columns \['rule', 'loss'\], got"):
        Record(path, ["rule", "loss"])


def test_short():
    assert [short(v) for v in (0.012345678, 2.0, 3, "a")] == ["0.01235", "2", 3, "a"]
