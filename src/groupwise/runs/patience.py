"""A full disk stops what is written down, not the training: rows wait in memory until there is room, and come in order.

patience = Patience()
patience.begin(reporter.message)       from now on; before, a full disk is an error as everywhere
patience.append(path, {"step": 7})     written now, or with a later one
patience.catch_up()                    RunError if there is no room yet: so no checkpoint is ahead of its rows
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from groupwise.errors import RunError
from groupwise.runs.files import append_row

_FULL = (errno.ENOSPC, errno.EDQUOT)


class Patience:
    """Of one run."""

    def __init__(self) -> None:
        self._say: Callable[[str], None] | None = None
        self._waiting: list[tuple[Path, dict[str, Any]]] = []

    def begin(self, say: Callable[[str], None]) -> None:
        """Bear a full disk from now on, and say so."""
        self._say = say

    def append(self, path: Path, row: Mapping[str, Any]) -> None:
        """Append a row to a file, behind all that wait."""
        self._waiting.append((path, dict(row)))
        try:
            self.catch_up()
        except RunError as error:
            if not self.bears(error, f"{len(self._waiting)} rows wait in memory"):
                raise

    def catch_up(self) -> None:
        """Write what waits."""
        while self._waiting:
            append_row(*self._waiting[0])
            del self._waiting[0]

    def bears(self, error: Exception, meanwhile: str) -> bool:
        """Whether it is a full disk, which the training outlasts; then it is said what becomes of the record."""
        if self._say is None or not is_full(error):
            return False
        self._say(f"ALARM: training goes on without its records, {meanwhile}: {error}")
        return True

    def is_silent_about(self, error: OSError) -> bool:
        """The same for the log, which cannot say that it is full."""
        return self._say is not None and is_full(error)

    def forget_after(self, step: int) -> None:
        """The run goes on from this step."""
        self._waiting = [(path, row) for path, row in self._waiting if int(row.get("step", 0)) <= step]


def is_full(error: Exception) -> bool:
    """Whether the disk, or what is allowed of it, is used up."""
    return any(isinstance(each, OSError) and each.errno in _FULL for each in (error, error.__cause__))
