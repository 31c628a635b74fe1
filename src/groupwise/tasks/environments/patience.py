"""Calling what others wrote, a tool or an environment, so that nothing it does ends the run or holds it up.

    await patiently(tool, {"a": 1})          # a plain function in a thread of its own, an async one here

A thread that never comes back is left behind, a daemon: it takes no place in a pool, and nobody waits for it at the
end. `sys.exit()` in a tool, or a cancellation of its own, is a failure of the tool and nothing more.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from groupwise.errors import TaskError

T = TypeVar("T")

_ABANDONED = 200
"""So many threads may be left behind; then whoever leaves them behind is no tool to train with."""

_hanging: set[threading.Thread] = set()


async def patiently(function: Callable[..., Any], given: Mapping[str, Any]) -> Any:
    """What it returns; whatever it raises, as an `Exception`."""
    if inspect.iscoroutinefunction(function):
        return await as_failure(function(**given))
    return await _in_a_thread(lambda: function(**given))


async def as_failure(work: Awaitable[T]) -> T:
    """What it comes to. What is no `Exception` (`SystemExit`, a cancellation that nobody asked for) becomes one."""
    try:
        return await work
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise RuntimeError("it cancelled itself") from error
    except (Exception, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        raise RuntimeError(f"{type(error).__name__}: {error}") from error


async def _in_a_thread(work: Callable[[], Any]) -> Any:
    _hanging.difference_update([thread for thread in _hanging if not thread.is_alive()])
    if len(_hanging) >= _ABANDONED:
        raise TaskError(f"{len(_hanging)} calls of tools and environments have never come back: mend what hangs")
    loop = asyncio.get_running_loop()
    done: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

    def deliver(outcome: tuple[Any, BaseException | None]) -> None:
        if not done.done():
            done.set_result(outcome)

    def body() -> None:
        try:
            outcome = work(), None
        except BaseException as error:
            outcome = None, error
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waits any more
            loop.call_soon_threadsafe(deliver, outcome)

    thread = threading.Thread(target=body, name="tool", daemon=True)
    thread.start()
    try:
        result, error = await done
    except asyncio.CancelledError:
        _hanging.add(thread)
        raise
    if error is None:
        return result
    if isinstance(error, Exception):
        raise error
    raise RuntimeError(f"{type(error).__name__}: {error}") from error
