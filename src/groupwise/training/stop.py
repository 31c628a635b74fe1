"""Asking a run to stop: Ctrl-C, SIGTERM (a cluster that wants its machine back), SIGHUP (a terminal that was closed).

    stop = Stop()
    with stop.listening():
        ...                          # the first signal: stop.asked is its name, and work that may be dropped is
    if stop.asked: ...

The first signal drops the step at hand, unless the weights have moved in it already: then it is finished. The second
one leaves at once (`leave`), which harms nothing: whatever is on the disk is whole.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn, TypeAlias

from groupwise.errors import Stopped

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


Leave: TypeAlias = Callable[[int, Callable[[], None]], NoReturn]
"""What the second signal does: it is given the signal's number and the last thing to do."""


def interrupt(number: int, leaving: Callable[[], None]) -> NoReturn:
    """As Ctrl-C always did: whoever is in the middle of something cleans up."""
    raise KeyboardInterrupt


def exit_at_once(number: int, leaving: Callable[[], None]) -> NoReturn:
    """For a command: nothing is waited for, not even what is being written. What is on the disk is whole all the same;
    the terminal gets its cursor back."""
    with suppress(Exception):
        leaving()
    with suppress(OSError):
        if os.isatty(1):
            os.write(1, b"\x1b[?25h\n")
    os._exit(128 + number)


class Stop:
    """Whether a run was asked to stop, by which signal."""

    def __init__(self, leave: Leave = interrupt) -> None:
        self.asked: str | None = None
        self.paused = False
        """Whether it was an alarm that asked: somebody is to look before the run goes on."""
        self._leave = leave
        self._leaving: Callable[[], None] = lambda: None
        self._drop: Callable[[], None] | None = None

    def pause(self, why: str) -> None:
        """Stop at the end of the step at hand, until somebody has looked."""
        self.asked, self.paused = why, True

    @contextmanager
    def listening(self, leaving: Callable[[], None] = lambda: None) -> Generator[None]:
        """Hear signals inside. Only the main thread can; elsewhere nothing is changed. `leaving` is the last thing that
        is done before the second signal leaves at once."""
        self._leaving = leaving
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        with _hearing(_SIGNALS, self._hear):
            yield

    @contextmanager
    def not_begun(self) -> Generator[None]:
        """While a run is loaded, which nobody can ask to stop in the middle of something: SIGTERM and SIGHUP raise
        `Stopped`, and Ctrl-C is what it always was. `listening` inside takes their place."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        with _hearing(_SIGNALS[1:], _end):
            yield

    @contextmanager
    def dropping(self, may_drop: Callable[[], bool], say: Callable[[str], None]) -> Generator[None]:
        """For the task that calls it: once a stop is asked for, the task is cancelled if its work may be dropped then.
        If not, it goes on, and finds `asked` when it looks."""
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None

        def act() -> None:
            if may_drop():
                say(f"{self.asked}: the step at hand is dropped")
                task.cancel()
            else:
                say(f"{self.asked}: the weights have moved already, so this step is finished first")

        self._drop = lambda: _soon(loop, act)
        if self.asked is not None:  # just now
            self._drop()
        try:
            yield
        finally:
            self._drop = None

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.asked is not None:
            self._leave(number, self._leaving)
        self.asked = signal.Signals(number).name
        if self._drop is not None:
            self._drop()


@contextmanager
def _hearing(names: Sequence[str], hear: Callable[[int, FrameType | None], None]) -> Generator[None]:
    numbers = [signal.Signals[name] for name in names if name in signal.Signals.__members__]
    # One that is ignored (nohup) stays so.
    heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, hear) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise Stopped(f"{signal.Signals(number).name}: nothing had begun yet; the same command begins, or goes on")


def _soon(loop: asyncio.AbstractEventLoop, act: Callable[[], Any]) -> None:
    with suppress(RuntimeError):  # the loop has just ended
        loop.call_soon_threadsafe(act)
