"""Solvers on the Gramian, by their optimality conditions, closed forms and scipy."""

from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from mtl_utils import solvers

few = settings(max_examples=60, deadline=None)


@st.composite
def jacobians(draw, max_tasks=10, decades=6.0, dependent=False):
    """Random rows whose norms lie up to six decades apart; with `dependent`, fewer columns than
    rows now and then."""
    n_tasks = draw(st.integers(2, max_tasks))
    low = 2 if dependent else n_tasks + 1
    columns = draw(st.integers(low, n_tasks + 20))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    common = draw(st.floats(0, 2))
    rows = rng.normal(size=(n_tasks, columns)) + common * rng.normal(size=columns)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows * 10 ** rng.uniform(-decades / 2, decades / 2, size=(n_tasks, 1))


def test_a_zero_gradient_is_at_right_angles_to_all_others():
    norms, cosine = solvers.cosines(np.diag([4.0, 0.0]))
    assert norms.tolist() == [2, 0] and cosine.tolist() == [[1, 0], [0, 1]]


def min_norm_residual(gramian, alpha):
    """How far g_k'd lies below |d|^2, in units of |g_k| times the shortest gradient."""
    norms = np.sqrt(gramian.diagonal())
    return ((alpha @ gramian @ alpha - gramian @ alpha) / (norms * norms.min())).max()


@given(rows=jacobians(dependent=True))
@few
def test_min_norm_point_is_optimal(rows):
    gramian = rows @ rows.T
    alpha = solvers.min_norm_point(gramian)
    assert alpha.min() >= 0 and alpha.sum() == pytest.approx(1, abs=1e-14)
    assert min_norm_residual(gramian, alpha) < 1e-10
    warm = solvers.min_norm_point(gramian, start=np.full(len(rows), 1 / len(rows)))
    assert min_norm_residual(gramian, warm) < 1e-10


@given(rows=jacobians(max_tasks=2))
@few
def test_min_norm_point_of_two_is_the_closed_form(rows):
    g1, g2 = rows
    wanted = np.clip((g2 - g1) @ g2 / ((g1 - g2) @ (g1 - g2)), 0, 1)
    alpha = solvers.min_norm_point(rows @ rows.T)
    assert alpha[0] == pytest.approx(wanted, rel=1e-8, abs=1e-12)


def test_min_norm_point_of_two_that_are_nearly_the_same_is_between_them():
    tilt = 1e-5
    rows = np.array([[np.cos(tilt), np.sin(tilt)], [np.cos(tilt), -np.sin(tilt)]])
    np.testing.assert_allclose(solvers.min_norm_point(rows @ rows.T), [0.5, 0.5], rtol=1e-4)


def test_min_norm_point_keeps_a_small_weight_that_grows_again():
    rng = np.random.default_rng(328)  # on the way the weight of a task is small in this one
    rows = rng.normal(size=(12, 16)) + rng.normal(size=16)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    gramian = rows @ rows.T
    assert min_norm_residual(gramian, solvers.min_norm_point(gramian)) < 1e-10


def test_min_norm_point_ends_where_rounding_leaves_no_progress():
    """Of two gradients that are all but the same it might take one for the other for ever."""
    for seed in range(100):
        rng = np.random.default_rng(seed)
        rows = rng.normal(size=(5, 7))
        rows[1] = rows[0] + 1e-8 * rng.normal(size=7)
        with mock.patch.object(solvers, "_shrink", wraps=solvers._shrink) as turns:
            alpha = solvers.min_norm_point(rows @ rows.T)
        assert turns.call_count <= 10
        assert min_norm_residual(rows @ rows.T, alpha) < 1e-8


