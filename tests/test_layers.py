"""What may import what in mtl_utils, and that every public name is documented and typed."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "mtl_utils"
FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = [
    ".".join(("mtl_utils", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
        ".__init__"
    )
    for path in FILES
]
each_file = pytest.mark.parametrize("path", FILES, ids=MODULES)

# what a module (or everything below it) may import of mtl_utils; the others may import anything
# but the tests and tools
BASE = {"engine", "gradients", "solvers"}
LAYERS = {
    "engine": {"engine"},
    "gradients": {"engine"},
    "solvers": set(),
    "losses": set(),
    "catalogue": {"weighting"},
    "extras": set(),
    "metrics": {"extras"},
    "weighting": BASE | {"weighting"},
    "datasets": {"datasets", "extras"},
    "models": BASE,
    "plots": {"plots", "catalogue", "extras", "home", "intervals", "showing", "weighting"},
    "exercises": {"exercises", "extras", "solvers"},
    "training": BASE | {"weighting", "models", "metrics"},
}
# of other projects: what the interface needs has to do without the notebooks' packages
CORE = {"engine", "gradients", "solvers", "losses", "weighting", "models", "training"}
CORE_NEEDS = {"torch", "numpy", "pandas", "tqdm"}


def imported(path):
    """Full names of everything that a file imports, at its top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def layer(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@each_file
def test_imports_run_one_way(path):
    names = imported(path)
    outside = {name for name in names if name.split(".")[0] in ("tests", "tools", "conftest")}
    assert not outside
    allowed = LAYERS.get(layer(path))
    if allowed is not None:
        own = {name.split(".")[1] for name in names if name.startswith("mtl_utils.")}
        assert own <= allowed, f"{path.name} imports {own - allowed}"


@each_file
def test_the_core_needs_few_packages(path):
    if layer(path) not in CORE:
        return
    roots = {name.split(".")[0] for name in imported(path)}
    standard = importlib.import_module("sys").stdlib_module_names
    assert roots - standard - {"mtl_utils"} <= CORE_NEEDS


def public(module):
    """Public functions, classes and methods that a module defines, by qualified name."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(value):
            yield name, value, None
        elif inspect.isclass(value):
            yield name, value, None
            for inner, member in vars(value).items():
                member = getattr(member, "__func__", member)
                function = member.fget if isinstance(member, property) else member
                if (not inner.startswith("_") or inner == "__init__") and inspect.isfunction(
                    function
                ):
                    yield f"{name}.{inner}", function, value


def documented(value, owner):
    """Whether there is a docstring, the base class's for what a class fills in."""
    if owner is None:
        return bool(value.__doc__)
    return any(
        getattr(vars(base).get(value.__name__), "__doc__", None)
        for base in owner.__mro__
        if base is not object
    )


def untyped(function, owner):
    """Names of the parameters without a type hint, and "return"."""
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())[owner is not None :]
    empty = inspect.Parameter.empty
    names = [p.name for p in parameters if p.annotation is empty]
    if signature.return_annotation is inspect.Signature.empty:
        names.append("return")
    return names


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_is_documented_and_typed(name):
    module = importlib.import_module(name)
    faults = [] if module.__doc__ else ["no module docstring"]
    for qualified, value, owner in public(module):
        generated = inspect.isfunction(value) and value.__name__ == "__init__"
        if not generated and not documented(value, owner):
            faults.append(f"{qualified}: no docstring")
        if inspect.isfunction(value) and (missing := untyped(value, owner)):
            faults.append(f"{qualified}: no type hint for {', '.join(missing)}")
    assert not faults, "\n".join(faults)


def test_importing_the_interface_draws_in_no_figure_and_no_data_set():
    import subprocess
    import sys

    code = "import sys, mtl_utils; print(*sorted(m for m in sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    ).stdout.split()
    heavy = {"matplotlib", "seaborn", "sklearn", "mlxtend", "scipy", "IPython"}
    assert not heavy & set(loaded)
    assert "mtl_utils.datasets" not in loaded and "mtl_utils.plots" not in loaded
