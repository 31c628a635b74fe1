"""Who goes along with a run and may end it: the seam for programs that have a loop of their own in mind.

Evaluations, metrics and everything that is written down happen without a companion, too. One is for what no recipe can
say: callbacks of a program, which look at every step and may want to stop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

from groupwise.rewards import TrainerState
from groupwise.types import Group

Keep: TypeAlias = Callable[[], Path | None]
"""Saves the run as it stands and returns the folder of the checkpoint; None where the disk would not take it."""


class Companion(Protocol):
    """Told of every step, in this order. What it raises ends the run as an error."""

    def may_keep(self, keep: Keep) -> None:
        """Before the first step: how to save the run, after any step that is worth it."""
        ...

    async def begins(self, state: TrainerState) -> None:
        """A step is about to begin."""
        ...

    async def saw(self, groups: Sequence[Group]) -> None:
        """The groups of the step, graded, with their advantages."""
        ...

    async def goes_on(self, state: TrainerState, metrics: Mapping[str, float]) -> bool:
        """The step is done and written down; false: it shall be the last one."""
        ...


class Nobody:
    """The companion of a run that needs none."""

    def may_keep(self, keep: Keep) -> None:
        """Keeps nothing."""

    async def begins(self, state: TrainerState) -> None:
        """Do nothing."""

    async def saw(self, groups: Sequence[Group]) -> None:
        """Do nothing."""

    async def goes_on(self, state: TrainerState, metrics: Mapping[str, float]) -> bool:
        """Always."""
        return True
