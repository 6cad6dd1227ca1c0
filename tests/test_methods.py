"""One method, one file: its card, its docstring, its example, its defaults; and what follows."""

import doctest
import importlib
import inspect
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from mtl_utils import catalogue
from mtl_utils.weighting import available_weightings, base, make_weighting, methods
from tests.rules import NAMES, make

FILES = sorted(
    path.stem for path in Path(methods.__path__[0]).glob("*.py") if path.stem != "__init__"
)
ROOT = Path(__file__).resolve().parents[1]
each_file = pytest.mark.parametrize("name", FILES)


def module(name):
    return importlib.import_module(f"mtl_utils.weighting.methods.{name}")


def options(name):
    """The rule's options with their defaults."""
    parameters = list(inspect.signature(base.weighting_class(name)).parameters.values())[1:]
    return {p.name: p.default for p in parameters}


# ---- a file for each method ----------------------------------------------------------------------


def test_the_files_are_the_methods():
    assert FILES == sorted(NAMES)


@each_file
def test_a_file_holds_the_class_of_its_name_and_no_other(name):
    own = [
        value
        for value in vars(module(name)).values()
        if inspect.isclass(value) and value.__module__ == module(name).__name__
    ]
    assert own == [base.weighting_class(name)]
    assert own[0].name == own[0].card.name == name
    assert len(Path(module(name).__file__).read_text().splitlines()) <= 160


@each_file
def test_the_docstring_has_every_section_in_order(name):
    cls = base.weighting_class(name)
    sections = re.findall(r"^    ([A-Z]\w+):", cls.__doc__, re.MULTILINE)
    optional = {"Args": bool(options(name)), "Attributes": bool(list(make(name, 2).parameters()))}
    expected = ["Formula", "Args", "Attributes", "Example", "Deviations", "Source"]
    assert sections == [s for s in expected if optional.get(s, True)]
    arguments = cls.__doc__.partition("    Args:")[2].partition("\n\n")[0]
    assert re.findall(r"^        (\w+):", arguments, re.MULTILINE) == list(options(name))


@each_file
def test_deviations_say_from_what(name):
    text = (
        base.weighting_class(name).__doc__.partition("Deviations:")[2].partition("    Source:")[0]
    )
    kinds = re.findall(r"^        (\w[\w ]*):", text, re.MULTILINE)
    assert kinds and set(kinds) <= {"paper", "official code", "popular code", "none"}


@pytest.mark.parametrize("name", [*FILES, "base"])
def test_the_example_in_the_docstring_runs(name):
    of = base if name == "base" else module(name)
    names = {"torch": torch, "np": np, "make_weighting": make_weighting}
    found = doctest.testmod(of, extraglobs=names)
    assert found.attempted > 0 and found.failed == 0


# ---- what follows from the cards -----------------------------------------------------------------


def test_the_order_is_that_of_the_course_whatever_is_imported_first(monkeypatch):
    cards = base.cards()
    assert available_weightings() == tuple(card.name for card in cards)
    notebooks = [card.notebook for card in cards]
    assert notebooks == sorted(notebooks)
    assert cards[0].name == "equal"
    years = [(card.notebook, card.year) for card in cards]
    assert years == sorted(years)
    monkeypatch.setattr(base, "_REGISTRY", dict(reversed(base._REGISTRY.items())))
    assert base.cards() == cards


def test_the_table_has_a_row_for_each_card():
    table = catalogue.methods_table()
    assert list(table) == ["name", "title", "year", "reads", "notebook", "source"]
    assert tuple(table["name"]) == available_weightings()
    assert set(table["reads"]) == set(catalogue.READS)
    assert table["title"].is_unique


def test_a_notebook_of_each_card_is_there_and_speaks_of_the_method():
    for card in base.cards():
        (lesson,) = (ROOT / "notebooks").glob(f"{card.notebook}_*.ipynb")
        report = (ROOT / "notebooks" / "research").glob(f"{card.notebook}_*.ipynb")
        texts = [path.read_text(encoding="utf-8") for path in (lesson, *report)]
        assert any(card.name in text for text in texts), f"{lesson.name}: no {card.name}"


def test_a_card_says_what_it_reads():
    with pytest.raises(ValueError, match=r"^reads: expected one of nothing, losses, .* got 'tea'"):
        base.Card("x", "X", 2000, "tea", "02", "S")


# ---- defaults ------------------------------------------------------------------------------------

