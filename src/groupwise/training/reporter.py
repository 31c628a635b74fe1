"""What training says while it runs, and to whom: a protocol, so that the trainer knows no terminal.

reporter.started(200, "training")
reporter.step({"reward": 0.31, "reward_std": 0.46, "length": 9.0})     # once a step
reporter.evaluated("held-out, step 50", "0.812 [0.736, 0.870]")
reporter.finished()
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Reporter(Protocol):
    """Hears what happens. A long operation inside another (an evaluation inside training) is started and finished
    inside it; every `started` has its `finished`, also when the operation fails."""

    def started(self, total_steps: int, description: str) -> None:
        """A long operation of so many steps begins."""
        ...

    def step(self, metrics: Mapping[str, float]) -> None:
        """One step of the innermost operation is done. Any metric may be missing; what is there is shown."""
        ...

    def evaluated(self, label: str, result: str) -> None:
        """An evaluation gave a result, in words."""
        ...

    def message(self, text: str) -> None:
        """Something that the user should read. May hold text of a model."""
        ...

    def finished(self) -> None:
        """The innermost operation is over."""
        ...


class QuietReporter:
    """Says nothing: for tests and for callers that read the run folder instead."""

    def started(self, total_steps: int, description: str) -> None:
        """Say nothing."""

    def step(self, metrics: Mapping[str, float]) -> None:
        """Say nothing."""

    def evaluated(self, label: str, result: str) -> None:
        """Say nothing."""

    def message(self, text: str) -> None:
        """Say nothing."""

    def finished(self) -> None:
        """Say nothing."""
