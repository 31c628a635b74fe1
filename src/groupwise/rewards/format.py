"""Rewards for the layout of a completion, whatever it says: reasoning and answer, each in its tags.

    <reasoning>
    7+9=16, 4+8+1=13, 3+5+1=9
    </reasoning>
    <answer>
    936
    </answer>

`tags` names other tags, such as `["think", "answer"]`. Tags are looked for with plain text search, one pass each: the
usual pattern `<a>.*?</a>.*?<b>.*?</b>` takes quadratic time on a text that opens a tag many times and closes none.
"""

from __future__ import annotations

from collections.abc import Sequence

from groupwise.rewards.settings import Score, TagNames
from groupwise.rewards.texts import Answer, text_of

REASONING_AND_ANSWER = ["reasoning", "answer"]


def strict_format(
    completions: Sequence[Answer], *, score: Score = 0.5, lines: bool = True, tags: TagNames = REASONING_AND_ANSWER
) -> list[float]:
    """0.5 if the completion is exactly the layout: every tag once, in order, no block empty, nothing outside of them.

    With `lines` every tag stands on a line of its own; without, blocks may follow each other directly. Blank lines
    between blocks and around all of them are allowed.
    """
    return [score if _is_strict(text_of(completion), tags, lines) else 0.0 for completion in completions]


def soft_format(
    completions: Sequence[Answer], *, score: Score = 0.5, tags: TagNames = REASONING_AND_ANSWER
) -> list[float]:
    """0.5 if the blocks stand anywhere in the completion, each opened and closed, in order; other text is allowed."""
    return [score if _is_soft(text_of(completion), tags) else 0.0 for completion in completions]


def tag_count(
    completions: Sequence[Answer], *, score: Score = 0.125, tags: TagNames = REASONING_AND_ANSWER
) -> list[float]:
    """0.125 for each opening and closing tag that is there exactly once: 0.5 for all four."""
    marks = _marks(tags)
    return [score * sum(text_of(completion).count(mark) == 1 for mark in marks) for completion in completions]


def tags_present(
    completions: Sequence[Answer], *, score: Score = 0.2, tags: TagNames = REASONING_AND_ANSWER
) -> list[float]:
    """0.2 for each opening and closing tag that is there at all, however often: 0.8 for all four."""
    marks = _marks(tags)
    return [score * sum(mark in text_of(completion) for mark in marks) for completion in completions]


def _marks(tags: Sequence[str]) -> list[str]:
    return [mark for tag in tags for mark in (f"<{tag}>", f"</{tag}>")]


def _is_soft(text: str, tags: Sequence[str]) -> bool:
    position = 0
    for mark in _marks(tags):
        found = text.find(mark, position)
        if found < 0:
            return False
        position = found + len(mark)
    return True


def _is_strict(text: str, tags: Sequence[str], lines: bool) -> bool:
    if any(text.count(mark) != 1 for mark in _marks(tags)):
        return False
    rest = text.strip()
    for index, tag in enumerate(tags):
        opened, closed = f"<{tag}>", f"</{tag}>"
        inside, _, behind = rest.removeprefix(opened).partition(closed)
        if not rest.startswith(opened) or not inside.strip():
            return False
        rest = behind.lstrip()
        gap = behind[: len(behind) - len(rest)]
        last = index == len(tags) - 1
        if lines and not (inside.startswith("\n") and inside.endswith("\n") and (last or "\n" in gap)):
            return False
    return rest == ""
