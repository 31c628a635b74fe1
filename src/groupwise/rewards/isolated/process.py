"""A process that runs rewards, seen from here: start it, ask it, and kill it when it is late."""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import Any

from groupwise.rewards.isolated.wire import Inbox, send

_START = "import sys; sys.path.insert(0, sys.argv[3]); from groupwise.rewards.isolated.serve import main; main()"
_PACKAGE = str(Path(__file__).parents[3])

_alive: weakref.WeakSet[Process] = weakref.WeakSet()


class Process:
    """A fresh interpreter of its own session, with the same module path, that imports only what it is asked for.

    It ends when this process ends, however that comes about: the other end of its lifeline is closed then.
    """

    def __init__(self, job: str, preload: tuple[str, ...] = ()) -> None:
        here, there = socket.socketpair()
        lifeline, self._lifeline = os.pipe()
        self._popen = subprocess.Popen(
            [sys.executable, "-c", _START, str(there.fileno()), str(lifeline), _PACKAGE],
            pass_fds=(there.fileno(), lifeline),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        there.close()
        os.close(lifeline)
        self.connection = here
        self.inbox = Inbox(here)
        self._poll = select.poll()
        self._poll.register(here, select.POLLIN)
        self.cpu = 0.0
        """Seconds of CPU time that it said it had used."""
        _alive.add(self)
        self.send({"job": job, "preload": preload, "path": sys.path})

    @property
    def id(self) -> int:
        """Its process id."""
        return self._popen.pid

    def send(self, message: dict[str, Any]) -> None:
        """Send a message. That nobody reads it any more shows when the answer is waited for."""
        with contextlib.suppress(ConnectionError):
            send(self.connection, message)

    def arrived(self, seconds: float) -> list[Any]:
        """The messages that are here, or arrive within so many seconds; `EOFError` when it is dead."""
        if not self._poll.poll(max(seconds, 0.0) * 1000):
            return []
        return list(self.inbox.waiting())

    def cpu_now(self) -> float | None:
        """Seconds of CPU time that it has used so far."""
        return cpu_of(self.id)

    def end(self) -> tuple[int, float]:
        """Kill it if it is alive. Its exit code (negative: the signal) and all CPU time that it used."""
        self.connection.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        try:
            _, status, used = os.wait4(self._popen.pid, 0)
        except ChildProcessError:  # somebody else waited for it
            return self._popen.returncode or 0, self.cpu
        finally:
            with contextlib.suppress(OSError):
                os.close(self._lifeline)
            _alive.discard(self)
        self._popen.returncode = os.waitstatus_to_exitcode(status)
        return self._popen.returncode, used.ru_utime + used.ru_stime


def cpu_of(process: int) -> float | None:
    """Seconds of CPU time that a process has used; None where the system does not tell, and when it is dead."""
    try:
        return time.clock_gettime(~process << 3 | 2) if sys.platform == "linux" else None
    except OSError:
        return None


def end_all() -> None:
    """Kill every process that this one started."""
    for process in list(_alive):
        process.end()


atexit.register(end_all)
