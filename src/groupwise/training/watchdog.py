"""Ends a process in which Python runs no more: from another process, for who hangs cannot look after itself.

    watchdog = Watchdog(log)           another process, which does nothing but listen
    watchdog.hear(140.0)               I am alive; if I say nothing for so many seconds, end me
    watchdog.hear(None)                I am alive, and may be silent
    watchdog.close()

A loop in C that keeps the interpreter's lock, or a lock that never comes free behind it, stops every thread that is
written in Python. A timer of the system would find it, but counts while a process is stopped (Ctrl-Z, a cluster that
lends its place to another job for a night), and would end it the moment it goes on. Who listens here counts only while
both processes run. The end: the stacks of all threads into the log, by faulthandler, which needs no Python to run; a
line on standard error; then SIGKILL.

It ends by itself when the process that it listens to is gone, and where there are no signals (Windows) there is none.
"""

from __future__ import annotations

import faulthandler
import math
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

_STACKS = "SIGVTALRM"
"""Nobody else here uses it."""
_LOOK, _STRIDE, _WRITING = 1.0, 2, 1.0
"""Seconds between two looks, how many looks one counts for at most, and how many seconds the stacks are given."""


class Watchdog:
    """Of this process. `log` takes the stacks; its name is for the message. Main thread only."""

    def __init__(self, log: IO[bytes], name: str) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        if sys.platform == "win32":
            return
        faulthandler.register(signal.Signals[_STACKS], log, all_threads=True)
        command = [sys.executable, "-I", "-S", __file__, str(os.getpid()), name]
        with suppress(OSError):  # no room for another process: then without
            self._process = subprocess.Popen(
                command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd="/", start_new_session=True
            )
            assert self._process.stdin is not None
            os.set_blocking(self._process.stdin.fileno(), False)

    def hear(self, seconds: float | None) -> None:
        """This process is alive; for so many seconds it may be silent, or for ever."""
        if self._process is None or self._process.stdin is None:
            return
        with suppress(OSError):  # it is gone, or does not listen: then without
            self._process.stdin.write(f"{math.inf if seconds is None else seconds}\n".encode())

    def close(self) -> None:
        """Nothing is left of it."""
        if sys.platform == "win32":
            return
        faulthandler.unregister(signal.Signals[_STACKS])
        if self._process is not None:
            assert self._process.stdin is not None
            with suppress(OSError):
                self._process.stdin.close()
            self._process.kill()
            self._process.wait()


def _listen(pid: int, log: str) -> None:
    """What the other process does."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(signal.Signals[name], signal.SIG_IGN)
    allowed, silent, looked = math.inf, 0.0, time.monotonic()
    while silent <= allowed and os.getppid() == pid:
        look = min(_LOOK, allowed / 4)
        ready, _, _ = select.select([0], [], [], look)
        moment = time.monotonic()
        passed, looked = min(moment - looked, _STRIDE * look), moment
        if ready:
            heard = os.read(0, 1 << 16)  # whole lines: short writes to a pipe are never torn
            if not heard:
                return
            allowed, silent = float(heard.split()[-1]), 0.0
        elif not _is_stopped(pid):
            silent += passed
    if os.getppid() == pid:
        _end(pid, log, silent)


def _is_stopped(pid: int) -> bool:
    """Where the system does not say (not Linux), never."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat.rpartition(b") ")[2][:1] in (b"T", b"t")


def _end(pid: int, log: str, silent: float) -> None:
    os.kill(pid, signal.Signals[_STACKS])
    time.sleep(_WRITING)
    told = f"\ngroupwise: Python did not run in process {pid} for {silent:.0f} s, past the deadline of what it waited "
    with suppress(OSError):
        os.write(2, f"{told}for, so it was ended. What every thread was doing is in {log}\n".encode())
    os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    _listen(int(sys.argv[1]), sys.argv[2])
