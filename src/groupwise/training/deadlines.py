"""A deadline for every wait, with whose it is; a word when it takes long; the stacks of all threads when it is missed.

    with Deadlines(recipe.deadlines, run.path / "log", reporter.message) as deadlines:
        with deadlines.waiting("grade", "the reward functions judge, length"):
            ...

A thread of its own watches. After `silence` seconds it says what is waited for, and again after as many. At the
deadline it writes all stacks into the log and breaks the wait off: it cancels the task that waits, and if that does
nothing, for the event loop itself is held up, sends a signal, which ends a sleep, a read and a loop of Python. Either
way a `DeadlineError` comes of it. What no signal ends (a loop in C that never lets Python run) is ended a little
later from another process (`watchdog.py`): all stacks into the log, then SIGKILL.

Time counts while this process runs: one that was stopped (Ctrl-Z, a cluster that lends its place to another job) or
starved must not find that everything has been late meanwhile.

Signals and exits are for the main thread of a program only. In another thread (a notebook's) a wait that holds up its
event loop is told and its stacks are written, and it goes on.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, cast

from groupwise.config.guards import DeadlinesSection
from groupwise.errors import DeadlineError, RunError
from groupwise.runs import disk
from groupwise.runs.files import cannot_write
from groupwise.runs.identity import now
from groupwise.training.watchdog import Watchdog

GRACE = 20.0
"""Seconds from the deadline to the exit, for what no signal ends."""
_BEAT, _STRIDE = 1.0, 2
"""Seconds between two looks, and how many of these a look counts at most: half of the shortest deadline, so that a
stop never is one by itself."""


class _MissedError(BaseException):
    """Raised where the main thread is. No `Exception`: a wait must not be able to swallow it by mistake."""


@dataclass(slots=True)
class _Wait:
    phase: str
    whom: str
    looked: float
    deadline: float | None
    in_main_thread: bool
    cancel: Callable[[], None]
    """Cancels the task that waits, if its event loop is free to do so."""
    passed: float = 0.0
    """Seconds, as far as this process ran."""
    told: float = 0.0
    """How many had passed when something was said last."""
    missed: bool = False


class Deadlines:
    """The waits of one run. One at a time: a wait inside another is a part of it. Without a log (there is no run yet)
    stacks go to standard error."""

    def __init__(
        self, section: DeadlinesSection, log: Path | None, say: Callable[[str], None], *, grace: float = GRACE
    ) -> None:
        self._limits: dict[str, float] = section.model_dump()
        self._silence = section.silence
        self._log_path, self._tell, self._grace = log, say, grace
        self._where = "on standard error" if log is None else f"in {log}"
        self._wait: _Wait | None = None
        self._changing = threading.Lock()
        """Held where a wait ends, and where its exit is put off: one that is over must not have any."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="groupwise deadlines", daemon=True)
        self._log: IO[bytes] | None = None
        self._watchdog: Watchdog | None = None
        self._before: signal.Handlers | Callable[[int, FrameType | None], object] | int | None = None

    def __enter__(self) -> Deadlines:
        self._log = _opened(self._log_path)
        if _has_signals():
            self._before = signal.signal(signal.SIGUSR2, self._break_off)
            self._watchdog = Watchdog(self._log, "the lines above" if self._log_path is None else str(self._log_path))
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        if self._watchdog is not None:
            self._watchdog.close()
        if _has_signals():
            signal.signal(signal.SIGUSR2, self._before)
        assert self._log is not None
        with suppress(OSError):  # what a full disk did not take
            self._log.close()

    @contextmanager
    def waiting(self, phase: str, whom: str) -> Generator[None]:
        """Inside, `whom` is waited for, until `deadlines.PHASE` seconds have passed. A phase of another name has no
        deadline, and its waits are only told of."""
        if self._wait is not None:
            yield
            return
        deadline, in_main_thread = self._limits.get(phase), threading.current_thread() is threading.main_thread()
        wait = _Wait(phase, whom, time.monotonic(), deadline, in_main_thread, self._cancel())
        self._put_exit_off(wait)
        self._wait = wait
        try:
            yield
        except (_MissedError, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError):
                task = asyncio.current_task()
                if not wait.missed or task is None:
                    raise
                task.uncancel()
            raise DeadlineError(
                f"{whom} took longer than {deadline:g} s, and the wait was broken off; what every thread was doing is "
                f"{self._where}. If it only is slow, raise deadlines.{phase}"
            ) from None
        finally:
            with self._changing:
                self._wait = None
                if self._watchdog is not None:
                    self._watchdog.hear(None)

    def _put_exit_off(self, wait: _Wait) -> None:
        """The exit comes when so much time is left no more, and Python has not run since."""
        if wait.deadline is None or wait.missed or not wait.in_main_thread or self._watchdog is None:
            return
        self._watchdog.hear(max(wait.deadline - wait.passed, 0.0) + self._grace)

    def _cancel(self) -> Callable[[], None]:
        try:
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
        except RuntimeError:
            return _nothing

        def cancel(wait: _Wait | None) -> None:
            if task is not None and wait is not None and self._wait is wait:
                task.cancel()

        return lambda: cast(None, loop.call_soon_threadsafe(cancel, self._wait))

    def _watch(self) -> None:
        beat = min(_BEAT, self._silence / 4, *(limit / 4 for limit in self._limits.values()))
        while not self._over.wait(beat):
            wait = self._wait
            if wait is None:
                continue
            moment = time.monotonic()
            wait.passed += min(moment - wait.looked, _STRIDE * beat)
            wait.looked = moment
            with self._changing:
                if self._wait is wait:
                    self._put_exit_off(wait)
            if wait.deadline is not None and wait.passed >= wait.deadline:
                self._miss(wait)
            elif wait.passed - wait.told >= self._silence:
                wait.told = wait.passed
                until = "" if wait.deadline is None else f", until {wait.deadline:g} s (deadlines.{wait.phase})"
                self._say(f"{now()}: waiting for {wait.whom} since {wait.passed:.0f} s{until}")

    def _miss(self, wait: _Wait) -> None:
        if not wait.missed:
            wait.missed = True
            assert self._log is not None and wait.deadline is not None
            words = f"{wait.whom} missed the deadline of {wait.deadline:g} s"
            with suppress(OSError):  # a full disk
                self._log.write(f"{now()}  {words}; all threads:\n".encode())
                self._log.flush()
                faulthandler.dump_traceback(file=self._log, all_threads=True)
            self._say(f"{words}: stacks {self._where}")
            wait.cancel()
        elif wait.in_main_thread and _can_signal() and self._wait is wait:
            signal.pthread_kill(_main(), signal.SIGUSR2)

    def _say(self, text: str) -> None:
        """Who cannot hear it (a broken disk, a terminal that is gone) must not end the watching."""
        with suppress(OSError):
            self._tell(text)

    def _break_off(self, number: int, frame: FrameType | None) -> None:
        """In the main thread, wherever it is."""
        if self._wait is not None and self._wait.missed:
            raise _MissedError


def _opened(log: Path | None) -> IO[bytes]:
    if log is None:
        with suppress(OSError):
            return os.fdopen(os.dup(2), "ab")
        return Path(os.devnull).open("ab")  # a program without standard error
    try:
        return disk.to_append(log)
    except OSError as error:
        raise RunError(cannot_write(log, error)) from error


def _nothing() -> None:
    """There is no event loop."""


def _main() -> int:
    identifier = threading.main_thread().ident
    assert identifier is not None
    return identifier


def _can_signal() -> bool:
    return sys.platform != "win32"


def _has_signals() -> bool:
    """Handlers can be set from the main thread only, and Windows has no such signal."""
    return _can_signal() and threading.current_thread() is threading.main_thread()
