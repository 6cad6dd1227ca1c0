"""The rules that read gradients: against TorchJD, closed forms and their defining properties."""

import copy
import inspect
import math
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchjd import aggregation

from mtl_utils import gradients
from mtl_utils.models import HardSharing, mlp
from mtl_utils.weighting import make_weighting
from mtl_utils.weighting.methods import pcgrad
from tests.rules import (
    GRADIENT_RULES,
    GRAMIAN_RULES,
    RANDOM_RULES,
    float64,  # noqa: F401
    on_one_batch,
    same_state,
    saved_and_loaded,
)
from tests.test_solvers import SPECIAL, jacobians

few = settings(max_examples=30, deadline=None)
ONE_FUNCTION = [name for name in GRAMIAN_RULES if name != "pareto_mtl"]  # of the Gramian alone
every_rule = pytest.mark.parametrize("name", ONE_FUNCTION)
SCALE_FREE = ("imtl_g", "nash_mtl", "config", "fairgrad", "pcd")  # in their direction


def make(name, n_tasks, **options):
    if name in RANDOM_RULES:
        options = {"generator": torch.Generator().manual_seed(0), **options}
    if name == "pcd":  # in units of the squared gradients
        options = {"eps": 0.0, **options}
    return on_one_batch(make_weighting(name, n_tasks, **options))


def coefficients(name, rows, **options):
    """alpha for a Jacobian [K, P]."""
    rows = torch.as_tensor(rows)
    return make(name, len(rows), **options).coefficients(rows @ rows.T).numpy()


def direction(name, rows, **options):
    return coefficients(name, rows, **options) @ np.asarray(rows)


def unit(vector):
    return vector / np.linalg.norm(vector)


def in_order(n_tasks, generator):
    """Instead of a random order of the other tasks."""
    return np.array([[j for j in range(n_tasks) if j != i] for i in range(n_tasks)])


# ---- against TorchJD -----------------------------------------------------------------------------

