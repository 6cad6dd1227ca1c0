"""Small exact solvers on the K x K Gramian of task gradients.

NumPy in float64: for K up to a few dozen, that is faster than a GPU or a general solver. All of
them work on cosines instead of inner products, G_kl = n_k n_l C_kl with norms n, as norms may lie
many orders of magnitude apart.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

ROUNDING = 1e-13  # slack, in units of cosines, that counts as rounding


def check_gramian(gramian: ArrayLike) -> Array:
    """A Gramian as a float64 array.

    Raises:
        ValueError: not a square matrix of finite numbers, not symmetric, or a negative diagonal.
    """
    array = np.asarray(gramian, dtype=np.float64)
    if array.ndim != 2 or array.shape[0] != array.shape[1] or not array.size:
        raise ValueError(f"gramian: expected a square matrix [K, K], got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("gramian: expected finite inner products, got NaN or infinity")
    diagonal = array.diagonal()
    if diagonal.min() < 0:
        raise ValueError(f"gramian: expected squared norms >= 0, got {diagonal.min():.3g}")
    tolerance = 1e-4 * np.sqrt(diagonal)  # single precision has been here
    if (np.abs(array - array.T) > tolerance[:, None] * tolerance * 1e4).any():
        raise ValueError("gramian: expected a symmetric matrix")
    return array


def cosines(gramian: Array) -> tuple[Array, Array]:
    """Norms [K] and cosines [K, K] of the task gradients.

    A gradient that is zero is at right angles to all others; its norm is given as 0.
    """
    norms = np.sqrt(gramian.diagonal())
    safe = np.where(norms > 0, norms, 1.0)
    cosine = gramian / safe / safe[:, None]
    cosine = 0.5 * (cosine + cosine.T)
    np.fill_diagonal(cosine, 1.0)
    return norms, cosine


def equal_projections(norms: Array, cosine: Array) -> Array:
    """Coefficients of the unit gradients in the vector with inner product 1 with each of them.

    Args:
        norms, cosine: as `cosines` gives them, [K] and [K, K].

    Returns:
        beta, [K]; 0 for a gradient that is zero. Where there is no such vector, the one that comes
        closest (least squares).
    """
    live = norms > 0
    beta = np.zeros(len(norms))
    if live.any():
        part = cosine[np.ix_(live, live)]
        beta[live] = np.linalg.pinv(part, rcond=1e-12, hermitian=True).sum(1)
    return beta


def min_norm_point(gramian: ArrayLike, start: Array | None = None) -> Array:
    """Weights of the shortest vector in the convex hull of the task gradients.

    alpha = argmin alpha' G alpha   subject to   alpha >= 0, sum alpha = 1

    Exact up to rounding, by an active-set method: keep a set of tasks, take the shortest point of
    their affine hull, drop tasks whose weight would be negative, add the task that the result
    helps least, until it helps all of them as much: (G alpha)_k >= alpha' G alpha.

    Args:
        gramian: [K, K]. With a zero gradient among them, that task gets all the weight.
        start: alpha of a similar problem, [K], where the search may begin.

    Returns:
        alpha, [K].

    Source: Wolfe, Mathematical Programming 11 (1976); for task gradients: Sener, Koltun, NeurIPS
    2018, equation 3.
    """
    gramian = check_gramian(gramian)
    norms, cosine = cosines(gramian)
    n_tasks = len(norms)
    if norms.min() == 0:
        return (norms == 0) / (norms == 0).sum()
    # beta = alpha * norms / smallest norm: minimise beta' C beta subject to v' beta = 1
    v = norms.min() / norms
    beta = np.zeros(n_tasks)
    members = [int(norms.argmin())]
    beta[members] = 1.0
    if start is not None:
        members = [int(k) for k in np.flatnonzero(start)]
        beta, members = _shrink(cosine, v, np.asarray(start) / v, members)
    length = beta @ cosine @ beta
    for _ in range(50 * n_tasks):
        product = cosine @ beta
        slack = product - v * (beta @ product)
        slack[members] = np.inf
        worst = int(slack.argmin())
        if slack[worst] >= -ROUNDING:
            break
        members.append(worst)
        trial, members = _shrink(cosine, v, beta, members)
        new_length = trial @ cosine @ trial
        if not new_length < length:  # rounding: no progress is left
            break
        beta, length = trial, new_length
    alpha = beta * v
    return alpha / alpha.sum()


def _shrink(cosine: Array, v: Array, beta: Array, members: list[int]) -> tuple[Array, list[int]]:
    """Shortest point of the hull of the members, dropping those that it does not need."""
    beta = beta.copy()
    while True:
        size = len(members)
        system = np.zeros((size + 1, size + 1))
        system[:size, :size] = cosine[np.ix_(members, members)]
        system[:size, size] = system[size, :size] = v[members]
        right = np.zeros(size + 1)
        right[size] = 1.0
        try:
            affine = np.linalg.solve(system, right)[:size]
        except np.linalg.LinAlgError:
            affine = np.linalg.lstsq(system, right, rcond=None)[0][:size]
        if affine.min() >= 0 or size == 1:
            beta[:] = 0
            beta[members] = affine
            return beta, members
        # go from beta towards the affine minimiser until a weight reaches 0
        now = beta[members]
        falling = affine < 0
        step = (now[falling] / (now[falling] - affine[falling])).min()
        now = now + step * (affine - now)
        keep = now > 1e-15
        keep[np.where(falling)[0][(now[falling]).argmin()]] = False
        beta[:] = 0
        members = [m for m, k in zip(members, keep, strict=True) if k]
        beta[members] = now[keep]


def dual_cone(gramian: ArrayLike, weights: ArrayLike) -> Array:
    """Weights of the closest vector that conflicts with no task gradient.

    For each row u of `weights`, the vector sum_k u_k g_k is projected onto the cone of all d with
    g_k' d >= 0. The projection is sum_k x_k g_k with

    x = argmin x' G x   subject to   x >= u

    Exact up to rounding, by block pivoting: guess which bounds are active, solve, correct the
    guess wherever a sign is wrong, for all rows at once.

    Args:
        gramian: [K, K].
        weights: [K] or [M, K].

    Returns:
        x, of the shape of `weights`.

    Source: Quinton, Rey 2024, arXiv 2406.16232, proposition 1; the solver: Kim, Park, SIAM Journal
    on Scientific Computing 33 (2011).
    """
    gramian = check_gramian(gramian)
    u = np.asarray(weights, dtype=np.float64)
    norms, cosine = cosines(gramian)
    safe = np.where(norms > 0, norms, 1.0)
    size = np.abs(u * norms).max(-1, keepdims=True)
    size = np.where(size > 0, size, 1.0)
    # x = u + z size / norms: minimise z' C z / 2 + q' z subject to z >= 0
    np.fill_diagonal(cosine, norms > 0)
    q = (u * norms / size) @ cosine
    np.fill_diagonal(cosine, 1.0)
    z = _nonnegative(cosine, np.atleast_2d(q)).reshape(q.shape)
    return u + z * size / safe


def onto_simplex(vector: ArrayLike) -> Array:
    """The closest weights of at least 0 that sum to 1; NaN where there are none.

    Args:
        vector: [K].

    Source: Held, Wolfe, Crowder, Mathematical Programming 6 (1974).
    """
    v = np.asarray(vector, dtype=np.float64)
    falling = np.sort(v)[::-1]
    shifts = (falling.cumsum() - 1) / np.arange(1, len(v) + 1)  # if so many weights are above 0
    above = np.flatnonzero(falling > shifts)
    return np.maximum(v - shifts[above[-1]], 0.0) if len(above) else np.full_like(v, np.nan)


def share_of_progress(gramian: ArrayLike, tau: float) -> Array:
    """Weights of the vector closest to the first gradient that gives each other one its share.

    d = argmin |d - g_1|^2 / 2   subject to   g_j' d >= tau |g_j|^2   for all j > 1

    d = g_1 + sum_j mu_j g_j, where mu >= 0 minimises the dual mu' G mu / 2 - b' mu over the other
    tasks, b_j = tau |g_j|^2 - g_j' g_1.

    Args:
        gramian: [K, K].
        tau: at least 0.

    Returns:
        1, mu_2, ..., mu_K, [K]; 1 and zeros where no d fulfils all constraints.

    Source: Varam, AlHajri, TMLR 2026, arXiv 2606.29521, definition 4.1.
    """
    gramian = check_gramian(gramian)
    norms, cosine = cosines(gramian)
    weights = np.eye(len(norms))[0]
    others = np.flatnonzero(norms[1:] > 0) + 1  # the constraint of a zero gradient is 0 >= 0
    if norms[0] == 0 or not len(others):
        return weights
    # in units of the other gradients: z_j = mu_j |g_j|
    matrix, bound = (
        cosine[np.ix_(others, others)],
        tau * norms[others] - norms[0] * cosine[others, 0],
    )
    size = np.abs(bound).max()
    if bound.max() <= 0:
        return weights
    z = _nonnegative(matrix, -bound[None] / size)[0]
    if (matrix @ z - bound / size).min() >= -1e-9:
        weights[others] = z * size / norms[others]
    return weights


def _nonnegative(matrix: Array, q: Array) -> Array:
    """For each row of q [M, K]: argmin z' A z / 2 + q' z subject to z >= 0."""
    free = q < 0
    best = np.full(len(q), q.shape[1] + 1)
    patience = np.full(len(q), 3)
    z = np.zeros_like(q)
    todo = np.arange(len(q))
    eye = np.eye(q.shape[1])
    for _ in range(5 * q.shape[1] + 20):
        f = free[todo]
        both = f[:, :, None] & f[:, None, :]
        try:
            solved = np.linalg.solve(
                np.where(both, matrix, eye), np.where(f, -q[todo], 0)[..., None]
            )
        except np.linalg.LinAlgError:
            break
        solved = solved[..., 0]
        z[todo] = solved
        slope = solved @ matrix + q[todo]
        wrong = np.where(f, solved < -ROUNDING, slope < -ROUNDING)
        count = wrong.sum(1)
        # exchange all wrong signs while that helps, then only the last one (never cycles)
        better = count < best[todo]
        best[todo] = np.minimum(count, best[todo])
        patience[todo] = np.where(better, 3, patience[todo] - 1)
        last = q.shape[1] - 1 - wrong[:, ::-1].argmax(1)
        single = np.zeros_like(wrong)
        single[np.arange(len(todo)), last] = True
        flip = np.where((patience[todo] > 0)[:, None], wrong, wrong & single)
        free[todo] ^= flip
        todo = todo[count > 0]
        if not len(todo):
            break
    for row in range(len(q)):
        slope = z[row] @ matrix + q[row]
        fits = np.abs(np.minimum(z[row], slope)).max() <= 1e-11
        if not fits:  # linearly dependent gradients
            z[row] = _one_by_one(matrix, q[row])
    return np.maximum(z, 0)


def _one_by_one(matrix: Array, q: Array) -> Array:
    """argmin z' A z / 2 + q' z subject to z >= 0, freeing one variable at a time; A may be
    singular (Lawson, Hanson 1974)."""
    z = np.zeros_like(q)
    free = np.zeros(len(q), bool)
    for _ in range(10 * len(q)):
        slope = matrix @ z + q
        slope[free] = np.inf
        if slope.min() >= -ROUNDING:
            break
        free[slope.argmin()] = True
        while True:
            inside = np.where(free)[0]
            target = np.linalg.lstsq(matrix[np.ix_(inside, inside)], -q[inside], rcond=1e-13)[0]
            if target.min() >= 0:
                z[:] = 0
                z[inside] = target
                break
            now = z[inside]
            falling = target < 0
            gap = now[falling] - target[falling]
            step = (now[falling] / gap).min()
            now = now + step * (target - now)
            now[np.where(falling)[0][now[falling].argmin()]] = 0.0
            z[inside] = np.maximum(now, 0)
            free[inside[now <= 0]] = False
            if not free.any():
                break
    return z


def proportional_fairness(gramian: ArrayLike, alpha: float = 1.0) -> Array:
    """Solve G w = w^(-1 / alpha) for w > 0.

    It is where the convex function w' G w / 2 - sum_k w_k^(1 - 1/alpha) / (1 - 1/alpha) is
    smallest (log w_k for alpha = 1), so a damped Newton method finds it.

    Args:
        gramian: [K, K].
        alpha: above 0. 1 is the Nash bargaining solution, small values tend to the plain sum, large
            ones to equal progress for all tasks. Below 0.5 with norms some decades apart, digits
            are lost: at 0.2 relative errors up to 1e-2 in the equation were seen, and zeros as
            where there is no solution; from 0.5 on errors below 1e-9.

    Returns:
        w, [K]; zeros where there is no solution, because no direction improves every task (the
        gradients are Pareto stationary) or a gradient is zero.

    Source: Navon et al., ICML 2022, arXiv 2202.01017, equation 2 (alpha = 1); Ban, Ji, ICML 2024,
    arXiv 2402.15638, equation 6.
    """
    gramian = check_gramian(gramian)
    norms, cosine = cosines(gramian)
    n_tasks = len(norms)
    if norms.min() == 0:
        return np.zeros(n_tasks)
    power = 1.0 / alpha
    # b = w * norms:  C b = m b^-power
    scale = np.exp(np.log(norms).mean())
    relative = norms / scale
    m = relative ** (power - 1.0)
    b = m ** (1.0 / (1.0 + power))  # the solution at right angles
    b *= (np.sum(m * b ** (1 - power)) / max(b @ cosine @ b, 1e-12)) ** (1 / (1 + power))
    start, kept, best, settled = b.max(), b, np.inf, 0
    for _ in range(200):
        pull = m * b**-power
        slope = cosine @ b - pull
        residual = np.abs(slope / pull).max()
        stalls = residual > 0.5 * best
        if residual < best:
            kept, best = b, residual
        if residual < 1e-14 or not b.max() < 1e7 * start:  # grows without end: no solution
            break
        # Newton's equations for relative changes: well scaled whatever b is
        hessian = b[:, None] * cosine * b
        hessian[np.diag_indices(n_tasks)] += power * pull * b
        diagonal = 1 / np.sqrt(hessian.diagonal())
        try:
            scaled = np.linalg.solve(hessian * diagonal * diagonal[:, None], -b * slope * diagonal)
        except np.linalg.LinAlgError:
            break
        change = diagonal * scaled
        decrement = np.sqrt(max(-(b * slope) @ change, 0.0))
        if not np.abs(change).max() > 1e-16:  # not the decrement: it hardly hears some tasks
            break
        # at the bottom, rounding moves the residual to and fro
        settled = settled + 1 if decrement < 1e-7 and stalls else 0
        if settled > 2:
            break
        step = min(1.0, 0.9 / max(-change.min(), 1e-300))
        if np.abs(change).max() > 0.01:  # else Newton's step is safe, and its slope is rounding
            step = _descend(cosine, m, power, b, change, step)
        b = b * (1 + step * change)
    if not best < 1e-4:
        return np.zeros(n_tasks)
    # G w = w^-power with norms = scale * relative:  w = scale^(-2 / (1 + power)) b / relative
    return kept / relative * scale ** (-2.0 / (1.0 + power))


def _descend(cosine: Array, m: Array, power: float, b: Array, change: Array, step: float) -> float:
    """The step along b * change at which the objective has no slope, by safeguarded Newton."""
    d = b * change
    quadratic, linear = d @ cosine @ d, d @ (cosine @ b)

    def slope(t: float) -> float:
        return float(linear + t * quadratic - np.sum(m * d * (b + t * d) ** -power))

    if slope(step) <= 0:
        return step
    low, high = 0.0, step
    for _ in range(6):  # roughly is enough
        middle = 0.5 * (low + high)
        if slope(middle) > 0:
            high = middle
        else:
            low = middle
    return low if low > 0 else high


def trust_ball(gramian: ArrayLike, radius: float) -> Array:
    """Weights that make the worst-off task best off near the mean gradient.

    maximise over d   min_k g_k' d   subject to   |d - g_0| <= radius |g_0|,   g_0 = mean_k g_k

    d = g_0 + radius |g_0| g_w / |g_w|, where w on the simplex minimises
    g_w' g_0 + radius |g_0| |g_w|, g_w = sum_k w_k g_k.

    For a length |g_w| held fixed that is a minimum-norm problem, and on a set of tasks its solution
    is linear in the length, so the length solves a quadratic equation: exact after a few turns.

    Args:
        gramian: [K, K].
        radius: at least 0.

    Returns:
        Coefficients of the gradients in d, [K]. Where g_w vanishes (Pareto stationary), d = g_0.

    Source: Liu et al., NeurIPS 2021, arXiv 2110.14048, equation 4 and algorithm 1.
    """
    gramian = check_gramian(gramian)
    n_tasks = len(gramian)
    mean = np.full(n_tasks, 1.0 / n_tasks)
    product = gramian @ mean
    size = np.sqrt(max(mean @ product, 0.0))
    bound = radius * size
    if bound == 0 or n_tasks == 1:
        return mean * (1.0 + (radius if n_tasks == 1 else 0.0))

    low, high = 0.0, 1.0 / radius * np.sqrt(gramian.diagonal().max()) / size
    t, w = 0.5 * (low + high), None
    for _ in range(100):
        # argmin over the simplex of |g_w + t g_0|; t = |g_w| / bound at the optimum
        shifted = gramian + t * (product[:, None] + product) + t * t * size * size
        np.fill_diagonal(shifted, np.maximum(shifted.diagonal(), 0.0))  # rounding
        w = min_norm_point(shifted, start=w)
        length = np.sqrt(max(float(w @ gramian @ w), 0.0))
        low, high = (t, high) if length > bound * t else (low, t)
        following = _length_on(gramian, product, bound, w > 0, t)
        if not low <= following <= high:
            following = 0.5 * (low + high)
        if abs(following - t) <= 1e-15 * t:
            break
        t = following
    if length <= 1e-9 * np.sqrt(gramian.diagonal().max()):
        return mean
    return mean + bound / length * w


def _length_on(
    gramian: Array, product: Array, bound: float, members: NDArray[np.bool_], t: float
) -> float:
    """The t with |g_w(t)| = bound t, where w(t) minimises |g_w + t g_0| in the affine hull of the
    members: the root next to t, or NaN."""
    size = int(members.sum())
    system = np.ones((size + 1, size + 1))
    system[:size, :size] = part = gramian[np.ix_(members, members)]
    system[size, size] = 0.0
    right = np.zeros((size + 1, 2))
    right[size, 0] = 1.0
    right[:size, 1] = -product[members]
    scale = np.append(1 / np.sqrt(np.maximum(part.diagonal(), 1e-300)), 1.0)
    scale[size] = 1 / max(scale[:size].max(), 1e-300)
    solved = np.linalg.lstsq(system * scale * scale[:, None], right * scale[:, None], rcond=1e-15)
    w0, w1 = (solved[0] * scale[:, None])[:size].T
    # a + 2 b t + c t^2 = 0
    a, b, c = float(w0 @ part @ w0), float(w0 @ part @ w1), float(w1 @ part @ w1) - bound * bound
    inside = b * b - a * c
    if inside < 0:
        return math.nan
    larger = -(b + math.copysign(math.sqrt(inside), b))
    roots = [top / bottom for top, bottom in ((larger, c), (a, larger)) if bottom]
    return min((root for root in roots if root > 0), key=lambda r: abs(r - t), default=math.nan)
