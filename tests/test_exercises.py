"""Exercises: what is accepted in which form, and what is said to everything else."""

import math
import os
import re
import types

import numpy as np
import pytest
import sympy
import torch

from mtl_utils import exercises, notebook
from mtl_utils.exercises import Exercise, exercise_ids, find
from mtl_utils.notebook import check

HINTS = {"hint": "a direction", "formula": "the formula", "praise": "well done"}
GIVE_A_FUNCTION = "… 99.4: give a function, such as answer = lambda n, m: ..."


@pytest.fixture(autouse=True)
def answers(monkeypatch):
    """A notebook "99" with one exercise of each kind, in a new kernel."""

    def other(n, m):
        return n - m

    module = types.SimpleNamespace(
        EXERCISES={
            "99.1": Exercise(9.2103, mistakes=((4.6052, "halve it"),), **HINTS),
            "99.2": Exercise([0.8558, 1.0989], mistakes=(([1, 2], "no"),), **HINTS),
            "99.3": Exercise(
                ("Gramian", "Gram matrix"), mistakes=(("jacobian", "square it"),), **HINTS
            ),
            "99.4": Exercise(
                lambda n, m: 1 / n + m, at=((2, 1), (3, 2)), mistakes=((other, "add"),), **HINTS
            ),
            "99.5": Exercise(True, mistakes=((False, "the other one"),), **HINTS),
            "99.6": Exercise(922, rtol=1e-4, mistakes=((921.03, "round up"),), **HINTS),
        }
    )
    original = exercises._module
    monkeypatch.setattr(exercises, "_module", lambda n: module if n == "99" else original(n))
    notebook._wrong.clear()


n = sympy.Symbol("n")


@pytest.mark.parametrize(
    ("number", "answer", "line"),
    [
        ("99.1", 9.2103, "✓ 99.1: well done"),
        ("99.1", 9.21, "✓ 99.1: well done"),
        ("99.1", torch.tensor(9.2103, requires_grad=True), "✓ 99.1: well done"),
        ("99.1", np.float32(9.2103), "✓ 99.1: well done"),
        ("99.1", 2 * sympy.log(100), "✓ 99.1: well done"),
        ("99.1", [9.21], "✓ 99.1: well done"),
        ("99.1", torch.tensor([[9.21]]), "✓ 99.1: well done"),
        ("99.1", "9.21", "✓ 99.1: well done"),
        ("99.1", 9.2, "≈ 99.1: close: give three digits"),
        ("99.1", 9.25, "✗ 99.1: a direction"),
        ("99.1", 9, "✗ 99.1: a direction"),
        ("99.1", 4.605, "✗ 99.1: halve it"),
        ("99.1", 4.6, "✗ 99.1: halve it"),
        ("99.1", math.nan, "✗ 99.1: a direction"),
        ("99.1", [9.21, 1], "… 99.1: one number is wanted, you gave two"),
        ("99.1", [], "… 99.1: one number is wanted, you gave no"),
        ("99.1", 2 * n, "… 99.1: the answer is a number, not 2*n"),
        ("99.1", "much", "… 99.1: the answer is a number, not 'much'"),
        ("99.1", None, "… 99.1: the answer is None: did you call something that returns nothing?"),
        ("99.1", lambda: 3, "… 99.1: the answer is no function; give its value"),
        ("99.1", ..., "… 99.1: put your answer in place of the dots"),
        ("99.2", torch.tensor([0.8558, 1.0989]), "✓ 99.2: well done"),
        ("99.2", (0.856, 1.10), "✓ 99.2: well done"),
        ("99.2", [torch.tensor(0.856), sympy.Rational(11, 10)], "✓ 99.2: well done"),
        ("99.2", [0.86, 1.10], "≈ 99.2: close: give three digits"),
        ("99.2", [0.86, 1.11], "✗ 99.2: a direction"),
        ("99.2", [2, 1], "✗ 99.2: a direction"),
        ("99.2", 1, "… 99.2: two numbers are wanted, you gave one"),
        ("99.2", [1.0, 2.0, 3.0], "… 99.2: two numbers are wanted, you gave three"),
        ("99.2", "0.856, 1.1", "… 99.2: the answer is a list of two numbers, not '0.856, 1.1'"),
        ("99.2", [..., 1.1], "… 99.2: put your answer in place of the dots"),
        ("99.3", " the Gramian", "✓ 99.3: well done"),
        ("99.3", "gram-matrix", "✓ 99.3: well done"),
        ("99.3", "Jacobian", "✗ 99.3: square it"),
        ("99.3", "hessian", "✗ 99.3: a direction"),
        ("99.3", 3, "… 99.3: the answer is a word: put it in quotes"),
        ("99.4", lambda n, m: 1 / n + m, "✓ 99.4: well done"),
        ("99.4", lambda n, m: torch.tensor(1 / n + m).float(), "✓ 99.4: well done"),
        ("99.4", lambda n, m: [sympy.Rational(1, n) + m], "✓ 99.4: well done"),
        ("99.4", lambda n, m: n - m, "✗ 99.4: add"),
        ("99.4", lambda n, m: n * m, "✗ 99.4: a direction"),
        ("99.4", lambda n, m: [n, m], "✗ 99.4: a direction"),
        ("99.4", lambda n, m: n / 0, "✗ 99.4: a direction (your answer raised ZeroDivisionError: "),
        ("99.4", lambda n: n, "✗ 99.4: a direction (your answer raised TypeError: "),
        ("99.4", lambda n, m: None, "… 99.4: your function returns nothing: is `return` missing?"),
        ("99.4", 1.5, GIVE_A_FUNCTION),
        ("99.4", 1 / n, GIVE_A_FUNCTION),
        ("99.4", n, GIVE_A_FUNCTION),
        ("99.5", True, "✓ 99.5: well done"),
        ("99.5", np.bool_(True), "✓ 99.5: well done"),
        ("99.5", torch.tensor(False), "✗ 99.5: the other one"),
        ("99.5", 1, "… 99.5: the answer is True or False"),
        ("99.6", 922, "✓ 99.6: well done"),
        ("99.6", 921, "✗ 99.6: round up"),
        ("99.6", 921.03, "✗ 99.6: round up"),
        ("99.6", 920, "≈ 99.6: close: give three digits"),
        ("99.6", 912, "✗ 99.6: a direction"),
        ("99.6", 923, "✗ 99.6: a direction"),
    ],
)
def test_check(capsys, number, answer, line):
    check(number, answer)
    out = capsys.readouterr().out
    assert out.startswith(line) and out.count("\n") == 1
    assert "(" in line or out == line + "\n"


