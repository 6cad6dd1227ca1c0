"""Rules that read task gradients: most of them are functions of their K x K Gramian.

Coefficients alpha combine the gradients g_k of the shared parameters to the update sum_k alpha_k
g_k. Each class gives alpha in float64, whatever the type of the gradients is. With one task every
rule is plain training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtl_utils import gradients, simplex
from mtl_utils.simplex import Array
from mtl_utils.weighting.base import (
    GradientWeighting,
    _refuse_tasks,
    check_generator,
    check_number,
    register,
)


class GramianWeighting(GradientWeighting):
    """Rules whose coefficients are a function of the Gramian."""

    def rule(self, gramian: Array) -> Array:
        """alpha, [K], from a Gramian [K, K] in float64, K > 1."""
        raise NotImplementedError

    def coefficients(self, gramian: Tensor) -> Tensor:
        """alpha, [K], from the Gramian of the task gradients, [K, K], entry (k, l) = <g_k, g_l>.

        Raises:
            ValueError: not a symmetric [K, K] matrix of finite numbers.
        """
        array = simplex.check_gramian(gramian.detach().cpu().double().numpy())
        if len(array) != self.n_tasks:
            raise ValueError(f"gramian: expected K = {self.n_tasks} tasks, got {len(array)}")
        alpha = self.rule(array) if self.n_tasks > 1 else np.ones(1)
        return torch.as_tensor(alpha).to(gramian)


@register("gradnorm")
class GradNorm(GradientWeighting):
    """GradNorm: weights that level the gradient norms, faster for tasks that lag behind.

    n_k     = |gradient of L_k in the last shared layer|
    r_k     = (L_k / L_k(0)) / mean_j (L_j / L_j(0))           relative inverse training rate
    target  = mean_j (w_j n_j) r_k^alpha
    w_k    <- w_k - Adam's step for the slope  sign(w_k n_k - target_k) n_k

    then weights below `floor` are raised to it and all are scaled to sum to K. The slope is that of
    sum_j |w_j n_j - target_j| in w_k with the target held constant: no second derivative. The step
    of this iteration uses the weights from before the change. Unlike those of the other rules on
    gradients, the weights act on the heads too.

    L_k(0) is the loss of the first call. A task whose gradient is zero keeps its weight (up to the
    scaling).

    Args:
        alpha: at least 0. 0 gives equal norms; larger values pull slow tasks harder.
        lr: rate of the Adam steps on the weights, above 0.
        floor: smallest weight, above 0.

    Source: Chen, Badrinarayanan, Lee, Rabinovich, ICML 2018, arXiv 1711.02257, algorithm 1. The
    last shared layer is taken to be the last tensor in `shared` with two or more dimensions and
    what follows it.
    """

    needs_nonnegative = True
    engine_options: tuple[str, ...] = ()

    def __init__(
        self, n_tasks: int, alpha: float = 1.5, lr: float = 0.025, floor: float = 1e-4
    ) -> None:
        super().__init__(n_tasks)
        self.alpha = check_number("alpha", alpha, "[0, inf)")
        self.lr = check_number("lr", lr, "(0, inf)")
        self.floor = check_number("floor", floor, "(0, 1)")
        zeros = torch.zeros(n_tasks, dtype=torch.float64)
        self.memory |= {"w": zeros + 1.0, "steps": 0, "first": zeros.clone(), "second": zeros}

    def _backward(
        self, losses: Tensor, shared: list[Tensor] | None, features: Sequence[Tensor] | None
    ) -> Tensor:
        assert shared is not None  # needs_shared
        memory = self.memory
        values = losses.detach().double().cpu()
        if "start" not in memory:
            reason = "gradnorm divides by the losses of the first call; expected them above 0"
            _refuse_tasks("losses", values, values <= 0, reason)
        w = memory["w"].clone()
        found = gradients.task_gradients(losses, shared, features, head_weights=w)
        norms = found.gramian(last_layer=True).diagonal().clamp_min(0).sqrt().double().cpu()
        reason = "the gradient in the last shared layer is not finite (norm shown)"
        _refuse_tasks("losses", norms, ~torch.isfinite(norms), reason)
        found.fill(w)
        self.plan = found.plan
        memory.setdefault("start", values)
        if self.n_tasks > 1:
            self._learn(values, norms)
        return w.to(losses)

    def _learn(self, losses: Tensor, norms: Tensor) -> None:
        """One step on the weights."""
        memory = self.memory
        slope = self.slope(losses, norms)
        memory["steps"] += 1
        memory["first"] = 0.9 * memory["first"] + 0.1 * slope
        memory["second"] = 0.999 * memory["second"] + 0.001 * slope**2
        first = memory["first"] / (1 - 0.9 ** memory["steps"])
        second = memory["second"] / (1 - 0.999 ** memory["steps"])
        w = memory["w"] - self.lr * first / (second.sqrt() + 1e-8)
        w = w.clamp_min(self.floor)
        memory["w"] = self.n_tasks * w / w.sum()

    def slope(self, losses: Tensor, norms: Tensor) -> Tensor:
        """Derivative of the objective of the weights, [K].

        Args:
            losses: [K].
            norms: of the unweighted gradients in the last shared layer, [K].
        """
        weighted = self.memory["w"] * norms
        progress = losses / self.memory["start"]
        rate = progress / progress.mean() if progress.mean() > 0 else torch.ones_like(progress)
        return torch.sign(weighted - weighted.mean() * rate**self.alpha) * norms

    def coefficients(self, gramian: Tensor) -> Tensor:
        """The present weights, [K]: they do not follow from one Gramian."""
        return self.memory["w"].to(gramian)

    def extra_repr(self) -> str:
        return f"n_tasks={self.n_tasks}, alpha={self.alpha:g}, lr={self.lr:g}"


@register("mgda")
class MGDA(GramianWeighting):
    """Multiple-gradient descent: the shortest vector in the convex hull of the gradients.

    alpha = argmin |sum_k alpha_k g_k|^2   subject to   alpha >= 0, sum alpha = 1

    The update d improves every task, g_k' d >= |d|^2, and vanishes where no direction improves all
    (Pareto stationary), also where one gradient alone is zero. It follows the smallest gradient:
    multiplying a loss by a constant changes its direction. With `gramian="representation"` this is
    MGDA-UB.

    Args:
        normalise: what the gradients are divided by before their shortest combination is sought:
            "none", "norm" (their norms: the scale of a loss no longer matters), "loss" or "loss+"
            (loss times norm). The update is made of the divided gradients, so that it is their
            shortest combination. (The official code divides for finding alpha only, and its update
            may harm a task.)

    Source: Désidéri, Comptes Rendus Mathématique 350 (2012); Sener, Koltun, NeurIPS 2018, arXiv
    1810.04650, equation 3 (MGDA-UB: equation 5). The kinds of normalisation are those of its
    official code.
    """

    def __init__(self, n_tasks: int, normalise: str = "none") -> None:
        super().__init__(n_tasks)
        kinds = ("none", "norm", "loss", "loss+")
        if normalise not in kinds:
            raise ValueError(f"normalise: expected one of {', '.join(kinds)}, got {normalise!r}")
        self.normalise = normalise
        self.needs_nonnegative = normalise.startswith("loss")
        self._values: Array | None = None

    def _combine(self, gramian: Tensor, losses: Tensor) -> Tensor:
        self._values = losses.detach().cpu().double().numpy()
        return self.coefficients(gramian)

    def rule(self, gramian: Array) -> Array:
        divisor = np.ones(len(gramian))
        if self.normalise.startswith("loss"):
            if self._values is None:
                raise ValueError(f"normalise: {self.normalise!r} needs losses; call backward()")
            divisor = divisor * self._values
        if self.normalise in ("norm", "loss+"):
            divisor = divisor * np.sqrt(gramian.diagonal())
        divisor = np.where(divisor > 0, divisor, 1.0)  # a gradient of zero stays one
        return simplex.min_norm_point(gramian / divisor / divisor[:, None]) / divisor


@register("pareto_mtl")
class ParetoMTL(GramianWeighting):
    """Pareto MTL: towards one chosen part of the Pareto front.

    Preference vectors u_1 ... u_M divide the positive losses into cones; the run for cone `index`
    keeps its losses where u_index' L is largest, G_j = (u_j - u_index)' L <= 0:

    first, while a constraint is violated: the shortest vector in the hull of the gradients of the
    violated ones; from the first call that finds none: the shortest vector in the hull of all task
    gradients and those of the violated constraints.

    The coefficients may be negative. Draw M runs, one for each vector, for a set of trade-offs.

    Args:
        preferences: [M, K], at least 0, rows not zero; they are scaled to length 1.
        index: row of `preferences` that this run is for.

    Source: Lin, Zhen, Li, Zhang, Kwong, NeurIPS 2019, arXiv 1912.12854, equations 9 to 18, with the
    active set of its official code (constraints with G_j > 0).
    """

    needs_nonnegative = True

    def __init__(self, n_tasks: int, preferences: Any, index: int) -> None:
        super().__init__(n_tasks)
        u = torch.as_tensor(preferences, dtype=torch.float64).numpy(force=True).copy()
        if u.ndim != 2 or u.shape[1] != n_tasks or not np.isfinite(u).all() or u.min() < 0:
            raise ValueError(
                f"preferences: expected [M, {n_tasks}] finite numbers of at least 0, "
                f"got {u.tolist()}"
            )
        length = np.linalg.norm(u, axis=1, keepdims=True)
        if length.min() == 0:
            raise ValueError("preferences: expected no row of zeros")
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(u):
            raise ValueError(
                f"index: expected a row of preferences, 0 to {len(u) - 1}, got {index!r}"
            )
        self.preferences, self.index = u / length, index
        self.differences = np.delete(self.preferences, index, 0) - self.preferences[index]
        self.memory["inside"] = False

    def _combine(self, gramian: Tensor, losses: Tensor) -> Tensor:
        array = simplex.check_gramian(gramian.detach().cpu().double().numpy())
        values = losses.detach().cpu().double().numpy()
        return torch.as_tensor(self.towards(array, values)).to(gramian)

    def towards(self, gramian: Array, losses: Array) -> Array:
        """alpha, [K], from a Gramian [K, K] and losses [K]; remembers if the cone was reached."""
        active = self.differences[self.differences @ losses > 0]
        self.memory["inside"] = bool(self.memory["inside"] or not len(active))
        rows = np.vstack([np.eye(self.n_tasks), active]) if self.memory["inside"] else active
        product = rows @ gramian @ rows.T
        return simplex.min_norm_point(0.5 * (product + product.T)) @ rows

    def coefficients(self, gramian: Tensor) -> Tensor:
        raise NotImplementedError("coefficients: pareto_mtl needs the losses too; see towards()")


@register("pcgrad")
class PCGrad(GramianWeighting):
    """PCGrad: each gradient loses its component against every other one that it conflicts with.

    for each task i, for each other task j in random order: if h_i' g_j < 0 then
        h_i <- h_i - (h_i' g_j / |g_j|^2) g_j          beginning with h_i = g_i
    update = sum_i h_i

    With more than two tasks the result depends on the order and may still conflict. A gradient of
    zero conflicts with none.

    Args:
        generator: a `torch.Generator` on the CPU for the order; by default one of its own.

    Source: Yu, Kumar, Gupta, Levine, Hausman, Finn, NeurIPS 2020, arXiv 2001.06782, algorithm 1.
    """

    def __init__(self, n_tasks: int, generator: torch.Generator | None = None) -> None:
        super().__init__(n_tasks)
        self.generator = check_generator(generator)

    def rule(self, gramian: Array) -> Array:
        assert self.generator is not None
        norms, cosine = simplex.cosines(gramian)
        h = np.eye(len(gramian))  # row i: h_i / norms[i] in unit gradients
        tasks = np.arange(len(gramian))
        for j in orders(len(gramian), self.generator).T:  # task i meets task j[i]
            against = (h * cosine[j]).sum(1)
            h[tasks, j] -= np.minimum(against, 0.0)
        # h_i = norms[i] sum_j h_ij g_j / norms[j]
        return norms @ h / np.where(norms > 0, norms, 1.0) + (norms == 0)


def orders(n_tasks: int, generator: torch.Generator) -> Array:
    """For each task the other tasks in random order, [K, K - 1]."""
    keys = torch.rand(n_tasks, n_tasks, generator=generator, dtype=torch.float64)
    return keys.fill_diagonal_(2.0).argsort(1)[:, :-1].numpy()


@register("gradvac")
class GradVac(GramianWeighting):
    """Gradient Vaccine: raise the cosine of two gradients to what it usually is.

    As PCGrad, but the other gradient is added whenever the cosine phi of h_i and g_j lies below a
    moving average t_ij of it:

    h_i <- h_i + |h_i| (t sqrt(1 - phi^2) - phi sqrt(1 - t^2)) / (|g_j| sqrt(1 - t^2)) g_j

    which makes it t_ij. Then t_ij <- (1 - decay) t_ij + decay phi. With averages of 0 this is
    PCGrad.

    Args:
        decay: in [0, 1], share of the present in the moving average.
        generator: a `torch.Generator` on the CPU for the order; by default one of its own.

    Source: Wang, Tsvetkov, Firat, Cao, ICLR 2021, arXiv 2010.05874, equation 3 and algorithm 1, on
    all shared parameters as one group.
    """

    def __init__(
        self,
        n_tasks: int,
        decay: float = 0.5,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(n_tasks)
        self.decay = check_number("decay", decay, "[0, 1]")
        self.generator = check_generator(generator)
        self.memory["average"] = torch.zeros(n_tasks, n_tasks, dtype=torch.float64)

    def rule(self, gramian: Array) -> Array:
        assert self.generator is not None
        norms, cosine = simplex.cosines(gramian)
        n_tasks = len(gramian)
        h, tasks = np.eye(n_tasks), np.arange(n_tasks)
        average = self.memory["average"].numpy().copy()
        for j in orders(n_tasks, self.generator).T:
            length = np.sqrt(np.maximum(((h @ cosine) * h).sum(1), 0.0))
            product = (h * cosine[j]).sum(1)
            phi = np.clip(product / np.where(length > 0, length, 1.0), -1.0, 1.0)
            target = average[tasks, j]
            sine = np.sqrt(np.maximum(1 - target**2, 1e-16))
            add = length * (target * np.sqrt(1 - phi**2) - phi * sine) / sine
            below = (phi < target) & (norms > 0) & (norms[j] > 0)
            h[tasks, j] += np.where(below, add, 0.0)
            average[tasks, j] = (1 - self.decay) * target + self.decay * phi
        self.memory["average"] = torch.as_tensor(average)
        return norms @ h / np.where(norms > 0, norms, 1.0) + (norms == 0)


@register("cagrad")
class CAGrad(GramianWeighting):
    """Conflict-averse gradient: the direction near the mean that helps the worst-off task most.

    d = argmax min_k g_k' d   subject to   |d - g_0| <= c |g_0|,   g_0 = mean of the gradients

    c = 0 is the mean; for c < 1 the mean loss still converges; a large c tends to MGDA's direction.
    Where the gradients are Pareto stationary, d = g_0.

    Args:
        c: at least 0.

    Source: Liu, Liu, Jin, Stone, Liu, NeurIPS 2021, arXiv 2110.14048, algorithm 1. The length is
    that of the paper; public code divides it by 1 + c^2 or by 1 + c.
    """

    def __init__(self, n_tasks: int, c: float = 0.4) -> None:
        super().__init__(n_tasks)
        self.c = check_number("c", c, "[0, inf)")

    def rule(self, gramian: Array) -> Array:
        return simplex.trust_ball(gramian, self.c)


@register("imtl_g")
class IMTLG(GramianWeighting):
    """IMTL-G: the combination whose projections on all task gradients are equally long.

    g_k' d / |g_k| equal for all k,   d = sum_k alpha_k g_k,   sum alpha = 1

    alpha is proportional to pinv(G) n with the norms n, and may be negative: d may conflict. The
    scale of a loss does not change the direction. A zero gradient gets coefficient 0.

    Source: Liu et al., ICLR 2021, "Towards impartial multi-task learning", equation 6.
    """

    def rule(self, gramian: Array) -> Array:
        norms, cosine = simplex.cosines(gramian)
        alpha = _equal_angles(norms, cosine) / np.where(norms > 0, norms, 1.0)
        total = alpha.sum()
        if abs(total) <= 1e-12 * max(np.abs(alpha).sum(), 1e-300):  # no equal projection at all
            return np.zeros_like(alpha)
        return alpha / total


def _equal_angles(norms: Array, cosine: Array) -> Array:
    """Coefficients of the unit gradients in the vector with inner product 1 with each, [K]."""
    live = norms > 0
    beta = np.zeros(len(norms))
    if live.any():
        part = cosine[np.ix_(live, live)]
        beta[live] = np.linalg.pinv(part, rcond=1e-12, hermitian=True).sum(1)
    return beta


@register("nash_mtl")
class NashMTL(GramianWeighting):
    """Nash-MTL: the bargaining solution, in which every task gains the same share.

    alpha_k g_k' d = 1 for all k,   d = sum_k alpha_k g_k,   alpha > 0

    |d| = sqrt(K) whatever the gradients are, so with `max_norm` below that this is normalised
    descent. The scale of a loss does not change d. Where no direction improves every task, or a
    gradient is zero, there is nothing to bargain for: the coefficients are 0.

    Args:
        max_norm: longest d, above 0; infinity for no limit.

    Source: Navon et al., ICML 2022, arXiv 2202.01017, equation 2; max_norm as in its official code.
    Solved exactly, as the minimum of a convex function, instead of by a sequence of programs.
    """

    def __init__(self, n_tasks: int, max_norm: float = 1.0) -> None:
        super().__init__(n_tasks)
        self.max_norm = check_number("max_norm", max_norm, "(0, inf]")

    def rule(self, gramian: Array) -> Array:
        alpha = simplex.proportional_fairness(gramian)
        return alpha * min(1.0, self.max_norm / np.sqrt(len(gramian)))


@register("aligned_mtl")
class AlignedMTL(GramianWeighting):
    """Aligned-MTL: make the gradients orthogonal and equally long, then add them.

    G = V diag(lambda) V',   alpha = sqrt(lambda_min) V diag(lambda^-1/2) V' 1

    The aligned gradients have condition number 1. Eigenvalues below `tolerance` times the largest
    count as zero and are left out; as lambda_min sets the length, and near-duplicates make it tiny,
    this tolerance can decide the result.

    Args:
        scale: "min" (of the paper), "median" or "rmse" of the eigenvalues instead of lambda_min.
        tolerance: relative, in [0, 1); by default that of public code (K x 1.2e-7).

    Source: Senushkin, Patakin, Kuznetsov, Konushin, CVPR 2023, arXiv 2305.19000, algorithm 1.
    """

    def __init__(
        self,
        n_tasks: int,
        scale: str = "min",
        tolerance: float | None = None,
    ) -> None:
        super().__init__(n_tasks)
        if scale not in ("min", "median", "rmse"):
            raise ValueError(f"scale: expected one of min, median, rmse, got {scale!r}")
        if tolerance is None:
            tolerance = min(0.5, n_tasks * float(np.finfo(np.float32).eps))
        self.scale, self.tolerance = scale, check_number("tolerance", tolerance, "[0, 1)")

    def rule(self, gramian: Array) -> Array:
        values, vectors = np.linalg.eigh(gramian)
        keep = values > max(self.tolerance * values[-1], 0.0)
        if not keep.any():  # all gradients are zero
            return np.ones(len(gramian))
        values, vectors = values[keep], vectors[:, keep]
        lengths = {"min": values[0], "median": np.median(values), "rmse": values.mean()}
        return np.sqrt(float(lengths[self.scale])) * (vectors / np.sqrt(values)) @ vectors.sum(0)


@register("upgrad")
class UPGrad(GramianWeighting):
    """UPGrad: the mean of the task gradients, each projected onto what harms no task.

    d = mean_k p_k,   p_k = closest vector to g_k with g_j' p_k >= 0 for all j

    d conflicts with no task, and is linear in the length of each gradient.

    Source: Quinton, Rey 2024, arXiv 2406.16232, section 3; solved exactly.
    """

    def rule(self, gramian: Array) -> Array:
        return simplex.dual_cone(gramian, np.eye(len(gramian))).mean(0)


@register("dualproj")
class DualProj(GramianWeighting):
    """Dual-cone projection: the mean gradient, projected onto what harms no task.

    Source: Lopez-Paz, Ranzato, NeurIPS 2017, arXiv 1706.08840, equation 11; compared with UPGrad in
    Quinton, Rey 2024, arXiv 2406.16232.
    """

    def rule(self, gramian: Array) -> Array:
        return simplex.dual_cone(gramian, np.full(len(gramian), 1.0 / len(gramian)))


@register("config")
class ConFIG(GramianWeighting):
    """ConFIG: the direction at equal angles to all gradients, as long as their projections on it.

    u = unit vector with the same cosine to each g_k,   d = (sum_k g_k' u) u

    The scale of a loss changes the length of d, not its direction. Zero gradients are left out.

    Source: Liu, Chu, Thuerey, ICLR 2025, arXiv 2408.11104, equations 2 and 3.
    """

    def rule(self, gramian: Array) -> Array:
        norms, cosine = simplex.cosines(gramian)
        beta = _equal_angles(norms, cosine)
        length = np.sqrt(max(float(beta @ cosine @ beta), 0.0))
        if length <= 1e-12:
            return np.zeros_like(beta)
        beta = beta / length
        return beta / np.where(norms > 0, norms, 1.0) * (norms @ cosine @ beta)


@register("fairgrad")
class FairGrad(GramianWeighting):
    """FairGrad: alpha-fair progress, G w = w^(-1 / alpha).

    alpha = 1 is Nash-MTL without its limit on the length, small alpha tends to the plain sum, large
    alpha to equal progress. Where no direction improves every task, the coefficients are 0.

    Args:
        alpha: above 0.

    Source: Ban, Ji, ICML 2024, arXiv 2402.15638, equation 6.
    """

    def __init__(self, n_tasks: int, alpha: float = 1.0) -> None:
        super().__init__(n_tasks)
        self.alpha = check_number("alpha", alpha, "(0, inf)")

    def rule(self, gramian: Array) -> Array:
        return simplex.proportional_fairness(gramian, self.alpha)


class CoordinateWeighting(GradientWeighting):
    """Rules that need the task gradients themselves, not only their inner products."""

    engine_options: tuple[str, ...] = ()

    def merge(self, jacobian: Tensor, losses: Tensor) -> tuple[Tensor, Tensor]:
        """The update of the shared parameters [P] and weights [K], from J [K, P] and losses [K]."""
        raise NotImplementedError

    def _head_weights(self, losses: Tensor) -> Tensor | None:
        return None

    def _backward(
        self, losses: Tensor, shared: list[Tensor] | None, features: Sequence[Tensor] | None
    ) -> Tensor:
        assert shared is not None  # needs_shared
        head_weights = self._head_weights(losses)
        found = gradients.task_gradients(losses, shared, features, head_weights=head_weights)
        squares = found.jacobian.square().sum(1)
        reason = "the gradient in the shared parameters is not finite (squared norm shown)"
        _refuse_tasks("losses", squares, ~torch.isfinite(squares), reason)
        update, weights = self.merge(found.jacobian, losses.detach())
        found.fill_with(update)
        self.plan = found.plan
        return weights.to(losses)


@register("graddrop")
class GradDrop(CoordinateWeighting):
    """GradDrop: in each coordinate, keep the gradients of one sign only, chosen by chance.

    purity P = (1 + sum_k g_k / sum_k |g_k|) / 2,   with U uniform in (0, 1):
    positive parts are kept where P > U, negative ones elsewhere;  d = sum of what is kept

    Reads coordinates, not only inner products. The weights returned are the share of each task's
    squared gradient that was kept.

    Args:
        leak: in [0, 1], share of what would be dropped that passes nevertheless.
        generator: a `torch.Generator` on the CPU; by default one of its own.

    Source: Chen et al., NeurIPS 2020, arXiv 2010.06808, algorithm 1, on parameters.
    """

    def __init__(
        self, n_tasks: int, leak: float = 0.0, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(n_tasks)
        self.leak = check_number("leak", leak, "[0, 1]")
        self.generator = check_generator(generator)

    def merge(self, jacobian: Tensor, losses: Tensor) -> tuple[Tensor, Tensor]:
        g = jacobian
        size = g.abs().sum(0)
        purity = 0.5 * (1 + g.sum(0) / torch.where(size > 0, size, 1.0))
        u = torch.rand(g.shape[1], generator=self.generator, dtype=torch.float64).to(g)
        kept = torch.where(purity > u, g > 0, g < 0)
        factor = self.leak + (1 - self.leak) * kept.to(g)
        norms = g.square().sum(1)
        share = (factor * g * g).sum(1) / torch.where(norms > 0, norms, 1.0)
        return (factor * g).sum(0), share


@register("db_mtl")
class DBMTL(CoordinateWeighting):
    """DB-MTL: gradients of log losses, averaged over time, all as long as the longest.

    h_k = gradient of log(L_k + eps),   a_k <- b a_k + (1 - b) h_k with b = beta / step^sigma
    d   = sum_k (max_j |a_j| / |a_k|) a_k

    Heads get the gradient of their log loss. With beta > 0 it keeps K gradients of the trunk in
    memory. The weights returned are the coefficients of the present gradients in the update,
    (1 - b) (max_j |a_j| / |a_k|) / (L_k + eps).

    Args:
        beta: in [0, 1), share of the past.
        sigma: at least 0; how fast that share falls.
        eps: at least 0, added to the losses.

    Source: Lin, Jiang, Ye, Zhang, Chen, Chen, Liu, Kwok 2023, arXiv 2308.12029, algorithm 1. A
    gradient of zero stays zero.
    """

    needs_nonnegative = True

    def __init__(
        self, n_tasks: int, beta: float = 0.9, sigma: float = 0.0, eps: float = 1e-8
    ) -> None:
        super().__init__(n_tasks)
        self.beta = check_number("beta", beta, "[0, 1)")
        self.sigma = check_number("sigma", sigma, "[0, inf)")
        self.eps = check_number("eps", eps, "[0, inf)")
        self.memory["steps"] = 0

    def _head_weights(self, losses: Tensor) -> Tensor:
        shifted = losses.detach() + self.eps
        _refuse_tasks("losses", shifted, shifted <= 0, "db_mtl takes their logarithm")
        return 1 / shifted

    def merge(self, jacobian: Tensor, losses: Tensor) -> tuple[Tensor, Tensor]:
        h = jacobian * self._head_weights(losses)[:, None].to(jacobian)
        steps = self.memory["steps"] + 1
        share = self.beta / steps**self.sigma
        h = (1 - share) * h
        if "average" in self.memory:
            h = h + share * self.memory["average"].to(h)
        self.memory["steps"] = steps
        if self.beta > 0:
            self.memory["average"] = h.clone()
        norms = h.norm(dim=1)
        factor = norms.max() / torch.where(norms > 0, norms, 1.0)
        weights = (1 - share) * factor.to(losses) * self._head_weights(losses)
        return factor @ h, weights
