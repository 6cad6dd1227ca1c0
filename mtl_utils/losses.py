"""Losses that weigh examples, besides tasks: learned noise for each example, and the focal loss.

The noise comes from an output of the network, s = log sigma^2, so that any number will do. Each
loss is a mean over all its values, or has their shape with reduction="none".

Where the network fits an example exactly, the likelihoods have no lower bound in s. Nothing is cut
off here: start with s held at 0 for a while, and look at s.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def gaussian_nll(mean: Tensor, log_var: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Heteroscedastic regression: exp(-s) (target - mean)^2 / 2 + s / 2.

    The negative log-likelihood of a normal distribution, up to the constant log(2 pi) / 2. With one
    s for all examples it is the regression form of `uncertainty` on the mean squared error; for
    each example alone, the best s is log (target - mean)^2.

    Args:
        mean: predictions, any shape.
        log_var: s, of the shape of `mean` or one that expands to it, such as [B, 1] for [B, D].
        target: of the shape of `mean`.
        reduction: "mean" or "none".

    Returns:
        A scalar, or a tensor of the shape of `mean`.

    Raises:
        ValueError: shapes that do not fit ([B] and [B, 1] would silently make [B, B]).

    Source: Kendall, Gal, NIPS 2017, arXiv 1703.04977, the loss for regression with s = log sigma^2.
    """
    log_var = _fitting(mean, log_var, target)
    return _reduce(_gaussian_nll(mean, log_var, target), reduction)


def beta_nll(
    mean: Tensor, log_var: Tensor, target: Tensor, beta: float = 0.5, reduction: str = "mean"
) -> Tensor:
    """`gaussian_nll` with each value multiplied by sigma^(2 beta), held constant.

    The likelihood divides the gradient of the mean by sigma^2, so that what the network takes for
    noise is no longer learned. beta = 0 is the likelihood; beta = 1 gives the mean the gradient of
    half the squared error. The best s of each example stays the same.

    Args:
        mean, log_var, target, reduction: as for `gaussian_nll`.
        beta: in [0, 1].

    Raises:
        ValueError: shapes that do not fit, or beta out of range.

    Source: Seitzer, Tavakoli, Antic, Martius, ICLR 2022, arXiv 2203.09168.
    """
    if not 0 <= beta <= 1:
        raise ValueError(f"beta: expected a number in [0, 1], got {beta!r}")
    log_var = _fitting(mean, log_var, target)
    factor = torch.exp(beta * log_var.detach())
    return _reduce(factor * _gaussian_nll(mean, log_var, target), reduction)


def heteroscedastic_cross_entropy(
    logits: Tensor, log_var: Tensor, classes: Tensor, reduction: str = "mean"
) -> Tensor:
    """Classification with noise for each example: exp(-s) CE(logits, class) / 2 + s / 2.

    Approximates the likelihood of softmax(logits / (2 sigma^2)) (Bragman's convention; Kendall, Gal
    and Cipolla scale by 1 / sigma^2, which has no 1/2 before the cross-entropy). For each example
    alone, the best s is log CE.

    Args:
        logits: [B, C] or [B, C, ...].
        log_var: s, [B, ...] as `classes`, or a shape that expands to it.
        classes: [B, ...], integers 0..C-1.
        reduction: "mean" or "none".

    Returns:
        A scalar, or a tensor of the shape of `classes`.

    Source: Bragman et al., MICCAI 2018, arXiv 1806.06595.
    """
    ce = cross_entropy(logits, classes, reduction="none")
    log_var = _expand("log_var", log_var, ce)
    return _reduce(0.5 * torch.exp(-log_var) * ce + 0.5 * log_var, reduction)


def focal_loss(
    logits: Tensor, classes: Tensor, gamma: float = 2.0, reduction: str = "mean"
) -> Tensor:
    """Focal loss: -(1 - p)^gamma log p, with p the probability of the right class.

    Cross-entropy that takes weight from examples which are right already; gamma = 0 is the
    cross-entropy. The example level of dynamic task prioritisation (`dtp`).

    Args:
        logits: [B, C] or [B, C, ...].
        classes: [B, ...], integers 0..C-1.
        gamma: at least 0.
        reduction: "mean" or "none".

    Returns:
        A scalar, or a tensor of the shape of `classes`.

    Raises:
        ValueError: gamma below 0.

    Source: Lin, Goyal, Girshick, He, Dollar, ICCV 2017, arXiv 1708.02002, equation 4.
    """
    if not gamma >= 0:
        raise ValueError(f"gamma: expected a number of at least 0, got {gamma!r}")
    ce = cross_entropy(logits, classes, reduction="none")  # -log p
    # 1 - p without cancellation; above 0, as the power has no derivative at 0 for gamma < 1
    miss = (-torch.expm1(-ce)).clamp_min(torch.finfo(ce.dtype).tiny)
    return _reduce(miss**gamma * ce, reduction)


def _gaussian_nll(mean: Tensor, log_var: Tensor, target: Tensor) -> Tensor:
    return 0.5 * torch.exp(-log_var) * (target - mean) ** 2 + 0.5 * log_var


def _fitting(mean: Tensor, log_var: Tensor, target: Tensor) -> Tensor:
    if mean.shape != target.shape:
        raise ValueError(
            f"target: expected the shape of mean, {tuple(mean.shape)}, got {tuple(target.shape)}"
        )
    return _expand("log_var", log_var, mean)


def _expand(name: str, tensor: Tensor, like: Tensor) -> Tensor:
    try:
        return tensor.expand_as(like)
    except RuntimeError as error:
        raise ValueError(
            f"{name}: expected a shape that expands to {tuple(like.shape)}, "
            f"got {tuple(tensor.shape)}"
        ) from error


def _reduce(values: Tensor, reduction: str) -> Tensor:
    if reduction not in ("mean", "none"):
        raise ValueError(f'reduction: expected "mean" or "none", got {reduction!r}')
    return values.mean() if reduction == "mean" else values
