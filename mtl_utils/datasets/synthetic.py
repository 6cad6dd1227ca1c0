"""Two tasks whose relatedness is a dial, for seeing gain and negative transfer."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mtl_utils.datasets.base import MultiTaskData, as_float, check_count


class RelatedTasks:
    """Two regressions on the same inputs, whose directions have cosine p.

    y_k = w_k x + sum_i sin(alpha_i w_k x + beta_i) + noise,   x ~ N(0, I)
    w_1 = u_1,   w_2 = p u_1 + sqrt(1 - p^2) u_2,   u_1, u_2 orthogonal and of length 1

    p = 1: the same function twice; p = 0: functions of independent inputs. The linear parts have
    correlation p. Each task alone is equally hard for every p.

    Args:
        p: relatedness, in [-1, 1].
        n_features: dimension of x, at least 2.
        n_waves: number of sines, at least 0; alpha_i = i. More make the functions harder.
        noise: standard deviation of the noise, at least 0.
        seed: of the directions u and the phases beta, which do not depend on p.

    Attributes:
        w: directions, [2, n_features], float64.
        alpha, beta: frequencies and phases of the sines, [n_waves], float64.

    Source: construction of Ma et al., KDD 2018 (the paper of the multi-gate mixture of experts),
    section on synthetic data; frequencies and phases, left open there, are ours.
    """

    def __init__(
        self,
        p: float,
        n_features: int = 20,
        n_waves: int = 4,
        noise: float = 0.1,
        seed: int = 0,
    ) -> None:
        if not -1 <= p <= 1:
            raise ValueError(f"p: expected a number in [-1, 1], got {p!r}")
        if not 0 <= noise < math.inf:
            raise ValueError(f"noise: expected a finite number of at least 0, got {noise!r}")
        check_count("n_features", n_features, least=2)
        check_count("n_waves", n_waves, least=0)
        generator = torch.Generator().manual_seed(seed)
        gauss = torch.randn(n_features, 2, generator=generator, dtype=torch.float64)
        u_1, u_2 = torch.linalg.qr(gauss).Q.T
        self.p = p
        self.noise = noise
        self.w = torch.stack([u_1, p * u_1 + math.sqrt(1 - p**2) * u_2])
        self.alpha = torch.arange(1, n_waves + 1, dtype=torch.float64)
        self.beta = 2 * math.pi * torch.rand(n_waves, generator=generator, dtype=torch.float64)

    def targets(self, x: Tensor) -> Tensor:
        """Targets without noise, [N, 2], of inputs [N, n_features]."""
        projection = (x.double() @ self.w.T)[..., None]  # [N, 2, 1]
        waves = torch.sin(self.alpha * projection + self.beta).sum(-1)
        return as_float(projection[..., 0] + waves)

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Fresh data: inputs [n, n_features], targets [n, 1] and [n, 1]."""
        check_count("n", n)
        x = torch.randn(n, self.w.shape[1], generator=generator, dtype=torch.float64)
        noise = self.noise * torch.randn(n, 2, generator=generator, dtype=torch.float64)
        y = self.targets(x) + as_float(noise)
        return as_float(x), y[:, :1], y[:, 1:]


def related_regressions(
    p: float,
    n_train: int = 1_000,
    n_val: int = 1_000,
    n_test: int = 1_000,
    seed: int = 0,
    n_features: int = 20,
    n_waves: int = 4,
    noise: float = 0.1,
    function_seed: int = 0,
) -> MultiTaskData:
    """Two regressions of relatedness p: a sample of `RelatedTasks`.

    Args:
        p: relatedness, in [-1, 1].
        n_train, n_val, n_test: number of rows in each split.
        seed: of the inputs and the noise; the inputs are the same for every p.
        n_features, n_waves, noise, function_seed: as for `RelatedTasks` (the last as its seed).

    Returns:
        inputs [N, n_features], targets [N, 1] and [N, 1]. `info["tasks"]` is the `RelatedTasks`,
        whose `draw(n, generator)` gives fresh data.
    """
    tasks = RelatedTasks(p, n_features, n_waves, noise, function_seed)
    generator = torch.Generator().manual_seed(seed)
    train, val, test = (tasks.draw(n, generator) for n in (n_train, n_val, n_test))
    source = f"generated, relatedness {p:g}, noise {tasks.noise:g}, seed {seed}"
    return MultiTaskData(
        "related regressions", ("y1", "y2"), train, val, test, source=source, info={"tasks": tasks}
    )