def test_a_direction_first_and_then_the_formula(capsys):
    for answer in (..., [1, 2], 9.2, 1.0, 9.2, 2.0, 4.605, 9.21):
        check("99.1", answer)
    check("99.2", [3, 4])
    assert [line[0] for line in capsys.readouterr().out.splitlines()] == list("……≈✗≈✗✗✓✗")
    for answer in (..., 1.0, 4.605):
        check("99.1", answer)
    texts = [line.split(": ", 1)[1] for line in capsys.readouterr().out.splitlines()]
    assert texts == [
        "put your answer in place of the dots",
        "the formula",
        "halve it the formula",
    ]


def test_the_number_type_of_the_session_does_not_matter(capsys):
    assert torch.get_default_dtype() == torch.float32
    check("99.4", lambda n, m: (torch.tensor(1.0) / n + m).item())
    assert capsys.readouterr().out.startswith("✓")


def test_unknown_exercises_list_the_known_ones():
    for answer in (1, ...):
        with pytest.raises(ValueError, match=r"exercise: no '99.7'; notebook 99 has 99.1, 99.2, "):
            check("99.7", answer)
    with pytest.raises(ValueError, match="exercise: no notebook '77' has exercises"):
        check("77.1", 1)
    assert exercise_ids("99")[0] == "99.1" and find("99.1").hint == "a direction"


def test_an_exercise_module_that_cannot_be_imported_says_so(monkeypatch):
    def broken(name):
        raise ModuleNotFoundError("No module named 'fancy'", name="fancy")

    monkeypatch.setattr(exercises.importlib, "import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="fancy"):
        find("00.1")


# ---- the exercises of the course -------------------------------------------------------------


def registered() -> list[str]:
    folder = os.path.dirname(exercises.__file__)
    numbers = sorted(name[2:4] for name in os.listdir(folder) if re.match(r"nb\d\d\.py", name))
    return [name for number in numbers for name in exercise_ids(number)]


@pytest.mark.parametrize("name", registered())
def test_registered_exercises(name):
    exercise = find(name)
    words = isinstance(exercise.answer, tuple) and isinstance(exercise.answer[0], str)
    right = exercise.answer[0] if words else exercise.answer
    assert exercise.judge(right) == ("✓", exercise.praise)
    levels = {exercise.hint, exercise.formula, exercise.praise}
    assert len(levels) == 3 and all(levels), "a direction, the formula, a word of praise"
    assert len(exercise.mistakes) >= 2, "what is said to wrong answers that are to be expected"
    for wrong, text in exercise.mistakes:
        assert exercise.judge(wrong) == ("✗", text), f"{wrong} is taken for something else"
        assert exercise.judge(wrong, tries=2) == ("✗", f"{text} {exercise.formula}")
    if callable(right):
        assert exercise.at and len(exercise.at[0]) == right.__code__.co_argcount
        assert exercise.judge(3.0)[1].startswith("give a function, such as answer = lambda ")


def test_what_readers_found():
    """Answers that earlier versions took wrongly, or refused without a useful word."""
    for answer, mark in ((912, "✗"), (921, "✗"), (922, "✓"), (923, "✗"), (930, "✗")):
        assert find("04.2").judge(answer)[0] == mark
    assert find("00.2").judge("the Gramian")[0] == "✓"
    assert find("02.2").judge("adam w")[0] == "✓"
    assert find("03.2").judge(9.2)[0] == "≈"
    assert find("06.2").judge(0.43)[0] == "≈"
    assert find("06.1").judge([0.86, 1.05, 1.10])[0] == "≈"
    assert find("04.3").judge(0.014)[0] == "≈"
    assert find("03.4").judge(0.39)[0] == "✓", "0.390"
    assert find("02.1").judge(250)[1].startswith("Turn it round")
    assert find("04.4").judge(lambda c: c**2)[1].startswith("That is the factor of the loss")


def test_the_gradient_of_an_absolute_error_grows_with_output_and_target():
    """09.3 and 12.3: by 1000, in millimetres; with the target alone its length stays."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(50, 3, generator=generator), torch.randn(50, generator=generator)

    def length(output_unit, target_unit):
        theta = torch.full((3,), 0.5, requires_grad=True)
        (output_unit * (x @ theta) - target_unit * y).abs().mean().backward()
        return theta.grad.norm().item()

    assert length(1000, 1000) == pytest.approx(1000 * length(1, 1), rel=1e-5)
    assert length(1, 1000) < 3 * length(1, 1)


def test_the_cases_of_09_4_hold_every_kind_of_mistake():
    cases = find("09.4").at
    right = [bool(find("09.4").answer(G, alpha)) for G, alpha in cases]
    assert sum(right) >= 9 and right.count(False) >= 9
    assert any(alpha.min() < 0 for _, alpha in cases)
