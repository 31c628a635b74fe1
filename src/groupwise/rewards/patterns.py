"""Rewards for texts that match a pattern or a JSON schema, whoever wrote them.

A regular expression of Python can take for ever on a text that was made for it, and so can the patterns in a schema.
google-re2 cannot: it takes time linear in the text, and is used if it is installed and knows the pattern. Else, and for
schemas always, a process does it that is stopped after two seconds; then the answer is wrong.
"""

from __future__ import annotations

import importlib
import json
import re
import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal, Protocol, cast

from groupwise.errors import RewardError
from groupwise.rewards.answers import last_answer
from groupwise.rewards.isolated.items import Done, Items, Result
from groupwise.rewards.outcomes import Mark, Unknown, Wrong
from groupwise.rewards.settings import Score
from groupwise.rewards.texts import Answer, text_of

_LONGEST = 1_000_000
_SECONDS = 2.0


class _Pattern(Protocol):
    def search(self, text: str) -> Any: ...


def regex(
    completions: Sequence[Answer],
    *,
    pattern: str = r"\S",
    score: Score = 1.0,
    wrong: Score = 0.0,
    whole: bool = False,
) -> list[Mark]:
    r"""1.0 for a completion in which the pattern is found; with `whole`, one that is nothing else.

    Example: pattern `\d{4}`, "in 1984" -> 1.0, with `whole` 0.0
    """
    asked = rf"\A(?:{pattern})\z" if whole else pattern
    texts = [text_of(completion)[:_LONGEST] for completion in completions]
    linear = _linear(asked)
    if linear is not None:
        return [score if linear.search(_encodable(text)) else wrong for text in texts]
    asked = rf"\A(?:{pattern})\Z" if whole else pattern
    try:
        re.compile(asked)
    except re.error as error:
        raise RewardError(f"reward 'regex': pattern = {pattern!r} is no regular expression: {error}") from error
    return _marks(
        _checker("searched").map([[asked, text] for text in texts], lambda row: completions[row]), score, wrong
    )


def json_schema(
    completions: Sequence[Answer],
    *,
    schema: dict[str, Any] = {},  # noqa: B006 - never changed
    where: Literal["all", "fence", "answer"] = "all",
    score: Score = 1.0,
    wrong: Score = 0.0,
) -> list[Mark]:
    """1.0 for JSON that fits a schema (an empty one: for JSON at all).

    `where`: the whole completion, its last fenced block, or its last `<answer>`. Schemas need the package jsonschema.
    Example: schema `{type = "object", required = ["name"]}`, `{"name": "x"}` -> 1.0
    """
    if schema:
        try:
            importlib.import_module("jsonschema").validators.validator_for(schema).check_schema(schema)
        except ModuleNotFoundError as error:
            raise RewardError(
                "reward 'json_schema' needs jsonschema for a schema: pip install 'groupwise[math]'"
            ) from error
        except Exception as error:
            raise RewardError(f"reward 'json_schema': schema is no JSON schema: {str(error)[:300]}") from error
    texts = [_part(text_of(completion), where) for completion in completions]
    return _marks(_checker("fits").map([[schema, text] for text in texts], lambda row: completions[row]), score, wrong)


def _part(text: str, where: str) -> str:
    if where == "answer":
        return last_answer(text) or ""
    if where == "fence":
        before, mark, _ = text.rpartition("```")
        inside = before.rpartition("```")[2] if mark else ""
        return inside.removeprefix("json")
    return text


def searched(asked: Sequence[str]) -> bool:
    """Whether a text matches, in a process that may be killed."""
    return re.search(asked[0], asked[1]) is not None


def fits(asked: Sequence[Any]) -> bool:
    """Whether a text is JSON that fits a schema, in a process that may be killed."""
    schema, text = asked
    if len(text) > _LONGEST:
        return False
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    if not schema:
        return True
    jsonschema = importlib.import_module("jsonschema")
    return bool(jsonschema.validators.validator_for(schema)(schema).is_valid(value))


def _marks(results: Sequence[Result], score: float, wrong: float) -> list[Mark]:
    marks: list[Mark] = []
    for result in results:
        if isinstance(result, Done):
            marks.append(score if result.value else wrong)
        else:
            marks.append(Wrong(result.why, wrong) if isinstance(result, Wrong) else Unknown(result.why))
    return marks


@cache
def _linear(pattern: str) -> _Pattern | None:
    """The pattern as re2 reads it; None without re2, or if it needs what re2 does not have (looking back, ...)."""
    try:
        re2 = importlib.import_module("re2")
    except ModuleNotFoundError:
        return None
    options = re2.Options()
    options.log_errors = False
    compiled = cast(Callable[..., _Pattern], re2.compile)
    try:
        return compiled(pattern, options)
    except Exception:
        return None


def _encodable(text: str) -> str:
    """Half characters, which UTF-8 cannot hold, as replacement characters."""
    return text.encode("utf-8", "replace").decode("utf-8")


_checkers: dict[str, Items] = {}
_lock = threading.Lock()


def _checker(name: str) -> Items:
    with _lock:
        if name not in _checkers:
            _checkers[name] = Items(f"groupwise.rewards.patterns:{name}", seconds=_SECONDS)
        return _checkers[name]
