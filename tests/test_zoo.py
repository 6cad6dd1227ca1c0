"""Every rule on every situation of the zoo, against K plain backward passes."""

from functools import cache
from unittest import mock

import pytest
import torch
from torch._functorch import config

from mtl_utils.engine import layers
from mtl_utils.gradients import task_gradients
from tests import plain
from tests.rules import NAMES, make
from tests.zoo import SITUATIONS

pytestmark = [
    pytest.mark.filterwarnings("ignore:There is a performance drop"),  # attention on a CPU
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support"),
]
each_situation = pytest.mark.parametrize("name", SITUATIONS)


@pytest.fixture(autouse=True)
def buffers_kept():
    """What compiled models need, see `NEEDS_BUFFERS`."""
    with config.patch(donated_buffer=False):
        yield


@cache
def passes(name):
    return plain.passes(SITUATIONS[name])


@each_situation
@pytest.mark.parametrize("rule", NAMES)
def test_every_rule_is_that_of_plain_passes(name, rule):
    """Two steps, so that what a rule keeps from one to the next is in it."""
    found = passes(name)
    ours, twin = make(rule, found.n_tasks), plain.Reference(rule, found)
    for _ in range(2):
        wanted = twin.step()
        model = SITUATIONS[name]()
        losses = model.losses()
        ours.backward(losses, shared=model.shared)
        if "losses_after_step" in ours.observes:
            ours.observe(losses_after_step=0.9 * losses.detach())
        plain.compare(model, wanted)
