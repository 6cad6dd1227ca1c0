"""The package, a page for each module that a user or a reader of the notebooks meets."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from types import ModuleType

from tools.site import docstrings

MODULES = {
    "weighting": "the interface of all rules",
    "gradients": "task gradients and their inner products",
    "training": "a training loop",
    "models": "networks with a shared trunk",
    "losses": "losses with learned noise",
    "metrics": "how good a multi-task model is",
    "solvers": "the small optimisation problems of the rules",
    "datasets": "data that installs with packages, or is drawn",
    "ensemble": "many trainings side by side",
    "sweep": "many trainings on all cores or a cluster",
    "records": "what a sweep wrote",
    "intervals": "means, differences and their intervals",
    "plots": "the figures that are ours",
    "showing": "tables and figures on a page",
    "claims": "checks in a notebook",
    "exercises": "answers, hints",
}


def write(source: Path) -> None:
    """The pages, and an index of them."""
    folder = source / "api"
    folder.mkdir()
    lines = ["# The package", "", "| module | what it has |", "|---|---|"]
    for name, what in MODULES.items():
        module = importlib.import_module(f"mtl_utils.{name}")
        (folder / f"{name}.md").write_text(page(module), encoding="utf-8")
        lines.append(f"| [mtl_utils.{name}]({name}.md) | {what} |")
    lines += ["", "```{toctree}", ":hidden:", *MODULES, "```", ""]
    (folder / "index.md").write_text("\n".join(lines), encoding="utf-8")


def page(module: ModuleType) -> str:
    """A module: its docstring, and its public functions and classes."""
    parts = [f"# {module.__name__}", docstrings.markdown(module.__doc__ or "")]
    parts.append(f"```{{py:currentmodule}} {module.__name__}\n```")
    for name, value in public(module).items():
        parts.append(_function(name, value) if inspect.isfunction(value) else _class(name, value))
    return "\n\n".join(parts) + "\n"


def public(module: ModuleType) -> dict[str, object]:
    """Functions and classes of `__all__`, without one those that the module defines."""
    names = getattr(module, "__all__", None)
    if names is None:
        names = [
            n for n, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__
        ]
    found = {name: getattr(module, name) for name in names if not name.startswith("_")}
    return {n: v for n, v in found.items() if inspect.isfunction(v) or inspect.isclass(v)}


def _function(name: str, value: object, kind: str = "function") -> str:
    body = docstrings.markdown(inspect.getdoc(value) or "")
    return docstrings.directive(kind, docstrings.signature(name, value), body)


def _class(name: str, value: object) -> str:
    own = [
        _function(member, function, "method")
        for member, function in vars(value).items()
        if inspect.isfunction(function) and function.__doc__ and not member.startswith("_")
    ]
    body = docstrings.markdown(value.__doc__ or "")
    return docstrings.directive(
        "class", docstrings.signature(name, value), "\n\n".join([body, *own])
    )
