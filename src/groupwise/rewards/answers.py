"""Find the answer that a text states, and compare it with the gold answer.

Two of the extraction helpers that circulate in GRPO tutorials are wrong as printed. One takes what stands *behind*
`</answer>` instead of what stands before it, and so finds nothing in a well-formed answer. One looks for `####` but
splits on `###`, which leaves a `#` in front of the gold answer, and it removes full stops, which turns 3.5 into 35.
Others let an answer that was never closed count, or find that "no answer" equals "no gold answer" and reward it.

Nothing here raises on a text, and all of it takes time proportional to the text's length.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal, TypeAlias

from groupwise.errors import RewardError
from groupwise.rewards.numerals import is_integer, last_number, number
from groupwise.rewards.settings import Score
from groupwise.rewards.texts import Answer, text_of

_OPEN, _CLOSE = "<answer>", "</answer>"

Agreement: TypeAlias = Literal["exact", "numeric"]
Extraction: TypeAlias = Literal["answer", "first_answer", "hash", "boxed", "last_number", "stated"]


def last_answer(text: str) -> str | None:
    """What the last `<answer>` block says; None if that block was never closed, is empty or only says `...`.

    Example: `"<answer>5</answer> no: <answer> 6 </answer>"` -> `"6"`; `"<answer>5</answer> <answer>6"` -> None
    """
    return _between(text, text.rfind(_OPEN))


def first_answer(text: str) -> str | None:
    """What the first complete `<answer>` block says.

    Example: `"<answer>5</answer> no: <answer>6</answer>"` -> `"5"`; `"<answer>1<answer>2</answer>"` -> `"2"`
    """
    opened = text.find(_OPEN)
    closed = text.find(_CLOSE, opened) if opened >= 0 else -1
    return _between(text, text.rfind(_OPEN, 0, closed)) if closed >= 0 else None


def _between(text: str, opened: int) -> str | None:
    closed = text.find(_CLOSE, opened) if opened >= 0 else -1
    if closed < 0:
        return None
    found = text[opened + len(_OPEN) : closed].strip()
    return None if found in ("", "...") else found


def hash_answer(text: str) -> str | None:
    """What stands behind the last `####`, as in GSM8K, up to the end of its line.

    Example: `"3.5 + 1 = 4.5\\n#### 4.5"` -> `"4.5"`
    """
    _, mark, behind = text.rpartition("####")
    lines = behind.strip().splitlines()
    return lines[0].strip() if mark and lines else None


def boxed_answer(text: str) -> str | None:
    r"""What the last `\boxed{...}` holds, its braces balanced; None if it is never closed or empty.

    Example: `r"so \boxed{\frac{1}{2}}."` -> `r"\frac{1}{2}"`
    """
    _, mark, behind = text.rpartition("\\boxed{")
    depth, escaped = 1, False
    for position, character in enumerate(behind if mark else ""):
        if not escaped:
            depth += (character == "{") - (character == "}")
        escaped = character == "\\" and not escaped
        if depth == 0:
            return behind[:position].strip() or None
    return None


def stated_answer(text: str) -> str | None:
    r"""The answer as a reader would find it: in the last `<answer>` block, else in `\boxed{}`, else behind `####`;
    a text without any of these marks is the answer itself. A mark that is there but broken states nothing."""
    if _OPEN in text:
        return last_answer(text)
    if "\\boxed{" in text:
        return boxed_answer(text)
    if "####" in text:
        return hash_answer(text)
    return text.strip() or None


EXTRACTIONS: Mapping[str, Callable[[str], str | None]] = {
    "answer": last_answer,
    "first_answer": first_answer,
    "hash": hash_answer,
    "boxed": boxed_answer,
    "last_number": last_number,
    "stated": stated_answer,
}


def agreement(found: str | None, gold: str | int | float) -> Agreement | None:
    """How an answer agrees with the gold one: spelled the same, the same number, or not at all (None).

    A gold answer that is a number and not a text has no spelling, so equal numbers are "exact".
    Example, for the gold answer "72": "72" -> "exact"; "$72.00" -> "numeric"; "7" -> None
    """
    if found is None:
        return None
    if found.strip() == str(gold).strip():
        return "exact"
    spelled = isinstance(gold, str)
    wanted = number(gold) if spelled else _exactly(gold)
    if wanted is None or number(found) != wanted:
        return None
    return "numeric" if spelled else "exact"


def _exactly(gold: float) -> Fraction | None:
    return Fraction(gold) if isinstance(gold, int) or math.isfinite(gold) else None


def is_right(text: str, gold: str | int | float) -> bool:
    """Whether the answer that the text states agrees with the gold one, in either way. What evaluation counts."""
    return agreement(stated_answer(text), gold) is not None


def correctness(
    completions: Sequence[Answer],
    answer: Sequence[Any],
    *,
    exact: Score = 2.0,
    numeric: Score = 1.5,
    wrong: Score = 0.0,
    extract: Extraction = "answer",
) -> list[float | None]:
    """2.0 for the gold answer as it is spelled, 1.5 for the same number spelled otherwise, 0 for anything else.

    A row whose gold answer is None is not graded. `extract` says where a completion states its answer.
    Example: `<answer>72</answer>` for "72" -> 2.0, `<answer>$72.00</answer>` -> 1.5, `72` without tags -> 0.0
    """
    scores = {"exact": exact, "numeric": numeric, None: wrong}
    find = EXTRACTIONS[extract]
    rewards: list[float | None] = []
    for row, (completion, gold) in enumerate(zip(completions, answer, strict=True)):
        if gold is None:
            rewards.append(None)
        elif isinstance(gold, str | int | float):
            rewards.append(scores[agreement(find(text_of(completion)), gold)])
        else:
            raise RewardError(
                f"reward 'correctness': the gold answer of row {row} is a {type(gold).__name__}, {ascii(gold)[:80]}: "
                "the `answer` column has to hold texts or numbers"
            )
    return rewards


def integer(
    completions: Sequence[Answer], *, score: Score = 0.5, wrong: Score = 0.0, extract: Extraction = "answer"
) -> list[float]:
    """0.5 for an answer that is an integer, right or wrong, and nothing else. Negative ones and `1,000` count."""
    found = [EXTRACTIONS[extract](text_of(completion)) for completion in completions]
    return [score if answer is not None and is_integer(answer) else wrong for answer in found]
