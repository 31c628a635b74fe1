"""Who is writing a run folder: a small file with the process and its host, there as long as the run runs.

    take(folder / "lock")           RunError if it is taken, saying by whom and whether that process still lives
    owner(folder / "lock")          Owner(pid=4242, host="node3", ...) or None
    is_left_behind(folder / "lock") True where its process is gone
    release(folder / "lock")

A killed process leaves its lock behind. Whether it is gone shows in two ways: among the processes that are seen from
here its number is free, or another process has it now; and the system's own lock (flock), which it held on the file, is
free. The first counts where both see the same processes; in a container others are seen, under numbers of their own, so
there, and after a restart of the machine, the second counts. From another host neither can be relied upon, so nobody
takes a lock away: the message says when it is safe to delete it.
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
from groupwise.runs.files import cannot_write, read_file
from groupwise.runs.flock import Held, is_held
from groupwise.runs.identity import now

_held: dict[Path, Held] = {}
"""The system's locks of this process; a child that is forked has none of them."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that holds a lock. `process_start` tells it from a later process with the same number; `boot` and
    `processes` say since which start of the machine, and in which of its namespaces, the number counts. All three are
    None where the system does not tell."""

    pid: int
    host: str
    since: str
    process_start: str | None
    boot: str | None = None
    processes: str | None = None
    flock: bool = False
    """Whether the system's own lock is held on the file as long as the process lives."""

    def is_this(self) -> bool:
        """Whether it is the process that asks."""
        return self._sees_the_same() and (self.pid, self.process_start) == (os.getpid(), _process_start(os.getpid()))

    def alive(self, *, held: bool) -> bool | None:
        """Whether it still runs; None if that cannot be told from here. `held`: whether the system's lock is."""
        if self._sees_the_same() and os.name != "nt":
            return self._among_processes()
        if held:
            return True
        # Free says something on this host only: the disk of another may keep such locks to itself.
        return False if self.host == socket.gethostname() and self.flock else None

    def _sees_the_same(self) -> bool:
        """Whether its process would show among those that are seen from here, under this number."""
        pairs = ((self.boot, _boot()), (self.processes, _processes()))
        return self.host == socket.gethostname() and all(None in pair or pair[0] == pair[1] for pair in pairs)

    def _among_processes(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return self.process_start == _process_start(self.pid)


def take(path: Path) -> None:
    """Create the lock for this process, or say who has it. That of a process that is gone is taken over."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        held = _written(beside)
        try:
            if not (_linked(beside, path) or _took_over(beside, path)):
                raise RunError(explain(path))
        except BaseException:
            held.let_go()
            raise
        finally:
            with suppress(OSError):
                disk.remove(beside)
    except OSError as error:
        raise error if isinstance(error, RunError) else RunError(cannot_write(path, error)) from error
    _held[path.absolute()] = held


def is_left_behind(path: Path) -> bool:
    """Whether the process that holds the lock is gone, for all that can be told from here."""
    holder = owner(path)
    return holder is not None and holder.alive(held=is_held(path)) is False


def owner(path: Path) -> Owner | None:
    """Who holds the lock; None if there is none, or if its content is not one of ours."""
    try:
        content: Any = json.loads(read_file(path))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    fields = cast("dict[str, Any]", content)
    pid = fields.get("pid")
    if not isinstance(pid, int) or pid <= 0:
        return None
    start, boot, processes = (_text(fields.get(name)) for name in ("process_start", "boot", "processes"))
    flock = fields.get("flock") is True
    return Owner(pid, str(fields.get("host")), str(fields.get("since")), start, boot, processes, flock)


def release(path: Path) -> None:
    """Remove the lock if this process holds it."""
    holder = owner(path)
    if holder is not None and holder.is_this():
        disk.remove(path)  # first: were it free while it is there, another could take it, and lose it here
    if held := _held.pop(path.absolute(), None):
        held.let_go()


def explain(path: Path) -> str:
    """What the lock says, in sentences: who, since when, whether it still runs, and what to do."""
    holder = owner(path)
    if holder is None:
        return f"{path} exists but names no process; if no run is writing this folder, delete that file"
    who = f"process {holder.pid} on {holder.host} (since {holder.since})"
    alive = holder.alive(held=is_held(path))
    if alive is None:
        return f"{path.parent} is in use by {who}; if that process is no longer running, delete {path}"
    if alive:
        return f"{path.parent} is being written by {who}, which is running now; wait for it or stop it"
    return f"{path.parent} was being written by {who}, which is gone (killed, or the machine was restarted)"


def _written(path: Path) -> Held:
    """The lock under another name, held already: so nobody ever sees it half, or free."""
    disk.write_file(path, [b""])
    held = Held(path)
    content = json.dumps(asdict(_this(flock=held.by_the_system))).encode()
    try:
        disk.write_file(path, [content])
        disk.sync(path)  # empty after the power failed, it would name no process
    except BaseException:
        held.let_go()
        raise
    return held


def _linked(beside: Path, path: Path) -> bool:
    """Give it its name, unless there is a lock."""
    try:
        disk.link(beside, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without links
        try:
            disk.write_new(path, b"")
        except FileExistsError:
            return False
        try:
            disk.rename(beside, path)
        except OSError:
            disk.remove(path)  # an empty lock would keep the next run out
            raise
    return True


def _took_over(beside: Path, path: Path) -> bool:
    """Replace the lock of a process that is gone. Of several that try, the system lets one go first, and the others
    then find its lock."""
    if not is_left_behind(path):
        return False
    try:
        left = Held(path, patiently=True)
    except FileNotFoundError:
        return False
    try:
        holder = owner(path)
        gone = holder is not None and holder.alive(held=False) is False  # it is held, by this process
        if left.refused or not gone or not left.is_still(path):
            return False
        disk.rename(beside, path)
        return True
    finally:
        left.let_go()


def _this(*, flock: bool) -> Owner:
    pid = os.getpid()
    return Owner(pid, socket.gethostname(), now(), _process_start(pid), _boot(), _processes(), flock)


def _process_start(pid: int) -> str | None:
    """When the process began, in ticks since boot; None if it has ended (a zombie too), and anywhere but on Linux."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # Fields are counted after the command, which stands in parentheses and may hold spaces: state first, start 20th.
    fields = stat.rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 and fields[0] not in ("Z", "X") else None


def _boot() -> str | None:
    """Another one after each start of the machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None


def _processes() -> str | None:
    """The namespace of process numbers that this process sees: `pid:[4026531836]`."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