# A default is part of the method: name, option, value, and whose it is.
DEFAULTS = [
    ("random", "generator", None, "one of its own, seeded by torch.manual_seed"),
    ("uncertainty", "forms", "regression", "Kendall et al., equation 7"),
    ("log", "eps", 0.0, "Navon et al. 2022: no eps"),
    ("geometric", "eps", 0.0, "Chennupati et al. 2019: no eps"),
    ("uncertainty_soft", "temperature", 1.0, "ours: the paper tunes it; 1 is no temperature"),
    ("stch", "mu", 1.0, "authors' multi-task experiments"),
    ("stch", "preference", None, "authors' multi-task experiments: all alike"),
    ("stch", "ideal", None, "0, the least that a loss can be"),
    ("stch", "warm_up", None, "the plain form, equation of the paper"),
    ("pbi", "theta", 5.0, "Zhang, Li 2007, by TorchJD's documentation"),
    ("pbi", "preference", None, "ours: all alike"),
    ("pbi", "ideal", None, "0, the least that a loss can be"),
    ("cosmos", "lam", 1.0, "ours: between 0.01 and 8 in the paper, by data set"),
    ("cosmos", "preference", None, "ours: all alike; the paper draws it"),
    ("famo", "lr", 0.025, "Liu et al. 2023, algorithm 1: beta"),
    ("famo", "gamma", 0.001, "Liu et al. 2023, algorithm 1"),
    ("famo", "lower", None, "0, the least that a loss can be"),
    ("famo", "eps", 1e-8, "authors' code"),
    ("dwa", "temperature", 2.0, "Liu, Johns, Davison 2019"),
    ("dtp", "gamma", 2.0, "the focal loss's, Lin et al. 2017; DTP leaves it to the user"),
    ("dtp", "momentum", 0.9, "ours: DTP leaves it to the user"),
    ("dtp", "kpi_min", 0.01, "ours"),
    ("loss_trend", "window", 200, "authors' code"),
    ("gradnorm", "alpha", 1.5, "Chen et al. 2018, the larger networks; LibMTL"),
    ("gradnorm", "lr", 0.025, "the rate of task weights in the code of Nash-MTL and FAMO"),
    ("gradnorm", "floor", 1e-4, "ours"),
    ("graddrop", "leak", 0.0, "Chen et al. 2020, algorithm 1: no leak"),
    ("graddrop", "generator", None, "one of its own, seeded by torch.manual_seed"),
    ("db_mtl", "beta", 0.9, "LibMTL, by the authors"),
    ("db_mtl", "sigma", 0.0, "LibMTL, by the authors"),
    ("db_mtl", "eps", 1e-8, "LibMTL, by the authors"),
    ("moco", "beta", 0.1, "authors' code of the paper"),
    ("moco", "gamma", 0.1, "authors' code of the paper"),
    ("moco", "decay", 0.5, "authors' code of the paper"),
    ("moco", "rho", 0.0, "authors' code of the paper"),
    ("modo", "gamma", 0.1, "authors' code"),
    ("modo", "rho", 0.1, "authors' code"),
    ("sdmgrad", "lam", 0.3, "LibMTL, TorchJD"),
    ("sdmgrad", "lr", 0.5, "ours: with 5, as in LibMTL, the steps do not settle"),
    ("sdmgrad", "momentum", 0.5, "LibMTL, TorchJD"),
    ("sdmgrad", "rounds", 20, "LibMTL, TorchJD"),
    ("excess_mtl", "lr", 0.01, "LibMTL, from the authors' code"),
    ("excess_mtl", "warm_up", 1, "LibMTL, from the authors' code"),
    ("excess_mtl", "eps", 1e-7, "LibMTL, from the authors' code"),
    ("mgda", "normalise", "none", "Sener, Koltun 2018, equation 3"),
    ("pcgrad", "generator", None, "one of its own, seeded by torch.manual_seed"),
    ("cr_mogm", "rule", "mgda", "ours: the paper's first example"),
    ("cr_mogm", "alpha", 0.9, "TorchJD"),
    ("pcd", "tau", 0.02, "authors' code and TorchJD"),
    ("pcd", "beta", 0.999, "authors' code and TorchJD"),
    ("pcd", "eps", 1e-8, "authors' code and TorchJD"),
    ("gradvac", "decay", 0.5, "LibMTL, TorchJD"),
    ("gradvac", "generator", None, "one of its own, seeded by torch.manual_seed"),
    ("cagrad", "c", 0.4, "authors' code for NYUv2"),
    ("nash_mtl", "max_norm", 1.0, "authors' code"),
    ("aligned_mtl", "scale", "min", "Senushkin et al. 2023, algorithm 1"),
    ("aligned_mtl", "tolerance", None, "K eps of float32, as public code"),
    ("fairgrad", "alpha", 1.0, "proportional fairness, that is Nash-MTL"),
]


@pytest.mark.parametrize(("name", "option", "value", "source"), DEFAULTS)
def test_default(name, option, value, source):
    assert source
    found = options(name)[option]
    assert found == value and type(found) is type(value)


def test_every_default_is_held_by_the_table():
    required = {("fixed", "weights"), ("pareto_mtl", "preferences"), ("pareto_mtl", "index")}
    held = {(name, option) for name, option, _, _ in DEFAULTS}
    assert held | required == {(name, option) for name in NAMES for option in options(name)}


@pytest.mark.parametrize(
    ("name", "defaults"), [(n, {o: v for m, o, v, _ in DEFAULTS if m == n}) for n in NAMES]
)
def test_a_rule_without_options_is_the_rule_with_its_defaults(name, defaults):
    """Not only the signature: what the rule does with the option left out."""
    if name in ("fixed", "pareto_mtl"):
        pytest.skip("has no defaults")
    torch.manual_seed(0)
    plain = make_weighting(name, 3)
    torch.manual_seed(0)
    written = make_weighting(name, 3, **defaults)
    assert repr(plain) == repr(written)
    values = {
        key: value for key, value in vars(plain).items() if isinstance(value, (int, float, str))
    }
    assert values == {key: vars(written)[key] for key in values}
