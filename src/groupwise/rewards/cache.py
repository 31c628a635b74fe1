"""Grading the same text for the same problem once: by (function, its version, problem, text).

For functions that cost something (a judge, a large verifier) and grade each completion for itself; one that compares
completions with each other, draws lots or changes with training must not be remembered. The version is the source of
the function's file and its settings, so an edited function starts anew. Unknown grades are never kept.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from groupwise.rewards.contract import Answers, RewardFunction, unwrapped
from groupwise.rewards.log import GradingLog
from groupwise.rewards.outcomes import Mark

_LARGEST = 200_000
_known: OrderedDict[bytes, float | None] = OrderedDict()

Graded = Callable[[Answers, GradingLog], Awaitable[list[Mark]]]


async def remembered(reward: RewardFunction, answers: Answers, graded: Graded, log: GradingLog) -> list[Mark]:
    """The marks of all rows, of which `graded` sees only those that are new, each once."""
    keys = _keys(reward, answers)
    marks: dict[bytes, Mark] = {}
    for key in keys:
        if key in _known:
            _known.move_to_end(key)
            marks[key] = _known[key]
    new: dict[bytes, int] = {}
    for row, key in enumerate(keys):
        if key not in marks:
            new.setdefault(key, row)
    if new:
        notes = GradingLog()
        rows = list(new.values())
        for key, mark in zip(new, await graded(answers.rows(rows), notes), strict=True):
            marks[key] = mark
            if mark is None or isinstance(mark, float):
                _known[key] = mark
        log.add(notes, rows, len(answers))
        while len(_known) > _LARGEST:
            _known.popitem(last=False)
    return [marks[key] for key in keys]


def _keys(reward: RewardFunction, answers: Answers) -> list[bytes]:
    version = hashlib.sha256(f"{reward.name}|{version_of(reward)}".encode())
    keys: list[bytes] = []
    for row in range(len(answers)):
        columns = {name: values[row] for name, values in answers.columns.items()}
        key = version.copy()
        key.update(_text([answers.prompts[row], columns, answers.finish_reasons[row]]).encode("utf-8", "surrogatepass"))
        key.update(answers.completions[row].encode("utf-8", "surrogatepass"))
        keys.append(key.digest())
    return keys


def version_of(reward: RewardFunction) -> str:
    """What changes when the function or its settings do: a hash of its file (else of its source) and the settings."""
    function: Any = unwrapped(reward.function)
    source = repr(function)
    with suppress(OSError, TypeError):
        file = inspect.getsourcefile(function if inspect.isroutine(function) else type(function))
        source = Path(file).read_text(encoding="utf-8") if file else source
    return hashlib.sha256(f"{source}|{_text(reward.settings)}".encode("utf-8", "replace")).hexdigest()


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=_plain)


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else repr(value)
