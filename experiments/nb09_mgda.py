"""Notebook 09: MGDA, MGDA-UB and their normalisations on overlapping digits, with all controls.

python -m experiments.nb09_mgda    writes results/09_mgda.jsonl

The two digits of notebook 07 with all labels right: 1000 pairs at 7 x 7 pixels, the left one whole
and easier. Adam; two widths; early and trained to a plateau. Whatever changes the length of MGDA's
step from one step to the next is also run with weights that sum to K.
"""

from __future__ import annotations

import torch

from experiments.nb07_dtp import clean, shared, single
from experiments.protocol import Contender, Study, run, sum_to_k, train_block, usual_controls
from experiments.search import Knob
from experiments.small import cross_entropies, wrong
from mtl_utils import sweep


def normalised(kind: str) -> Contender:
    """MGDA on divided gradients."""
    return Contender(f"mgda, {kind}", "mgda", {"normalise": kind})


PLAIN = Contender("mgda", "mgda", {"normalise": "none"}, sum_to_k=True)  # their sum is always 1
BOUND = Contender("mgda-ub, loss+", "mgda", {"normalise": "loss+", "gramian": "representation"})
DIVIDED = (normalised("norm"), normalised("loss"), normalised("loss+"), BOUND)

STUDY = Study(
    data={"two digits": clean},
    model=shared,
    single=single,
    losses=cross_entropies,
    metric=wrong,
    contenders=(
        *usual_controls(units=False),
        PLAIN,
        *(contender for rule in DIVIDED for contender in (rule, sum_to_k(rule))),
        Contender("imtl_g", "imtl_g", sum_to_k=True),
    ),
    widths=(8, 24),
    epochs=(15, 80),
    rates={"adam": Knob("rate", 0.01)},
    batch_size=100,
)


def block(data, optimiser, width, epochs, contender, trials, stage):
    """The unit of work: see `experiments.protocol.train_block`."""
    return train_block(STUDY, data, optimiser, width, epochs, contender, trials, stage)


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    run(STUDY, block, record="09_mgda", **sweep.options(__doc__))