tight = {"norm_eps": 1e-14, "reg_eps": 1e-14}  # its defaults cost digits
ORACLES = {
    "pcgrad": (aggregation.PCGrad, {}, {}, 1e-8),
    "gradvac": (lambda: aggregation.GradVac(beta=0.3, eps=0.0), {"decay": 0.3}, {}, 1e-8),
    "cagrad": (lambda: aggregation.CAGrad(c=0.4), {"c": 0.4}, {"decades": 1.0}, 1e-3),
    "imtl_g": (aggregation.IMTLG, {}, {"decades": 3.0}, 1e-5),
    "aligned_mtl": (
        lambda: aggregation.AlignedMTL(pref_vector=None),
        {"tolerance": 1e-15},
        {"decades": 2.0},
        1e-5,
    ),
    "config": (aggregation.ConFIG, {}, {"decades": 3.0}, 1e-5),
    "fairgrad": (lambda: aggregation.FairGrad(alpha=2.0), {"alpha": 2.0}, {"decades": 2.0}, 1e-4),
    # its own Nash-MTL stops early and says nothing: a direction 0.2 off was seen for K = 2
    "nash_mtl": (
        lambda: aggregation.FairGrad(alpha=1.0),
        {"max_norm": float("inf")},
        {"decades": 2.0},
        1e-4,
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ORACLES)
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_the_update_is_that_of_torchjd(name, data):
    oracle, options, shape, tolerance = ORACLES[name]
    rows = data.draw(jacobians(**shape))
    with (
        mock.patch.object(pcgrad, "orders", in_order),
        mock.patch.object(torch, "randperm", lambda n: torch.arange(n)),
    ):
        ours = direction(name, rows, **options)
        theirs = oracle()(torch.as_tensor(rows)).numpy()
    if name == "aligned_mtl":  # it takes the mean, we take the sum
        theirs = theirs * len(rows)
    np.testing.assert_allclose(ours, theirs, atol=tolerance * np.linalg.norm(theirs))


@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_mgda_is_as_short_as_the_frank_wolfe_of_torchjd(data):
    """Its iteration is within 8 max |g|^2 / (steps + 2) of the smallest squared length; and by
    g_k' d >= |d|^2 the squared distance of two updates is at most the difference of those."""
    rows = data.draw(jacobians(decades=1.0))
    steps = 1000
    ours = direction("mgda", rows)
    theirs = aggregation.MGDA(epsilon=1e-12, max_iters=steps)(torch.as_tensor(rows)).numpy()
    longest = (rows**2).sum(1).max()
    excess = theirs @ theirs - ours @ ours
    assert -1e-12 * longest <= excess <= 8 * longest / (steps + 2)
    assert ((ours - theirs) ** 2).sum() <= excess + 1e-12 * longest


@pytest.mark.parametrize("name", ["upgrad", "dualproj"])
@given(rows=jacobians(decades=1.0))
@few
def test_projections_are_those_of_torchjd(name, rows):
    """Its solver adds a multiple of the identity to the Gramian; here almost nothing."""
    kind = {"upgrad": aggregation.UPGrad, "dualproj": aggregation.DualProj}[name]
    theirs = torchjd_projection(kind)(torch.as_tensor(rows)).numpy()
    np.testing.assert_allclose(
        direction(name, rows), theirs, atol=1e-6 * np.linalg.norm(rows, axis=1).max()
    )


def torchjd_projection(kind):
    options = inspect.signature(kind).parameters
    if "reg_eps" in options:
        return kind(**tight)
    from torchjd._linalg import QuadprogProjector

    return kind(projector=QuadprogProjector(**tight))


@given(rows=jacobians(), leak=st.sampled_from([0.0, 0.3]), seed=st.integers(0, 99))
@few
def test_graddrop_is_that_of_torchjd(rows, leak, seed):
    weighting = make_weighting("graddrop", len(rows), leak=leak)
    u = torch.rand(rows.shape[1], generator=torch.Generator().manual_seed(seed)).double()
    with mock.patch.object(torch, "rand", lambda *a, **k: u):
        ours, share = weighting.merge(torch.as_tensor(rows), torch.ones(len(rows)))
        leaks = torch.full((len(rows),), leak, dtype=torch.float64)
        theirs = aggregation.GradDrop(leak=leaks)(torch.as_tensor(rows))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    purity = 0.5 * (1 + rows.sum(0) / np.abs(rows).sum(0))
    kept = leak + (1 - leak) * (np.sign(rows) == np.where(purity > u.numpy(), 1, -1))
    wanted = (kept * rows**2).sum(1) / (rows**2).sum(1)
    np.testing.assert_allclose(share.numpy(), wanted, rtol=1e-9, atol=1e-12)


# ---- what defines each rule ----------------------------------------------------------------------


@given(rows=jacobians())
@few
def test_mgda_improves_every_task_alike(rows):
    alpha = coefficients("mgda", rows)
    d = alpha @ rows
    norms = np.linalg.norm(rows, axis=1)
    gain = (rows @ d - d @ d) / (norms * norms.min())
    assert gain.min() > -1e-10 and np.abs(gain[alpha > 0]).max() < 1e-10


@pytest.mark.parametrize(("kind", "power"), [("norm", 0), ("loss", 1), ("loss+", 1)])
def test_mgda_normalised(kind, power):
    rows = np.random.default_rng(0).normal(size=(3, 6))
    losses = torch.tensor([0.5, 2.0, 30.0], dtype=torch.float64)
    norms = np.linalg.norm(rows, axis=1) if kind != "loss" else 1.0
    divisor = norms * losses.numpy() ** power
    weighting = make_weighting("mgda", 3, normalise=kind)
    gramian = torch.as_tensor(rows @ rows.T)
    wanted = direction("mgda", rows / np.reshape(divisor, (-1, 1)))
    np.testing.assert_allclose(weighting._combine(gramian, losses).numpy() @ rows, wanted)
    if kind == "loss":
        with pytest.raises(ValueError, match=r"^normalise: 'loss' needs losses; call backward"):
            make_weighting("mgda", 3, normalise=kind).coefficients(gramian)


@given(rows=jacobians(max_tasks=2))
@few
def test_pcgrad_of_two(rows):
    d = direction("pcgrad", rows)
    g1, g2 = rows
    if g1 @ g2 >= 0:
        np.testing.assert_allclose(d, g1 + g2, rtol=1e-12)
    else:
        sine = 1 - (g1 @ g2) ** 2 / (g1 @ g1) / (g2 @ g2)
        squares = (rows**2).sum(1)
        np.testing.assert_allclose(rows @ d / squares, [sine, sine], atol=1e-8)
    twice = 2 * direction("upgrad", rows)
    np.testing.assert_allclose(d, twice, atol=1e-9 * np.linalg.norm(rows, axis=1).max())


@given(rows=jacobians(max_tasks=2), target=st.floats(-0.9, 0.9))
@few
def test_gradvac_reaches_its_target(rows, target):
    """The first gradient after the vaccine has the target's cosine to the second."""
    weighting = make("gradvac", 2)
    weighting.average.fill_(target)
    alpha = weighting.coefficients(torch.as_tensor(rows @ rows.T)).numpy()
    g1, g2 = rows
    phi = unit(g1) @ unit(g2)
    if phi >= target:
        np.testing.assert_allclose(alpha, [1, 1], rtol=1e-12)
        return
    moved = g1 + (alpha[1] - 1) * g2, g2 + (alpha[0] - 1) * g1
    for h, other in zip(moved, (g2, g1), strict=True):
        assert unit(h) @ unit(other) == pytest.approx(target, abs=1e-6)


def test_gradvac_with_averages_of_zero_is_pcgrad():
    rows = np.random.default_rng(1).normal(size=(5, 7))
    with mock.patch.object(pcgrad, "orders", in_order):
        vaccine = coefficients("gradvac", rows, decay=0.0)
        np.testing.assert_allclose(vaccine, coefficients("pcgrad", rows), rtol=1e-9)


@pytest.mark.filterwarnings("ignore")
def test_gradvac_remembers_as_torchjd_does():
    """Its averages go on from call to call; the order of the tasks is held on both sides."""
    ours, theirs = make("gradvac", 4, decay=0.3), aggregation.GradVac(beta=0.3, eps=0.0)
    rng = np.random.default_rng(2)
    common = rng.normal(size=9)
    with (
        mock.patch.object(pcgrad, "orders", in_order),
        mock.patch.object(torch, "randperm", lambda n: torch.arange(n)),
    ):
        for _ in range(4):
            rows = torch.as_tensor(rng.normal(size=(4, 9)) + common)
            found = ours.coefficients(rows @ rows.T) @ rows
            torch.testing.assert_close(found, theirs(rows), rtol=1e-6, atol=1e-6)


@given(rows=jacobians(), c=st.sampled_from([0.2, 0.5, 0.9]))
@few
def test_cagrad_stays_in_its_ball_and_helps_the_worst(rows, c):
    mean = rows.mean(0)
    d = direction("cagrad", rows, c=c)
    assert np.linalg.norm(d - mean) == pytest.approx(c * np.linalg.norm(mean), rel=1e-6)
    assert (rows @ d).min() >= (rows @ mean).min() - 1e-9 * np.abs(rows @ mean).max()


@given(rows=jacobians(decades=3.0))
@few
def test_equal_projections(rows):
    """IMTL-G and ConFIG: the same projection on every unit gradient."""
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    for name in ("imtl_g", "config"):
        d = direction(name, rows)
        projections = units @ d
        assert np.ptp(projections) < 1e-7 * np.abs(projections).max()
    assert coefficients("imtl_g", rows).sum() == pytest.approx(1)
    d = direction("config", rows)
    assert np.linalg.norm(d) == pytest.approx((rows @ unit(d)).sum(), rel=1e-6)


@given(rows=jacobians())
@few
def test_nash_defines_itself(rows):
    alpha = coefficients("nash_mtl", rows, max_norm=float("inf"))
    np.testing.assert_allclose(alpha * (rows @ (alpha @ rows)), 1, rtol=1e-7)
    short = coefficients("nash_mtl", rows)
    assert np.linalg.norm(short @ rows) == pytest.approx(1, rel=1e-7)
    np.testing.assert_allclose(coefficients("fairgrad", rows), alpha, rtol=1e-9)


@given(rows=jacobians(decades=2.0))
@few
def test_aligned_gradients_have_condition_number_one(rows):
    values, vectors = np.linalg.eigh(rows @ rows.T)
    balance = np.sqrt(values[0]) * (vectors / np.sqrt(values)) @ vectors.T
    aligned = balance @ rows
    singular = np.linalg.svd(aligned, compute_uv=False)
    assert singular.max() / singular.min() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(
        direction("aligned_mtl", rows, tolerance=0.0), aligned.sum(0), rtol=1e-4, atol=1e-9
    )


def test_aligned_scales():
    rows = np.diag([1.0, 2.0, 4.0])
    for scale, length in {"min": 1, "median": 2, "rmse": np.sqrt(7)}.items():
        np.testing.assert_allclose(
            direction("aligned_mtl", rows, scale=scale), np.full(3, length), rtol=1e-12
        )


def test_aligned_mtl_drops_what_single_precision_cannot_tell_from_zero():
    """Eigenvalues below K eps of the largest: lengths 1e-3 apart are kept, 1e-4 apart are not."""
    eps = np.finfo(np.float32).eps
    kept, dropped = (np.diag([1.0, length]) for length in (1e-3, 1e-4))
    assert 1e-8 < 2 * eps < 1e-6
    np.testing.assert_allclose(direction("aligned_mtl", kept), [1e-3, 1e-3], rtol=1e-9)
    np.testing.assert_allclose(direction("aligned_mtl", dropped), [1.0, 0.0], rtol=1e-9)


@pytest.mark.parametrize("name", ["mgda", "upgrad", "dualproj", "nash_mtl", "config"])
@given(rows=jacobians())
@few
def test_never_conflicts(name, rows):
    d = direction(name, rows)
    norms = np.linalg.norm(rows, axis=1)
    assert (rows @ d / norms).min() > -1e-8 * np.linalg.norm(d)


@given(rows=jacobians(max_tasks=2))
@few
def test_three_rules_bisect_two_gradients(rows):
    bisector = unit(unit(rows[0]) + unit(rows[1]))
    for name in ("nash_mtl", "config"):
        assert unit(direction(name, rows)) @ bisector == pytest.approx(1, abs=1e-9)
    assert abs(unit(direction("imtl_g", rows)) @ bisector) == pytest.approx(1, abs=1e-9)


def test_config_points_where_the_unit_gradients_do_however_little_they_have_in_common():
    """Three at 120 degrees, one of them a little off: their least-squares solution is short."""
    angles = np.array([0.0, 2 * np.pi / 3, 4 * np.pi / 3 + 1e-10])
    rows = np.stack([np.cos(angles), np.sin(angles)], 1)
    wanted = np.linalg.lstsq(rows, np.ones(3), rcond=None)[0]
    assert unit(direction("config", rows)) @ unit(wanted) == pytest.approx(1, abs=1e-6)


def test_imtl_g_may_turn_round():
    """sum alpha = 1 fixes the sign, and that can be the wrong one: g_k'd < 0 for every task."""
    tilt = 0.05  # the third lies between the other two, a little above their plane, and is short
    between = np.array([np.cos(np.pi / 6) * np.cos(tilt), 0.5 * np.cos(tilt), np.sin(tilt)])
    rows = np.array([[1.0, 0.0, 0.0], [0.5, np.sqrt(0.75), 0.0], 0.1 * between])
    assert (rows @ direction("imtl_g", rows)).max() < 0
    # the third as short as to make the sum almost 0: the coefficients are huge, and right
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    beta = np.linalg.inv(units @ units.T).sum(1)
    rows = units * [[1.0], [1.0], [-beta[2] / (beta[0] + beta[1]) * (1 + 1e-8)]]
    alpha = coefficients("imtl_g", rows)
    assert alpha.sum() == pytest.approx(1, rel=1e-6) and np.abs(alpha).max() > 1e7


# ---- every function of the Gramian ---------------------------------------------------------------


@every_rule
@given(rows=jacobians(decades=2.0), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_order_of_the_tasks(name, rows, seed):
    if name in RANDOM_RULES:
        pytest.skip("takes the tasks in random order")
    if name == "pcd":
        pytest.skip("its first task is the main one")
    order = np.random.default_rng(seed).permutation(len(rows))
    d, permuted = direction(name, rows), direction(name, rows[order])
    np.testing.assert_allclose(permuted, d, atol=1e-6 * np.linalg.norm(d))


@every_rule
@given(rows=jacobians(decades=1.0), factor=st.floats(1e-3, 1e3))
@settings(max_examples=20, deadline=None)
def test_scale_of_one_loss(name, rows, factor):
    """Multiplying one loss leaves the direction alone, or in one example at least it does not."""
    if name in RANDOM_RULES:
        pytest.skip("random order")
    scaled = rows.copy()
    scaled[0] *= factor
    if name in SCALE_FREE:
        cosine = unit(direction(name, rows)) @ unit(direction(name, scaled))
        assert abs(cosine) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", sorted(set(ONE_FUNCTION) - set(SCALE_FREE)))
def test_scale_of_one_loss_changes_the_direction(name):
    rows = np.array([[1.0, 0.2, 0.0], [-0.3, 1.0, 0.1], [0.2, -0.4, 1.0]])
    scaled = rows * np.array([[30.0], [1.0], [1.0]])
    assert unit(direction(name, rows)) @ unit(direction(name, scaled)) < 0.9995


@every_rule
@given(rows=jacobians(decades=2.0), factor=st.floats(1e-3, 1e3))
@settings(max_examples=20, deadline=None)
def test_scale_of_all_losses_leaves_the_direction(name, rows, factor):
    with mock.patch.object(pcgrad, "orders", in_order):
        d, scaled = direction(name, rows), direction(name, factor * rows)
    assert unit(d) @ unit(scaled) == pytest.approx(1, abs=1e-6)


@every_rule
@pytest.mark.parametrize("kind", SPECIAL)
def test_special_gradients_give_a_stated_result(name, kind):
    """Finite always. What each rule does with them is in its docstring."""
    rows = SPECIAL[kind]
    alpha = coefficients(name, rows)
    assert np.isfinite(alpha).all()
    d = alpha @ rows
    if kind == "zero" and name in ("mgda", "nash_mtl", "fairgrad"):
        assert np.abs(d).max() == 0
    if kind == "identical":
        assert unit(d) @ unit(rows[0]) == pytest.approx(1)
    if kind == "opposite" and name in ("mgda", "nash_mtl", "fairgrad"):
        assert np.abs(d).max() < 1e-9


@every_rule
def test_one_task_is_plain_training(name):
    assert make(name, 1).coefficients(torch.tensor([[7.0]])).tolist() == [1.0]


@every_rule
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_types_and_bad_gramians(name, dtype):
    weighting = make(name, 2)
    gramian = torch.tensor([[4.0, -1.0], [-1.0, 1.0]], dtype=dtype)
    assert weighting.coefficients(gramian).dtype == dtype
    with pytest.raises(ValueError, match=r"^gramian: expected K = 2 tasks, got 3"):
        weighting.coefficients(torch.eye(3))
    with pytest.raises(ValueError, match=r"^gramian: expected finite"):
        weighting.coefficients(gramian * float("nan"))


def test_options_are_checked():
    for name, options, message in [
        ("cagrad", {"c": -1.0}, r"^c: expected a number in \[0, inf\)"),
        ("fairgrad", {"alpha": 0.0}, r"^alpha: expected a number in \(0, inf\)"),
        ("nash_mtl", {"max_norm": 0.0}, r"^max_norm: expected a number in \(0, inf\]"),
        ("gradvac", {"decay": 2.0}, r"^decay: expected a number in \[0, 1\]"),
        ("graddrop", {"leak": -0.1}, r"^leak: expected a number in \[0, 1\]"),
        ("aligned_mtl", {"scale": "max"}, r"^scale: expected one of min, median, rmse, got 'max'"),
        ("aligned_mtl", {"tolerance": 1.0}, r"^tolerance: expected a number in \[0, 1\)"),
        ("mgda", {"normalise": "l2"}, r"^normalise: expected one of none, norm, loss, loss\+"),
        ("mgda", {"gramian": "fast"}, r"^gramian: expected one of exact, representation, last_l"),
        ("mgda", {"every": 0}, r"^every: expected an integer of at least 1, got 0"),
        ("gradnorm", {"alpha": -1.0}, r"^alpha: expected a number in \[0, inf\)"),
        ("gradnorm", {"floor": 1.0}, r"^floor: expected a number in \(0, 1\)"),
        ("db_mtl", {"beta": 1.0}, r"^beta: expected a number in \[0, 1\)"),
        ("pcgrad", {"generator": 3}, r"^generator: expected a torch.Generator on the CPU, got 3"),
        ("pcd", {"tau": 1.1}, r"^tau: expected a number in \[0, 1\]"),
        ("pcd", {"beta": 1.0}, r"^beta: expected a number in \[0, 1\)"),
        ("pcd", {"eps": -1.0}, r"^eps: expected a number in \[0, inf\)"),
        ("pareto_mtl", {"preferences": [[1.0]], "index": 0}, r"^preferences: expected \[M, 2\]"),
        ("pareto_mtl", {"preferences": [[0, 0]], "index": 0}, r"^preferences: .* row of zeros"),
        ("pareto_mtl", {"preferences": [[1, 0]], "index": 1}, r"^index: expected a row .* got 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            make_weighting(name, 2, **options)


# ---- rules that read more than the Gramian -------------------------------------------------------


class Net:
    """A small network with K regression heads, in float64."""

    def __init__(self, n_tasks=3, seed=0):
        torch.manual_seed(seed)
        heads = [nn.Linear(5, 1) for _ in range(n_tasks)]
        self.model = HardSharing(mlp(4, 6, 5, activation=nn.Tanh, last=True), heads).double()
        self.x = torch.randn(8, 4, dtype=torch.float64)
        self.y = torch.randn(n_tasks, 8, dtype=torch.float64) * 10 ** torch.linspace(
            -1, 1, n_tasks, dtype=torch.float64
        ).unsqueeze(1)
        self.shared = list(self.model.trunk.parameters())

    def losses(self, forked=False):
        outputs, features = self.model.forked(self.x) if forked else (self.model(self.x), None)
        pairs = zip(outputs, self.y, strict=True)
        return torch.stack([(o[:, 0] - t).square().mean() for o, t in pairs]), features

    def norms(self):
        """Of the gradients in the last shared layer."""
        losses, _ = self.losses()
        return gradients.jacobian(losses, self.shared[-2:]).norm(dim=1)


@pytest.mark.parametrize("forked", [False, True])
@pytest.mark.parametrize("alpha", [0.0, 0.12, 1.5])
def test_gradnorm_slope_is_that_of_its_objective(alpha, forked):
    """No second derivative is needed: autograd through the norms gives the same."""
    net, weighting = Net(), make_weighting("gradnorm", 3, alpha=alpha, lr=0.1)
    start = net.losses()[0].detach()
    for _ in range(3):
        losses, features = net.losses(forked)
        w = weighting.w.clone().requires_grad_()
        rows = []
        for k in range(3):
            found = torch.autograd.grad(
                w[k] * losses[k], net.shared[-2:], retain_graph=True, create_graph=True
            )
            rows.append(torch.cat([g.flatten() for g in found]).norm())
        norms = torch.stack(rows)
        progress = losses.detach() / start
        target = norms.mean() * (progress / progress.mean()) ** alpha
        (wanted,) = torch.autograd.grad((norms - target.detach()).abs().sum(), w, retain_graph=True)
        before = weighting.first.clone()
        used = weighting.backward(losses, net.shared, features)
        torch.testing.assert_close(used, w.detach(), rtol=1e-12, atol=0)
        slope = (weighting.first - 0.9 * before) / 0.1
        torch.testing.assert_close(slope, wanted, rtol=1e-8, atol=1e-10)
        assert weighting.w.sum().item() == pytest.approx(3)
        with torch.no_grad():
            for p in net.model.parameters():
                p -= 0.05 * p.grad
                p.grad = None


def test_gradnorm_by_hand():
    weighting = make_weighting("gradnorm", 3, alpha=2.0)
    weighting.start = torch.tensor([1.0, 2.0, 4.0])
    norms = torch.tensor([1.0, 2.0, 3.0])
    # all losses have halved: all rates are 1, and the target is the mean norm, 2
    slope = weighting.slope(torch.tensor([0.5, 1.0, 2.0]), norms)
    assert slope.tolist() == [-1.0, 0.0, 3.0]
    # L / L(0) = 1/2, 1/2, 2: rates 1/2, 1/2, 2, targets 1/2, 1/2, 8
    slope = weighting.slope(torch.tensor([0.5, 1.0, 8.0]), norms)
    assert slope.tolist() == [1.0, 2.0, -3.0]


def test_gradnorm_measures_progress_from_the_losses_of_the_first_call():
    """Norms are 1 throughout. The second loss becomes 4 times as large, so its rate is 1.6, the
    first one's 0.4: Adam moves both weights by lr times 0.1 / (1 - 0.9^2) over the root of
    0.001 / (1 - 0.999^2), the first step having had no slope."""
    trunk = torch.ones(1, 1, requires_grad=True)
    weighting = make_weighting("gradnorm", 2, lr=0.1)
    for second in (1.0, 4.0):
        weighting.backward(torch.stack([trunk.sum(), trunk.sum() + second - 1]), [trunk])
    moved = 0.1 * (0.1 / (1 - 0.9**2)) / (0.001 / (1 - 0.999**2)) ** 0.5
    assert weighting.weights_now().tolist() == pytest.approx([1 - moved, 1 + moved])


@pytest.mark.parametrize("floor", [1e-4, 0.9])
def test_gradnorm_moves_its_weights_by_adam_and_scales_them(floor):
    weighting = make_weighting("gradnorm", 3, alpha=1.0, lr=0.05, floor=floor)
    weighting.start = torch.tensor([1.0, 1.0, 1.0])
    w = torch.ones(3, requires_grad=True)
    optimizer = torch.optim.Adam([w], lr=0.05)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        losses, norms = torch.rand(2, 3, generator=generator) + 0.1
        w.grad = weighting.slope(losses, norms)
        optimizer.step()
        with torch.no_grad():
            w.clamp_(min=floor)
            w.mul_(3 / w.sum())
        weighting._learn(losses, norms)
        torch.testing.assert_close(weighting.weights_now(), w.detach(), rtol=1e-9, atol=1e-12)
    assert (w.min() < 0.99).item()


def test_gradnorm_levels_the_norms():
    net, weighting = Net(), make_weighting("gradnorm", 3, alpha=0.0, lr=0.01)
    for step in range(800):
        weighting.lr = 0.02 / (1 + step / 50)
        weighting.backward(net.losses()[0], net.shared)
    weighted = weighting.w * net.norms()
    assert (weighted.max() / weighted.min()).item() == pytest.approx(1, abs=0.02)


def test_gradnorm_weighs_heads_too():
    net, weighting = Net(), make_weighting("gradnorm", 3)
    weighting.w = torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64)
    losses, features = net.losses(True)
    wanted = torch.autograd.grad(
        (losses * weighting.w).sum(), list(net.model.parameters()), retain_graph=True
    )
    weighting.backward(losses, net.shared, features)
    for p, g in zip(net.model.parameters(), wanted, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-10, atol=1e-12)


def test_gradnorm_needs_losses_above_zero_at_first():
    net, weighting = Net(2), make_weighting("gradnorm", 2)
    losses, _ = net.losses()
    with pytest.raises(ValueError, match=r"losses: gradnorm divides by .* task 1 is 0"):
        weighting.backward(losses * torch.tensor([1.0, 0.0]), net.shared)
    assert all(p.grad is None for p in net.model.parameters())


def test_db_mtl_lengths_and_average():
    net, weighting = Net(), make_weighting("db_mtl", 3, beta=0.5, sigma=0.5, eps=0.0)
    average = torch.zeros(3, sum(p.numel() for p in net.shared), dtype=torch.float64)
    for step in (1, 2, 3):
        losses, _ = net.losses()
        h = gradients.jacobian(losses, net.shared) / losses.detach()[:, None]
        share = 0.5 / step**0.5
        average = share * average + (1 - share) * h
        lengths = average.norm(dim=1)
        wanted = (lengths.max() / lengths) @ average
        weighting.backward(net.losses()[0], net.shared)
        got = torch.cat([p.grad.flatten() for p in net.shared])
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12)
        for p in net.model.parameters():
            p.grad = None


def test_graddrop_keeps_one_sign_and_its_expectation():
    rows = torch.as_tensor(np.random.default_rng(0).normal(size=(3, 6)))
    weighting = make_weighting("graddrop", 3, generator=torch.Generator().manual_seed(0))
    draws = torch.stack([weighting.merge(rows, torch.ones(3))[0] for _ in range(4000)])
    up, down = rows.clamp_min(0).sum(0), rows.clamp_max(0).sum(0)
    assert bool(((draws - up).abs().minimum((draws - down).abs()) < 1e-12).all())
    purity = 0.5 * (1 + rows.sum(0) / rows.abs().sum(0))
    spread = draws.std(0) / 4000**0.5
    assert bool(
        ((draws.mean(0) - purity * up - (1 - purity) * down).abs() <= 5 * spread + 1e-9).all()
    )
    same = rows.abs()
    torch.testing.assert_close(weighting.merge(same, torch.ones(3))[0], same.sum(0))


def test_pareto_mtl_on_the_border_of_its_cone_is_inside():
    rule = make_weighting("pareto_mtl", 2, preferences=[[1.0, 0.0], [0.0, 1.0]], index=0)
    assert rule.towards(np.eye(2), np.array([3.0, 3.0])).tolist() == [0.5, 0.5]
    assert rule.inside


def test_pareto_mtl_two_phases():
    u = [[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]
    rows = np.array([[1.0, 0.3], [-0.5, 1.0]])
    gramian, preferences = rows @ rows.T, np.array(u) / np.linalg.norm(u, axis=1, keepdims=True)
    weighting = make_weighting("pareto_mtl", 2, preferences=u, index=0)
    np.testing.assert_allclose(weighting.preferences.numpy(), preferences)
    losses = np.array([0.2, 0.9])  # far from the first vector: both constraints are violated
    differences = preferences[1:] - preferences[0]
    assert (differences @ losses > 0).all()
    alpha = weighting.towards(gramian, losses)
    short = direction("mgda", differences @ rows)
    np.testing.assert_allclose(alpha @ rows, short, atol=1e-12)
    assert alpha.min() < 0 and not weighting.inside
    inside = weighting.towards(gramian, np.array([0.9, 0.1]))
    np.testing.assert_allclose(inside, coefficients("mgda", rows), atol=1e-12)
    assert weighting.inside
    again = weighting.towards(gramian, losses)  # the second phase, with active constraints
    np.testing.assert_allclose(
        again @ rows, direction("mgda", np.vstack([rows, differences @ rows])), atol=1e-12
    )
    with pytest.raises(NotImplementedError, match=r"coefficients: pareto_mtl needs the losses too"):
        weighting.coefficients(torch.eye(2))


# ---- how the Gramian is found --------------------------------------------------------------------


@pytest.mark.parametrize("forked", [False, True])
def test_gramian_of_the_representation_and_of_the_last_layer(forked):
    net = Net()
    losses, _ = net.losses()
    rows = gradients.jacobian(losses, net.shared)
    z = net.model.trunk(net.x).detach().requires_grad_()
    outputs = [head(z)[:, 0] for head in net.model.heads]
    at_z = torch.stack(
        [
            torch.autograd.grad((o - t).square().mean(), z)[0].flatten()
            for o, t in zip(outputs, net.y, strict=True)
        ]
    )
    last = gradients.jacobian(net.losses()[0], net.shared[-2:])
    for kind, used in {"exact": rows, "representation": at_z, "last_layer": last}.items():
        net.model.zero_grad()
        weighting = make_weighting("mgda", 3, gramian=kind)
        losses, features = net.losses(forked)
        weights = weighting.backward(losses, net.shared, features)
        wanted = coefficients("mgda", used)
        np.testing.assert_allclose(weights.numpy(), wanted, rtol=1e-8, atol=1e-12)
        got = torch.cat([p.grad.flatten() for p in net.shared])
        torch.testing.assert_close(got, weights @ rows, rtol=1e-9, atol=1e-12)
        assert weighting.plan


def test_representation_needs_one():
    theta = torch.ones(3, dtype=torch.float64, requires_grad=True)
    losses = torch.stack([theta.sum(), (theta * 2).square().sum()])
    with pytest.raises(
        ValueError, match=r"^gramian: 'representation' needs losses from torch.stack"
    ):
        make_weighting("mgda", 2, gramian="representation").backward(losses, [theta])
    assert theta.grad is None


def test_last_layer_without_a_representation():
    first = torch.ones(2, 2, dtype=torch.float64, requires_grad=True)
    last = torch.full((2, 2), 2.0, dtype=torch.float64, requires_grad=True)
    losses = torch.stack([first.sum() + last.square().sum(), (last[0] * 3).sum()])
    rows = gradients.jacobian(losses, [last])
    weights = make_weighting("mgda", 2, gramian="last_layer").backward(losses, [first, last])
    np.testing.assert_allclose(weights.numpy(), coefficients("mgda", rows), atol=1e-12)
    assert bool((first.grad == weights[0]).all())


@pytest.mark.parametrize("forked", [False, True])
def test_every_other_call(forked):
    net, weighting = Net(), make_weighting("mgda", 3, every=2)
    seen = []
    for _ in range(4):
        losses, features = net.losses(forked)
        seen.append(weighting.backward(losses, net.shared, features))
        with torch.no_grad():
            for p in net.model.parameters():
                p -= 0.05 * p.grad
                p.grad = None
    assert torch.equal(seen[0], seen[1]) and torch.equal(seen[2], seen[3])
    assert not torch.allclose(seen[1], seen[2])
    resumed = saved_and_loaded(weighting, make_weighting("mgda", 3, every=2))
    assert same_state(resumed.state_dict(), weighting.state_dict())
    assert "earlier call" in weighting.plan


@pytest.mark.parametrize("name", GRADIENT_RULES)
def test_features_or_not_is_the_same_step(name):
    found = []
    for forked in (False, True):
        net = Net()
        options = {"preferences": np.eye(3), "index": 0} if name == "pareto_mtl" else {}
        weighting = make(name, 3, **options)
        losses, features = net.losses(forked)
        weighting.backward(losses, net.shared, features)
        found.append(torch.cat([p.grad.flatten() for p in net.model.parameters()]))
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("name", ["moco", "db_mtl", "excess_mtl", "graddrop"])
def test_a_gradient_that_is_not_finite_moves_no_state(name, bad):
    """These rules are refused by what they make of it, after they made it."""
    generator = torch.Generator().manual_seed(0)
    options = {"generator": generator} if name == "graddrop" else {}
    weighting = make_weighting(name, n_tasks=2, **options)
    trunk = torch.ones(3, requires_grad=True)
    good = torch.stack([trunk.sum(), (trunk * torch.tensor([1.0, -2.0, 3.0])).sum() + 5])
    weighting.backward(good, [trunk], retain_graph=True)
    before = copy.deepcopy(weighting.state_dict())
    draws, landed = generator.get_state(), trunk.grad.clone()
    poisoned = trunk.sum() + _Slope.apply(trunk, bad)
    with pytest.raises(ValueError, match=r"losses: .*not finite.*task 1"):
        weighting.backward(torch.stack([trunk.sum(), poisoned]), [trunk])
    after = weighting.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before if key in after)
    assert torch.equal(generator.get_state(), draws) and torch.equal(trunk.grad, landed)
    weighting.backward(good, [trunk])
    assert torch.isfinite(trunk.grad).all()


class _Slope(torch.autograd.Function):
    """0, with a gradient that is not finite in one coordinate."""

    @staticmethod
    def forward(ctx, x, bad):
        ctx.bad = bad
        return x.sum() * 0

    @staticmethod
    def backward(ctx, gradient):
        slope = torch.zeros(3)
        slope[1] = ctx.bad
        return slope, None


@pytest.mark.parametrize("method", ["auto", "loop", "batched"])
@pytest.mark.parametrize("name", ["moco", "db_mtl", "excess_mtl", "graddrop", "mgda"])
def test_every_gradient_that_lands_has_memory_of_its_own(name, method):
    """Parameters that are added to each other have one and the same gradient."""
    weighting = make_weighting(name, n_tasks=2).use(method=method)
    shared = [torch.randn(4, requires_grad=True) for _ in range(3)]
    heads = [torch.randn(4, requires_grad=True) for _ in range(4)]
    x = torch.randn(4)
    for _ in range(2):
        z = torch.tanh((shared[0] + shared[1]) * x * shared[2])
        losses = [
            ((z + heads[0] + heads[1]) ** 2).sum(),
            ((2 * z + heads[2] + heads[3]) ** 2).sum(),
        ]
        weighting.backward(torch.stack(losses), shared)
    state = {key: value.clone() for key, value in weighting._buffers.items()}
    leaves = [*shared, *heads]
    for k, leaf in enumerate(leaves):
        leaf.grad.fill_(k)
    assert all((leaf.grad == k).all() for k, leaf in enumerate(leaves))
    same = [torch.equal(v, state[key]) or v.isnan().any() for key, v in weighting._buffers.items()]
    assert all(same)
