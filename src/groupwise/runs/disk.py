"""Every operation that changes the disk, one function each, and nothing else in this room changes it.

So a test can be told of each before it happens, and make it the last one (kill) or let it fail (full disk, ...):

    with watched(lambda operation, path: ...):      # "write", /runs/demo/run.json
        write_file(path, [b"half", b"half"])

What was interrupted by a signal is done again. Nothing here is atomic by itself; see `files.py`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Literal, TypeAlias, TypeVar

Operation: TypeAlias = Literal["make folder", "create", "write", "sync", "rename", "remove", "cut"]
Watch: TypeAlias = Callable[[Operation, Path], None]
Buffer: TypeAlias = bytes | memoryview

_PIECE = 1 << 22
"""Bytes written at once. Python lets other threads go on meanwhile."""

FLAGS = 0x8000 if os.name == "nt" else os.O_NONBLOCK
"""O_BINARY of Windows, where line ends would be changed otherwise. Elsewhere a pipe that stands where a file belongs is
an error, and is not waited for until somebody reads it."""

Result = TypeVar("Result")

_watches: list[Watch] = []


@contextmanager
def watched(watch: Watch) -> Generator[None]:
    """Inside, `watch` hears of each operation before it happens, and may raise what the operation then raises."""
    _watches.append(watch)
    try:
        yield
    finally:
        _watches.remove(watch)


def make_folder(path: Path, *, parents: bool = False) -> None:
    """Make a folder; one that is there is no error."""
    if not path.is_dir():
        _do("make folder", path, lambda: path.mkdir(parents=parents, exist_ok=True))


def link(source: Path, target: Path) -> None:
    """Give a second name that nothing may have yet; FileExistsError if something does."""
    _do("create", target, lambda: target.hardlink_to(source))


def write_new(path: Path, content: bytes) -> None:
    """Write a file that must not exist yet; FileExistsError if it does."""
    _write(path, [content], os.O_WRONLY | os.O_CREAT | os.O_EXCL)


def write_file(path: Path, buffers: Iterable[Buffer], seen: Callable[[Buffer], object] = len) -> int:
    """Write a file piece by piece; `seen` gets each piece too (a digest's `update`). Returns the number of bytes."""
    return _write(path, buffers, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, seen)


def append(path: Path, content: bytes) -> None:
    """Write behind what is there."""
    _write(path, [content], os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def to_append(path: Path) -> IO[bytes]:
    """A file that is open to write behind what is there, for who cannot open it when the time comes."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | FLAGS
    return os.fdopen(_do("create", path, lambda: os.open(path, flags, 0o666)), "ab")


def cut(path: Path, length: int) -> None:
    """Keep only the first `length` bytes of a file."""
    _do("cut", path, lambda: os.truncate(path, length))


def sync(path: Path) -> None:
    """Return when the file, or what a folder lists, is on the disk and not only in memory."""
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders
    _do("sync", path, lambda: _sync(path))


def rename(source: Path, target: Path) -> None:
    """Give another name; a file that has it already is replaced."""
    _do("rename", target, lambda: source.replace(target))


def remove(path: Path) -> None:
    """Remove a file; one that is gone is no error."""
    _do("remove", path, lambda: path.unlink(missing_ok=True))


def remove_tree(path: Path) -> None:
    """Remove a folder and all that is in it; links are removed, not followed."""
    if path.is_symlink() or not path.is_dir():
        remove(path)
        return
    for entry in sorted(path.iterdir()):
        remove_tree(entry)
    _do("remove", path, path.rmdir)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, buffers: Iterable[Buffer], flags: int, seen: Callable[[Buffer], object] = len) -> int:
    descriptor = _do("create", path, lambda: os.open(path, flags | FLAGS, 0o666))
    written = 0
    try:
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO), str(path))
        for buffer in buffers:
            whole = memoryview(buffer).cast("B")
            for start in range(0, len(whole), _PIECE):
                piece = whole[start : start + _PIECE]
                _put(descriptor, path, piece)
                seen(piece)
                written += len(piece)
    finally:
        os.close(descriptor)
    return written


def _put(descriptor: int, path: Path, piece: memoryview) -> None:
    """Write all of a piece: the system may take less at once."""
    while piece:
        piece = piece[_do("write", path, partial(os.write, descriptor, piece)) :]


def _do(operation: Operation, path: Path, act: Callable[[], Result]) -> Result:
    """Tell who watches, and do it; what a signal interrupted is done again."""
    while True:
        try:
            for watch in _watches:
                watch(operation, path)
            return act()
        except InterruptedError:
            continue
