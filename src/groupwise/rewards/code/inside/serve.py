"""The fork server: a small interpreter that starts a child per job, watches its limits and tells how it ended.

It has an empty environment and one thread, and never sees a program or a test: a request is numbers and descriptors,
and the child reads its job from one of them after it has confined itself. So no child inherits anything of another's.
What the trainer says comes as marshal, which needs no import; what the server says goes as JSON.

    parent -> server   {"job": 7, "kind": "program", "bounds": [cpu_s, wall_s, memory_mb, output_kb]}  + descriptors
    server -> parent   {"job": 7, "end": "exited", "code": 0, "cpu": 0.011, "wall": 0.013}

Ends: exited (code), signal (code), cpu, wall and threads (its own limits), starved (it was given no processor),
unconfined and lost (our failure). When the parent is gone, so is the server, and all children with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import marshal
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from types import FrameType

from . import landlock, namespaces, seccomp
from .confine import Bounds, Walls, confine
from .filter import program as filter_program
from .jobs import run_program
from .kernel import PR_SET_CHILD_SUBREAPER, PR_SET_DUMPABLE, Kernel
from .past_limits import past_limits
from .preload import Preloading
from .processes import Child, arrange, first_to_die, out_of_the_way, own_children, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:  # a cold start without typing is three milliseconds shorter
    from typing import Any

_TICK = 0.02

_LATE = 0.5
"""A turn that comes later than this by itself means that the whole machine, or we, stood still."""


class Server:
    """All children of one server, and the walls around them."""

    def __init__(self, control: socket.socket, kernel: Kernel | None, asked: dict[str, Any]) -> None:
        self._control = control
        self._children: dict[int, Child] = {}
        self._proc = -1
        self._namespaces: namespaces.Namespaces | None = None
        layers, rules, code = asked["layers"], None, None
        if kernel is not None:
            first_to_die()
            kernel.call("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._preloading = Preloading(asked["packages"], asked["sites"])
        if asked["strict"]:
            self._preloading.finish()
        readable, hidden = self._preloading.readable, self._preloading.hidden
        if kernel is not None:
            if "namespaces" in layers:
                here = os.path.dirname(__file__)  # noqa: PTH120 - pathlib takes 10 ms to import
                self._namespaces = namespaces.enter(kernel, [*readable, here], hidden)
                self._proc = self._namespaces.processes
            else:
                self._proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            kernel.call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)
            if "landlock" in layers:
                # Where there are namespaces it is an empty folder already, and two hundred rules take milliseconds.
                rules = out_of_the_way(landlock.ruleset(kernel, readable, () if self._namespaces else hidden))
            if "seccomp" in layers:
                seccomp.check(kernel)
                code = filter_program(kernel.machine, strict=asked["strict"])
        self._filtered = code is not None
        self._walls = Walls(kernel, rules, code)

    def run(self) -> None:
        """Serve until the parent goes away."""
        woken, wake = os.pipe()
        for end in (woken, wake):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, _woken_by_signal)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        above = os.getppid()
        while True:
            began, busy = time.monotonic(), bool(self._children)
            waiting = _TICK if busy else 1.0
            if not busy and self._preloading.has_more:
                waiting = 0.0
            # Not by PR_SET_PDEATHSIG: it follows the thread that started us, and that may end before the parent does.
            ready, _, _ = select.select([self._control, woken], [], [], waiting)
            if os.getppid() != above:
                self._end_all()
                return
            if busy and (late := time.monotonic() - began) > _LATE:
                for child in self._children.values():  # nobody is to blame for it
                    child.began += late
            if not ready and waiting == 0.0:
                self._preloading.one_more()
            if woken in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(woken, 4096)
            if self._control in ready and not self._take():
                self._end_all()
                return
            self._watch()
            self._reap()

    def _take(self) -> bool:
        """One message of the parent's; False when there will be no more."""
        try:
            message, descriptors, _, _ = socket.recv_fds(self._control, 4096, 8)
        except ConnectionError:
            return False
        if not message:
            return False
        asked = marshal.loads(message)
        try:
            self._start(asked, descriptors)
        except OSError as error:
            self._tell(job=asked["job"], end="lost", why=f"could not start a process: {error.strerror}")
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _start(self, asked: dict[str, Any], descriptors: list[int]) -> None:
        bounds, life = (
            Bounds(*asked["bounds"]),
            _life_of(asked["kind"]),
        )  # imported here: a child may not read our files
        if self._namespaces is not None:
            self._namespaces.next_child_apart()
        ready, tell_ready = os.pipe()
        try:
            pid = os.fork()
        except OSError:
            os.close(ready)
            os.close(tell_ready)
            raise
        if pid == 0:
            self._become(life, descriptors, bounds, tell_ready)
        os.close(tell_ready)
        self._children[pid] = Child(asked["job"], pid, ready, bounds)

    def _become(self, life: Callable[[], int], descriptors: list[int], bounds: Bounds, tell_ready: int) -> None:
        """The child's life; never returns."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            first_free = arrange([*descriptors, tell_ready])
            confine(self._walls, bounds)
            os.write(first_free - 1, b".")
            os.closerange(first_free - 1, 1 << 16)
            status = life()
        finally:
            os._exit(status)

    def _watch(self) -> None:
        """Kill what is past its limits."""
        now = time.monotonic()
        for child in self._children.values():
            if child.ended_by or now - child.began < _TICK:
                continue
            child.crowd = max(child.crowd, len(self._children))
            if why := past_limits(self._proc, child, now - child.began):
                self._kill(child, why)

    def _kill(self, child: Child, why: str) -> None:
        child.ended_by = child.ended_by or why
        for kill, whom in ((os.killpg, child.pid), (os.kill, child.pid)):
            with contextlib.suppress(OSError):
                kill(whom, signal.SIGKILL)

    def _reap(self) -> None:
        """Wait for all that have ended, ours and what they left behind."""
        while True:
            self._end_orphans()
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            with contextlib.suppress(OSError):  # its group first: the number is its own until it is waited for
                os.killpg(ended.si_pid, signal.SIGKILL)
            _, status, used = os.wait4(ended.si_pid, 0)
            child = self._children.pop(ended.si_pid, None)
            if child is not None:
                self._report(child, status, used.ru_utime + used.ru_stime)

    def _report(self, child: Child, status: int, cpu: float) -> None:
        confined = os.read(child.ready, 1) == b"."
        os.close(child.ready)
        code = os.waitstatus_to_exitcode(status)
        end = "exited" if code >= 0 else "signal"
        if child.ended_by:
            end = child.ended_by
        elif not confined:
            end = "unconfined"
        elif code in (-signal.SIGXCPU, -signal.SIGKILL) and cpu >= child.bounds.cpu_seconds:
            end = "cpu"
        self._tell(job=child.job, end=end, code=code, cpu=cpu, wall=time.monotonic() - child.began)

    def _tell(self, job: int, end: str, code: int = 0, cpu: float = 0.0, wall: float = 0.0, why: str = "") -> None:
        filtered = "true" if self._filtered else "false"
        report = f'"job": {job}, "end": "{end}", "code": {code}, "cpu": {cpu}, "wall": {wall}, "filtered": {filtered}'
        with contextlib.suppress(ConnectionError):  # the parent is gone, which the next turn finds out
            self._control.send(f'{{{report}, "why": {quoted(why)}}}'.encode())

    def _end_orphans(self) -> None:
        """What a program left behind became our child, whatever session it moved to. Filtered, it can start none."""
        if self._filtered or self._proc < 0:
            return
        for pid in own_children(self._proc) - self._children.keys():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    def _end_all(self) -> None:
        for child in self._children.values():
            self._kill(child, "killed")
        while True:
            self._end_orphans()
            try:
                os.wait()
            except ChildProcessError:
                return


def _life_of(kind: str) -> Callable[[], int]:
    """What a child of that kind does; it returns the exit status."""
    if kind == "callee":
        from .callee import serve_calls

        return serve_calls
    if kind == "judge":
        from .judge import judge

        return judge
    return run_program


def _woken_by_signal(number: int, frame: FrameType | None) -> None:
    """Nothing: the signal has done its work when it has woken the server."""


def main() -> None:
    """Take the parent's first message, make the walls, say so, serve."""
    control = socket.socket(fileno=fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 64))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    asked = marshal.loads(control.recv(65536))
    os.environ.clear()
    try:
        server = Server(control, Kernel() if sys.platform == "linux" else None, asked)
    except OSError as error:
        control.send(f'{{"failed": {quoted(str(error))}}}'.encode())
        return
    control.send(f'{{"ready": {os.getpid()}}}'.encode())
    server.run()
