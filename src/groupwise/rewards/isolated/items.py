"""Single texts through a verifier of ours, in several processes with limits of time and memory each.

    verifier = Items("groupwise.rewards.maths.symbolic:same", preload=("math_verify",), seconds=2.0)
    verifier.map([["1/2", "0.5"], ["x", "y"]])       # [Done(True), Done(False)]

One text at a time in each process, so nothing waits behind a bad one but its own process. What uses up its CPU time is
stopped by the kernel; what waits is killed after thrice that time on the wall, and what computes on a machine that has
no time for it later. A process that is gone is back within milliseconds, for it is forked from one that has imported
everything: as many bad texts as there may be, throughput after them is what it was before. Those that have done many
texts are replaced, so that nothing can pile up in them.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from groupwise.rewards.isolated.process import Process, cpu_of
from groupwise.rewards.isolated.wire import Inbox, decoded, encoded, send
from groupwise.rewards.outcomes import Unknown, Wrong

_STARTING = 120.0
"""Seconds for the imports of the process that forks the others."""

_REPLACED_AFTER = 500
_WALL = 3.0
_PATIENT = 10.0
_TICK = 0.2

_CRASHES = {-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGFPE, -signal.SIGILL, -signal.SIGTRAP}
"""Ends that a text brings about and nobody else."""


@dataclass(frozen=True, slots=True)
class Done:
    """What the verifier said of one text."""

    value: Any


Result: TypeAlias = Done | Wrong | Unknown


@dataclass(slots=True, eq=False)
class _Child:
    process: int
    connection: socket.socket
    inbox: Inbox
    item: int = -1
    waited: float = 0.0
    used_before: float = 0.0
    done: int = 0


@dataclass(slots=True)
class _Batch:
    items: Sequence[Any]
    results: dict[int, Result] = field(default_factory=dict[int, Result])
    waiting: deque[int] = field(default_factory=deque[int])
    failed_once: set[int] = field(default_factory=set[int])


class Items:
    """Processes that run `job`, `package.module:name`, a function from plain data to plain data."""

    def __init__(
        self,
        job: str,
        *,
        preload: Sequence[str] = (),
        seconds: float = 2.0,
        megabytes: int = 1024,
        processes: int | None = None,
    ) -> None:
        self.job = job
        self.seconds = seconds
        self._preload = (*preload, job.partition(":")[0])
        self._megabytes = megabytes
        self._count = processes or min(os.cpu_count() or 1, 8)
        self._server: Process | None = None
        self._children: list[_Child] = []
        self._lock = threading.Lock()

    def map(self, items: Sequence[Any], heard: Callable[[int], object] = lambda index: None) -> list[Result]:
        """What the job says of each item, in order. Never raises over an item, and never takes for ever.

        `heard` is called for each item that is done: many slow ones together take longer than a deadline, and whoever
        watches it has to be told that this goes on.
        """
        with self._lock:
            batch = _Batch(items, waiting=deque(range(len(items))))
            try:
                self._work(batch, heard)
            finally:
                for child in [child for child in self._children if child.item >= 0]:  # interrupted
                    self._drop(child)
            return [batch.results[index] for index in range(len(items))]

    def close(self) -> None:
        """End all processes; the next call starts them again."""
        with self._lock:
            if self._server is not None:
                self._server.end()
            self._server, self._children = None, []

    def _work(self, batch: _Batch, heard: Callable[[int], object]) -> None:
        told = 0
        with selectors.DefaultSelector() as selector:
            for child in self._children:
                selector.register(child.connection, selectors.EVENT_READ, child)
            while len(batch.results) < len(batch.items):
                self._hand_out(batch, selector)
                looked = time.monotonic()
                ready = [key.data for key, _ in selector.select(_TICK)]
                # No more than two ticks, however long it was: this process may have been stopped, and they with it.
                passed = min(time.monotonic() - looked, 2 * _TICK)
                for child in self._children:
                    child.waited += passed
                for child in ready:
                    self._hear(child, batch, selector)
                self._end_late(batch, selector)
                for index in list(batch.results)[told:]:
                    heard(index)
                told = len(batch.results)

    def _hand_out(self, batch: _Batch, selector: selectors.BaseSelector) -> None:
        idle = [child for child in self._children if child.item < 0]
        while batch.waiting:
            if not idle:
                if len(self._children) >= self._count:
                    return
                child = self._forked()
                self._children.append(child)
                selector.register(child.connection, selectors.EVENT_READ, child)
                idle.append(child)
            child, index = idle.pop(), batch.waiting.popleft()
            child.item, child.waited, child.used_before = index, 0.0, cpu_of(child.process) or 0.0
            with contextlib.suppress(ConnectionError):  # its end is heard of when its answer is waited for
                send(child.connection, {"item": batch.items[index], "seconds": self.seconds})

    def _hear(self, child: _Child, batch: _Batch, selector: selectors.BaseSelector) -> None:
        try:
            answers = list(child.inbox.waiting())
        except EOFError:
            index = child.item
            selector.unregister(child.connection)
            status, _ = self._drop(child)
            if index >= 0:
                self._judge(index, status, batch)
            return
        for answer in answers:
            index, child.item, child.done = child.item, -1, child.done + 1
            if "value" in answer:
                batch.results[index] = Done(answer["value"])
            elif "limit" in answer:
                batch.results[index] = Wrong(answer["limit"])
            else:
                batch.results[index] = Unknown(answer["failed"])
        if child.done >= _REPLACED_AFTER:
            selector.unregister(child.connection)
            self._drop(child)

    def _judge(self, index: int, status: int, batch: _Batch) -> None:
        """A process died over a text. That the text used up its time is its own fault; so is a crash that repeats."""
        if status in (-signal.SIGPROF, -signal.SIGXCPU):
            batch.results[index] = Wrong(f"took more than {self.seconds:g} s of CPU time")
            return
        how = signal.Signals(-status).name if status < 0 else f"exit code {status}"
        if index not in batch.failed_once:
            batch.failed_once.add(index)
            batch.waiting.append(index)
        elif status in _CRASHES:
            batch.results[index] = Wrong(f"crashes the verifier ({how})")
        else:
            batch.results[index] = Unknown(f"the verifier's process died of {how}")

    def _end_late(self, batch: _Batch, selector: selectors.BaseSelector) -> None:
        """Kill what is late by the clock: it waits for something, or the machine has no time for it."""
        for child in list(self._children):
            late = child.item >= 0 and child.waited >= self.seconds * _WALL
            if not late or self._starved(child):
                continue
            index = child.item
            selector.unregister(child.connection)
            self._drop(child)
            if index not in batch.failed_once:
                batch.failed_once.add(index)
                batch.waiting.append(index)
            else:
                batch.results[index] = Unknown(
                    f"no answer within {self.seconds * _WALL:g} s, nor {self.seconds:g} s of CPU time used"
                )

    def _starved(self, child: _Child) -> bool:
        """Whether it computes, on a machine that has so little time for it that its own limit is not reached yet."""
        used = (cpu_of(child.process) or 0.0) - child.used_before
        return used > self.seconds / 100 and child.waited < self.seconds * _WALL * _PATIENT

    def _forked(self) -> _Child:
        here, there = socket.socketpair()
        try:
            reply = self._asked({"job": self.job, "megabytes": self._megabytes}, there)
        except EOFError:  # somebody killed the process that forks, and its children end with it
            self._server = None
            reply = self._asked({"job": self.job, "megabytes": self._megabytes}, there)
        finally:
            there.close()
        return _Child(reply["child"], here, Inbox(here))

    def _drop(self, child: _Child) -> tuple[int, float]:
        """End a child if it lives; its exit code and CPU time."""
        self._children.remove(child)
        child.connection.close()
        try:
            reply = self._asked({"reap": child.process})
        except EOFError:
            self._server = None  # its children end with it
            return -signal.SIGKILL, 0.0
        return reply["status"], reply["cpu"]

    def _asked(self, request: dict[str, Any], end: socket.socket | None = None) -> dict[str, Any]:
        """Ask the process that forks. It does nothing else, so it answers at once."""
        if self._server is None:
            self._server = Process("forks", self._preload)
            self._reply(self._server, _STARTING)
        descriptors = [] if end is None else [end.fileno()]
        try:
            socket.send_fds(self._server.connection, [encoded(request)], descriptors)
        except OSError as error:
            raise EOFError from error
        return self._reply(self._server, _STARTING)

    def _reply(self, server: Process, seconds: float) -> dict[str, Any]:
        server.connection.settimeout(seconds)
        try:
            data = server.connection.recv(1 << 16)
        except (TimeoutError, ConnectionError) as error:
            server.end()
            raise EOFError from error
        if not data:
            server.end()
            raise EOFError
        return decoded(data)
