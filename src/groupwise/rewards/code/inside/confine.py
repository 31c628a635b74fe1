"""What a child does to itself, layer by layer, before it looks at its job. None of it can be taken back.

Process limits come first and are always there; they are no boundary. Then Landlock, then seccomp, after which the
calls that the other layers need are gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys

from . import landlock, seccomp
from .kernel import PR_CAPBSET_DROP, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, PR_SET_PDEATHSIG, Kernel


class Bounds:
    """The limits of one child. CPU seconds are watched by the server; the kernel's own limit is a whole second."""

    def __init__(self, cpu_seconds: float, wall_seconds: float, memory_mb: int, output_kb: int) -> None:
        self.cpu_seconds, self.wall_seconds = cpu_seconds, wall_seconds
        self.memory_mb, self.output_kb = memory_mb, output_kb


class Walls:
    """The layers that a server puts around its children, made once: Landlock's rules and seccomp's filter.

    `kernel` is None where there is no Linux below.
    """

    def __init__(self, kernel: Kernel | None, landlock: int | None = None, code: bytes | None = None) -> None:
        self.kernel, self.landlock, self.filter = kernel, landlock, code


_STACK = 64 << 20
_FILES = 64


def confine(walls: Walls, bounds: Bounds) -> None:
    """Limits, then Landlock, then seccomp."""
    if walls.kernel is not None:
        walls.kernel.call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        _drop_capabilities(walls.kernel)
    _limit(bounds)
    if walls.kernel is None:
        return
    # Nobody of the same user may look into this process, or into its files below /proc.
    walls.kernel.call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)
    if walls.landlock is not None:
        landlock.restrict(walls.kernel, walls.landlock)
        os.close(walls.landlock)
    if walls.filter is not None:
        seccomp.install(walls.kernel, walls.filter)


def _limit(bounds: Bounds) -> None:
    whole = int(bounds.cpu_seconds) + 2
    limits = {
        resource.RLIMIT_CPU: whole,
        resource.RLIMIT_FSIZE: bounds.output_kb << 10,
        resource.RLIMIT_NOFILE: _FILES,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_STACK: _STACK,
        resource.RLIMIT_MEMLOCK: 0,
    }
    if sys.platform == "linux":
        limits[resource.RLIMIT_MSGQUEUE] = 0
        limits[resource.RLIMIT_RTPRIO] = 0
        limits[resource.RLIMIT_SIGPENDING] = 64
    # Last, for it holds for us as well from the moment on that it is set.
    limits[resource.RLIMIT_AS] = bounds.memory_mb << 20
    for kind, value in limits.items():
        hard = resource.getrlimit(kind)[1]
        lower = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with contextlib.suppress(ValueError, OSError):  # macOS refuses RLIMIT_AS
            resource.setrlimit(kind, (lower, lower))


def _drop_capabilities(kernel: Kernel) -> None:
    """Root without its capabilities is an ordinary user who owns root's files; the other layers see to those."""
    for capability in range(64):
        try:
            kernel.call("prctl", PR_CAPBSET_DROP, capability, 0, 0, 0)
        except OSError:  # none left, or none to begin with
            break
    kernel.call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    with contextlib.suppress(OSError):
        kernel.syscall("capset", header, (ctypes.c_uint32 * 6)())
