"""Multiple choice: which letter does a completion choose?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from groupwise.rewards.answers import EXTRACTIONS
from groupwise.rewards.settings import Score
from groupwise.rewards.texts import Answer, text_of

_MARKS = ("<answer>", "\\boxed{", "####")
_SAID = re.compile(
    r"(?i:answer|choice|option)(?:\s+(?i:is|would be|must be))?\s*[:=]?\s*[*_($\[\\{]{0,8}([A-Za-z])(?![A-Za-z'])"
)
_LETTER = re.compile(r"(?<![A-Za-z'])([A-Za-z])(?![A-Za-z'])")
_LONGEST = 2000


def chosen_letter(text: str, letters: str = "ABCD") -> str | None:
    r"""The one letter that a text chooses; None if it chooses none, or several.

    In a marked answer (`<answer>`, `\boxed{}`, `####`) the letter that stands first, if no other stands alone in it;
    without a mark, what the last "answer is X" says, or a text that is nothing but the letter.
    Example: "The answer is (B)." -> "B"; "<answer>A or B</answer>" -> None; r"\boxed{\text{C}}" -> "C"
    """
    if any(mark in text for mark in _MARKS):
        stated = EXTRACTIONS["stated"](text)
        return None if stated is None else _only(stated, letters)
    tail = text[-_LONGEST:]
    said = _SAID.findall(tail)
    if said:
        letter = said[-1].upper()
        return letter if letter in letters else None
    return _only(text, letters) if len(text.strip(" \n.()*[]")) <= 2 else None


def _only(stated: str, letters: str) -> str | None:
    if len(stated) > _LONGEST:
        return None
    bare = re.sub(r"\\[A-Za-z]+", " ", stated)
    # In a sentence "a" and "I" are words: there only capitals choose, and "I" only where it is a choice.
    found = [letter for letter in _LETTER.findall(bare) if letter in letters]
    if not found and len(bare.strip(" .()*[]{}$")) == 1:
        found = [letter for letter in _LETTER.findall(bare.upper()) if letter in letters]
    return found[0] if len(set(found)) == 1 else None


def choice(
    completions: Sequence[Answer],
    answer: Sequence[Any],
    *,
    letters: Annotated[str, Field(pattern=r"^[A-Z]{2,26}$")] = "ABCD",
    score: Score = 1.0,
    wrong: Score = 0.0,
) -> list[float | None]:
    """1.0 for the gold letter. A gold answer that is a number counts from 0: 1 is B.

    Example: "Answer: **C**" for "C" -> 1.0
    """
    rewards: list[float | None] = []
    for completion, gold in zip(completions, answer, strict=True):
        if gold is None:
            rewards.append(None)
            continue
        wanted = letters[gold] if isinstance(gold, int) and 0 <= gold < len(letters) else str(gold).strip().upper()
        rewards.append(score if chosen_letter(text_of(completion), letters) == wanted else wrong)
    return rewards
