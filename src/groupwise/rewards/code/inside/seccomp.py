"""Put a filter over this process and all that it will ever start. There is no way back."""

from __future__ import annotations

import ctypes

from .kernel import PR_SET_NO_NEW_PRIVS, Kernel

_SET_MODE_FILTER, _GET_ACTION_AVAILABLE = 1, 2
_KILL_PROCESS = 0x80000000


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def check(kernel: Kernel) -> None:
    """OSError if this kernel cannot filter, or cannot end a whole process for what it asks."""
    action = ctypes.c_uint32(_KILL_PROCESS)
    kernel.syscall("seccomp", _GET_ACTION_AVAILABLE, 0, ctypes.byref(action))


def install(kernel: Kernel, filter_program: bytes) -> None:
    """From here on only what the filter lets through."""
    kernel.call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    buffer = ctypes.create_string_buffer(filter_program, len(filter_program))
    described = _Program(len(filter_program) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    kernel.syscall("seccomp", _SET_MODE_FILTER, 0, ctypes.byref(described))
