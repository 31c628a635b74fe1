"""Reward functions that live in this process: run in a thread, watched, and left behind when they hang.

A thread cannot be killed. One that runs Python code is asked to end by an exception; one that waits in C for ever is
left alone, and the run goes on without it. A function that holds the interpreter's lock in C stops this whole process:
then a timer of the kernel that counts CPU time prints every thread's stack and ends the process, a minute after the
deadline. What is named by path instead of given as an object runs in a process of its own and has none of this.

Async functions run together on an event loop of their own. One that sets signal timers, which only the main thread
may, is called on the main thread, where nothing can stop it.
"""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from groupwise.rewards.contract import Answers, RewardFunction, TrainerState
from groupwise.rewards.failure import Failure
from groupwise.rewards.invoke import is_async, keywords, run, run_async
from groupwise.rewards.isolated.kept import kept
from groupwise.rewards.isolated.watch import Watch
from groupwise.rewards.log import GradingLog
from groupwise.rewards.outcomes import Mark

_GRACE = 60.0
"""Seconds after the deadline in which somebody has to say so; else nobody in this process can."""

_TICK = 0.5

Result = TypeVar("Result")

_SIGNALS = "signal only works in main thread"
_needs_main_thread: set[int] = set()


async def in_a_thread(reward: RewardFunction, answers: Answers, state: TrainerState, log: GradingLog) -> list[Mark]:
    """Call it once; what it logs after it was given up is lost with it."""
    notes = GradingLog()
    watch = Watch(reward, answers, "in a thread of this process")
    given = keywords(reward, answers, state, notes, watch.touched)
    with kept(reward.name):
        if is_async(reward.function):
            marks = await _on_the_loop(run_async(reward, given, answers), watch)
        elif id(reward.function) in _needs_main_thread:
            marks = _here(reward, given, answers)
        else:
            marks = await _off_the_loop(reward, given, answers, watch)
    log.add(notes, range(len(answers)), len(answers))
    return marks


async def _off_the_loop(reward: RewardFunction, given: dict[str, Any], answers: Answers, watch: Watch) -> list[Mark]:
    with _LastResort(
        reward.deadline
    ) as last_resort:  # before the thread starts, which may never let this one run again
        future, thread = in_background(lambda: run(reward, given, answers, (__file__, threading.__file__)))
        try:
            return await _result(future, watch, last_resort)
        except Failure as failure:
            if _SIGNALS not in failure.words or threading.current_thread() is not threading.main_thread():
                raise
            _needs_main_thread.add(id(reward.function))
        finally:
            if not future.done():
                _ask_to_end(thread)
    return _here(reward, given, answers)


def in_background(work: Callable[[], Result]) -> tuple[Future[Result], threading.Thread]:
    """Start blocking work in a thread that nobody has to wait for."""
    future: Future[Result] = Future()

    def body() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = work()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    thread = threading.Thread(target=body, name="reward", daemon=True)
    thread.start()
    return future, thread


async def _on_the_loop(work: Coroutine[Any, Any, Result], watch: Watch) -> Result:
    loop = _Loop.running()
    future = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        return await _result(future, watch)
    except BaseException:
        future.cancel()
        if watch.left <= 0:
            _Loop.forget(loop)  # something may block it: the next call gets a new one
        raise


async def _result(future: Future[Result], watch: Watch, last_resort: _LastResort | None = None) -> Result:
    awaited = asyncio.wrap_future(future)
    awaited.add_done_callback(_heard)  # also where nobody waits for it any more: it hung, or the run was interrupted
    while True:
        if last_resort is not None:
            last_resort.wind_up()
        done, _ = await asyncio.wait({awaited}, timeout=max(min(_TICK, watch.left), 0.001))
        if done:
            if awaited.cancelled():
                raise Failure("raised", f"reward function {watch.name!r} cancelled the task that it ran in")
            return awaited.result()
        watch.speak()
        if watch.left <= 0:
            raise Failure("hung", watch.words)


def _heard(future: asyncio.Future[Any]) -> None:
    """Take note of what a call that was given up comes to after all, for asyncio complains when nobody does."""
    if not future.cancelled():
        future.exception()


class _Loop:
    """The event loop of all async reward functions: one, in a thread, for as long as this process lives."""

    _loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    def running(cls) -> asyncio.AbstractEventLoop:
        """The loop, started if it is not there."""
        if cls._loop is None or cls._loop.is_closed():
            cls._loop, ready = asyncio.new_event_loop(), threading.Event()
            cls._loop.call_soon(ready.set)
            threading.Thread(target=cls._live, args=(cls._loop,), name="async rewards", daemon=True).start()
            ready.wait()
        return cls._loop

    @classmethod
    def _live(cls, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while cls._loop is loop:  # a function may stop it, and a task of its own end it by SystemExit: others go on
                with suppress(BaseException):
                    loop.run_forever()
            with suppress(BaseException):
                loop.run_until_complete(_cancelled(asyncio.all_tasks(loop)))
        finally:
            loop.close()

    @classmethod
    def forget(cls, loop: asyncio.AbstractEventLoop) -> None:
        """Leave a loop that may be blocked behind."""
        if cls._loop is loop:
            cls._loop = None
            with suppress(RuntimeError):  # it is closed
                loop.call_soon_threadsafe(loop.stop)


async def _cancelled(tasks: set[asyncio.Task[Any]]) -> None:
    """End what still runs on a loop that was left behind: nobody is told of tasks that were destroyed while pending."""
    for task in tasks:
        task.cancel()
    for task in (await asyncio.wait(tasks, timeout=1.0))[0] if tasks else ():
        _heard(task)


def _ask_to_end(thread: threading.Thread) -> None:
    """Raise SystemExit in another thread, when it next runs Python code."""
    if thread.ident is not None and thread.is_alive():
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))


class _LastResort:
    """Ends this process with every thread's stack if a function computes on and on and lets nothing else run.

    It counts CPU time, in the kernel, and is wound up again as long as anything here can run. So neither a stopped nor
    a suspended process dies of it. Where SIGPROF belongs to somebody else (a profiler), there is none.
    """

    def __init__(self, deadline: float) -> None:
        self._seconds = deadline + _GRACE
        self._armed = False

    def __enter__(self) -> _LastResort:
        error_output = sys.__stderr__
        try:
            if error_output is not None and signal.getsignal(signal.SIGPROF) is signal.SIG_DFL:
                faulthandler.register(signal.SIGPROF, error_output, all_threads=True, chain=True)
                self._armed = True
        except (OSError, ValueError, AttributeError):  # no such output, as in some notebooks, or no such signal
            return self
        self.wind_up()
        return self

    def wind_up(self) -> None:
        """Begin to count anew."""
        if self._armed:
            signal.setitimer(signal.ITIMER_PROF, self._seconds)

    def __exit__(self, *_: object) -> None:
        if self._armed:
            signal.setitimer(signal.ITIMER_PROF, 0)
            faulthandler.unregister(signal.SIGPROF)


def _here(reward: RewardFunction, given: dict[str, Any], answers: Answers) -> list[Mark]:
    with _outside_the_loop():
        return run(reward, given, answers, (__file__,))


@contextmanager
def _outside_the_loop() -> Generator[None]:
    """Let a plain function run as if no event loop were running, on this thread.

    TRL calls plain functions outside of any loop, so some of them call `asyncio.run`, and some set signal timers, which
    only the main thread may. These four functions are what asyncio offers to makers of loops and tasks for leaving and
    entering one.
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
