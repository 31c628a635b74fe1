"""The three things that a child can be, once it is confined. Its descriptors are 0, 1, 2 and, from 3 on, its own.

    program   3: the text. Runs it as a script would be run.
    callee    3: the text, 4: the line to the judge. Defines what the text defines and answers calls.
    judge     3: the tests, 4: the line to the callee, 5: where the verdict goes.

Program and callee run what a model wrote; the judge runs what came with the data set, and is another process.
"""

from __future__ import annotations

import atexit
import io
import marshal
import os
import random
import sys
import threading
from types import CodeType, ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:  # a cold start without typing is three milliseconds shorter
    from typing import Any

PAYLOAD, LINE, VERDICT = 3, 4, 5


def payload() -> Any:
    """The job, read from where the parent put it."""
    with open(PAYLOAD, "rb") as file:
        return marshal.loads(file.read())


def fresh_streams() -> None:
    """Standard streams of this process, not the server's; and the random numbers that every run of it gets."""
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(  # noqa: SIM115
        2, "w", encoding="utf-8", errors="backslashreplace", closefd=False
    )
    random.seed(0)


def run_here(code: CodeType, namespace: dict[str, Any]) -> None:
    """The one place where a text becomes code: behind all walls, in a process that ends with it."""
    exec(code, namespace)  # noqa: S102


def module(name: str) -> ModuleType:
    """An empty module of that name, in the place where imports and dataclasses look for it."""
    made = ModuleType(name)
    sys.modules[name] = made
    return made


def run_program() -> int:
    """Run the text as a script; its exit status."""
    text = payload()["text"]
    fresh_streams()
    sys.argv = ["program.py"]
    status = 0
    try:
        run_here(compile(text, "program.py", "exec"), module("__main__").__dict__)
    except SystemExit as asked:
        status = exit_status(asked.code)
    except BaseException:
        print_exception()
        status = 1
    return ended(status)


def print_exception() -> None:
    """Its traceback on standard error."""
    import traceback

    traceback.print_exc()


def exit_status(code: object) -> int:
    """What `sys.exit(code)` means to whoever waits for the process."""
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    sys.stderr.write(f"{code}\n")
    return 1


def ended(status: int) -> int:
    """What an interpreter does at its end, but for taking itself apart: threads, exit handlers, buffers."""
    try:
        for thread in threading.enumerate():
            if thread is not threading.main_thread() and not thread.daemon:
                thread.join()
        atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]
    except BaseException:
        status = status or 1
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError, io.UnsupportedOperation):
            status = status or 1
    return status


def read_line(line: int, pending: bytearray, limit: int) -> bytes:
    """The next line from a socket; b"" at its end, ValueError for a line that is longer than allowed."""
    while (cut := pending.find(b"\n")) < 0:
        if len(pending) > limit:
            raise ValueError("a message that is too long")
        more = os.read(line, 1 << 16)
        if not more:
            return b""
        pending += more
    found = bytes(pending[: cut + 1])
    del pending[: cut + 1]
    return found
