"""Processes that are killed, disks that fail: what the tests of reliability and `bench/reliability.py` share.

killed(work, at=7)               a child process does the work and is killed before its 7th operation on the disk
operations_of(work)              the operations, without a kill
with failing(errno.ENOSPC, at=3, operations=("write",)): ...
"""

from __future__ import annotations

import errno
import os
import signal
from contextlib import contextmanager

from groupwise.runs import disk

WRITES = ("make folder", "create", "write", "sync", "rename")
FAULTS = {
    "a full disk": errno.ENOSPC,
    "a quota that is used up": errno.EDQUOT,
    "a disk that is broken": errno.EIO,
    "a read-only disk": errno.EROFS,
}


def child(work) -> int:
    """Do it in a child process; its exit status as `os.waitstatus_to_exitcode` gives it."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = work() or 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed(work, at: int) -> bool:
    """Do it in a child process that is killed before its operation number `at`, counted from 1; False if it came to
    its end before."""
    seen = []

    def watch(operation, path):
        seen.append(operation)
        if len(seen) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    def doing():
        with disk.watched(watch):
            work()

    code = child(doing)
    assert code in (0, -signal.SIGKILL), code
    return code != 0


def operations_of(work) -> list[tuple[str, str]]:
    """What it does to the disk: operation and name."""
    seen = []
    with disk.watched(lambda operation, path: seen.append((operation, path.name))):
        work()
    return seen


@contextmanager
def failing(error: int, at: int, operations=WRITES, forever: bool = True):
    """Inside, the operation number `at` of these, and all that follow (unless it is for once), raise this error."""
    seen = []

    def watch(operation, path):
        if operation in operations:
            seen.append(operation)
            if len(seen) == at or (forever and len(seen) > at):
                raise OSError(error, os.strerror(error), str(path))

    with disk.watched(watch):
        yield seen
