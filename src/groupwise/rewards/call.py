"""Calling one reward function: give it what it names, run it, and accept only what a reward is.

A reward is a finite number (int, float, bool, a numpy scalar, a tensor without dimensions), or None for a row that the
function does not grade. Everything else is a RewardError that names the function and the row.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Set
from contextlib import contextmanager
from itertools import islice
from typing import Any, Protocol, runtime_checkable

from groupwise.errors import RewardError
from groupwise.rewards.contract import NOT_COLUMNS, RESERVED, Answers, RewardFunction, TrainerState, unwrapped
from groupwise.rewards.failure import excerpt, shown, where_raised
from groupwise.rewards.log import GradingLog, Notebook

_LARGEST = 3.4028234663852886e38
"""Rewards are fp32 numbers, in TRL as in our maths: what overflows there is infinite."""

_SEARCH_SECONDS = 10.0
"""How long to look for the row that makes a function raise."""


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it makes a coroutine: an async function, an object with an async `__call__`, a partial of one."""
    inner: Any = unwrapped(function)
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(type(inner).__call__)


async def call(
    reward: RewardFunction, answers: Answers, trainer_state: TrainerState, log: GradingLog
) -> list[float | None]:
    """One reward per row of `answers`, or a RewardError.

    When the function raises, it is called again with one row after another, only to find out which row it is: the
    message then names that row. (A function with side effects sees those calls; what it logs in them is thrown away.)
    """
    keywords = _keywords(reward, answers, trainer_state, log)
    try:
        returned = await _run(reward, keywords, len(answers))
    except RewardError:
        raise
    except (Exception, SystemExit) as error:
        where = where_raised(error, (__file__,))
        row = await _row_that_raises(reward, answers, trainer_state)
        raise RewardError(f"reward function {reward.name!r} raised {shown(error)}{where}. {row}") from error
    if len(returned) != len(answers):
        got = f"{len(returned)}" if len(returned) < len(answers) else f"more than {len(answers)}"
        raise RewardError(
            f"reward function {reward.name!r} returned {got} values for {len(answers)} completions: "
            "return exactly one per completion, in order, and None for a row that it does not grade"
        )
    return [_value(reward.name, value, answers, row) for row, value in enumerate(returned)]


def _keywords(reward: RewardFunction, answers: Answers, state: TrainerState, log: GradingLog) -> dict[str, Any]:
    """All that it could be given, cut down to what it names when it has no `**kwargs`."""
    clash = sorted(RESERVED & set(answers.columns))
    if clash:
        raise RewardError(f"a column may not be called {clash[0]!r}, reward functions get other things by that name")
    notebook = Notebook(log, reward.name, len(answers))
    given = answers.keywords()
    given |= {"trainer_state": state, "log_extra": notebook.log_extra, "log_metric": notebook.log_metric}
    given |= reward.settings
    try:
        parameters = inspect.signature(reward.function).parameters.values()
    except (TypeError, ValueError):  # written in C, without a signature: it has to take what comes
        return given
    by_keyword = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    for parameter in parameters:
        if parameter.kind is parameter.POSITIONAL_ONLY and parameter.default is parameter.empty:
            raise RewardError(
                f"reward function {reward.name!r} takes {parameter.name!r} by position only, but everything is given "
                "by keyword: remove the '/' from its parameters"
            )
    missing = [p.name for p in by_keyword if p.default is p.empty and p.name not in given]
    if missing:
        columns = ", ".join(sorted(set(answers.columns) - NOT_COLUMNS)) or "none"
        raise RewardError(
            f"reward function {reward.name!r} asks for {missing[0]!r}, which is neither a column of this task "
            f"(there are: {columns}) nor a setting: map a column to that name with task.columns, or give it a default"
        )
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return given
    named = {p.name for p in by_keyword}
    return {name: value for name, value in given.items() if name in named}


async def _run(reward: RewardFunction, keywords: dict[str, Any], rows: int) -> list[Any]:
    """Call it and take what it returns, one value more than there are rows at most (a generator may be endless)."""
    if is_async(reward.function):
        returned = await reward.function(**keywords)
    else:
        with _outside_the_loop():
            returned = reward.function(**keywords)
            if not inspect.isawaitable(returned):
                return _taken(reward.name, returned, rows)
        returned = await returned
    return _taken(reward.name, returned, rows)


def _taken(name: str, returned: Any, rows: int) -> list[Any]:
    wrong = isinstance(returned, str | bytes | Mapping | Set)  # iterable, but not a list of rewards in the rows' order
    try:
        iterator: Iterator[Any] = iter(returned)
    except TypeError:
        wrong, iterator = True, iter(())
    if wrong:
        raise RewardError(
            f"reward function {name!r} returned {ascii(returned)[:80]} ({type(returned).__name__}): "
            f"return a list with one number per completion ({rows} here)"
        )
    return list(islice(iterator, rows + 1))


@contextmanager
def _outside_the_loop() -> Generator[None]:
    """Let a plain function run as if no event loop were running, on this thread.

    TRL calls plain functions outside of any loop, so some of them call `asyncio.run`, and some set signal timers, which
    only the main thread may: neither works inside a coroutine and in a helper thread at the same time. These four
    functions are what asyncio offers to makers of loops and tasks for leaving and entering one.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    asyncio.tasks._leave_task(loop, task)
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(loop)
        asyncio.tasks._enter_task(loop, task)


async def _row_that_raises(reward: RewardFunction, answers: Answers, state: TrainerState) -> str:
    """A sentence about the first row that makes the function raise when it is given that row alone."""
    deadline = time.monotonic() + _SEARCH_SECONDS
    for row in range(len(answers)):
        if time.monotonic() > deadline:
            return f"Which of the {len(answers)} rows it was is not known: none of the first {row} raises alone"
        try:
            alone = answers.row(row)
            await _run(reward, _keywords(reward, alone, state, GradingLog()), 1)
        except (Exception, SystemExit) as error:
            return f"It raises on row {row} ({excerpt(answers, row)}), there with {shown(error)}"
    return f"No row of the {len(answers)} makes it raise alone: it depends on the whole batch, or on chance"


@runtime_checkable
class _Scalar(Protocol):
    """A numpy scalar or a tensor."""

    shape: Any

    def item(self) -> Any: ...


def _value(name: str, value: Any, answers: Answers, row: int) -> float | None:
    if value is None:
        return None
    plain = value.item() if isinstance(value, _Scalar) and tuple(value.shape) == () else value
    if isinstance(plain, bool | int | float):
        if -_LARGEST <= plain <= _LARGEST:
            return float(plain)
        wrong = "nan" if plain != plain else "a number that is infinite in fp32"
    else:
        wrong = f"{ascii(plain)[:80]} ({type(plain).__name__})"
    raise RewardError(
        f"reward function {name!r} returned {wrong} for row {row} ({excerpt(answers, row)}): "
        "a reward is a finite number, or None for a row that the function does not grade"
    )
