"""A process that does nothing but fork others: it has imported what they need, so each is there in milliseconds.

It runs no text and has no threads, so it never hangs, and nobody else waits for its children: the id of a dead one is
not given to another process before its end was told.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import resource
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Any

from groupwise.rewards.isolated import limits
from groupwise.rewards.isolated.wire import Inbox, decoded, encoded, send

_LARGEST = 1 << 16


def serve_forks(connection: socket.socket, preload: Sequence[str], lifeline: int) -> None:
    """Fork and reap as asked, until the other side is gone; then end what is left."""
    for module in preload:
        importlib.import_module(module)
    children: set[int] = set()
    with contextlib.suppress(ConnectionError):
        connection.send(encoded({"ready": True}))
        while True:
            data, descriptors, _, _ = socket.recv_fds(connection, _LARGEST, 1)
            if not data:
                break
            connection.send(encoded(_done(decoded(data), descriptors, children, connection, lifeline)))
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def _done(
    request: dict[str, Any], descriptors: Sequence[int], children: set[int], connection: socket.socket, lifeline: int
) -> dict[str, Any]:
    if "reap" in request:
        child = request["reap"]
        if child not in children:  # of one that did this before and was killed
            return {"status": -signal.SIGKILL, "cpu": 0.0}
        os.kill(child, signal.SIGKILL)
        _, status, used = os.wait4(child, 0)
        children.discard(child)
        return {"status": os.waitstatus_to_exitcode(status), "cpu": _seconds(used)}
    child = os.fork()
    if child:
        os.close(descriptors[0])
        children.add(child)
        return {"child": child}
    try:
        connection.close()
        limits.end_with(lifeline)
        _serve_items(socket.socket(fileno=descriptors[0]), request["job"], request["megabytes"])
    finally:
        os._exit(0)


def _seconds(used: resource.struct_rusage) -> float:
    return used.ru_utime + used.ru_stime


def _serve_items(connection: socket.socket, job: str, megabytes: int) -> None:
    """One text at a time through `job`, `package.module:name`: from plain data to plain data, under limits."""
    module, _, name = job.partition(":")
    work: Callable[[Any], Any] = vars(importlib.import_module(module))[name]
    limits.set_memory(megabytes)
    inbox = Inbox(connection)
    while True:
        request = inbox.receive()
        limits.allow_seconds(request["seconds"])
        try:
            answer = {"value": work(request["item"])}
        except (MemoryError, RecursionError) as error:
            answer = {"limit": f"ran out of {'memory' if isinstance(error, MemoryError) else 'stack'}"}
        except Exception as error:
            answer = {"failed": f"{type(error).__name__}: {ascii(str(error))[1:-1][:300]}"}
        limits.allow_seconds(0)
        send(connection, answer)
