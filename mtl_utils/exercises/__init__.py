"""Answers and hints of the exercises, one module for each notebook: `nb04.py` holds 04.1 on.

A module holds `EXERCISES: dict[str, Exercise]`.
"""

from __future__ import annotations

import importlib
import inspect
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

RIGHT, CLOSE, WRONG, OTHER_FORM = "✓", "≈", "✗", "…"  # how an answer is marked
NUMBER_WORDS = ("no", "one", "two", "three", "four", "five", "six")


class FormError(Exception):
    """The answer has another form than the exercise asks for; the message says which."""


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    Attributes:
        answer: the right answer: a number, a list of numbers, a truth, a word (or a tuple of its
            spellings), or a function, which is compared with the reader's at the points `at`.
        hint: a direction, for the first wrong answer.
        formula: what gives the answer, for the second.
        praise: what to say to a right answer; one sentence that adds something.
        mistakes: wrong answers that are to be expected, each with what to say to it.
        at: the arguments to compare functions at, a tuple for each call.
        rtol: relative tolerance for numbers. Three digits, rightly rounded, are always enough.
    """

    answer: Any
    hint: str
    formula: str
    praise: str
    mistakes: tuple[tuple[Any, str], ...]
    at: tuple[tuple, ...] = ()
    rtol: float = 1e-3

    def judge(self, answer: Any, tries: int = 1) -> tuple[str, str]:
        """The mark of an answer, and what to say.

        Args:
            answer: the reader's.
            tries: how many wrong answers there were, this one included.
        """
        try:
            given = self._read(answer)
        except FormError as error:
            return OTHER_FORM, str(error)
        except Exception as error:  # of the reader's own function
            text = f"your answer raised {type(error).__name__}: {error}"
            return WRONG, f"{self.hint if tries == 1 else self.formula} ({text})"
        if self._same(given, self._wanted(self.answer), 3):
            return RIGHT, self.praise
        for digits in (3, 2):  # those that are rounded too much, last
            for wrong, text in self.mistakes:
                if self._same(given, self._wanted(wrong), digits):
                    return WRONG, text if tries == 1 else f"{text} {self.formula}"
            if self._same(given, self._wanted(self.answer), 2):
                return CLOSE, "close: give three digits"
        return WRONG, self.hint if tries == 1 else self.formula

    def _wanted(self, answer: Any) -> Any:
        """One of the exercise's own answers, in the form that `_read` gives the reader's."""
        if callable(answer):
            return [_numbers(answer(*arguments)) for arguments in self.at]
        if _is_words(answer):
            return [_letters(word) for word in ([answer] if isinstance(answer, str) else answer)]
        return answer if isinstance(answer, bool) else _numbers(answer)

    def _read(self, answer: Any) -> Any:
        """The reader's answer, in the form that the exercise asks for."""
        if callable(self.answer):
            return self._values(answer)
        if callable(answer):
            raise FormError("the answer is no function; give its value")
        if _is_words(self.answer):
            if not isinstance(answer, str):
                raise FormError("the answer is a word: put it in quotes")
            return [_letters(answer)]
        if isinstance(self.answer, bool):
            answer = answer.item() if hasattr(answer, "item") else answer
            if not isinstance(answer, bool):
                raise FormError("the answer is True or False")
            return answer
        return _numbers(answer, count=len(_numbers(self.answer)))

    def _values(self, function: Any) -> list[np.ndarray]:
        """What the reader's function returns at the points `at`."""
        names = ", ".join(inspect.signature(self.answer).parameters)
        if not callable(function) or hasattr(function, "free_symbols"):  # sympy's can be called
            raise FormError(f"give a function, such as answer = lambda {names}: ...")
        values = [function(*arguments) for arguments in self.at]
        if any(value is None for value in values):
            raise FormError("your function returns nothing: is `return` missing?")
        return [_numbers(value) for value in values]

    def _same(self, given: Any, wanted: Any, digits: int) -> bool:
        if isinstance(wanted, bool) or isinstance(given, bool):
            return given is wanted
        if isinstance(wanted, np.ndarray):
            return self._agree(given, wanted, digits)
        if _is_words(wanted):
            return given[0] in wanted
        pairs = list(zip(given, wanted, strict=True))  # values of a function
        return all(self._agree(a, b, 3) for a, b in pairs)

    def _agree(self, given: np.ndarray, wanted: np.ndarray, digits: int) -> bool:
        """Whether each number is close to the wanted one, or that one rounded to `digits` or 3."""
        if given.shape != wanted.shape:
            return False
        agree = np.isclose(given, wanted, rtol=self.rtol, atol=1e-9)
        for shown in {digits, 3}:
            rounded = np.array([float(f"{number:.{shown - 1}e}") for number in wanted])
            agree |= np.isclose(given, rounded, rtol=1e-9, atol=0)
        return bool(agree.all())


def _is_words(answer: Any) -> bool:
    words = [answer] if isinstance(answer, str) else answer
    return isinstance(words, list | tuple) and all(isinstance(word, str) for word in words)


def _letters(word: str) -> str:
    """A word without article, case and what is between its letters: "the Gramian", "Adam W"."""
    return re.sub(r"[\W_]+", "", re.sub(r"^(the|a|an)\s+", "", word.strip().lower()))


def _numbers(answer: Any, count: int | None = None) -> np.ndarray:
    """Numbers of any kind (tensor, sympy, list of tensors, ...) as a flat NumPy array.

    Raises:
        FormError: they are no numbers, or not `count` of them.
    """
    if isinstance(answer, torch.Tensor):
        answer = answer.detach().cpu().double().numpy()
    elif isinstance(answer, list | tuple):
        answer = np.concatenate([_numbers(part) for part in answer] or [np.empty(0)])
    if answer is Ellipsis:
        raise FormError("put your answer in place of the dots")
    if answer is None:
        raise FormError("the answer is None: did you call something that returns nothing?")
    try:
        found = np.atleast_1d(np.asarray(answer, dtype=float)).ravel()
    except (TypeError, ValueError):
        wanted = "a number" if count in (None, 1) else f"a list of {_in_words(count)} numbers"
        raise FormError(f"the answer is {wanted}, not {answer!r}") from None
    if count is not None and len(found) != count:
        wanted, given = (_in_words(n) for n in (count, len(found)))
        numbers = "number is" if count == 1 else "numbers are"
        raise FormError(f"{wanted} {numbers} wanted, you gave {given}")
    return found


def _in_words(n: int) -> str:
    return NUMBER_WORDS[n] if n < len(NUMBER_WORDS) else str(n)


def exercise_ids(notebook: str) -> list[str]:
    """Numbers of the exercises of a notebook, e.g. of "04"."""
    return list(_module(notebook).EXERCISES)


def find(exercise: str) -> Exercise:
    """The exercise with this number; ValueError lists the numbers of its notebook."""
    notebook = str(exercise).split(".")[0]
    known = _module(notebook).EXERCISES
    if exercise not in known:
        raise ValueError(f"exercise: no {exercise!r}; notebook {notebook} has {', '.join(known)}")
    return known[exercise]


def _module(notebook: str):
    name = f"mtl_utils.exercises.nb{notebook}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ValueError(f"exercise: no notebook {notebook!r} has exercises") from None
