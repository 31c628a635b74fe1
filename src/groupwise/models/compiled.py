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
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)

HEADERS = (Path(__file__).with_name("vectors.h"),)
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
    try:
        made = _made(source, compiler)
        return None if made is None else ctypes.CDLL(str(made))
    except (OSError, subprocess.SubprocessError) as error:
        log.debug("%s is of no use here: %s", source.name, error)
        return None


def _made(source: Path, compiler: str) -> Path | None:
    """The library's file, compiled unless it is there."""
    target = _folder() / f"{source.stem}-{_key(source, compiler)}.so"
    if target.is_file():
        return target
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        fresh = Path(folder) / target.name
        complaint = ""
        for flags in CHOICES:
            command = [compiler, *COMMON, *flags, "-o", str(fresh), str(source), "-lm"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
            if done.returncode == 0:
                fresh.replace(target)  # whoever compiles at the same time replaces it by the same
                return target
            complaint = complaint or done.stderr
    log.debug("%s does not compile: %s", source.name, complaint)
    return None


def _folder() -> Path:
    """Where compiled libraries are kept, a folder that nobody else can write."""
    cached = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "groupwise"
    try:
        cached.mkdir(parents=True, exist_ok=True, mode=0o700)
        if os.access(cached, os.W_OK):
            return cached
    except (OSError, RuntimeError):
        pass
    return Path(tempfile.mkdtemp(prefix="groupwise-"))


def _key(source: Path, compiler: str) -> str:
    """Source, compiler and processor: a home folder may be shared by machines of many kinds."""
    processor = Path("/proc/cpuinfo")
    lines = processor.read_text().splitlines() if processor.is_file() else []
    kind = sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))})
    texts = [path.read_text() for path in (source, *HEADERS)]
    parts = (*texts, compiler, platform.machine(), platform.system(), *kind)
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=8).hexdigest()
