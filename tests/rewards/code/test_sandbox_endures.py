"""What outlives a program, a fork server, a trainer: nothing. And a machine that is too busy is nobody's fault."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from groupwise.rewards.code import Limits, detect
from groupwise.rewards.code.forkserver import ForkServer
from groupwise.rewards.code.outcome import Outcome
from groupwise.rewards.code.runs import outcome_of, program_job
from groupwise.rewards.code.sandbox import Sandbox, SandboxSettings

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the layers are Linux's")


@pytest.fixture
def server():
    boundary, opened = detect(at_once=8)
    if opened is None:
        pytest.skip(f"no code sandbox on this machine: {boundary.reasons}")
    yield opened
    opened.close()


def run(server: ForkServer, program: str, limits: Limits) -> Outcome:
    [ended] = server.submit([program_job(program, "", limits)]).result(60)
    return outcome_of(ended, limits)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def below(pid: int) -> list[int]:
    """All processes that descend from this one, itself included."""
    found = [pid]
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if parent(int(entry.name)) == pid:
                    found += below(int(entry.name))
            except OSError:
                continue
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids, seconds=5.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not any(map(alive, pids)):
            return True
        time.sleep(0.02)
    return False


def test_a_server_that_dies_is_started_again_and_its_programs_are_run_again(server):
    waiting = server.submit([program_job("import time\ntime.sleep(0.6)\nprint(1)", "", Limits())])
    time.sleep(0.3)
    first = below(server.pid)
    assert len(first) >= 2  # the server and the program
    os.kill(first[-2] if len(first) > 2 else first[0], signal.SIGKILL)
    [ended] = waiting.result(20)
    assert outcome_of(ended, Limits()).stdout == "1\n"
    assert gone(first)
    assert run(server, "print(2)", Limits()).stdout == "2\n"


def test_a_server_that_dies_twice_is_our_failure(server):
    waiting = server.submit([program_job("import time\ntime.sleep(5)\nprint(1)", "", Limits())])
    for _ in range(2):
        time.sleep(0.5)
        os.kill(server.pid, signal.SIGKILL)
    [ended] = waiting.result(20)
    outcome = outcome_of(ended, Limits())
    assert (outcome.end, outcome.detail) == ("lost", "the sandbox's server died twice under it")
    assert not outcome.is_known
    assert run(server, "print(2)", Limits()).stdout == "2\n"


TRAINER = """
import os, sys, time
from groupwise.rewards.code import Limits, detect
from groupwise.rewards.code.runs import program_job
_, server = detect()
server.submit([program_job("import time\\ntime.sleep(100)", "", Limits(wall_seconds=200))])
time.sleep(0.5)
print(server.pid, flush=True)
time.sleep(100)
"""


def test_nothing_outlives_a_trainer_that_is_killed(server):
    source = str(Path(sys.modules["groupwise"].__file__).parents[1])
    trainer = subprocess.Popen(
        [sys.executable, "-c", TRAINER], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": source}
    )
    pid = int(trainer.stdout.readline())
    processes = below(pid)
    assert len(processes) >= 2
    trainer.kill()
    trainer.wait()
    assert gone(processes)


def test_closing_leaves_nothing(server):
    processes = below(server.pid)
    waiting = server.submit([program_job("import time\ntime.sleep(100)", "", Limits(wall_seconds=200))])
    time.sleep(0.2)
    processes += below(server.pid)
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    server.close()
    assert outcome_of(waiting.result(5)[0], Limits()).end == "lost"
    assert gone(processes)
    assert len(list(Path("/proc/self/fd").iterdir())) < descriptors
    assert outcome_of(server.submit([program_job("x", "", Limits())]).result(5)[0], Limits()).end == "lost"


def test_a_grade_that_is_given_up_does_not_harm_the_others(server):
    sandbox = Sandbox(None, SandboxSettings(), server)

    async def some():
        many = [asyncio.ensure_future(sandbox.run("import time\ntime.sleep(0.1)\nprint(1)")) for _ in range(40)]
        await asyncio.sleep(0.15)
        for each in many[::2]:
            each.cancel()
        return await asyncio.gather(*many, return_exceptions=True)

    results = asyncio.run(some())
    assert [result.stdout for result in results[1::2]] == ["1\n"] * 20


@pytest.fixture
def busy_core(server):
    """The server and its programs on one core, which many others want as well."""
    core = {min(os.sched_getaffinity(0))}
    run(server, "print(1)", Limits())
    for pid in below(server.pid):
        os.sched_setaffinity(pid, core)
    # Each in a session of its own, as programs are: some kernels share a core out by session.
    hog = [sys.executable, "-c", "while True: pass"]
    hogs = [subprocess.Popen(hog, start_new_session=True) for _ in range(20)]
    for hog in hogs:
        os.sched_setaffinity(hog.pid, core)
    time.sleep(0.3)
    yield
    for hog in hogs:
        hog.kill()
        hog.wait()


WORK = "import time\nwhile time.process_time() < {}: pass\nprint(1)"


def test_a_busy_machine_does_not_make_an_answer_wrong(server, busy_core):
    patient = run(server, WORK.format(0.08), Limits(cpu_seconds=1.0, wall_seconds=0.5))
    assert (patient.end, patient.stdout) == ("finished", "1\n")
    assert patient.wall_seconds > 0.5
    starved = run(server, WORK.format(5.0), Limits(cpu_seconds=10.0, wall_seconds=0.1))
    assert starved.end == "starved"
    assert not starved.is_known
    # One that waits is wrong on a busy machine, too.
    assert run(server, "import time\ntime.sleep(100)", Limits(wall_seconds=0.5)).end == "wall"


def test_a_crowd_that_loops_for_ever_is_wrong_and_not_unknown():
    """All completions of a problem may loop. Each gets a small share of a core, and that is nobody's fault but theirs:
    a wait of ten times the wall seconds is no excuse where all of them compute."""
    boundary, server = detect(at_once=24)
    if server is None:
        pytest.skip(f"no code sandbox on this machine: {boundary.reasons}")
    limits = Limits(cpu_seconds=0.1, wall_seconds=0.1)
    try:
        run(server, "print(1)", Limits())
        for pid in below(server.pid):
            os.sched_setaffinity(pid, {min(os.sched_getaffinity(0))})
        running = [server.submit([program_job("while True: pass", "", limits)]) for _ in range(24)]
        outcomes = [outcome_of(each.result(60)[0], limits) for each in running]
    finally:
        server.close()
    assert {outcome.end for outcome in outcomes} == {"cpu"}
    assert max(outcome.wall_seconds for outcome in outcomes) > 10 * limits.wall_seconds


CANARIES = {
    "HF_TOKEN": "hf_CANARY-1",
    "WANDB_API_KEY": "CANARY-2",
    "AWS_SECRET_ACCESS_KEY": "CANARY-3",
    "https_proxy": "http://user:CANARY-4@proxy:8080",
}


def test_no_key_of_the_trainer_is_in_a_programs_world(server, monkeypatch, tmp_path):
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)
    server.close()
    _, fresh = detect()
    program = (
        "import gc, os\nprint(dict(os.environ))\n"
        "for path in ('/proc/self/environ', '/proc/1/environ', '/proc/self/maps'):\n"
        "    try: print(open(path, 'rb').read())\n    except OSError as e: print(e)\n"
        # All of the process's own memory that is text, through the C heap as well.
        "import ctypes\nlibc = ctypes.CDLL(None)\nlibc.getenv.restype = ctypes.c_char_p\n"
        f"print([libc.getenv(name.encode()) for name in {list(CANARIES)}])\n"
        "print(len([o for o in gc.get_objects() if type(o) is dict and 'HF_' + 'TOKEN' in o]))\n"
    )
    try:
        outcome = run(fresh, program, Limits())
        environments = [Path(f"/proc/{pid}/environ").read_bytes() for pid in below(fresh.pid)]
    finally:
        fresh.close()
    assert outcome.end == "finished", outcome
    assert outcome.stdout.startswith("{}\n")
    assert outcome.stdout.endswith("[None, None, None, None]\n0\n")
    assert "CANARY" not in outcome.stdout + outcome.stderr
    assert all(b"CANARY" not in environment for environment in environments)
