"""Namespaces: a world of its own for the fork server, and a process table of its own for each program.

The server enters new user, mount, network, IPC, host-name and process namespaces: no network but a dead loopback, and
a root that is an empty read-only tmpfs with the readable folders mounted into it. Each program then gets a process
namespace inside: it sees itself as process 1, can name nobody else, and when it ends all that it started ends with it.

Refused by Ubuntu 24.04's AppArmor and by Docker's default seccomp profile, among others; so it is tried, not assumed.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterable, Sequence

from .kernel import PR_SET_PDEATHSIG, Kernel

_USER, _MOUNT, _PROCESS, _NET = 0x10000000, 0x00020000, 0x20000000, 0x40000000
_IPC, _HOST = 0x08000000, 0x04000000
_READ_ONLY, _NO_SUID, _NO_DEVICES, _NO_EXEC, _REMOUNT, _BIND, _RECURSIVE = 1, 2, 4, 8, 32, 4096, 16384
_PRIVATE = 1 << 18
_DETACH = 2
_KEPT = _NO_SUID | _NO_DEVICES | _NO_EXEC | 1024 | 2048
"""Flags of a mount that a remount has to repeat, the last two about access times. statvfs has the same numbers."""


class Namespaces:
    """The namespaces of this server. Made by `enter`, once, by a process with one thread."""

    def __init__(self, kernel: Kernel, own: int, processes: int) -> None:
        self._kernel = kernel
        self._own = own
        self.processes = processes
        """The server's view of /proc, as a descriptor: the folder itself is not to be seen from inside."""

    def next_child_apart(self) -> None:
        """Let the next fork be process 1 of a new process namespace."""
        self._kernel.call("setns", self._own, _PROCESS)
        self._kernel.call("unshare", _PROCESS)


def enter(kernel: Kernel, readable: Iterable[str], hidden: Sequence[str] = ()) -> Namespaces:
    """Go into new namespaces; OSError where the machine does not allow it. `hidden` are folders in readable ones that
    are to be empty.

    Returns in a child, which is process 1 of the new process namespace; the caller stays behind and waits for it.
    """
    user, group = os.getuid(), os.getgid()
    kernel.call("unshare", _USER | _MOUNT | _PROCESS | _NET | _IPC | _HOST)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123 - pathlib takes 10 ms to import
            file.write(text)
    _stay_behind(kernel)
    own = os.open("/proc/self/ns/pid_for_children", os.O_RDONLY | os.O_CLOEXEC)
    kernel.call("mount", b"none", b"/", None, _PRIVATE | _RECURSIVE, None)
    # Held before something is mounted over them, and after the new namespace: a place in the old one cannot be mounted.
    places = [(path, os.open(path, os.O_PATH | os.O_CLOEXEC)) for path in readable]
    kernel.call("mount", b"tmpfs", b"/tmp", b"tmpfs", _NO_SUID | _NO_DEVICES, b"size=256k,nr_inodes=1k")
    os.mkdir("/tmp/proc")  # noqa: PTH102
    kernel.call("mount", b"proc", b"/tmp/proc", b"proc", _NO_SUID | _NO_DEVICES | _NO_EXEC, None)
    processes = os.open("/tmp/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for path, place in places:
        _show(kernel, path, place)
        os.close(place)
        for folder in hidden:
            if os.path.dirname(folder) == path:  # noqa: PTH120 - pathlib takes 10 ms to import
                kernel.call("mount", b"tmpfs", f"/tmp{folder}".encode(), b"tmpfs", _NO_SUID | _NO_DEVICES, b"size=64k")
    kernel.call("umount2", b"/tmp/proc", _DETACH)
    os.rmdir("/tmp/proc")  # noqa: PTH106
    os.chdir("/tmp")
    kernel.syscall("pivot_root", ctypes.c_char_p(b"."), ctypes.c_char_p(b"."))
    kernel.call("umount2", b".", _DETACH)
    os.chdir("/")
    for folder in [*map(str.encode, hidden), b"/"]:
        kernel.call("mount", None, folder, None, _REMOUNT | _READ_ONLY | _NO_SUID | _NO_DEVICES, None)
    return Namespaces(kernel, own, processes)


def _stay_behind(kernel: Kernel) -> None:
    """Go on in a child, the first process of the namespace. We wait for it, and see to it that it outlives nobody."""
    above = os.getppid()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    child = os.fork()
    if child:
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            signal.sigtimedwait({signal.SIGCHLD}, 0.5)
            if os.getppid() != above:
                os.kill(child, signal.SIGKILL)
        os._exit(0)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    kernel.call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _show(kernel: Kernel, path: str, place: int) -> None:
    """Mount what the descriptor stands for at its path below the new root, to be read and not written."""
    target = f"/tmp{path}"
    if os.path.isdir(f"/proc/self/fd/{place}"):  # noqa: PTH112
        os.makedirs(target, exist_ok=True)  # noqa: PTH103
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)  # noqa: PTH103, PTH120
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o444))
    kernel.call("mount", f"/proc/self/fd/{place}".encode(), target.encode(), None, _BIND | _RECURSIVE, None)
    flags = os.statvfs(target).f_flag & _KEPT
    kernel.call("mount", None, target.encode(), None, _REMOUNT | _BIND | _READ_ONLY | flags, None)