@pytest.mark.parametrize("n_tasks", [3, 10, 40])
def test_min_norm_point_of_orthogonal_gradients(n_tasks):
    squares = 10 ** np.random.default_rng(0).uniform(-6, 6, n_tasks)
    alpha = solvers.min_norm_point(np.diag(squares))
    np.testing.assert_allclose(alpha, (1 / squares) / (1 / squares).sum(), rtol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_min_norm_point_is_that_of_scipy(seed):
    rows = np.random.default_rng(seed).normal(size=(5, 8))
    gramian = rows @ rows.T
    # nonnegative least squares: shortest d with sum alpha = 1 as a heavy extra row
    system = np.vstack([rows.T, np.full(5, 1e6)])
    wanted, _ = optimize.nnls(system, np.append(np.zeros(8), 1e6))
    alpha = solvers.min_norm_point(gramian)
    np.testing.assert_allclose(alpha, wanted / wanted.sum(), atol=1e-8)


def test_min_norm_point_where_the_gradients_are_stationary():
    rows = np.array([[1.0, 0.0], [-0.5, np.sqrt(0.75)], [-0.5, -np.sqrt(0.75)]])
    np.testing.assert_allclose(solvers.min_norm_point(rows @ rows.T), np.full(3, 1 / 3), atol=1e-12)
    opposite = np.array([[2.0], [-1.0]])
    np.testing.assert_allclose(solvers.min_norm_point(opposite @ opposite.T), [1 / 3, 2 / 3])


SPECIAL = {
    "zero": np.array([[0.0, 0.0], [1.0, 2.0], [3.0, -1.0]]),
    "all zero": np.zeros((3, 2)),
    "identical": np.array([[1.0, 2.0]] * 3),
    "parallel": np.array([[1.0, 2.0], [2.0, 4.0], [1e-6, 2e-6]]),
    "nearly parallel": np.array([[1.0, 2.0], [1.0, 2.0 + 1e-9], [1.0 - 1e-9, 2.0]]),
    "opposite": np.array([[1.0, 2.0], [-1.0, -2.0], [2.0, -1.0]]),
    "nearly opposite": np.array([[1.0, 2.0], [-1.0, -2.0 + 1e-9], [2.0, -1.0]]),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_min_norm_point_of_special_gradients(name):
    gramian = SPECIAL[name] @ SPECIAL[name].T
    alpha = solvers.min_norm_point(gramian)
    assert np.isfinite(alpha).all() and alpha.min() >= 0 and alpha.sum() == pytest.approx(1)
    assert (alpha @ gramian @ alpha - gramian @ alpha).max() < 1e-9
    if "zero" in name:
        assert alpha @ gramian @ alpha == 0


@given(rows=jacobians(dependent=True), seed=st.integers(0, 1000))
@few
def test_dual_cone_is_optimal(rows, seed):
    """KKT: multipliers (the inner products) >= 0, x >= u, and one of the two is tight."""
    gramian = rows @ rows.T
    norms = np.sqrt(gramian.diagonal())
    u = np.vstack([np.eye(len(rows)), np.random.default_rng(seed).uniform(size=(2, len(rows)))])
    x = solvers.dual_cone(gramian, u)
    assert x.shape == u.shape
    size = (np.abs(u) * norms).max(1, keepdims=True)
    products, gap = x @ gramian / norms / size, (x - u) * norms / size
    assert products.min() > -1e-10 and gap.min() >= -1e-12
    assert np.abs(np.minimum(products, gap)).max() < 1e-10
    # the vector is unique, its weights are where the gradients are independent
    alone = solvers.dual_cone(gramian, u[0])
    np.testing.assert_allclose(alone @ rows, x[0] @ rows, atol=1e-6 * norms[0])


@pytest.mark.parametrize("name", SPECIAL)
def test_dual_cone_of_special_gradients(name):
    gramian = SPECIAL[name] @ SPECIAL[name].T
    x = solvers.dual_cone(gramian, np.eye(3))
    assert np.isfinite(x).all() and (x - np.eye(3)).min() >= 0
    assert (x @ gramian).min() > -1e-8


@pytest.mark.parametrize("seed", range(5))
def test_dual_cone_is_that_of_scipy(seed):
    rows = np.random.default_rng(seed).normal(size=(5, 6))
    u = np.random.default_rng(seed + 10).uniform(size=5)
    z, _ = optimize.nnls(rows.T, -rows.T @ u)
    np.testing.assert_allclose(solvers.dual_cone(rows @ rows.T, u), u + z, atol=1e-9)


def test_dual_cone_leaves_no_conflict_however_small():
    """The second and third are the same, so that no system of both can be solved."""
    rows = np.array([[1.0, 0.0], [-1e-5, 1.0], [-1e-5, 1.0]])
    x = solvers.dual_cone(rows @ rows.T, [1.0, 0.0, 0.0])
    assert (rows @ (x @ rows)).min() > -1e-12


def test_block_pivoting_ends_where_exchanging_all_wrong_signs_goes_in_circles():
    rng = np.random.default_rng(323)  # one of few such
    rows = rng.normal(size=(4, 5))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    matrix, q = rows @ rows.T, rng.normal(size=(1, 4))
    with mock.patch.object(solvers, "_one_by_one", side_effect=AssertionError):
        z = solvers._nonnegative(matrix, q)
    assert np.abs(np.minimum(z, z @ matrix + q)).max() < 1e-12


def test_no_weight_is_negative_by_rounding():
    """The second and fourth are 0: a solution at the border of what is free."""
    for seed in range(20):
        rows = np.random.default_rng(seed).normal(size=(4, 6))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        matrix, wanted = rows @ rows.T, np.array([1.0, 0.0, 2.0, 0.0])
        z = solvers._nonnegative(matrix, (-matrix @ wanted)[None])[0]
        assert z.min() >= 0
        np.testing.assert_allclose(z, wanted, atol=1e-12)


def test_freeing_one_by_one_tells_gradients_apart_that_are_nearly_the_same():
    matrix, wanted = np.array([[1.0, 1 - 1e-8], [1 - 1e-8, 1.0]]), np.array([1.0, 2.0])
    np.testing.assert_allclose(solvers._one_by_one(matrix, -matrix @ wanted), wanted, rtol=1e-6)


@given(rows=jacobians(), alpha=st.sampled_from([0.5, 1.0, 2.0, 5.0]))
@few
def test_proportional_fairness_solves_its_equation(rows, alpha):
    gramian = rows @ rows.T
    w = solvers.proportional_fairness(gramian, alpha)
    assert w.min() > 0
    assert np.abs((gramian @ w) * w ** (1 / alpha) - 1).max() < 1e-8


@pytest.mark.parametrize("alpha", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("seed", range(40))
def test_proportional_fairness_hears_long_gradients(seed, alpha):
    """Their weights are so small that they hardly change the objective; they have to be right all
    the same, to the last digits."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(5, 11)) + 2 * rng.normal(size=11)
    rows *= 10 ** rng.uniform(-3, 3, size=(5, 1))
    gramian = rows @ rows.T
    w = solvers.proportional_fairness(gramian, alpha)
    assert np.abs((gramian @ w) * w ** (1 / alpha) - 1).max() < 1e-11


@pytest.mark.parametrize(("n_tasks", "seed"), [(6, 50), (10, 26)])
def test_proportional_fairness_gives_up_rather_than_be_wrong(n_tasks, seed):
    """Where so many digits are lost that nothing is left: zeros."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n_tasks, n_tasks + 3)) * 10 ** rng.uniform(-2, 2, size=(n_tasks, 1))
    w = solvers.proportional_fairness(rows @ rows.T, 0.2)
    assert w.max() == 0 or np.abs((rows @ (w @ rows)) * w**5 - 1).max() < 0.01


@pytest.mark.parametrize("n_tasks", [2, 5, 10, 20, 40])
@pytest.mark.parametrize("decades", [0, 6])
def test_nash_residual_up_to_forty_tasks(n_tasks, decades):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        rows = rng.normal(size=(n_tasks, n_tasks + 2)) * 10 ** rng.uniform(
            -decades / 2, decades / 2, size=(n_tasks, 1)
        )
        alpha = solvers.proportional_fairness(rows @ rows.T)
        residual = np.abs(alpha * (rows @ rows.T @ alpha) - 1).max()
        assert residual < 1e-9
        assert np.linalg.norm(alpha @ rows) == pytest.approx(np.sqrt(n_tasks), rel=1e-9)


@given(rows=jacobians(max_tasks=2))
@few
def test_nash_of_two_is_the_closed_form(rows):
    n1, n2 = np.linalg.norm(rows, axis=1)
    cosine = rows[0] @ rows[1] / n1 / n2
    wanted = 1 / np.array([n1, n2]) / np.sqrt(1 + cosine)
    np.testing.assert_allclose(solvers.proportional_fairness(rows @ rows.T), wanted, rtol=1e-6)


@pytest.mark.parametrize("name", ["zero", "all zero", "opposite"])
def test_no_bargain_gives_zeros(name):
    gramian = SPECIAL[name] @ SPECIAL[name].T
    assert solvers.proportional_fairness(gramian).tolist() == [0, 0, 0]


@given(rows=jacobians(), radius=st.sampled_from([0.1, 0.4, 0.5, 0.9, 3.0]))
@few
def test_trust_ball_is_optimal(rows, radius):
    """The worst-off task cannot be better off within the ball: by duality, and by trying."""
    gramian = rows @ rows.T
    x = solvers.trust_ball(gramian, radius)
    mean = rows.mean(0)
    d, bound = x @ rows, radius * np.linalg.norm(mean)
    assert np.linalg.norm(d - mean) == pytest.approx(bound, rel=1e-6)
    w = x - 1 / len(rows)
    assert w.min() >= -1e-12
    w = w / w.sum()
    # weak duality: min_k g_k'd <= w'(J mean) + bound |J'w| for every w on the simplex
    dual = w @ rows @ mean + bound * np.linalg.norm(w @ rows)
    norms = np.linalg.norm(rows, axis=1)
    assert (rows @ d).min() >= dual - 1e-7 * norms.min() * (np.linalg.norm(mean) + bound)


@pytest.mark.parametrize(("n_tasks", "radius", "seed"), [(3, 3.0, 47), (5, 0.4, 42), (8, 3.0, 17)])
def test_trust_ball_helps_all_alike_that_it_moves_for(n_tasks, radius, seed):
    """Exactly: the length that it looks for is not left when it is nearly right."""
    rows = np.random.default_rng(seed).normal(size=(n_tasks, n_tasks + 3))
    x = solvers.trust_ball(rows @ rows.T, radius)
    gains = (rows @ (x @ rows))[x > 1 / n_tasks + 1e-9]
    assert len(gains) > 1 and np.ptp(gains) < 1e-12


def test_trust_ball_limits():
    rows = np.random.default_rng(0).normal(size=(4, 9))
    gramian = rows @ rows.T
    np.testing.assert_array_equal(solvers.trust_ball(gramian, 0.0), np.full(4, 0.25))
    far = solvers.trust_ball(gramian, 1e4) @ rows
    shortest = solvers.min_norm_point(gramian) @ rows
    cosine = far @ shortest / np.linalg.norm(far) / np.linalg.norm(shortest)
    assert cosine == pytest.approx(1, abs=1e-6)


def test_trust_ball_of_one_task_goes_to_its_border():
    assert solvers.trust_ball([[4.0]], 0.5).tolist() == [1.5]


@pytest.mark.parametrize("tilt", [1e-3, 1e-6, 1e-8])
def test_trust_ball_uses_a_common_direction_however_short(tilt):
    """Two opposite gradients with a little in common: the best direction is what they share."""
    rows = np.array([[1.0, tilt], [-1.0, tilt]])
    d = solvers.trust_ball(rows @ rows.T, 0.5) @ rows
    np.testing.assert_allclose(d, [0.0, 1.5 * tilt], atol=1e-6 * tilt)


@pytest.mark.parametrize("name", SPECIAL)
@pytest.mark.parametrize("radius", [0.0, 0.4, 2.0])
def test_trust_ball_of_special_gradients(name, radius):
    assert np.isfinite(solvers.trust_ball(SPECIAL[name] @ SPECIAL[name].T, radius)).all()


@pytest.mark.parametrize(
    ("gramian", "message"),
    [
        ([[1.0, 2.0]], r"a square matrix \[K, K\], got shape \(1, 2\)"),
        ([[1.0, np.nan], [np.nan, 1.0]], "finite inner products"),
        ([[-1.0, 0.0], [0.0, 1.0]], "squared norms >= 0, got -1"),
        ([[1.0, 0.9], [0.1, 1.0]], "a symmetric matrix"),
        ([], "a square matrix"),
    ],
)
def test_gramians_that_are_none(gramian, message):
    for solver in (solvers.min_norm_point, solvers.proportional_fairness):
        with pytest.raises(ValueError, match=f"^gramian: expected {message}"):
            solver(gramian)


@given(numbers=st.lists(st.floats(-5, 5), min_size=1, max_size=8))
@few
def test_onto_simplex_is_the_closest_point(numbers):
    """Closest, as no other weights lie beyond the plane through it: (v - x)' (e_k - x) <= 0."""
    v = np.array(numbers)
    x = solvers.onto_simplex(v)
    assert x.min() >= 0 and x.sum() == pytest.approx(1, abs=1e-12)
    assert ((v - x) - (v - x) @ x).max() < 1e-9
    inside = np.abs(v) + 1.0
    np.testing.assert_allclose(solvers.onto_simplex(inside / inside.sum()), inside / inside.sum())
