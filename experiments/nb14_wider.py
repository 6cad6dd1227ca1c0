"""Notebook 14: picks at the edge of what was tried, searched further.

python -m experiments.nb14_wider    goes on from results/14_benchmark.jsonl,
                                    writes results/14_wider.jsonl

The benchmark ends at 24 trials for everybody, with some picks beside which a side is untried. Here
these contenders alone search on, up to as many trials again, and report anew: does it turn a
verdict? Of the cells that the benchmark's record has in full.
"""

from __future__ import annotations

from experiments.benchmark import widen
from experiments.nb14_benchmark import RECORD, ROUNDS, STUDIES, block
from experiments.nb14_tables import complete_cells
from mtl_utils import records, sweep

WIDER = "14_wider"

if __name__ == "__main__":
    options, runs = sweep.options(__doc__), records.read(RECORD)
    for study, cell, _ in complete_cells(STUDIES, runs):
        widen(study, cell, block, runs, WIDER, ROUNDS, **options)
