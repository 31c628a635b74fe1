"""Rewards for how long a completion is and how it ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from groupwise.rewards.settings import Score
from groupwise.rewards.texts import Answer, text_of


def length(
    completions: Sequence[Answer],
    completion_ids: Sequence[Sequence[int]],
    *,
    target: Annotated[int, Field(ge=0)] = 50,
    unit: Literal["characters", "tokens"] = "characters",
) -> list[float]:
    """Minus the distance from the target length: 0 at the target, -1 for each character (or token) off it.

    Characters are those of the text, also in a conversation, where `len(completion)` would count messages. Tokens
    include the end token. Example: target 50, a text of 47 characters -> -3.0
    """
    if unit == "tokens":
        lengths = [len(ids) for ids in completion_ids]
    else:
        lengths = [len(text_of(completion)) for completion in completions]
    return [-float(abs(target - measured)) for measured in lengths]


def reached_end(finish_reasons: Sequence[str], *, score: Score = 0.5) -> list[float]:
    """0.5 if the completion ended itself, by an end token or a stop text; 0 if the token limit cut it off."""
    return [score if reason == "stop" else 0.0 for reason in finish_reasons]
