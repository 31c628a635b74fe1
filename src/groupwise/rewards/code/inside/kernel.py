"""The system calls that the layers need and Python has no name for, by ctypes.

Everything that asks the kernel goes through one object, so that a test can hand over a kernel that lacks a layer:

    class Old(Kernel):
        def syscall(self, name, *arguments): raise OSError(errno.ENOSYS, name)
"""

from __future__ import annotations

import ctypes
import os

from .arch import NUMBERS

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP = 1, 4, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38


class Kernel:
    """The kernel below us."""

    def __init__(self) -> None:
        self.machine = os.uname().machine
        self._libc = ctypes.CDLL(None, use_errno=True)

    def syscall(self, name: str, *arguments: object) -> int:
        """Make a system call; OSError if it fails, or if this machine's number for it is not known."""
        number = NUMBERS.get(self.machine, {}).get(name)
        if number is None:
            raise OSError(38, f"{name}: not known on {self.machine}")
        words = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
        return self._checked(name, self._libc.syscall(ctypes.c_long(number), *words))

    def call(self, function: str, *arguments: object) -> int:
        """Call a function of libc that returns -1 when it fails, such as `prctl` or `mount`."""
        words = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
        return self._checked(function, self._libc[function](*words))

    def _checked(self, what: str, result: int) -> int:
        if result == -1:
            code = ctypes.get_errno()
            raise OSError(code, f"{what}: {os.strerror(code)}")
        return result
