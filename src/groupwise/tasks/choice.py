"""Multiple choice: a question, its choices, one of which is right.

A row may have                                                      for example
    question + choices (texts) + answer: index, letter or text      MMLU: 2, "C" or "Paris"
    question + choices {"label": [...], "text": [...]} + answerKey  ARC
    question + A, B, C, D + answer                                  CMMLU
It becomes a user message with lettered choices, and the columns `answer` (a letter), `choices` and `question`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from groupwise.errors import TaskError
from groupwise.rewards import as_reward, stated_answer
from groupwise.rewards.texts import Answer, text_of
from groupwise.tasks.dataset import dataset
from groupwise.tasks.reading import Row
from groupwise.tasks.rows import listed
from groupwise.tasks.task import Task, system_words
from groupwise.types import Problem

SYSTEM_PROMPT = "Think the question through, then give the letter of the right choice: <answer>A</answer>"

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LETTER = re.compile(r"\(?([A-Z])(?:[).:]|$)")


def choice(
    path: str,
    *,
    folder: Path = Path(),
    seed: int = 0,
    shuffle: bool = False,
    system_prompt: str | None = None,
    **settings: Any,
) -> Task:
    """Questions with lettered choices; other settings are those of `dataset`. With `shuffle` each problem has an order
    of its own, so that no letter is right more often than others.

    Example: `choice("allenai/ai2_arc", name="ARC-Easy", eval_split="test", shuffle=True, system_prompt="default")`
    """
    task = dataset(path, folder=folder, seed=seed, convert=converter(seed if shuffle else None), **settings)
    return replace(
        task,
        rewards=(as_reward(right_letter),),
        is_correct=_is_correct,
        system_prompt=system_words(system_prompt, SYSTEM_PROMPT, "choice"),
        demonstrations=_demonstrated,
    )


def right_letter(completions: Sequence[Answer], answer: Sequence[str], choices: Sequence[Sequence[str]]) -> list[float]:
    """1 for the right choice, by its letter or its text, else 0. `A`, `(A)`, `A. Paris` and `Paris` are the same."""
    rows = zip(completions, answer, choices, strict=True)
    return [float(letter_of(text_of(text), options) == gold) for text, gold, options in rows]


def letter_of(text: str, choices: Sequence[str]) -> str | None:
    """The letter that a text states in its `<answer>`, `\\boxed{}` or as a whole; None if it is no one choice's."""
    stated = stated_answer(text)
    if stated is None:
        return None
    letter = _LETTER.match(stated)
    if letter is not None and letter[1] in LETTERS[: len(choices)]:
        return letter[1]
    same = [i for i, option in enumerate(choices) if option.strip().casefold() == stated.casefold()]
    return LETTERS[same[0]] if len(same) == 1 else None


def converter(seed: int | None) -> Callable[[Row, str], Mapping[str, Any]]:
    """From a row of any of these data sets to one that `rows` takes; `seed`: shuffle the choices by it."""

    def convert(row: Row, where: str) -> Mapping[str, Any]:
        question = row.get("question", row.get("prompt"))
        if not isinstance(question, str):
            raise TaskError(f"{where} has no text in a column question; it has {listed(row)}: see task.columns")
        labels, texts = _choices(row, where)
        right = _right(row, labels, texts, where)
        order = list(range(len(texts)))
        if seed is not None:
            random.Random(f"{seed} {question}").shuffle(order)
        shown = "\n".join(f"{LETTERS[place]}. {texts[i]}" for place, i in enumerate(order))
        return {
            "prompt": [{"role": "user", "content": f"{question}\n{shown}"}],
            "question": question,
            "choices": [texts[i] for i in order],
            "answer": LETTERS[order.index(right)],
        }

    return convert


def _choices(row: Row, where: str) -> tuple[list[str], list[str]]:
    """What the data set calls its choices, and their texts."""
    given = row.get("choices", row.get("options"))
    if isinstance(given, Mapping) and "text" in given:
        both = cast("Mapping[str, Sequence[Any]]", given)
        texts = [str(text) for text in both["text"]]
        labels = [str(label) for label in both.get("label", LETTERS[: len(texts)])]
    elif isinstance(given, Mapping):
        pairs = cast("Mapping[str, Any]", given)
        labels, texts = [str(label) for label in pairs], [str(text) for text in pairs.values()]
    elif isinstance(given, list | tuple):
        texts = [str(text) for text in cast("Sequence[Any]", given)]
        labels = list(LETTERS[: len(texts)])
    else:
        labels = [letter for letter in LETTERS if isinstance(row.get(letter), str)]
        texts = [str(row[letter]) for letter in labels]
    if not 2 <= len(texts) <= len(LETTERS) or len(labels) != len(texts):
        raise TaskError(
            f"{where} has {len(texts)} choices; a question has 2 to {len(LETTERS)}, in a column choices or in columns "
            f"A, B, ...; it has {listed(row)}"
        )
    return labels, texts


def _right(row: Row, labels: Sequence[str], texts: Sequence[str], where: str) -> int:
    answer = row.get("answer", row.get("answerKey"))
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(texts):
        return answer
    for names in (labels, LETTERS[: len(texts)], texts):
        if isinstance(answer, str) and list(names).count(answer.strip()) == 1:
            return list(names).index(answer.strip())
    raise TaskError(
        f"{where}: its answer {ascii(answer)[:60]} is none of its {len(texts)} choices: give the place from 0 on, the "
        "letter or the text, in a column answer or answerKey"
    )


def _is_correct(text: str, columns: Mapping[str, Any]) -> bool:
    return letter_of(text, columns["choices"]) == columns["answer"]


def _demonstrated(problem: Problem) -> str:
    return f"<answer>{problem.columns['answer']}</answer>"
