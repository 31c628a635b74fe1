"""The trainer's side of the fork server: one thread that starts it, hands it jobs and hears how they ended.

    server = ForkServer(Layers(("seccomp", "landlock"), strict=False))
    [ended] = server.submit([Job("program", payload, Limits())]).result()

All state belongs to that thread; others talk to it through a queue. If the server dies it is started again, and what
was running is tried once more, then given up as lost.
"""

from __future__ import annotations

import atexit
import json
import marshal
import os
import queue
import select
import socket
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from groupwise.rewards.code.jobs import Ended, Files, Job, Task

Layer = Literal["seccomp", "landlock", "namespaces"]

_START_SECONDS = 30.0
_TRIES = 2
_START = "import sys; sys.path.append(sys.argv[1]); from inside import serve; sys.path.pop(); serve.main()"


@dataclass(frozen=True, slots=True)
class Layers:
    """What is around a program beside its process limits, which are always there."""

    names: tuple[Layer, ...] = ()
    strict: bool = False
    """Programs can open no file at all."""


class UnavailableError(OSError):
    """The server cannot be started with these layers here; the message says why."""


class ForkServer:
    """A fork server and its thread. Started when first needed, or by `start`, which says what stands in the way."""

    def __init__(self, layers: Layers, packages: Sequence[str] = (), at_once: int = 64) -> None:
        self.layers, self._packages, self._at_once = layers, tuple(packages), at_once
        self._inbox: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._woken, self._wake = socket.socketpair()
        self._woken.setblocking(False)
        self._waiting: deque[Task] = deque()
        self._running: dict[int, tuple[Task, int]] = {}
        self._tasks = 0
        self._next = 0
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._serve, name="groupwise sandbox", daemon=True)
        self._closed = False

    def start(self) -> None:
        """Start it; `UnavailableError` if a layer does not work here."""
        self._open()
        self._thread.start()
        atexit.register(self.close)

    def submit(self, jobs: Sequence[Job]) -> Future[list[Ended]]:
        """Run these together, as soon as there is room; the future has how each ended, in their order."""
        task = Task(jobs, Future())
        if self._closed:
            task.future.set_result([_lost("the sandbox is closed") for _ in jobs])
            return task.future
        self._inbox.put(task)
        self._wake.send(b".")
        return task.future

    def close(self) -> None:
        """End the server and all that runs in it."""
        if self._closed:
            return
        self._closed = True
        self._inbox.put(None)
        self._wake.send(b".")
        self._thread.join()
        atexit.unregister(self.close)

    @property
    def pid(self) -> int:
        """The server's process, as this machine's process table has it."""
        return self._process.pid if self._process is not None else 0

    def _open(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET if _LINUX else socket.SOCK_STREAM)
        command = [sys.executable, "-S", "-s", "-P", "-X", "utf8", "-c", _START, str(Path(__file__).parent)]
        with theirs, tempfile.TemporaryFile() as errors:
            # Nothing of ours goes along: no variable of the environment, no descriptor but the socket's. The hash seed
            # is fixed, so that a program gets the same score twice.
            self._process = subprocess.Popen(
                command,
                env={"PYTHONHASHSEED": "0"},
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
                cwd="/",
            )
            asked = {
                "layers": self.layers.names,
                "strict": self.layers.strict,
                "packages": self._packages,
                "sites": [folder for folder in sys.path if folder.endswith(("site-packages", "dist-packages"))],
            }
            told: dict[str, Any] = {}
            ours.settimeout(_START_SECONDS)
            with suppress(OSError, ValueError):
                ours.send(marshal.dumps(asked))
                told = json.loads(ours.recv(65536))
            if "ready" not in told:
                errors.seek(0)
                last = errors.read()[-300:].decode(errors="replace").strip().rsplit("\n", 1)[-1]
                ours.close()
                self._process.kill()
                self._process.wait()
                raise UnavailableError(told.get("failed") or last or "it did not answer")
        ours.settimeout(None)
        self._control = ours

    def _serve(self) -> None:
        """The thread's life."""
        while True:
            ours = [self._woken] if self._control is None else [self._woken, self._control]
            ready, _, _ = select.select(ours, [], [])
            if self._woken in ready and not self._take_inbox():
                self._end()
                return
            if self._control in ready:
                self._hear()
            while self._waiting and self._tasks < self._at_once:
                self._dispatch(self._waiting.popleft())

    def _take_inbox(self) -> bool:
        with suppress(BlockingIOError):
            self._woken.recv(4096)
        while True:
            try:
                task = self._inbox.get_nowait()
            except queue.Empty:
                return True
            if task is None:
                return False
            self._waiting.append(task)

    def _dispatch(self, task: Task) -> None:
        task.tries += 1
        if task.tries == 1 and not task.future.set_running_or_notify_cancel():
            return
        lines: tuple[socket.socket, ...] = ()
        try:
            if self._control is None:
                self._open()
            assert self._control is not None
            lines = socket.socketpair() if len(task.jobs) == 2 else ()
            task.files = [Files(job) for job in task.jobs]
            given = [files.descriptors(line) for files, line in zip(task.files, lines or (None,), strict=True)]
            for place, job in enumerate(task.jobs):
                self._next += 1
                limits = job.limits
                bounds = (limits.cpu_seconds, limits.wall_seconds, limits.memory_mb, limits.output_kb)
                asked = {"job": self._next, "kind": job.kind, "bounds": bounds}
                socket.send_fds(self._control, [marshal.dumps(asked)], given[place])
                self._running[self._next] = (task, place)
        except ConnectionError:
            self._running[self._next] = (task, 0)
            self._start_over()
        except OSError as error:
            self._give_up(task, f"could not hand a job to the sandbox: {error}")
        else:
            self._tasks += 1
        finally:
            for line in lines:
                line.close()

    def _hear(self) -> None:
        """One report, or the end of the server."""
        assert self._control is not None
        try:
            message = self._control.recv(65536)
        except OSError:
            message = b""
        if not message:
            self._start_over()
            return
        report = json.loads(message)
        task, place = self._running.pop(report["job"], (None, 0))
        if task is None:  # of a task that was given up
            return
        task.ended[place] = task.files[place].ended(report)
        if len(task.ended) == len(task.jobs):
            self._tasks -= 1
            task.future.set_result([task.ended[place] for place in range(len(task.jobs))])

    def _start_over(self) -> None:
        """The server is gone, and with it all that was running."""
        self._stop_process()
        interrupted = {id(task): task for task, _ in self._running.values()}
        self._running.clear()
        self._tasks = 0
        for task in interrupted.values():
            if task.tries < _TRIES:
                self._close_files(task)
                self._waiting.appendleft(task)
            else:
                self._give_up(task, "the sandbox's server died twice under it")

    def _give_up(self, task: Task, why: str) -> None:
        self._running = {job: entry for job, entry in self._running.items() if entry[0] is not task}
        self._close_files(task)
        if task.tries or task.future.set_running_or_notify_cancel():
            task.future.set_result([_lost(why) for _ in task.jobs])

    def _close_files(self, task: Task) -> None:
        for files in task.files:
            files.close()
        task.ended.clear()

    def _end(self) -> None:
        self._stop_process()
        for task in {
            id(task): task for task in (*self._waiting, *(task for task, _ in self._running.values()))
        }.values():
            self._give_up(task, "the sandbox was closed")
        self._woken.close()
        self._wake.close()

    def _stop_process(self) -> None:
        """The server ends when its socket does; if it is past that, without being asked."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, 9)
                self._process.wait()


_LINUX = sys.platform == "linux"


def _lost(why: str) -> Ended:
    return Ended({"end": "lost", "why": why})
