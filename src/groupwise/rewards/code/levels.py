"""Which boundary this machine can put around a program, found by trying, and the one line that says so.

    STRONG  files, network, processes and system calls are all closed off
    GOOD    system calls are filtered and programs cannot open any file
    WASM    programs run in an interpreter inside WebAssembly
    REMOTE  programs run on a sandbox server, not here
    NONE    there is no boundary, and code rewards refuse to run
    UNSAFE  there is none, and the recipe accepts that

A layer counts if programs that try to break it fail here and now, not if the kernel's version says that it is there.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, TypeAlias

from groupwise.rewards.code.forkserver import ForkServer, Layers
from groupwise.rewards.code.inside import landlock
from groupwise.rewards.code.inside.kernel import Kernel
from groupwise.rewards.code.outcome import Limits
from groupwise.rewards.code.runs import end_of, program_job
from groupwise.rewards.code.wasm import why_no_wasm

Level: TypeAlias = Literal["none", "unsafe", "wasm", "good", "strong", "remote"]

_RANK: dict[str, int] = {"none": 0, "unsafe": 0, "wasm": 1, "good": 1, "strong": 2, "remote": 2}

CANDIDATES = (
    Layers(("seccomp", "landlock", "namespaces")),
    Layers(("seccomp", "landlock")),
    Layers(("seccomp", "namespaces")),
    Layers(("seccomp",), strict=True),
)
"""Best first. Without Landlock and namespaces a program may open no file at all."""

WAYS_OUT = (
    "ways out: 1) a kernel from 5.13 on 2) pip install 'groupwise[wasm]' on Python 3.12 or newer "
    '3) sandbox.url = "http://..." of a SandboxFusion server 4) sandbox.level = "unsafe" (I accept; recorded in '
    "run.json and shown in every view)"
)


_NO_LAYERS = Layers()


@dataclass(frozen=True, slots=True)
class Boundary:
    """What stands between a program and this machine.

    Example: `str(Boundary("strong", Layers(("seccomp", "landlock")), abi=7))` is
    `STRONG (landlock abi 7 + seccomp + rlimits)`
    """

    level: Level
    layers: Layers = _NO_LAYERS
    abi: int = 0
    """Version of Landlock's interface."""
    reasons: tuple[str, ...] = ()
    """Why what is better does not work here."""
    url: str = ""

    @property
    def summary(self) -> str:
        """One line: the level, and what makes it."""
        names = [f"landlock abi {self.abi}"] * ("landlock" in self.layers.names)
        names += [name for name in ("namespaces", "seccomp") if name in self.layers.names]
        kernel = platform.release().split("-")[0]
        return {
            "strong": f"STRONG ({' + '.join([*names, 'rlimits'])})",
            "good": f"GOOD (seccomp strict; no Landlock on kernel {kernel}: programs cannot open any file)",
            "wasm": "WASM (Python only, ~4x slower)",
            "remote": f"REMOTE ({self.url})",
            "unsafe": "UNSAFE (no boundary: programs run with your files, keys and network, as the recipe accepts)",
            "none": "NONE: code rewards are disabled. "
            "Model-written programs would run with your files, keys and network",
        }[self.level]

    @property
    def cure(self) -> str:
        """What to do where there is no boundary."""
        return WAYS_OUT if self.level == "none" else ""

    def __str__(self) -> str:
        return f"{self.summary}. {self.cure}" if self.cure else self.summary


def is_lower(now: str, before: str) -> bool:
    """Whether level `now` protects less than level `before` did; for a run that is resumed, or has several machines.

    Example: `is_lower("good", "strong")`, not `is_lower("strong", "good")`; "unsafe" is as low as "none".
    """
    return _RANK.get(now, 0) < _RANK.get(before, 0)


Trial: TypeAlias = Callable[[ForkServer], str]
"""Starts a server with its layers and tries to break out; what went wrong, or ""."""


def detect(
    packages: Sequence[str] = (), at_once: int = 64, trial: Trial | None = None
) -> tuple[Boundary, ForkServer | None]:
    """The best boundary that works here, and the server with it, running; None where no local one works."""
    reasons: list[str] = []
    if sys.platform != "linux":
        reasons.append(f"seccomp and Landlock are Linux's, and this is {sys.platform}")
    for layers in CANDIDATES if not reasons else ():
        server = ForkServer(layers, packages, at_once)
        wrong = (trial or started_and_tested)(server)
        if not wrong:
            level: Level = "good" if layers.strict else "strong"
            abi = landlock.version(Kernel()) if "landlock" in layers.names else 0
            return Boundary(level, layers, abi, tuple(reasons)), server
        reasons.append(f"{' + '.join(layers.names)}: {wrong}")
    wrong = why_no_wasm()
    if not wrong:
        return Boundary("wasm", reasons=tuple(reasons)), None
    return Boundary("none", reasons=(*reasons, wrong)), None


_ATTEMPTS = """
import os, socket
def succeeds(what):
    try:
        what()
    except (OSError, ValueError):
        return False
    return True
attempts = {
    "read /etc/passwd": lambda: open("/etc/passwd").read(),
    "write a file": lambda: open("/tmp/groupwise-sandbox-trial", "w"),
    "open a socket": lambda: socket.create_connection(("127.0.0.1", 9), 0.1),
    "make a datagram socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "start a process": lambda: os.fork() or os._exit(0),
}
print(", ".join(name for name, what in attempts.items() if succeeds(what)), end="")
"""


def started_and_tested(server: ForkServer) -> str:
    """Start it and run a program that tries what it must not be able to do."""
    try:
        server.start()
    except OSError as error:
        return str(error)
    [ended] = server.submit([program_job(_ATTEMPTS, "", Limits(wall_seconds=20))]).result()
    end, detail = end_of(ended, Limits())
    done = ended.stdout.decode(errors="replace")
    with suppress(OSError):  # only there if the boundary failed
        os.unlink("/tmp/groupwise-sandbox-trial")  # noqa: PTH108
    if end == "finished" and not done:
        return ""
    server.close()
    return f"a program could {done}" if done else f"a program that should have ended did not: {end} {detail}".strip()
