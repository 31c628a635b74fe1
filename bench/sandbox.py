"""The code sandbox: how fast programs start, how many a second, and that nothing of them is left.

    python bench/sandbox.py                      cold start, warm start, unit tests, programs a second
    python bench/sandbox.py --endure 10000       so many programs, hostile ones too, 64 at once; then what is left

A cold start is everything from no process at all to the first program's outcome.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from groupwise.rewards.code import Limits, SandboxSettings, UnitTests, detect
from groupwise.rewards.code.forkserver import ForkServer
from groupwise.rewards.code.runs import end_of, program_job
from groupwise.rewards.code.sandbox import Sandbox

LIMITS = Limits(cpu_seconds=0.5, wall_seconds=2.0, memory_mb=512, output_kb=64)

MIXTURE = (
    *["print(int(input()) + 1)"] * 12,
    "raise ValueError",
    "import os\nos._exit(0)",
    "import os\ntry: os.fork()\nexcept OSError: print(42)",
    "import threading\nfor _ in range(20): threading.Thread(target=print, args=(1,)).start()",
    "try: open('/tmp/left-behind', 'w')\nexcept OSError: print(42)",
    "try: open('/dev/shm/left-behind', 'w')\nexcept OSError: print(42)",
    "import os\nos.kill(os.getppid(), 9)",
    "import os\nfor _ in range(30): os.pipe()\nprint(42)",
    "while True: print('x' * 4096)",
    "x = bytearray(4 << 30)",
    "import ctypes\nctypes.string_at(1)",
    "import signal\nsignal.pause()" if os.environ.get("GROUPWISE_SLOW") else "import time\ntime.sleep(0.05)",
)
"""Half of them are well-behaved; the rest try to leave something behind, or end badly."""


@dataclass(frozen=True)
class Left:
    """What there is of processes, descriptors, shared memory and files."""

    processes: int
    zombies: int
    descriptors: int
    servers_descriptors: int
    shared_memory: int
    files: int

    def __sub__(self, before: "Left") -> "Left":
        return Left(*(getattr(self, name) - getattr(before, name) for name in self.__dataclass_fields__))


def left(server: ForkServer) -> Left:
    """Counted now: our descendants, our and the server's descriptors, and what this machine keeps by name."""
    states = list(descendants(os.getpid()))
    below = [pid for pid, _ in states if pid == server.pid or server.pid in ancestors(pid)]
    counts = [len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in below if os.access(f"/proc/{pid}/fd", os.R_OK)]
    return Left(
        processes=len(states),
        zombies=sum(state == "Z" for _, state in states),
        descriptors=len(list(Path("/proc/self/fd").iterdir())),
        servers_descriptors=sum(counts),
        shared_memory=len(Path("/proc/sysvipc/shm").read_text().splitlines()),
        files=sum(Path(folder, "left-behind").exists() for folder in ("/tmp", "/dev/shm")),
    )


def stat(pid: int) -> tuple[str, int]:
    """State and parent of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[0], int(fields[1])


def ancestors(pid: int) -> list[int]:
    found = []
    while pid > 1:
        try:
            _, pid = stat(pid)
        except OSError:
            break
        found.append(pid)
    return found


def descendants(of: int):
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and of in ancestors(int(entry.name)):
            try:
                yield int(entry.name), stat(int(entry.name))[0]
            except OSError:
                continue


def endure(server: ForkServer, count: int) -> tuple[dict[str, int], Left, float]:
    """Run so many programs; how they ended, what is left, and the seconds it took."""
    server.submit([program_job("print(1)", "", LIMITS)]).result()
    before = settled(server)
    began = time.perf_counter()
    running: list[Future] = [
        server.submit([program_job(MIXTURE[n % len(MIXTURE)], "41", LIMITS)]) for n in range(count)
    ]
    ends: dict[str, int] = {}
    for future in running:
        end, _ = end_of(future.result()[0], LIMITS)
        ends[end] = ends.get(end, 0) + 1
    seconds = time.perf_counter() - began
    return ends, settled(server) - before, seconds


def settled(server: ForkServer) -> Left:
    """What is left once it no longer changes: an idle server reads modules."""
    now = left(server)
    while (later := (time.sleep(0.4), left(server))[1]) != now:
        now = later
    return now


def told(name: str, seconds: list[float]) -> str:
    ordered = sorted(seconds)
    middle = statistics.median(ordered)
    return f"{name:<28} median {1e3 * middle:6.1f} ms   least {1e3 * ordered[0]:6.1f}   most {1e3 * ordered[-1]:6.1f}"


def cold(layers, count: int) -> list[float]:
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        server = ForkServer(layers)
        server.start()
        server.submit([program_job("print(1)", "", LIMITS)]).result()
        taken.append(time.perf_counter() - began)
        server.close()
    return taken


def warm(run, count: int) -> list[float]:
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        run()
        taken.append(time.perf_counter() - began)
    return taken


def main() -> None:
    import asyncio

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endure", type=int, default=0, metavar="N", help="run N programs and count what is left")
    options = parser.parse_args()
    boundary, server = detect()
    print(f"code sandbox: {boundary}; {platform.release()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    if server is None:
        sys.exit("\n".join(boundary.reasons))
    if options.endure:
        ends, rest, seconds = endure(server, options.endure)
        print(f"{options.endure} programs in {seconds:.1f} s, {options.endure / seconds:.0f} a second: {ends}")
        print(f"left: {rest}")
        sys.exit(rest != Left(0, 0, 0, 0, 0, 0))
    sandbox = Sandbox(boundary, SandboxSettings(), server)
    for names in (("seccomp", "landlock"), ("seccomp", "landlock", "namespaces")):
        if set(names) <= set(boundary.layers.names):
            print(told(f"cold, {' + '.join(names)[10:]}", cold(type(boundary.layers)(names), 10)))
    print(told("warm, a script", warm(lambda: server.submit([program_job("print(1)", "", LIMITS)]).result(), 300)))
    tests = UnitTests(("assert f(41) == 42",))
    loop = asyncio.new_event_loop()
    once = lambda: loop.run_until_complete(sandbox.test("def f(x): return x + 1", tests))  # noqa: E731
    print(told("warm, a function and a test", warm(once, 200)))

    async def many(count: int) -> float:
        began = time.perf_counter()
        await asyncio.gather(*(sandbox.run("print(int(input()) + 1)", "41") for _ in range(count)))
        return count / (time.perf_counter() - began)

    print(f"{'programs a second, 64 at once':<28} {loop.run_until_complete(many(1000)):.0f}")


if __name__ == "__main__":
    main()
