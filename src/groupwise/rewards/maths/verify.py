"""Verdicts on mathematical answers, and the reward `maths`.

    verdicts([("1/2", "0.5"), (r"\\frac{\\sqrt 2}{2}", r"\\frac{1}{\\sqrt 2}")])      # ["numeric", "symbolic"]

The first two stages take microseconds and decide nearly every answer of GSM8K; only what they leave undecided goes to
the processes of the third. An answer beyond the bounds, or over which a process has to be killed, is `Wrong`.
"""

from __future__ import annotations

import atexit
import importlib.util
import threading
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from groupwise.errors import RewardError
from groupwise.rewards.answers import EXTRACTIONS, Extraction
from groupwise.rewards.isolated.items import Done, Items
from groupwise.rewards.maths.bounds import too_large
from groupwise.rewards.maths.spelling import LONGEST, Verdict, compared, is_prose
from groupwise.rewards.outcomes import Mark, Unknown, Wrong
from groupwise.rewards.settings import Score
from groupwise.rewards.texts import Answer, text_of

Symbolic = Literal["auto", "always", "never"]

_verifiers: dict[float, Items] = {}
_lock = threading.Lock()


def verdicts(
    pairs: Sequence[tuple[str | None, str]],
    *,
    symbolic: Symbolic = "auto",
    seconds: float = 2.0,
    heard: Callable[[int], object] = lambda row: None,
) -> list[Verdict | Wrong | Unknown]:
    """How each answer (None: it states none) compares with its gold answer: different unless said otherwise.

    `symbolic`: "auto" looks at expressions if math-verify is installed, "always" insists on it. `heard` is told of
    each pair that a parser is done with.
    """
    results: list[Verdict | Wrong | Unknown] = [
        "different" if found is None else compared(found, gold) for found, gold in pairs
    ]
    open_rows = [row for row, verdict in enumerate(results) if verdict == "undecided"]
    if not _available(symbolic):
        for row in open_rows:
            results[row] = "different"
        return results
    for row in open_rows:
        results[row] = _before_parsing(*pairs[row])
    asked = [row for row in open_rows if results[row] == "undecided"]
    together = [list(pairs[row]) for row in asked]
    answers = _verifier(seconds).map(together, lambda place: heard(asked[place])) if asked else []
    for row, answer in zip(asked, answers, strict=True):
        results[row] = ("symbolic" if answer.value else "different") if isinstance(answer, Done) else answer
    return results


def _before_parsing(found: str | None, gold: str) -> Verdict | Wrong:
    """What can be said of an answer as an expression without a parser; "undecided": ask it."""
    if too_large(gold) or (is_prose(found or "") and len(found or "") <= LONGEST):
        return "different"  # sentences are no expressions, and a parser takes long to find that out
    why = too_large(found or "")
    return "undecided" if why is None else Wrong(f"no answer to be read as an expression: {why}")


def _available(symbolic: Symbolic) -> bool:
    if symbolic == "never":
        return False
    installed = importlib.util.find_spec("math_verify") is not None
    if symbolic == "always" and not installed:
        raise RewardError(
            "reward 'maths': symbolic = \"always\" needs math-verify, which is not installed: "
            "pip install 'groupwise[math]', or set symbolic = \"never\" and compare texts and numbers only"
        )
    return installed


def _verifier(seconds: float) -> Items:
    with _lock:
        if seconds not in _verifiers:
            job = "groupwise.rewards.maths.symbolic:same"
            _verifiers[seconds] = Items(job, preload=("math_verify",), seconds=seconds)
        return _verifiers[seconds]


@atexit.register
def close() -> None:
    """End the verifiers' processes; the next question starts them again."""
    for verifier in _verifiers.values():
        verifier.close()


def is_right_maths(text: str, gold: str | int | float, *, seconds: float = 2.0) -> bool:
    r"""Whether the answer that a text states is the gold one, as text, number or expression.

    Example: `is_right_maths(r"So \boxed{\frac{2}{4}}.", "0.5")`
    """
    (verdict,) = verdicts([(EXTRACTIONS["stated"](text), str(gold))], seconds=seconds)
    return verdict in ("exact", "numeric", "symbolic")


def maths(
    completions: Sequence[Answer],
    answer: Sequence[Any],
    *,
    right: Score = 1.0,
    wrong: Score = 0.0,
    extract: Extraction = "stated",
    symbolic: Symbolic = "auto",
    seconds: Annotated[float, Field(gt=0, le=60)] = 2.0,
) -> list[Mark]:
    r"""1.0 for the gold answer, however it is written: the same text, the same number, or the same expression.

    Numbers: fractions, percent, thousands separators, currency, units, powers of ten. Expressions need math-verify
    (`pip install "groupwise[math]"`); an answer that takes more than `seconds` of CPU time is wrong.
    Example: `\boxed{\frac{1}{2}}` for "0.5" -> 1.0
    """
    rows = [row for row, gold in enumerate(answer) if gold is not None]
    for row in rows:
        if not isinstance(answer[row], str | int | float):
            raise RewardError(
                f"reward 'maths': the gold answer of row {row} is a {type(answer[row]).__name__}: "
                "the `answer` column has to hold texts or numbers"
            )
    find = EXTRACTIONS[extract]
    pairs = [(find(text_of(completions[row])), str(answer[row])) for row in rows]
    marks: list[Mark] = [None] * len(answer)
    found = verdicts(pairs, symbolic=symbolic, seconds=seconds, heard=lambda place: completions[rows[place]])
    for row, verdict in zip(rows, found, strict=True):
        if isinstance(verdict, Unknown):
            marks[row] = verdict
        elif isinstance(verdict, Wrong):
            marks[row] = Wrong(verdict.why, wrong)
        else:
            marks[row] = right if verdict in ("exact", "numeric", "symbolic") else wrong
    return marks
