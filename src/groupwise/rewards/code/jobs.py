"""What the trainer's side knows of a job: what goes in, what came out, and the files in memory between them.

Input and output are files in memory, not pipes. Nobody has to feed or drain them, so a program never waits for a busy
trainer, and what it may write is the kernel's limit on a file.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal

from groupwise.rewards.code.outcome import Limits

Kind = Literal["program", "callee", "judge"]

_STDERR_KEPT = 2000


@dataclass(frozen=True, slots=True)
class Job:
    """One process to start: what it is, what it reads, what it may use."""

    kind: Kind
    payload: bytes
    limits: Limits
    stdin: bytes = b""


@dataclass(frozen=True, slots=True)
class Ended:
    """One process that has ended: the server's report, and what it wrote."""

    report: dict[str, Any]
    stdout: bytes = b""
    stderr: bytes = b""
    verdict: bytes = b""


@dataclass(slots=True)
class Files:
    """The files of one running job. The process has its own descriptors of them."""

    job: Job
    stdout: int = -1
    stderr: int = -1
    verdict: int = -1
    opened: list[int] = field(default_factory=list[int])

    def descriptors(self, line: socket.socket | None) -> list[int]:
        """Open them, in the order in which the process finds them."""
        self.stdout, self.stderr = self._own(scratch()), self._own(scratch())
        given = [self._own(scratch(self.job.stdin)), self.stdout, self.stderr, self._own(scratch(self.job.payload))]
        if line is not None:
            given.append(line.fileno())
        if self.job.kind == "judge":
            self.verdict = self._own(scratch())
            given.append(self.verdict)
        return given

    def _own(self, descriptor: int) -> int:
        self.opened.append(descriptor)
        return descriptor

    def ended(self, report: dict[str, Any]) -> Ended:
        """Read what was written, and close them."""
        most = self.job.limits.output_kb << 10
        stderr = read(self.stderr, most)[-_STDERR_KEPT:]
        outcome = Ended(report, read(self.stdout, most), stderr, read(self.verdict, most))
        self.close()
        return outcome

    def close(self) -> None:
        """Close them."""
        for descriptor in self.opened:
            os.close(descriptor)
        self.opened.clear()


@dataclass(slots=True)
class Task:
    """Processes that start together and end together: a program, or a callee and its judge."""

    jobs: Sequence[Job]
    future: Future[list[Ended]]
    files: list[Files] = field(default_factory=list[Files])
    ended: dict[int, Ended] = field(default_factory=dict[int, Ended])
    tries: int = 0


def scratch(content: bytes | None = None) -> int:
    """A file that has no name. With content it can be read and not changed; without, it is there to be written."""
    if sys.platform != "linux":
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    else:
        descriptor = os.memfd_create("groupwise", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    if content is not None:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
        if sys.platform == "linux":
            seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def read(descriptor: int, most: int) -> bytes:
    """What a file holds, from its beginning."""
    return os.pread(descriptor, most, 0) if descriptor >= 0 else b""
