"""What training looks like in a terminal: one live line, or a plain line now and then where nobody can see it move.

    with TerminalReporter(terminal()) as reporter:
        trainer.train(reporter)

On a terminal the line (`status_line.py`) is rewritten and results appear above it. In a file, a pipe, a notebook or a
dumb terminal it is printed after the first step, every 30 seconds, and at the end.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, cast

from rich.console import Console
from rich.live import Live
from rich.text import Text

from groupwise.cli.status_line import Operation, status_line
from groupwise.runs.text import safe_text

_SPINNER, _ASCII_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "|/-\\"
_FRAMES_A_SECOND = 4


def terminal() -> Console:
    """A console on standard output that no text can break: no markup, and what the encoding lacks is spelled out."""
    stream: object = sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        cast("io.TextIOWrapper[Any]", stream).reconfigure(errors="backslashreplace")
    return Console(markup=False, emoji=False, highlight=False)


class TerminalReporter:
    """A `Reporter` (training/reporter.py) for people. Use it as a context manager, so that an error frees the terminal.

    `live` forces the moving line on or off; `clock` is for tests.
    """

    def __init__(
        self,
        console: Console | None = None,
        *,
        every_seconds: float = 30,
        live: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console or terminal()
        self._every = every_seconds
        # A file may claim to be a terminal (FORCE_COLOR does that); only a real one can rewrite a line.
        self._moves = self._console.is_interactive and self._console.file.isatty() if live is None else live
        self._clock = clock
        self._operations: list[Operation] = []
        self._live: Live | None = None
        self._next_line = 0.0

    def started(self, total_steps: int, description: str, done: int = 0) -> None:
        """Show a long operation, in place of the one around it."""
        if not self._operations:
            self._next_line = self._clock()
        self._operations.append(Operation(total_steps, _one_line(description), self._clock(), done))
        if self._moves and self._live is None:
            self._live = Live(
                console=self._console,
                get_renderable=self._status,
                refresh_per_second=_FRAMES_A_SECOND,
                transient=True,
            )
            self._live.start()

    def step(self, metrics: Mapping[str, float]) -> None:
        """Take in one step of the innermost operation."""
        operation, now = self._operations[-1], self._clock()
        operation.add(metrics, now)
        if not self._moves and now >= self._next_line and operation.done < operation.total:
            self._next_line = now + self._every
            self._print(self._line(operation))

    def evaluated(self, label: str, result: str) -> None:
        """Print a result, to stay."""
        self._print(Text.assemble("eval ", (_one_line(label), "bold"), "  ", (_one_line(result), "cyan")))

    def message(self, text: str) -> None:
        """Print a text, to stay, whatever a model wrote into it."""
        self._print(Text(safe_text(text)))

    def finished(self) -> None:
        """End the innermost operation; of the outermost, print how it ended."""
        operation = self._operations.pop()
        if not self._operations:
            self._stop()
            self._print(self._line(operation, over=True))

    def close(self) -> None:
        """Give the terminal free, whatever was still going on."""
        self._operations.clear()
        self._stop()

    def __enter__(self) -> TerminalReporter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _stop(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def _print(self, text: Text) -> None:
        # Away from a terminal a line stays one line, however long: that is what grep expects.
        self._console.print(text, soft_wrap=not self._moves)

    def _line(self, operation: Operation, over: bool = False) -> Text:
        width = self._console.width if self._moves else None
        ascii_only = self._console.options.ascii_only
        return status_line(operation, self._clock(), width=width, ascii_only=ascii_only, over=over)

    def _status(self) -> Text:
        """The live line. Called from the thread that redraws it, so it takes the last operation only once."""
        innermost = self._operations[-1:]
        if not innermost:
            return Text()
        ascii_only, now = self._console.options.ascii_only, self._clock()
        frames = _ASCII_SPINNER if ascii_only else _SPINNER
        spinner = frames[int(now * _FRAMES_A_SECOND) % len(frames)]
        line = status_line(innermost[0], now, width=self._console.width - 2, ascii_only=ascii_only)
        return Text.assemble((spinner, "green"), " ", line, no_wrap=True, overflow="ellipsis")


def _one_line(text: str) -> str:
    return " ".join(safe_text(text).split())
