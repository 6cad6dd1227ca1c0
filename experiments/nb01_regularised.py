"""Notebook 01: linear tasks that share by a penalty instead of by a layer."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import Lasso, MultiTaskLasso
from torch import Tensor

from mtl_utils.datasets import RelatedTasks

STRENGTHS = np.geomspace(0.01, 100, 17)


def towards_mean(X: Tensor, y: Tensor, lam: float, ridge: float = 0.0) -> Tensor:
    """Coefficients that minimise the mean squared errors plus a pull towards the tasks' mean.

    sum_k |y_k - X_k w_k|^2 / n + lam sum_k |w_k - mean w|^2 + ridge sum_k |w_k|^2

    Args:
        X: rows of each task, [..., K, n, F].
        y: targets, [..., K, n].
        lam, ridge: strengths, at least 0.

    Returns:
        [..., K, F].

    Source: Evgeniou, Pontil, KDD 2004.
    """
    n_tasks, n, n_features = X.shape[-3:]
    deviation = torch.eye(n_tasks) - 1 / n_tasks  # w -> w - mean of w
    penalty = lam * deviation + ridge * torch.eye(n_tasks)
    system = torch.kron(penalty, torch.eye(n_features)).expand(*X.shape[:-3], -1, -1).clone()
    for k in range(n_tasks):
        block = slice(k * n_features, (k + 1) * n_features)
        system[..., block, block] += X[..., k, :, :].mT @ X[..., k, :, :] / n
    right = (X.mT @ y[..., None]).flatten(-3) / n
    return torch.linalg.solve(system, right).unflatten(-1, (n_tasks, n_features))


def linear_rows(p: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Two linear tasks with 20 rows of 10 features each: X [2, 20, 10], y [2, 20], w [2, 10]."""
    tasks = RelatedTasks(p, 10, n_waves=0, noise=1.0, seed=seed)
    draws = [tasks.draw(20, torch.Generator().manual_seed(10 * seed + k)) for k in range(2)]
    targets = [d[1 + k][:, 0] for k, d in enumerate(draws)]
    return torch.stack([d[0] for d in draws]), torch.stack(targets), tasks.w


def errors_by_strength(p: float, seeds: range = range(100)) -> tuple[Tensor, Tensor]:
    """Squared errors of the coefficients, mean over both tasks, at strength 0 and `STRENGTHS`.

    Returns:
        of the pull towards the mean, and of ridge regression of each task: [18, S] each.
    """
    drawn = zip(*(linear_rows(p, seed) for seed in seeds), strict=True)
    X, y, w = (torch.stack(part) for part in drawn)

    def error(guess: Tensor) -> Tensor:
        return (guess - w).square().sum(-1).mean(-1)

    strengths = [0.0, *STRENGTHS]
    shared = torch.stack([error(towards_mean(X, y, lam)) for lam in strengths])
    return shared, torch.stack([error(towards_mean(X, y, 0.0, r)) for r in strengths])


def sparse_tasks(
    seed: int, common: bool, n: int = 40, n_features: int = 30, n_tasks: int = 6, active: int = 5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Linear tasks on the same rows; 5 features matter to each: the same ones, or its own.

    Returns:
        X [n + 200, F], Y [n + 200, K] (the last 200 are for validation) and W [F, K].
    """
    rng = np.random.default_rng(seed)
    W = np.zeros((n_features, n_tasks))
    features = rng.permutation(n_features)[:active]
    for k in range(n_tasks):
        mine = features if common else rng.permutation(n_features)[:active]
        W[mine, k] = rng.normal(size=active)
    X = rng.normal(size=(n + 200, n_features))
    return X, X @ W + rng.normal(size=(n + 200, n_tasks)), W


def select(kind: type[Lasso] | type[MultiTaskLasso], X: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """Coefficients with the best of twelve strengths on the validation rows, [F, K]."""
    fits = []
    for lam in np.geomspace(0.03, 1, 12):
        fitted = kind(alpha=lam, fit_intercept=False, max_iter=20_000).fit(X[:40], Y[:40])
        W = fitted.coef_.T
        fits.append((((Y[40:] - X[40:] @ W) ** 2).mean(), W))
    return min(fits, key=lambda fit: fit[0])[1]
