"""Limits that a process sets itself before it looks at a text, so that the kernel stops it whatever it is doing.

CPU time and not time on the wall decides that an answer takes too long: on a busy machine nothing counts as slow that
would have been fast on an idle one.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import threading


def set_memory(megabytes: int) -> None:
    """At most so much address space; what asks for more gets a MemoryError."""
    with contextlib.suppress(ValueError, OSError):  # macOS refuses
        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def allow_seconds(seconds: float) -> None:
    """Die of SIGPROF after so many seconds of CPU time from now, also inside C code; 0 takes the limit away."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def cap_cpu(seconds: float) -> None:
    """At most so many more seconds of CPU time: what is left over when the process that would kill it is gone."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime + seconds) + 1
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_CPU, (limit, hard))


def end_with(lifeline: int) -> None:
    """End this process when the other end of that pipe is closed: when the process that started it is gone."""

    def wait() -> None:
        while os.read(lifeline, 1):
            pass
        os._exit(0)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()
