"""Rewards for habits of writing: repeating oneself, thinking in tags, staying in a language."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from groupwise.rewards.answers import boxed_answer
from groupwise.rewards.settings import Score, TagNames
from groupwise.rewards.texts import Answer, text_of

Script: TypeAlias = Literal[
    "latin", "cyrillic", "greek", "han", "japanese", "korean", "arabic", "hebrew", "devanagari", "thai"
]

_SCRIPTS: dict[str, re.Pattern[str]] = {
    name: re.compile(f"[{ranges}]+")
    for name, ranges in {
        "latin": "A-Za-zªºÀ-ÖØ-öø-ɏḀ-ỿ",
        "cyrillic": "\u0400-\u052f",
        "greek": "\u0370-\u03ff\u1f00-\u1fff",
        "han": "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f",
        "japanese": "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff",
        "korean": "\u1100-\u11ff\u3130-\u318f\uac00-\ud7af",
        "arabic": "\u0600-\u06ff\u0750-\u077f\u08a0-\u08ff",
        "hebrew": "\u0590-\u05ff",
        "devanagari": "\u0900-\u097f",
        "thai": "\u0e00-\u0e7f",
    }.items()
}

_WORDS = re.compile(r"\w+")
"""All letters are in these, and what else there is (digits, signs) is sorted out letter by letter."""


def repetition(
    completions: Sequence[Answer],
    completion_ids: Sequence[Sequence[int]] = (),
    *,
    n: Annotated[int, Field(ge=1)] = 3,
    penalty: Annotated[float, Field(le=0)] = -1.0,
    unit: Literal["words", "tokens"] = "words",
) -> list[float]:
    """`penalty` times the share of n-grams that were there before; 0 for a text of fewer than n words.

    Demystifying Long Chain-of-Thought Reasoning, arXiv 2502.03373. Words are what white space separates, in lower case;
    TRL's `get_repetition_penalty_reward` counts tokens, the end token among them.
    Example: n 2, "a b a b": the pairs are ab, ba, ab, one of three repeats -> -1/3
    """
    if unit == "tokens":
        return [penalty * _repeated(ids, n) for ids in completion_ids]
    return [penalty * _repeated(_numbered(text_of(completion).lower().split()), n) for completion in completions]


def _repeated(items: Sequence[int], n: int) -> float:
    count = len(items) - n + 1
    return 1 - len({tuple(items[i : i + n]) for i in range(count)}) / count if count > 0 else 0.0


def _numbered(words: Sequence[str]) -> list[int]:
    """A number for each word: so one word of a megabyte is hashed once."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(word, len(numbers)) for word in words]


def think_format(completions: Sequence[Answer], *, score: Score = 1.0) -> list[float]:
    """1.0 for a completion that begins with `<think>`, the only one, and closes it: reasoning, then the answer."""
    return [score if _thinks(text_of(completion)) else 0.0 for completion in completions]


def _thinks(text: str) -> bool:
    return text.startswith("<think>") and text.count("<think>") == 1 and "</think>" in text


def boxed(completions: Sequence[Answer], *, score: Score = 1.0) -> list[float]:
    r"""1.0 for a completion whose last `\boxed{...}` is closed and not empty, whatever it says."""
    return [score if boxed_answer(text_of(completion)) is not None else 0.0 for completion in completions]


def tag_order(
    completions: Sequence[Answer],
    *,
    score: Score = 1.0,
    tags: TagNames = ["reasoning", "answer"],  # noqa: B006
) -> list[float]:
    """The share of opening and closing tags that stand in their order, counted up to the first that is missing there.

    Example: `<reasoning> </reasoning> <answer>` -> 3 of 4 -> 0.75; `<answer> </answer>` -> 0: reasoning comes first
    """
    marks = [mark for tag in tags for mark in (f"<{tag}>", f"</{tag}>")]
    return [score * _in_order(text_of(completion), marks) / len(marks) for completion in completions]


def _in_order(text: str, marks: list[str]) -> int:
    position = 0
    for count, mark in enumerate(marks):
        found = text.find(mark, position)
        if found < 0:
            return count
        position = found + len(mark)
    return len(marks)


def language_share(completions: Sequence[Answer], *, script: Script = "latin", score: Score = 1.0) -> list[float]:
    """The share of letters that belong to a script; 0 for a text without letters.

    A script is not a language, but mixing languages mostly mixes scripts (DeepSeek-R1, arXiv 2501.12948, section
    2.3.2, rewards the share of words in the target language against it). Example: "so 所以": 2 of 4 letters -> 0.5
    """
    pattern = _SCRIPTS[script]
    return [score * _share(text_of(completion), pattern) for completion in completions]


def _share(text: str, pattern: re.Pattern[str]) -> float:
    letters = sum(len(run) if run.isalpha() else sum(map(str.isalpha, run)) for run in _WORDS.findall(text))
    return min(sum(map(len, pattern.findall(text))) / letters, 1.0) if letters else 0.0
