"""What this process may use of the machine, and what it uses: memory, with the limits of its container.

memory_limit()      25276502016   (bytes: the machine's, or less where a container or `ulimit -v` says so)
memory_free()       21076502016
peak_resident()     1476395008    (the most that this process ever held)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from groupwise.errors import RecipeError

_UNLIMITED = 1 << 60


def memory_limit() -> int:
    """Bytes that all processes of this container may hold together."""
    total = _meminfo().get("MemTotal") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(total, *_group_limits(), _address_space())


def memory_free() -> int:
    """Bytes that could be had now without swapping, as far as the kernel knows; where it does not say, the limit."""
    info = _meminfo()
    free = [info["MemAvailable"]] if "MemAvailable" in info else [memory_limit()]
    for limit, used in zip(_group_limits(), _group_usage(), strict=False):
        free.append(max(limit - used, 0))
    return min(free)


def resident() -> int:
    """Bytes that this process holds now; 0 where the system does not say."""
    return _status("VmRSS")


def peak_resident() -> int:
    """The most bytes that this process ever held. The kernel's own figure where there is one: `ru_maxrss` may begin
    with what the parent held."""
    peak = _status("VmHWM")
    if peak or sys.platform == "win32":
        return peak
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def reset_peak() -> bool:
    """Let `peak_resident` count from now on; False where the system does not let us."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def limit_memory(size: int) -> None:
    """From now on refuse this process what would let it hold more than `size` bytes: the allocation fails, with an
    error that can be handled, where the kernel would otherwise end the process. Linux only (RLIMIT_DATA)."""
    if not sys.platform.startswith("linux"):
        raise RecipeError("guards.memory_gb: only Linux can hold a process to it. Drop it")
    import resource

    held, room = _status("VmData"), size - resident()
    if room <= 0:
        raise RecipeError(
            f"guards.memory_gb: {size / (1 << 30):.2f} GB are less than the {resident() / (1 << 30):.2f} GB that this "
            "process holds with the model alone. Raise it"
        )
    # Of data, more is reserved than is held; what is left to hold is left to reserve.
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = held + room if hard == resource.RLIM_INFINITY else min(held + room, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


@contextmanager
def memory_budget(gigabytes: float | None) -> Generator[None]:
    """Inside, this process may hold no more than that; None: what the machine gives."""
    if gigabytes is None:
        yield
        return
    limit_memory(int(gigabytes * (1 << 30)))
    try:
        yield
    finally:
        lift_limit()


def lift_limit() -> None:
    """Undo `limit_memory`."""
    if sys.platform.startswith("linux"):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def _status(name: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)


def _meminfo() -> dict[str, int]:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split(":") for line in lines)
    return {name: int(value.split()[0]) * 1024 for name, value in pairs}


def _group_limits() -> list[int]:
    """Of control groups, version 2 and 1."""
    return _numbers("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes") or [_UNLIMITED]


def _group_usage() -> list[int]:
    return _numbers("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory/memory.usage_in_bytes")


def _numbers(*paths: str) -> list[int]:
    found: list[int] = []
    for path in paths:
        try:
            text = Path(path).read_text().strip()
        except OSError:
            continue
        found.append(int(text) if text.isdigit() else _UNLIMITED)
    return found


def _address_space() -> int:
    """`ulimit -v`."""
    if sys.platform == "win32":
        return _UNLIMITED
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return _UNLIMITED if soft == resource.RLIM_INFINITY else soft
