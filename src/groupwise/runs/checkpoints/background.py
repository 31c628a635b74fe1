"""Work beside the training, one piece at a time, whose failure is not lost.

beside = Background()
beside.start(lambda: store.write(50, contents))     # returns at once
beside.outcome()                                    # None, or the error of what has ended since the last call
beside.finish()                                     # waits
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Background:
    """A thread that does one thing at a time."""

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._work: Future[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether something is being done."""
        return self._work is not None and not self._work.done()

    def start(self, work: Callable[[], None]) -> None:
        """Begin; the piece before is over, and its outcome has been asked for."""
        assert self._work is None, "what became of the piece before?"
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "groupwise-checkpoint")
        self._work = self._thread.submit(work)

    def outcome(self) -> Exception | None:
        """The error of the piece that has ended since the last call; does not wait."""
        return None if self.busy else self.finish_piece()

    def finish_piece(self) -> Exception | None:
        """Wait for what is being done; returns its error."""
        work, self._work = self._work, None
        error = None if work is None else work.exception()
        if error is not None and not isinstance(error, Exception):
            raise error
        return error

    def finish(self) -> Exception | None:
        """The same, and end the thread."""
        error = self.finish_piece()
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None
        return error
