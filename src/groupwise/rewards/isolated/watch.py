"""Waiting for a reward function: how long, for which row, and what is said meanwhile."""

from __future__ import annotations

import logging
import time

from groupwise.rewards.contract import Answers, RewardFunction
from groupwise.rewards.failure import excerpt

LOG = logging.getLogger("groupwise.rewards")

PATIENCE = 30.0
"""Seconds of silence."""

STRIDE = 2.0
"""What a look at the clock counts at most. A process that was stopped, suspended or starved, and its deadlines with it,
must not find that everything has been late meanwhile."""


class Watch:
    """Where a call is. A function hangs when it neither returns nor goes on to another row for `deadline` seconds."""

    def __init__(self, reward: RewardFunction, answers: Answers, where: str) -> None:
        self._reward, self._answers, self._where = reward, answers, where
        self._began = self._looked = self._said = time.monotonic()
        self._idle = 0.0
        self.row: int | None = None

    def touched(self, row: int) -> None:
        """It looks at this row now."""
        if row != self.row:
            self.row, self._idle = row, 0.0

    @property
    def name(self) -> str:
        """Of the function."""
        return self._reward.name

    @property
    def deadline(self) -> float:
        """Seconds for one row."""
        return self._reward.deadline

    @property
    def left(self) -> float:
        """Seconds until it counts as hanging. Has to be looked at again and again."""
        now = time.monotonic()
        self._idle += min(now - self._looked, STRIDE)
        self._looked = now
        return self._reward.deadline - self._idle

    def speak(self) -> None:
        """Say what is waited for, every half minute."""
        now = time.monotonic()
        if now - self._said >= PATIENCE:
            self._said = now
            LOG.warning(
                "waiting for reward function %r for %.0f s, %s, %s; given up in %.0f s",
                self._reward.name,
                now - self._began,
                self._where,
                self.place,
                max(self.left, 0.0),
            )

    @property
    def place(self) -> str:
        """The row that it looked at last."""
        if self.row is None:
            return f"at none of its {len(self._answers)} rows yet"
        return f"at row {self.row} of {len(self._answers)} ({excerpt(self._answers, self.row)})"

    @property
    def words(self) -> str:
        """What is said of a call that is given up."""
        return (
            f"reward function {self._reward.name!r} neither returned nor went on to another row within its deadline of "
            f"{self._reward.deadline:g} s, {self.place}"
        )
