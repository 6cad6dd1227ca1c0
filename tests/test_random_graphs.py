"""Random graphs under hypothesis; `python -m tests.random_graphs 5000` draws many more."""

import csv

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import random_graphs
from tests.random_graphs import ASK, FORMULAS, METHODS, compare


@given(
    seed=st.integers(0, 2**31),
    ask=st.sampled_from(ASK),
    method=st.sampled_from(METHODS),
    formulas=st.sampled_from(FORMULAS),
)
@settings(max_examples=150, deadline=None)
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_a_random_graph_is_that_of_plain_passes(seed, ask, method, formulas):
    assert compare(seed, ask, method, formulas)[0] in ("right", "unreached")


def test_the_record_is_of_5000_graphs_that_are_all_right():
    with random_graphs.FILE.open(encoding="utf-8") as file:
        record = {row["what"]: int(row["graphs"]) for row in csv.DictReader(file)}
    outcomes = {what: n for what, n in record.items() if not what.startswith("with ")}
    assert outcomes.keys() == {"right", "unreached"} and sum(outcomes.values()) == 5000
    kinds = {"with " + kind.__name__.replace("_", " ") for kind in random_graphs.LAYERS}
    assert kinds <= record.keys()
    assert all(record[kind] > 100 for kind in kinds)
