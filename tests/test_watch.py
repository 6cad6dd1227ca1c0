"""A learned weight that no optimiser holds is noticed, and nothing else is."""

import warnings

import pytest
import torch
from torch import nn

from mtl_utils.weighting import make_weighting
from tests.rules import NAMES, Problem, make

LEARNS = [name for name in NAMES if list(make(name, 2).parameters())]
each_that_learns = pytest.mark.parametrize("name", LEARNS)


def train(weighting, steps, parameters=(), parts=1, rate=0.01, zero=True, kind=torch.optim.SGD):
    """Steps of a model, with the rule's parameters in the optimiser or not."""
    problem = Problem(2)
    optimizer = kind([problem.theta, *problem.heads, *parameters], lr=rate)
    for _ in range(steps):
        if zero:
            optimizer.zero_grad()
            weighting.zero_grad()
        for _ in range(parts):
            problem.backward(weighting, torch.stack([x / parts for x in problem.losses()]))
        optimizer.step()


@each_that_learns
@pytest.mark.parametrize("zero", [True, False])
def test_a_forgotten_parameter_is_named_once_with_the_line_that_mends_it(name, zero):
    weighting = make(name, 2)
    (own,) = dict(weighting.named_parameters())
    mends = r"optimizer = Adam\(\[\*model.parameters\(\), \*weighting.parameters\(\)\]\)"
    with pytest.warns(UserWarning, match=rf"^{own} of this weighting .* {mends}") as found:
        train(weighting, 40, zero=zero)
    assert len(found) == 1


@each_that_learns
def test_ten_steps_are_waited_for(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(make(name, 2), 10)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_a_rule_whose_parameters_learn_is_left_alone(name, kind):
    weighting = make(name, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(weighting, 30, weighting.parameters(), kind=kind)


@each_that_learns
def test_micro_batches_of_one_step_count_once(name):
    weighting = make(name, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(weighting, 3, weighting.parameters(), parts=20)
    with pytest.warns(UserWarning):
        train(make(name, 2), 12, parts=20)


@each_that_learns
def test_frozen_parameters_and_weights_asked_for_without_training_are_left_alone(name):
    frozen = make(name, 2).requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(frozen, 20)
        problem, asked = Problem(2), make(name, 2)
        for _ in range(30):
            problem.backward(asked)


def test_a_late_optimiser_is_in_time():
    """A schedule that holds the rate of the weights at 0 for some steps."""
    weighting = make("uncertainty", 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(weighting, 8)
        train(weighting, 20, weighting.parameters())


def test_a_large_model_is_looked_through_only_until_the_parameter_moved(monkeypatch):
    from mtl_utils.weighting import watch

    calls = []
    leaves_of = watch.leaves_of
    monkeypatch.setattr(watch, "leaves_of", lambda x: calls.append(1) or leaves_of(x))
    weighting = make_weighting("uncertainty", 2)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD([*model.parameters(), *weighting.parameters()], lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        weighting.backward(model(torch.ones(4, 3)).square().mean(0))
        optimizer.step()
    assert len(calls) == 1
