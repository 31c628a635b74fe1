"""Make problems, and a task, of rows: mappings with a `prompt` and whatever the rewards need.

    rows([{"prompt": "2+2=", "answer": "4"}, ...], hold_out=100)

A prompt is a text, or a list of messages `{"role": ..., "content": ...}`. All other columns go to the rewards as they
are. With an `answer` in every row, evaluation compares the answer that a completion states with it; with a
`completion` in every row, those are demonstrations for a warm start.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence, Sized
from itertools import islice
from typing import Any, TypeVar, cast

from groupwise.errors import TaskError
from groupwise.rewards import RESERVED, is_right
from groupwise.tasks.task import Task, system_words
from groupwise.types import Message, Problem, Prompt

MOST_UNCOUNTED = 1_000_000
"""Rows that are read of what has no length and no limit."""

_MESSAGE = "a message is a dict with a 'role' and a 'content', both texts"

Row = TypeVar("Row")


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
    problems = to_problems(bounded(train, f"{name}/train", limit, hold_out), f"{name}/train", columns)
    if held_out is not None:
        evaluated = to_problems(bounded(held_out, f"{name}/eval"), f"{name}/eval", columns)
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


def bounded(rows: Iterable[Row], where: str, limit: int | None = None, hold_out: int = 0) -> Iterable[Row]:
    """The rows. What has no length may have no end: of that as many as are asked for, or all, if they are countable.

    Example: `bounded(generator, "sums", limit=1000)`
    """
    if isinstance(rows, Sized):
        return rows
    if limit is not None:
        return list(islice(rows, limit + hold_out))
    found = list(islice(rows, MOST_UNCOUNTED + 1))
    if len(found) > MOST_UNCOUNTED:
        raise TaskError(
            f"{where} goes on after {MOST_UNCOUNTED:,} rows and has no length, so it may have no end: give a list, "
            "such as list(itertools.islice(rows, 10_000)), or set task.limit to how many rows to train on"
        )
    return found


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
    _check_names(cast("Mapping[object, Any]", row), where)
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
    if not isinstance(value, Mapping):
        raise TaskError(f"{where} is {_kind(value)}: {_MESSAGE}")
    _check_names(cast("Mapping[object, Any]", value), where)
    message = cast("Mapping[str, Any]", value)
    for part in ("role", "content"):
        if part not in message:
            raise TaskError(f"{where} has no {part!r}, it has {listed(message)}: {_MESSAGE}")
        if not isinstance(text := message[part], str):
            parts = ". Pictures and sounds are not trained on" if isinstance(text, list | tuple) else ""
            raise TaskError(f"{where} has {_kind(text)} as its {part!r}: {_MESSAGE}{parts}")
        _check_text(text, where)
    return dict(message)


def _check_names(row: Mapping[object, Any], where: str) -> None:
    for name in row:
        if not isinstance(name, str):
            raise TaskError(f"{where} has the name {ascii(name)[:60]}, {_kind(name)}: names are texts, {str(name)!a}")


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


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
