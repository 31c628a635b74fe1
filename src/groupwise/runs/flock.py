"""The system's own lock on a file: free as soon as the process that holds it is gone, however it went, and seen by all
processes of the machine, also by those in other containers.

    held = Held(path)        held.by_the_system: False where there is no such lock (Windows, some network disks)
    is_held(path)            by another, or by this process
    held.let_go()
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeAlias
from weakref import WeakSet

from groupwise.runs.disk import FLAGS

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be renamed either
    fcntl = None

Outcome: TypeAlias = Literal["held", "refused", "unknown here"]

_TRIES, _PAUSE = 20, 0.02
"""Whoever only looks holds it for a moment, too."""

_all: WeakSet[Held] = WeakSet()


class Held:
    """The lock on a file, as far as it was free."""

    def __init__(self, path: Path, *, patiently: bool = False) -> None:
        self._descriptor: int | None = os.open(path, os.O_RDWR)
        self._outcome: Outcome = "unknown here"
        for attempt in range(_TRIES if patiently else 1):
            if attempt:
                time.sleep(_PAUSE)
            self._outcome = _locked(self._descriptor, shared=False)
            if self._outcome != "refused":
                break
        if self._outcome != "held":
            self.let_go()
        _all.add(self)

    @property
    def by_the_system(self) -> bool:
        """Whether it is held; not where the system knows of no such lock."""
        return self._outcome == "held"

    @property
    def refused(self) -> bool:
        """Whether another holds it."""
        return self._outcome == "refused"

    def is_still(self, path: Path) -> bool:
        """Whether the path names the file that was locked; so too where there are no such locks."""
        if self._descriptor is None:
            return True
        with suppress(OSError):
            there, locked = path.stat(), os.fstat(self._descriptor)
            return (there.st_dev, there.st_ino) == (locked.st_dev, locked.st_ino)
        return False

    def let_go(self) -> None:
        """Give it free. A child that was forked lets go of its copy only, which frees nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether somebody holds the lock on this file now."""
    try:
        descriptor = os.open(path, os.O_RDONLY | FLAGS)
    except OSError:
        return False
    try:
        return _locked(descriptor, shared=True) == "refused"
    finally:
        os.close(descriptor)


def _locked(descriptor: int, *, shared: bool) -> Outcome:
    if fcntl is None:
        return "unknown here"
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return "refused"
    except OSError:  # a disk that knows no locks
        return "unknown here"
    return "held"


def _let_go_in_child() -> None:
    for held in list(_all):
        held.let_go()


if os.name != "nt":
    os.register_at_fork(after_in_child=_let_go_in_child)
