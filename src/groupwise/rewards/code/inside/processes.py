"""What the kernel tells of processes, and small things that a process does to itself."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import time

from .confine import Bounds


class Child:
    """A running job."""

    def __init__(self, job: int, pid: int, ready: int, bounds: Bounds) -> None:
        self.job, self.pid, self.ready, self.bounds = job, pid, ready, bounds
        self.began = time.monotonic()
        self.crowd = 1
        """How many ran at once, at most, while it did."""
        self.ended_by = ""
        """Which limit made us kill it."""


def processor_seconds(pid: int) -> float:
    """Processor time of a whole process, to the nanosecond, by the clock that every process has."""
    try:
        return time.clock_gettime(~pid << 3 | 2) if sys.platform == "linux" else 0.0
    except OSError:
        return 0.0


def kept_waiting(proc: int, pid: int) -> float:
    """Seconds that its first thread waited for a processor; 0 where the kernel does not tell."""
    told = _read(proc, f"{pid}/schedstat").split()
    return int(told[1]) / 1e9 if len(told) > 1 else 0.0


def wants_to_run(proc: int, pid: int) -> bool:
    """Whether its first thread runs, or waits for a processor and nothing else."""
    return _read(proc, f"{pid}/stat").rpartition(b")")[2].split()[:1] == [b"R"]


def threads_of(proc: int, pid: int) -> int:
    """How many threads it has, by one call: what its folder of threads counts beside itself and its parent."""
    try:
        return os.stat(f"{pid}/task", dir_fd=proc).st_nlink - 2 if proc >= 0 else 1
    except OSError:
        return 1


def processors() -> int:
    """How many processors we may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def own_children(proc: int) -> set[int]:
    """The processes whose parent we are, those that became ours included."""
    return {int(pid) for pid in _read(proc, f"self/task/{os.getpid()}/children").split()}


def _read(proc: int, name: str) -> bytes:
    try:
        descriptor = os.open(name, os.O_RDONLY, dir_fd=proc)
    except OSError:
        return b""
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:  # it has ended
        return b""
    finally:
        os.close(descriptor)


def arrange(descriptors: list[int]) -> int:
    """Make them 0, 1, 2, ... in this order; returns how many there are."""
    high = [fcntl.fcntl(each, fcntl.F_DUPFD, 64) for each in descriptors]
    for place, each in enumerate(high):
        os.dup2(each, place, inheritable=True)
        os.close(each)
    return len(descriptors)


def out_of_the_way(descriptor: int) -> int:
    """The same under a number that no child needs for something else."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 128)
    os.close(descriptor)
    return moved


def first_to_die() -> None:
    """When memory runs out, the kernel is to take a program before the trainer."""
    with contextlib.suppress(OSError):
        descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        try:
            os.write(descriptor, b"1000")
        finally:
            os.close(descriptor)


def quoted(words: str) -> str:
    """Words as a text of JSON, without importing that."""
    return '"' + "".join(letter if letter.isalnum() or letter in " .,:+-()[]_/" else " " for letter in words) + '"'
