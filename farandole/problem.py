"""A mistake in a declaration, told with its place and its remedy, and never alone if there are more."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from farandole.errors import DeclarationError


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong (or, as a `note`, worth knowing) before anything runs.

    >>> print(Problem("pipeline.py:9", "no `since`", "write since = 'now'"))
    pipeline.py:9  no `since`
      hint  write since = 'now'
    """

    place: str  # file:line, or file:line:column
    message: str
    hint: str = ""
    note: bool = False

    def __str__(self) -> str:
        return str(DeclarationError(self.message, place=self.place, hint=self.hint))


class Mistakes(DeclarationError):
    """Everything that is wrong with one declaration, at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        first, self.problems = problems[0], tuple(problems)
        if len(problems) == 1:
            super().__init__(first.message, place=first.place, hint=first.hint)
        else:  # each with its own place and hint, so that whoever prints the message prints them all
            super().__init__("\n".join(map(str, problems)))


def refuse(problems: Sequence[Problem]) -> None:
    """Raise Mistakes if there are any problems."""
    if problems:
        raise Mistakes(problems)


def problems_of(error: DeclarationError) -> tuple[Problem, ...]:
    """The problems that an error tells of: all of them, where it holds several."""
    if isinstance(error, Mistakes):
        return error.problems
    return (Problem(error.place, error.message, error.hint),)


def nearest(word: str, words: Iterable[str]) -> str:
    """The word that was probably meant, as a question; empty if none is near.

    >>> nearest("tabel", ["table", "rows"])
    'did you mean `table`?'
    """
    import difflib

    near = difflib.get_close_matches(word, list(words), n=1, cutoff=0.6)
    return f"did you mean `{near[0]}`?" if near else ""


def place(file: str, line: int) -> str:
    """``file:line``, with the path as a person standing in the current folder would write it."""
    try:
        near = os.path.relpath(file)
    except (OSError, ValueError):  # the current folder is gone, or on another drive
        return f"{file}:{line}"
    return f"{file if near.startswith('..') else near}:{line}"
