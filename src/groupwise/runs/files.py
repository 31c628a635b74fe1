"""Writing so that a kill at any moment leaves nothing half: whole files by rename, rows of JSON by appending.

    with replacing(folder / "run.json") as temporary:   # a name beside it; renamed at the end, after fsync
        temporary.write_text("{}")
    append_row(folder / "metrics.jsonl", {"step": 1})   # one row, one line, on disk when the call returns
    read_rows(folder / "metrics.jsonl")                 # a torn last line is skipped
    keep_rows(folder / "metrics.jsonl", lambda row: row["step"] <= 7)

JSON has no NaN and no infinity: both are written as `null`. Text that is not valid Unicode is written as JSON escapes.
"""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from numbers import Integral, Real
from pathlib import Path
from typing import Any, cast

from groupwise.errors import RunError
from groupwise.runs import disk


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """Yield a temporary name beside `path`; what was written there takes the name `path` at the end, or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        disk.sync(temporary)
        disk.rename(temporary, path)
        disk.sync(path.parent)
    except OSError as error:
        raise RunError(cannot_write(path, error)) from error
    finally:
        if temporary.exists():
            with suppress(OSError):
                disk.remove(temporary)


def write_text(path: Path, text: str) -> None:
    """Write a whole text file, or leave the old one as it was."""
    with replacing(path) as temporary:
        disk.write_file(temporary, [text.encode("utf-8", errors="backslashreplace")])


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Append one row of JSON as one line. A torn line that a killed process left at the end is cut off first."""
    length = None
    try:
        _mend_end(path)
        length = path.stat().st_size if path.exists() else 0
        disk.append(path, to_json(row).encode("utf-8", errors="backslashreplace") + b"\n")
    except OSError as error:
        if length is not None and path.is_file():
            with suppress(OSError):
                disk.cut(path, length)  # what a full disk took of it
        raise RunError(cannot_write(path, error)) from error


def read_file(path: Path, most: int | None = None) -> bytes:
    """All of a plain file, of `most` bytes at most. A pipe or a device, which would be waited for, is an error."""
    descriptor = os.open(path, os.O_RDONLY | disk.FLAGS)
    try:
        facts = os.fstat(descriptor)
        kind = facts.st_mode
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(kind):
            raise RunError(f"{path} is a pipe or a device, where a file belongs: remove it")
        if most is not None and facts.st_size > most:
            raise RunError(f"{path} has {facts.st_size:,} bytes, more than any that groupwise writes: it was changed")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All whole rows, oldest first; none if there is no file. A broken line before the last one is an error."""
    if not path.exists():
        return []
    lines = read_file(path).split(b"\n")
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        row = _row(line)
        if row is not None:
            rows.append(row)
        elif line.strip() and number < len(lines):
            raise RunError(f"{path}:{number} is not a row of JSON: the file was damaged. Delete that line to read on.")
    return rows


def keep_rows(path: Path, wanted: Callable[[dict[str, Any]], bool]) -> None:
    """Keep only the rows that are wanted; the file is replaced as a whole."""
    rows = read_rows(path)
    kept = [row for row in rows if wanted(row)]
    if len(kept) < len(rows):
        write_text(path, "".join(to_json(row) + "\n" for row in kept))


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON of any value: NaN and infinities become null, what JSON does not know becomes its `str()`.

    May hold lone surrogates: encode it with `errors="backslashreplace"`, which makes JSON escapes of them.
    """
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, indent=indent)


def cannot_write(path: Path, error: OSError, setting: str = "run.folder") -> str:
    """One sentence on why `path` cannot be written and what to do about it; `setting` is what says where to write."""
    cure = f"choose another folder ({setting})"
    if isinstance(error, PermissionError):
        cure = f"choose a folder that you may write ({setting})"
    elif isinstance(error, NotADirectoryError | FileExistsError):
        cure = f"a file is in the way: move it, or {cure}"
    elif error.errno == errno.ENXIO:
        return f"cannot write {path}: a pipe is in the way; remove it, or {cure}"
    elif error.errno in (errno.ENOSPC, errno.EDQUOT):
        cure = f"free some space, or {cure}"
    return f"cannot write {path}: {error.strerror or error}; {cure}"


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in cast("Sequence[Any]", value)]
    return str(value)


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict):
        return None
    known = cast("dict[str, Any]", row)
    return known if isinstance(known.get("step", 0), int) else None


def _mend_end(path: Path) -> None:
    """Make the file end with a whole line: else the next row would be glued to the torn one and both be lost."""
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        whole = file.read()
    kept = whole.rfind(b"\n") + 1
    if _row(whole[kept:]) is None:
        disk.cut(path, kept)
    else:
        disk.append(path, b"\n")
