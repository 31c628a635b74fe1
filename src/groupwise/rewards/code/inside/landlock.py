"""Landlock: which files a process may reach, and that it reaches no one outside.

What is asked for depends on the kernel's version of the interface (ABI): 1 files, 2 moving between folders, 3 cutting
files, 4 TCP, 5 device controls, 6 signals and abstract sockets. Everything that a version can refuse is refused, but
for reading the folders that are named.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable, Sequence

from .kernel import PR_SET_NO_NEW_PRIVS, Kernel

_READ_FILE, _READ_FOLDER = 1 << 2, 1 << 3
_FILES = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_TCP = 0b11
_SIGNALS_AND_ABSTRACT_SOCKETS = 0b11
_ASK_VERSION = 1
_BELOW_PATH = 1


def version(kernel: Kernel) -> int:
    """The ABI of the kernel's Landlock; 0 if it has none or it is switched off."""
    try:
        return kernel.syscall("landlock_create_ruleset", None, 0, _ASK_VERSION)
    except OSError:
        return 0


def attributes(abi: int) -> bytes:
    """`struct landlock_ruleset_attr` with all that this version can refuse.

    Example: 8 bytes of file rights for ABI 1, 16 with TCP from ABI 4 on, 24 with scopes from ABI 6 on.
    """
    files = _FILES[max(known for known in _FILES if known <= abi)]
    if abi < 4:
        return struct.pack("<Q", files)
    if abi < 6:
        return struct.pack("<QQ", files, _TCP)
    return struct.pack("<QQQ", files, _TCP, _SIGNALS_AND_ABSTRACT_SOCKETS)


def ruleset(kernel: Kernel, readable: Iterable[str], hidden: Sequence[str] = ()) -> int:
    """A descriptor of the rules: these files and folders may be read, nothing else, and nothing written.

    Rules only allow, and hold for all that is below. So a folder with something hidden in it is one whose names may be
    listed, and what else is in it is allowed one by one.
    """
    asked = attributes(version(kernel))
    described = kernel.syscall("landlock_create_ruleset", ctypes.c_char_p(asked), len(asked), 0)
    for path in readable:
        inside = [each for each in hidden if os.path.dirname(each) == path]  # noqa: PTH120 - pathlib takes 10 ms
        if not inside:
            _allow(kernel, described, path, _READ_FILE | _READ_FOLDER if os.path.isdir(path) else _READ_FILE)  # noqa: PTH112
            continue
        _allow(kernel, described, path, _READ_FOLDER)
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.path not in inside:
                    _allow(kernel, described, entry.path, _READ_FILE | (_READ_FOLDER if entry.is_dir() else 0))
    return described


def _allow(kernel: Kernel, described: int, path: str, rights: int) -> None:
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    rule = struct.pack("<Qi", rights, place)
    try:
        kernel.syscall("landlock_add_rule", described, _BELOW_PATH, ctypes.c_char_p(rule), 0)
    finally:
        os.close(place)


def restrict(kernel: Kernel, described: int) -> None:
    """Put the rules over this process and all that it will ever start."""
    kernel.call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    kernel.syscall("landlock_restrict_self", described, 0)
