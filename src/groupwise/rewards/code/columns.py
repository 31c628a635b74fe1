"""Tests as data sets have them, in the shapes that are in use, and words for a row whose tests are none.

stdin and stdout   [{"input": "1\\n", "output": "2\\n"}], {"inputs": [...], "outputs": [...]}, or either as JSON text
unit tests         "assert f(1) == 2", a list of such texts, or a text that defines `check(candidate)`
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from groupwise.errors import RewardError
from groupwise.rewards.code.sandbox import UnitTests

_ENTRY = re.compile(r"[^\W\d]\w*((\(\))?\.[^\W\d]\w*)?")
"""A function, or a method of a class that is made without arguments: `solve`, `Solution().solve`."""


def stdio_tests(value: Any, row: int) -> list[tuple[str, str]]:
    """(input, expected output) of each test; RewardError if the row has none."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise _wrong(row, value, f"is text that is no JSON ({error})") from error
    if isinstance(value, Mapping):
        given = cast(Mapping[str, Any], value)
        inputs, outputs = _first(given, "inputs", "input"), _first(given, "outputs", "output")
        if not (_is_list(inputs) and _is_list(outputs)) or len(inputs) != len(outputs):
            raise _wrong(row, value, "has no `inputs` and `outputs` of equal length")
        pairs = list(zip(inputs, outputs, strict=True))
    elif _is_list(value):
        tests = cast(Sequence[Any], value)
        if not all(isinstance(test, Mapping) for test in tests):
            raise _wrong(row, value, "is a list of something else than tests")
        pairs = [(_first(test, "input", "stdin"), _first(test, "output", "stdout")) for test in tests]
    else:
        raise _wrong(row, value, f"is a {type(value).__name__}")
    if not pairs:
        raise _wrong(row, value, "is empty")
    return [(_text(given, row), _text(expected, row)) for given, expected in pairs]


def unit_tests(tests: Any, setup: Any, prelude: Any, entry_point: Any, row: int) -> UnitTests:
    """The tests of a row. A text that defines `check(candidate)` is followed by a call of it."""
    texts = [tests] if isinstance(tests, str) else list(tests) if _is_list(tests) else []
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise _wrong(row, tests, "has no test: a text, or a list of texts", "assert f(1) == 2")
    entry = str(entry_point or "")
    if entry and not _ENTRY.fullmatch(entry):
        raise RewardError(
            f"row {row}: entry_point {ascii(entry)[:80]} is no name of a function, and not like Solution().solve either"
        )
    if entry:
        texts = [f"{text}\ncheck({entry})\n" if "def check(" in text else text for text in texts]
    elif any("def check(candidate)" in text for text in texts):
        raise RewardError(
            f"row {row}: the tests define check(candidate), but nothing says what to check: the column entry_point "
            "is missing"
        )
    return UnitTests(tuple(texts), str(setup or ""), str(prelude or ""), entry)


def _first(given: Mapping[str, Any], *names: str) -> Any:
    return next((given[name] for name in names if name in given), None)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _text(value: Any, row: int) -> str:
    """Some data sets keep an input as a list of its lines."""
    if isinstance(value, str):
        return value
    if _is_list(value) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    raise _wrong(row, value, "is neither a text nor a list of lines")


def _wrong(row: int, value: Any, why: str, example: str = '[{"input": "1\\n", "output": "2\\n"}]') -> RewardError:
    return RewardError(
        f"row {row}: the column tests {why}: {ascii(value)[:80]}. It should be like {example}; "
        "map another column to it with task.columns"
    )
