"""What notebook 10 shows: the published problem, runs on it, and the measures of sets."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from experiments import nb10_digits, nb10_toys, nb13_toys
from mtl_utils.metrics import hypervolume


def test_losses_gradients_and_front_are_those_of_the_other_notebook():
    theta = torch.linspace(-0.5, 0.7, 20, dtype=torch.float64, requires_grad=True)
    losses = nb13_toys.bulging_losses(theta)
    rows = [torch.autograd.grad(loss, theta, retain_graph=True)[0] for loss in losses]
    point = theta.detach().numpy()
    np.testing.assert_allclose(nb10_toys.losses(point), losses.detach())
    np.testing.assert_allclose(nb10_toys.task_gradients(point), torch.stack(rows))
    s = np.linspace(-1, 1, 5)
    np.testing.assert_allclose(nb10_toys.front(s), nb10_toys.losses(s[:, None] * nb10_toys.CENTRE))


def test_places_and_angles_of_the_front():
    for degrees in (0.0, 20.0, 45.0, 90.0):
        place = nb10_toys.front(nb10_toys.at_angle(degrees))
        assert nb10_toys.angles(place) == pytest.approx(degrees, abs=1e-6)


def test_a_run_descends_as_by_hand():
    start = nb10_toys.starts(0)[0]
    path = nb10_toys.descend(start, lambda J, L: np.array([0.25, 0.75]), steps=1, rate=0.5)
    step = 0.5 * np.array([0.25, 0.75]) @ nb10_toys.task_gradients(start)
    np.testing.assert_allclose(path, [nb10_toys.losses(start), nb10_toys.losses(start - step)])


def test_a_factor_drops_out_where_losses_are_divided_by_their_starts():
    start = nb10_toys.starts(1)[3]
    own = 1 / nb10_toys.losses(start)
    once, turning = nb10_toys.pareto_run(start, 6, unit=own, steps=30)
    twice, again = nb10_toys.pareto_run(start, 6, unit=7 * own, steps=30, rate=1 / 7)
    np.testing.assert_allclose(once, twice)
    assert turning == again


def test_norms_are_taken_from_the_gradients_and_not_from_the_losses():
    """The cones see the losses as they are; the step is the same for any unit of the gradients."""
    start = nb10_toys.starts(0)[1]
    path, turning = nb10_toys.pareto_run(start, 8, norm=True, steps=1, rate=0.1)
    u = nb10_toys.preferences(10)
    J, L = nb10_toys.task_gradients(start), nb10_toys.losses(start)
    assert turning == 1 and (u @ L).argmax() != 8
    units = J / np.linalg.norm(J, axis=1, keepdims=True)
    differences = np.delete(u, 8, 0) - u[8]
    active = differences[differences @ L > 0]
    shortest = min((row @ units for row in active), key=np.linalg.norm)
    moved = nb10_toys.losses(start - 0.1 * shortest)  # one of them, where they do not conflict
    np.testing.assert_allclose(path[1], moved)


def test_a_limit_ends_the_first_phase():
    runs = nb10_toys.pareto_runs(0, steps=30, limit=5)
    assert max(turning for _, turning in runs) == 5


def test_batches_of_all_rows_give_the_answers_of_all_rows():
    found = nb10_toys.batch_runs(0, 2000, steps=5)
    assert found["other answers"] == 0 and found["points"].shape == (5, 2)
    assert nb10_toys.batch_runs(0, 8, steps=5)["other answers"] > 0


def test_pictures_have_the_cones_in_original_units():
    fig, ax = plt.subplots()
    nb10_toys.draw_cones(ax, 3, chosen=1, factor=10.0)
    nb10_toys.draw_runs(ax, [nb10_toys.pareto_run(nb10_toys.starts(0)[0], 1, 3, steps=3)])
    first, second = (line.get_xydata()[1] for line in ax.lines[1:3])
    for border, degrees in ((first, 22.5), (second, 67.5)):  # where the rule, which sees 10 L1, is
        assert nb10_toys.angles(border * np.array([10.0, 1.0])) == pytest.approx(degrees)
    plt.close(fig)


def test_measures_of_the_earlier_comparison():
    points = {"fixed": [(0.2, 0.8), (0.5, 0.5)], "other": [(0.3, 0.9), (0.9, 0.1)]}
    rows = [
        {"method": m, "seed": 0, "loss_left": a, "loss_right": b}
        for m, pairs in points.items()
        for a, b in pairs
    ]
    table = nb10_digits.measures(pd.DataFrame(rows), {"loss": 2.0}).set_index("method")
    assert table.loc["fixed", "hypervolume"] == pytest.approx(
        hypervolume(points["fixed"], (2, 2)) / 4
    )
    assert table["own front"].to_dict() == {"fixed": 2, "other": 2}
    assert table["beaten"].to_dict() == {"fixed": 0, "other": 1}
