"""What `mtl_utils` does where only its core dependencies are: python tests/without_extras.py

Run by tools/wheel.py in an environment of that kind, and by tests/test_extras.py in this one, with
the packages of the extras barred: python tests/without_extras.py matplotlib seaborn ...
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from importlib.machinery import PathFinder

SAYS = 'pip install "mtl-loss-weighting[notebooks]"'


class Bar:
    """Finds the modules on the path, save for those of some packages."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] in self.names:
            return None
        return PathFinder.find_spec(fullname, path, target)


def refused(call) -> bool:
    """Whether a call fails for want of a package, and says what to install."""
    try:
        call()
    except ModuleNotFoundError as error:
        assert SAYS in str(error), f"does not say what to install: {error}"
        return True
    return False


def train_a_step(rule: str) -> None:
    """One step of a small network with a rule on losses or gradients."""
    import torch

    from mtl_utils import make_weighting
    from mtl_utils.models import HardSharing, mlp

    model = HardSharing(mlp(8, 16, last=True), [mlp(16, 1), mlp(16, 1)])
    weighting = make_weighting(rule, n_tasks=2)
    optimizer = torch.optim.Adam([*model.parameters(), *weighting.parameters()])
    before = [p.detach().clone() for p in model.parameters()]
    losses = torch.stack([out.square().mean() for out in model(torch.randn(32, 8))])
    weights = weighting.backward(losses, shared=model.trunk.parameters())
    optimizer.step()
    assert weights.shape == (2,)
    moved = [bool((p != b).any()) for p, b in zip(model.parameters(), before, strict=True)]
    assert all(moved), moved


def main() -> None:
    import mtl_utils

    for rule in ("uncertainty", "gradnorm", "mgda", "nash_mtl", "upgrad", "graddrop"):
        train_a_step(rule)
    modules = [m.name for m in pkgutil.walk_packages(mtl_utils.__path__, "mtl_utils.", lambda _: 0)]
    wanting = [name for name in modules if refused(lambda n=name: importlib.import_module(n))]

    from mtl_utils.datasets import diamonds, glyph_attributes, movie_genres, overlapping_digits
    from mtl_utils.intervals import interval
    from mtl_utils.metrics import delta_m, multi_label_metrics
    from mtl_utils.showing import show

    calls = {
        "diamonds": diamonds,
        "glyph_attributes": glyph_attributes,
        "movie_genres": movie_genres,
        "overlapping_digits": overlapping_digits,
        "interval": lambda: interval([1.0, 2.0]),
        "multi_label_metrics": lambda: multi_label_metrics([[1.0]], [[1]]),
        "show": lambda: show([{"x": 1}]),
    }
    served = [name for name, call in calls.items() if not refused(call)]
    assert not served, f"these packages are there after all: {served}"
    assert delta_m([1.0], [2.0], [False]) == 50.0
    print(f"{len(modules)} modules, which want the extra:", *wanting, sep="\n")


if __name__ == "__main__":
    sys.meta_path = [Bar(sys.argv[1:]) if f is PathFinder else f for f in sys.meta_path]
    main()
