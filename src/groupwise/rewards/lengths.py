"""Rewards for how long a completion is, beyond a single target: by a cosine, or near the limit only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from groupwise.rewards.answers import EXTRACTIONS, Extraction, agreement
from groupwise.rewards.settings import Score
from groupwise.rewards.texts import Answer, text_of

Unit: TypeAlias = Literal["characters", "tokens"]
Ends: TypeAlias = Annotated[list[Score], Field(min_length=2, max_length=2)]
Count: TypeAlias = Annotated[int, Field(ge=1)]


def cosine_length(
    completions: Sequence[Answer],
    completion_ids: Sequence[Sequence[int]],
    answer: Sequence[Any],
    *,
    right: Ends = [1.0, 0.5],  # noqa: B006 - never changed
    wrong: Ends = [-1.0, -0.5],  # noqa: B006
    longest: Count = 1000,
    unit: Unit = "tokens",
    extract: Extraction = "stated",
) -> list[float | None]:
    """Short right answers earn most, short wrong ones least, and a cosine leads from the one end to the other.

    `right` and `wrong` are the rewards of the shortest and of the longest completion.
    Demystifying Long Chain-of-Thought Reasoning, arXiv 2502.03373. Progress is length / `longest`, at most 1.
    Example: a right answer of 500 of 1000 tokens: 0.5 + 0.5 * (1 - 0.5) * (1 + cos(pi / 2)) = 0.75
    """
    rewards: list[float | None] = []
    for completion, ids, gold in zip(completions, completion_ids, answer, strict=True):
        if gold is None:
            rewards.append(None)
            continue
        text = text_of(completion)
        short, long = right if agreement(EXTRACTIONS[extract](text), gold) is not None else wrong
        progress = min((len(ids) if unit == "tokens" else len(text)) / longest, 1.0)
        rewards.append(long + 0.5 * (short - long) * (1 + math.cos(math.pi * progress)))
    return rewards


def soft_overlong(
    completion_ids: Sequence[Sequence[int]], *, longest: Count = 512, margin: Count = 128, penalty: Score = 1.0
) -> list[float]:
    """0 up to `longest - margin` tokens, then down in a straight line to `-penalty` at `longest`, and there it stays.

    DAPO, arXiv 2503.14476, equation 13. Example: longest 512, margin 128: 448 tokens -> -0.5
    """
    free = max(longest - margin, 0)
    return [-penalty * min(max(len(ids) - free, 0) / max(longest - free, 1), 1.0) for ids in completion_ids]
