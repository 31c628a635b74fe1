"""One reward function, one call: give it what it names, take what it returns, and accept only what a reward is.

A reward is a finite number (int, float, bool, a numpy scalar, a tensor without dimensions), None for a row that the
function does not grade, or a `Wrong` or `Unknown`. Another value makes its row unknown; a call that raises, or returns
no list of the right length, is a `Failure`. What no call can mend (a parameter that nothing fills) is a RewardError.

This is the same in the trainer's process and in a process of the function's own.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from itertools import islice
from typing import Any, Protocol, TypeVar, runtime_checkable

from groupwise.errors import RewardError
from groupwise.rewards.contract import NOT_COLUMNS, RESERVED, Answers, RewardFunction, TrainerState, unwrapped
from groupwise.rewards.failure import Failure, excerpt, shown, where_raised
from groupwise.rewards.log import GradingLog, Notebook
from groupwise.rewards.outcomes import Mark, Unknown, Wrong

_LARGEST = 3.4028234663852886e38
"""Rewards are fp32 numbers, in TRL as in our maths: what overflows there is infinite."""

T = TypeVar("T")


class Watched(list[T]):
    """A list that tells at which row its reader is, so that a function that hangs can be told where."""

    touched: Callable[[int], None] | None = None

    def __iter__(self) -> Iterator[T]:
        for row, value in enumerate(super().__iter__()):
            if self.touched is not None:
                self.touched(row)
            yield value

    def __getitem__(self, index: Any) -> Any:
        if self.touched is not None and isinstance(index, int):
            self.touched(index % max(len(self), 1))
        return super().__getitem__(index)


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it makes a coroutine: an async function, an object with an async `__call__`, a partial of one."""
    inner: Any = unwrapped(function)
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(type(inner).__call__)


def keywords(
    reward: RewardFunction,
    answers: Answers,
    state: TrainerState,
    log: GradingLog,
    touched: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """All that it could be given, cut down to what it names when it has no `**kwargs`."""
    clash = sorted(RESERVED & set(answers.columns))
    if clash:
        raise RewardError(f"a column may not be called {clash[0]!r}, reward functions get other things by that name")
    notebook = Notebook(log, reward.name, len(answers))
    given = answers.keywords()
    if touched is not None:
        given["completions"] = Watched(given["completions"])
        given["completions"].touched = touched
    given |= {"trainer_state": state, "log_extra": notebook.log_extra, "log_metric": notebook.log_metric}
    given |= reward.settings
    return _named(reward, answers, given)


def _named(reward: RewardFunction, answers: Answers, given: dict[str, Any]) -> dict[str, Any]:
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
        names = sorted(set(answers.columns) - NOT_COLUMNS)
        columns = ", ".join(name if name and name == name.strip() else repr(name) for name in names) or "none"
        raise RewardError(
            f"reward function {reward.name!r} asks for {missing[0]!r}, which is neither a column of this task "
            f"(there are: {columns}) nor a setting: map a column to that name with task.columns, or give it a default"
        )
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return given
    named = {p.name for p in by_keyword}
    return {name: value for name, value in given.items() if name in named}


def run(reward: RewardFunction, given: dict[str, Any], answers: Answers, ours: Iterable[str] = ()) -> list[Mark]:
    """Call it here and now, on a thread without an event loop."""
    try:
        returned = reward.function(**given)
        if inspect.isawaitable(returned):
            returned = asyncio.run(_awaited(returned))
        return _marks(reward, _taken(reward.name, returned, len(answers)), answers)
    except (RewardError, Failure, KeyboardInterrupt):
        raise
    except BaseException as error:  # `sys.exit()`, a stray cancellation: no reason to end the run
        raise raised(reward, error, ours) from error


async def run_async(reward: RewardFunction, given: dict[str, Any], answers: Answers) -> list[Mark]:
    """The same for an async function, on the loop that it is called on."""
    try:
        return _marks(reward, _taken(reward.name, await reward.function(**given), len(answers)), answers)
    except (RewardError, Failure, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise
        raise raised(reward, error) from error


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


def raised(reward: RewardFunction, error: BaseException, ours: Iterable[str] = ()) -> Failure:
    """The failure of a call that raised. What ran out of memory or of stack did so over the text."""
    kind = "limit" if isinstance(error, MemoryError | RecursionError) else "raised"
    where = where_raised(error, (__file__, asyncio.__file__, asyncio.runners.__file__, *ours))
    return Failure(kind, f"reward function {reward.name!r} raised {shown(error)}{where}")


def _taken(name: str, returned: Any, rows: int) -> list[Any]:
    """What it returned, one value more than there are rows at most (a generator may be endless)."""
    wrong = isinstance(returned, str | bytes | Mapping | Set)  # iterable, but not a list of rewards in the rows' order
    try:
        iterator: Iterator[Any] = iter(returned)
    except TypeError:
        wrong, iterator = True, iter(())
    if wrong:
        raise Failure(
            "returned",
            f"reward function {name!r} returned {ascii(returned)[:80]} ({type(returned).__name__}): "
            f"return a list with one number per completion ({rows} here)",
        )
    listed = list(islice(iterator, rows + 1))
    if len(listed) != rows:
        got = f"{len(listed)}" if len(listed) < rows else f"more than {rows}"
        raise Failure(
            "returned",
            f"reward function {name!r} returned {got} values for {rows} completions: "
            "return exactly one per completion, in order, and None for a row that it does not grade",
        )
    return listed


@runtime_checkable
class _Scalar(Protocol):
    """A numpy scalar or a tensor."""

    shape: Any

    def item(self) -> Any: ...


def _marks(reward: RewardFunction, values: list[Any], answers: Answers) -> list[Mark]:
    return [_mark(reward.name, value, answers, row) for row, value in enumerate(values)]


def _mark(name: str, value: Any, answers: Answers, row: int) -> Mark:
    if value is None or isinstance(value, Unknown):
        return value
    if isinstance(value, Wrong):
        return value if value.score is None else Wrong(value.why, _number(value.score))
    plain = value.item() if isinstance(value, _Scalar) and tuple(value.shape) == () else value
    if isinstance(plain, bool | int | float):
        if -_LARGEST <= plain <= _LARGEST:
            return float(plain)
        wrong = "nan" if plain != plain else "a number that is infinite in fp32"
    else:
        wrong = f"{ascii(plain)[:80]} ({type(plain).__name__})"
    return Unknown(
        f"reward function {name!r} returned {wrong} for row {row} ({excerpt(answers, row)}): "
        "a reward is a finite number, or None for a row that the function does not grade"
    )


def _number(score: float) -> float:
    return float(score) if -_LARGEST <= score <= _LARGEST else 0.0
