"""Make problems, and a task, of rows: mappings with a `prompt` and whatever the rewards need.

    rows([{"prompt": "2+2=", "answer": "4"}, ...], hold_out=100)

A prompt is a text, or a list of messages `{"role": ..., "content": ...}`. All other columns go to the rewards as they
are. With an `answer` in every row, evaluation compares the answer that a completion states with it; with a
`completion` in every row, those are demonstrations for a warm start.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from groupwise.errors import TaskError
from groupwise.rewards import RESERVED, is_right
from groupwise.tasks.task import Task, system_words
from groupwise.types import Message, Problem, Prompt


def rows(
    train: Iterable[Mapping[str, Any]],
    held_out: Iterable[Mapping[str, Any]] | None = None,
    *,
    name: str = "rows",
    columns: Mapping[str, str] | None = None,
    hold_out: int = 0,
    limit: int | None = None,
    system_prompt: str | None = None,
    seed: int = 0,
) -> Task:
    """A task of rows in memory: lists of dicts, or a `datasets.Dataset`.

    `columns` renames: `{"prompt": "question"}` takes the prompt from the column `question`. `hold_out` takes that many
    rows out of `train` for evaluation, drawn by `seed`; `limit` then keeps the first so many of what is left.
    """
    if held_out is not None and hold_out:
        raise TaskError(f"task {name!r} has both a split to evaluate on and hold_out = {hold_out}: drop one of them")
    problems = to_problems(train, f"{name}/train", columns)
    if held_out is not None:
        evaluated = to_problems(held_out, f"{name}/eval", columns)
    else:
        problems, evaluated = take_out(problems, hold_out, seed)
    every = [*problems, *evaluated]
    return Task(
        name=name,
        train=problems[:limit],
        held_out=evaluated,
        is_correct=states_answer if all(_is_gold(p.columns.get("answer")) for p in every) else None,
        system_prompt=system_words(system_prompt, None, name),
        demonstrations=_completion if all(isinstance(p.columns.get("completion"), str) for p in every) else None,
    )


def to_problems(
    rows: Iterable[Mapping[str, Any]], prefix: str, columns: Mapping[str, str] | None = None
) -> list[Problem]:
    """One problem per row, called `prefix/0`, `prefix/1`, ...; every row is checked."""
    problems = [to_problem(row, index, prefix, columns or {}) for index, row in enumerate(rows)]
    if not problems:
        raise TaskError(f"{prefix} has no rows: there is nothing to train or evaluate on")
    return problems


def take_out(problems: Sequence[Problem], count: int, seed: int) -> tuple[list[Problem], list[Problem]]:
    """Draw `count` problems to hold out; returns (the rest, the held-out ones), each in the order of the rows.

    The two share no prompt: copies of a held-out prompt are in neither of them.
    """
    if count == 0:
        return list(problems), []
    keys = [_prompt_key(problem) for problem in problems]
    order = random.Random(seed).sample(range(len(problems)), len(problems))
    chosen: dict[str, int] = {}
    for index in order:
        if len(chosen) == count:
            break
        chosen.setdefault(keys[index], index)
    rest = [problem for problem, key in zip(problems, keys, strict=True) if key not in chosen]
    if not rest or len(chosen) < count:
        raise TaskError(
            f"hold_out = {count} leaves nothing to train on: there are {len(set(keys))} different prompts. Lower it"
        )
    return rest, [problems[index] for index in sorted(chosen.values())]


def states_answer(text: str, columns: Mapping[str, Any]) -> bool:
    """Whether the answer that the text states is the row's `answer`, as it is spelled or as a number."""
    return is_right(text, columns["answer"])


def _completion(problem: Problem) -> str:
    return problem.columns["completion"]


def _is_gold(answer: Any) -> bool:
    return isinstance(answer, str | int | float)


def _prompt_key(problem: Problem) -> str:
    return (
        problem.prompt if isinstance(problem.prompt, str) else json.dumps(problem.prompt, sort_keys=True, default=str)
    )


def renamed(row: Mapping[str, Any], columns: Mapping[str, str], where: str) -> dict[str, Any]:
    """The row with its columns called as `task.columns` has it: new name -> name in the data."""
    for new, old in columns.items():
        if old not in row:
            raise TaskError(f"{where} has no column {old!r} to call {new!r} (task.columns); it has {listed(row)}")
    kept = {name: value for name, value in row.items() if name not in columns.values()}
    return kept | {new: row[old] for new, old in columns.items()}


def to_problem(row: object, index: int, prefix: str, columns: Mapping[str, str]) -> Problem:
    """The problem of a row, called `prefix/index`; a TaskError that names the row if there is none in it."""
    where = f"{prefix}, row {index}"
    if not isinstance(row, Mapping):
        raise TaskError(
            f"{where} is a {type(row).__name__}, {ascii(row)[:60]}: a row is a dict of columns (a DataFrame makes "
            'them: frame.to_dict("records"))'
        )
    given = renamed(cast("Mapping[str, Any]", row), columns, where)
    clash = sorted(RESERVED & given.keys())
    if clash:
        raise TaskError(
            f"{where} has a column {clash[0]!r}, but reward functions are given something else by that name: "
            f'rename it, for example with task.columns = {{my_{clash[0]} = "{clash[0]}"}}'
        )
    if "prompt" not in given:
        raise TaskError(
            f"{where} has no column 'prompt'; it has {listed(row)}. Say which one it is, "
            'for example task.columns = {prompt = "question"}'
        )
    prompt = _prompt(given.pop("prompt"), where)
    for name, value in given.items():
        _check_text(value, f"{where}, column {name!r}")
    return Problem(f"{prefix}/{index}", prompt, given)


def _prompt(value: Any, where: str) -> Prompt:
    if isinstance(value, str):
        if not value.strip():
            raise TaskError(f"{where} has an empty prompt: remove the row")
        _check_text(value, f"{where}, prompt")
        return value
    if not isinstance(value, list | tuple):
        raise TaskError(f"{where}: a prompt is a text or a list of messages, not a {type(value).__name__}")
    messages = cast(Sequence[Any], value)
    if not messages:
        raise TaskError(f"{where} has an empty conversation as its prompt: remove the row")
    return tuple(_message(message, f"{where}, message {index}") for index, message in enumerate(messages))


def _message(value: Any, where: str) -> Message:
    message = cast(Mapping[str, Any], value if isinstance(value, Mapping) else {})
    for part in ("role", "content"):
        if not isinstance(message.get(part), str):
            raise TaskError(f"{where} has no text as its {part!r}: a message has a 'role' and a 'content', both texts")
        _check_text(message[part], where)
    return dict(message)


def _check_text(value: Any, where: str) -> None:
    """Lone surrogates are half characters that no tokenizer takes and no file can hold: find them before training."""
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise TaskError(
                f"{where} holds half a character, {value[error.start]!a} at position {error.start}, which is no "
                "valid Unicode: it was cut or decoded wrongly where the data were made"
            ) from error


def listed(row: Mapping[str, Any]) -> str:
    """The names of a row's columns, for messages."""
    names = [str(name) for name in row]
    return ", ".join(name if name and name == name.strip() else repr(name) for name in names) or "no columns"
