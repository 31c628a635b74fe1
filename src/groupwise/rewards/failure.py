"""What can be said about a reward function that failed: the line that raised, and the row it was looking at."""

from __future__ import annotations

import traceback
from collections.abc import Collection
from typing import Literal, TypeAlias

from groupwise.rewards.contract import Answers

Kind: TypeAlias = Literal["raised", "returned", "hung", "limit", "died"]
"""`limit`: the answer used up the time or memory that it has; `hung`: the function waited for something else."""


class Failure(Exception):  # noqa: N818 - no error of groupwise: it says what a function did, not what is to be done
    """One call of a reward function that gave no marks."""

    def __init__(self, kind: Kind, words: str) -> None:
        super().__init__(words)
        self.kind: Kind = kind
        self.words = words


def where_raised(error: BaseException, ours: Collection[str]) -> str:
    """File, line and source of the user's own line, such as ` at reward.py:12, in judge: int(text)`; "" if unknown.

    `ours` are files of groupwise that only lead there. An error inside a library that the user's file called is shown
    at the call, for that is the line which the user can mend.
    """
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [f for f in frames if f.filename not in ours and not f.filename.startswith("<frozen")]
    if not theirs:
        return ""
    frame = [f for f in theirs if f.filename == theirs[0].filename][-1]
    return f" at {frame.filename}:{frame.lineno}, in {frame.name}: {frame.line}"


def shown(error: BaseException) -> str:
    """The error's class and message, safe to print on any terminal, cut to one screenful."""
    try:
        said = str(error)[:500]
    except BaseException:  # an exception of the user's own, whose __str__ raises
        said = "(its message cannot be shown)"
    return f"{type(error).__name__}: {ascii(said)[1:-1][:500]}"


def excerpt(answers: Answers, row: int) -> str:
    """The row's prompt and completion, shortened, with escapes instead of anything a terminal would obey."""
    return f"prompt {_short(answers.prompts[row])}, completion {_short(answers.completions[row])}"


def _short(value: object) -> str:
    # Cut before escaping: a megabyte of text must not be escaped to show eighty characters of it.
    text = ascii(value[:80] if isinstance(value, str) else value)
    return text[:80] + "..." if len(text) > 83 else text
