"""Which limit a running program is past, and whose fault that is: by what the kernel tells, not by a clock alone.

past_limits(proc, child, passed=0.4)     # "", "cpu", "threads", "wall" or "starved"
"""

from __future__ import annotations

from .processes import Child, kept_waiting, processor_seconds, processors, threads_of, wants_to_run

_THREADS = 256
"""More at one look than any program needs. They are the machine's: those that it runs out of, the trainer lacks."""

_LONGEST_WAIT = 1.0
"""For a processor, once, in seconds."""

_STARVED = 10
"""A child that was kept from running may take this many times its wall seconds before it is given up."""

_CROWDED = 3.0
"""Or this many times what those that ran beside it need to use up their processor seconds. Else a whole group of
programs that loop for ever would be nobody's fault."""


def past_limits(proc: int, child: Child, passed: float) -> str:
    """Why it is to be killed after so many seconds; "": it is not."""
    bounds = child.bounds
    if processor_seconds(child.pid) > bounds.cpu_seconds:
        return "cpu"
    if threads_of(proc, child.pid) > _THREADS:
        return "threads"
    return _past_its_time(proc, child, passed) if passed > bounds.wall_seconds else ""


def _past_its_time(proc: int, child: Child, passed: float) -> str:
    """Whether it is to be killed for the time that passed, and whose fault that is.

    Time in which it was ready to run and was not let is not its own. The kernel adds up such a wait when it is over, so
    nobody is judged in the middle of one.
    """
    bounds = child.bounds
    own = passed - kept_waiting(proc, child.pid)
    if own > bounds.wall_seconds and not wants_to_run(proc, child.pid):
        return "wall"
    others = (child.crowd - 1) / processors()
    if passed > max(_STARVED * bounds.wall_seconds, _CROWDED * bounds.cpu_seconds * others):
        return "wall" if own > bounds.wall_seconds + _LONGEST_WAIT else "starved"
    return ""
