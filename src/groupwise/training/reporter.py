"""What training says while it runs, and to whom: a protocol, so that the trainer knows no terminal.

reporter.started(200, "training")                                      # done=50: it goes on after step 50
reporter.step({"reward": 0.31, "reward_std": 0.46, "length": 9.0})     # once a step
reporter.evaluated("held-out, step 50", "0.812 [0.736, 0.870]")
reporter.finished()
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Protocol


class Reporter(Protocol):
    """Hears what happens. A long operation inside another (an evaluation inside training) is started and finished
    inside it; every `started` has its `finished`, also when the operation fails."""

    def started(self, total_steps: int, description: str, done: int = 0) -> None:
        """A long operation of so many steps begins, or goes on where so many are done."""
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

    def started(self, total_steps: int, description: str, done: int = 0) -> None:
        """Say nothing."""

    def step(self, metrics: Mapping[str, float]) -> None:
        """Say nothing."""

    def evaluated(self, label: str, result: str) -> None:
        """Say nothing."""

    def message(self, text: str) -> None:
        """Say nothing."""

    def finished(self) -> None:
        """Say nothing."""


class RecordingReporter:
    """Passes everything on, and writes messages and evaluations down: what no log is open for goes into the next one.

    Example: `with reporter.recorded(run.log): ...`
    """

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._log: Callable[[str], None] | None = None
        self._early: list[str] = []

    @contextmanager
    def recorded(self, log: Callable[[str], None]) -> Generator[None]:
        """Write into this log inside, beginning with what was said before it was there (prompts that were dropped)."""
        while self._early:
            log(self._early.pop(0))
        self._log = log
        try:
            yield
        finally:
            self._log = None

    def started(self, total_steps: int, description: str, done: int = 0) -> None:
        """Pass it on."""
        self._reporter.started(total_steps, description, done)

    def step(self, metrics: Mapping[str, float]) -> None:
        """Pass it on: metrics have a file of their own."""
        self._reporter.step(metrics)

    def evaluated(self, label: str, result: str) -> None:
        """Write it down and pass it on."""
        self._write(f"{label}: {result}")
        self._reporter.evaluated(label, result)

    def message(self, text: str) -> None:
        """Write it down and pass it on."""
        self._write(text)
        self._reporter.message(text)

    def finished(self) -> None:
        """Pass it on."""
        self._reporter.finished()

    def _write(self, text: str) -> None:
        self._early.append(text) if self._log is None else self._log(text)
