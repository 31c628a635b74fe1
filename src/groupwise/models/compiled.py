"""C files as libraries: compiled once for this very processor, by whatever C compiler there is.

Where there is none, or what it makes cannot be loaded, nothing is lost but speed: `library()` is `None`, and the
operations of torch do the work. `GROUPWISE_NATIVE=0` in the environment asks for that.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)

HEADERS = tuple(Path(__file__).with_name(name) for name in ("vectors.h", "panels.h"))
COMMON = ("-O3", "-std=gnu11", "-fPIC", "-shared")
CHOICES = (("-march=native", "-fopenmp"), ("-mcpu=native", "-fopenmp"), ("-fopenmp",), ("-mcpu=native",), ())
"""Flags in order of preference: not every compiler knows each."""


@cache
def library(source: Path) -> ctypes.CDLL | None:
    """The compiled library; `None` where there cannot be one.

    Example: `library(Path(__file__).with_name("parts.c"))`
    """
    if os.environ.get("GROUPWISE_NATIVE") == "0":
        return None
    compiler = os.environ.get("CC") or next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
    if compiler is None or os.name == "nt":
        log.debug("no C compiler: torch's operations instead of %s", source.name)
        return None
    for attempt in (_from_cache, _in_passing):
        try:
            return attempt(source, compiler)
        except OSError as error:
            log.debug("%s is of no use here: %s", source.name, error)
        except (subprocess.SubprocessError, ValueError) as error:
            log.debug("no use of the compiler %s for %s: %s", compiler, source.name, error)
            break
    return None


def _from_cache(source: Path, compiler: str) -> ctypes.CDLL | None:
    """Compiled unless it is there, whole: to load half a file, as a power cut leaves it, kills a process."""
    kept, name = _folder(), f"{source.stem}-{_key(source, compiler)}"
    for made in sorted(kept.glob(f"{name}-*.so")):
        if made.stem == f"{name}-{_digest(made)}":
            return ctypes.CDLL(str(made))
        made.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=kept) as folder:
        made = _compiled(source, compiler, Path(folder))
        if made is None:
            return None
        # Whoever compiles at the same time replaces it by the same.
        return ctypes.CDLL(str(made.replace(kept / f"{name}-{_digest(made)}.so")))


def _in_passing(source: Path, compiler: str) -> ctypes.CDLL | None:
    """For where nothing can be kept, or nothing of it run. What is loaded needs its file no more."""
    with tempfile.TemporaryDirectory(prefix="groupwise-", ignore_cleanup_errors=True) as folder:
        made = _compiled(source, compiler, Path(folder))
        return None if made is None else ctypes.CDLL(str(made))


def _compiled(source: Path, compiler: str, folder: Path) -> Path | None:
    fresh, complaint = folder / "made.so", ""
    for flags in CHOICES:
        command = [*shlex.split(compiler), *COMMON, *flags, "-o", str(fresh), str(source), "-lm"]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False
        )
        if done.returncode == 0:
            return fresh
        complaint = complaint or done.stderr
    log.debug("%s does not compile: %s", source.name, complaint)
    return None


def _digest(made: Path) -> str:
    return hashlib.sha256(made.read_bytes()).hexdigest()[:16]


def _folder() -> Path:
    """Where compiled libraries are kept, a folder that nobody else can write."""
    try:
        cached = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "groupwise"
    except RuntimeError as error:
        raise OSError("there is no home folder") from error
    cached.mkdir(parents=True, exist_ok=True, mode=0o700)
    if cached.stat().st_mode & stat.S_IWOTH:
        raise OSError(f"{cached} can be written by anybody")
    return cached


def _key(source: Path, compiler: str) -> str:
    """Source, compiler and processor: a home folder may be shared by machines of many kinds."""
    processor = Path("/proc/cpuinfo")
    lines = processor.read_text().splitlines() if processor.is_file() else []
    kind = sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))})
    texts = [path.read_text() for path in (source, *HEADERS)]
    parts = (*texts, *COMMON, compiler, platform.machine(), platform.system(), *kind)
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=8).hexdigest()
