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


WAYS = [
    (ask, method, formulas)
    for ask in ("gramian", "jacobian", "last layer", "nothing")
    for method in ("auto", "loop", "batched")
    for formulas in ("always", "never")
    if method == "auto" or (formulas == "never" and ask in ("gramian", "jacobian"))
]


@each_situation
@pytest.mark.parametrize(("ask", "method", "formulas"), WAYS)
def test_the_engine_in_every_way_is_that_of_plain_passes(name, ask, method, formulas):
    """Gramian, Jacobian and what lands for any coefficients, whatever was asked for before."""
    found = passes(name)
    own = torch.Generator().manual_seed(len(name))
    alpha = torch.randn(found.n_tasks, generator=own, dtype=torch.float64)
    alpha[1:2] = 0.0
    weights = torch.rand(found.n_tasks, generator=own, dtype=torch.float64) + 0.5
    model = SITUATIONS[name]()
    with mock.patch.object(layers, "_saved", return_value=1e18 if formulas == "always" else -1.0):
        task = task_gradients(model.losses(), model.shared, method=method, head_weights=weights)
        jacobian = found.jacobian
        if ask == "gramian":
            wanted = jacobian @ jacobian.T
            far = (task.gramian() - wanted).norm()
            assert far <= 10 * model.tolerance * wanted.norm(), task.plan
        if ask == "jacobian":
            far = (task.jacobian - jacobian).norm()
            assert far <= model.tolerance * jacobian.norm(), task.plan
        if ask == "last layer":
            last = found.last_layer
            wanted = last @ last.T
            far = (task.gramian(last_layer=True) - wanted).norm()
            assert far <= 10 * model.tolerance * wanted.norm(), task.plan
        task.fill(alpha)
    plain.compare(model, found.combined(alpha.to(jacobian) @ jacobian, weights))
