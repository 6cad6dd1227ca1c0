"""Answers and hints of the exercises, one module for each notebook: `nb04.py` holds 04.1 on.

A module holds `EXERCISES: dict[str, Exercise]`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    Attributes:
        answer: the right answer (number, array, string, bool), or a function that takes the
            reader's answer and returns whether it is right (for answers that are functions).
        hint: what to say to a wrong answer.
        praise: what to say to a right one; one sentence that adds something.
        mistakes: known wrong answers, each with a hint of its own.
        rtol: relative tolerance for numbers.
    """

    answer: Any
    hint: str
    praise: str = "right"
    mistakes: tuple[tuple[Any, str], ...] = field(default=())
    rtol: float = 1e-3

    def judge(self, answer: Any) -> tuple[bool, str]:
        """Whether the answer is right, and what to say."""
        try:
            if self._matches(answer, self.answer):
                return True, self.praise
            for wrong, hint in self.mistakes:
                if self._matches(answer, wrong):
                    return False, hint
        except Exception as error:
            return False, f"{self.hint} (your answer raised {type(error).__name__}: {error})"
        return False, self.hint

    def _matches(self, answer: Any, want: Any) -> bool:
        if callable(want):
            return bool(want(answer))
        if isinstance(answer, torch.Tensor):
            answer = answer.detach().cpu().numpy()
        if isinstance(answer, np.ndarray) and answer.ndim == 0:
            answer = answer.item()
        if isinstance(want, str):
            return isinstance(answer, str) and answer.strip().lower() == want.lower()
        if isinstance(want, bool):
            return isinstance(answer, bool | np.bool_) and bool(answer) == want
        given, wanted = np.asarray(answer, dtype=float), np.asarray(want, dtype=float)
        return given.shape == wanted.shape and np.allclose(given, wanted, rtol=self.rtol, atol=1e-9)


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
