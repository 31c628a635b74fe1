"""Who is writing a run folder: a small file with the process and its host, there as long as the run runs.

    take(folder / "lock")      RunError if it is taken, saying by whom and whether that process still lives
    owner(folder / "lock")     Owner(pid=4242, host="node3", ...) or None
    release(folder / "lock")

A killed process leaves its lock behind. On the same host that shows (no such process, or another one with its number),
and the next one takes it over; from another host it cannot be known, so nobody takes a lock away: the message says when
it is safe to delete it.
"""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from groupwise.errors import RunError
from groupwise.runs import disk
from groupwise.runs.files import cannot_write, replacing
from groupwise.runs.identity import now


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that holds a lock. `process_start` tells it from a later process with the same number."""

    pid: int
    host: str
    since: str
    process_start: str | None

    def alive(self) -> bool | None:
        """Whether it still runs; None if that cannot be told from here."""
        if self.host != socket.gethostname() or os.name == "nt":
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return self.process_start == _process_start(self.pid)


def take(path: Path) -> None:
    """Create the lock for this process, or say who has it. That of a process that is gone is taken over."""
    mine = Owner(os.getpid(), socket.gethostname(), now(), _process_start(os.getpid()))
    content = json.dumps(asdict(mine)).encode()
    try:
        disk.create_whole(path, content)
    except FileExistsError:
        if not _took_over(path, content):
            raise RunError(explain(path)) from None
    except OSError as error:
        with suppress(OSError):  # an empty lock, of a full disk, would keep the next run out
            disk.remove(path)
        raise RunError(cannot_write(path, error)) from error


def is_left_behind(path: Path) -> bool:
    """Whether a process of this host that is gone holds the lock."""
    holder = owner(path)
    return holder is not None and holder.alive() is False


def _took_over(path: Path, content: bytes) -> bool:
    """Replace the lock of a process that is gone. Of several that try, the system lets one go first, and the others
    then find its lock."""
    if not is_left_behind(path):
        return False
    try:
        with path.open("rb") as file:
            _flock(file.fileno())
            same = os.fstat(file.fileno()).st_ino == path.stat().st_ino
            if not (same and is_left_behind(path)):
                return False
            with replacing(path) as temporary:
                disk.write_file(temporary, [content])
    except (FileNotFoundError, BlockingIOError):
        return False
    return True


def _flock(descriptor: int) -> None:
    """The system's own lock on an open file, for a moment; where there is none (Windows), nothing."""
    try:
        import fcntl
    except ImportError:
        return
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def owner(path: Path) -> Owner | None:
    """Who holds the lock; None if there is none, or if its content is not one of ours."""
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    fields = cast("dict[str, Any]", content)
    pid, start = fields.get("pid"), fields.get("process_start")
    if not isinstance(pid, int) or pid <= 0:
        return None
    return Owner(pid, str(fields.get("host")), str(fields.get("since")), start if isinstance(start, str) else None)


def release(path: Path) -> None:
    """Remove the lock if this process holds it."""
    holder = owner(path)
    if holder is not None and holder.pid == os.getpid() and holder.host == socket.gethostname():
        disk.remove(path)


def explain(path: Path) -> str:
    """What the lock says, in sentences: who, since when, whether it still runs, and what to do."""
    holder = owner(path)
    if holder is None:
        return f"{path} exists but names no process; if no run is writing this folder, delete that file"
    who = f"process {holder.pid} on {holder.host} (since {holder.since})"
    alive = holder.alive()
    if alive is None:
        return f"{path.parent} is in use by {who}; if that process is no longer running, delete {path}"
    if alive:
        return f"{path.parent} is being written by {who}, which is running now; wait for it or stop it"
    return f"{path.parent} was being written by {who}, which is gone (killed, or the machine was restarted)"


def _process_start(pid: int) -> str | None:
    """When the process began, in ticks since boot; None if it has ended (a zombie too), and anywhere but on Linux."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # Fields are counted after the command, which stands in parentheses and may hold spaces: state first, start 20th.
    fields = stat.rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 and fields[0] not in ("Z", "X") else None
