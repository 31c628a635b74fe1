"""Waits that are too long: told, dumped, broken off; and a process that no signal reaches ends all the same."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from toy_runs import Listener, small_letters, trainer_of

from groupwise.config.guards import DeadlinesSection
from groupwise.errors import DeadlineError
from groupwise.training import loop, trainer
from groupwise.training.build import build
from groupwise.training.deadlines import Deadlines


@pytest.fixture
def watched(tmp_path):
    """Deadlines of 0.3 s, what they said, and their log."""
    said = []
    section = DeadlinesSection(sample=0.3, grade=0.3, silence=0.1)
    with Deadlines(section, tmp_path / "log", said.append) as deadlines:
        yield deadlines, said, tmp_path / "log"


def test_a_sleep_is_broken_off_and_the_stacks_are_in_the_log(watched):
    deadlines, said, log = watched
    began = time.monotonic()
    with (
        pytest.raises(DeadlineError, match=r"judge took longer than 0.3 s.*raise deadlines.grade"),
        deadlines.waiting("grade", "judge"),
    ):
        time.sleep(60)
    assert time.monotonic() - began < 5
    assert "waiting for judge since 0 s, until 0.3 s (deadlines.grade)" in said[0]
    assert "judge missed the deadline of 0.3 s" in said[-1]
    text = log.read_text()
    assert "all threads" in text
    assert "test_a_sleep_is_broken_off" in text


def test_a_loop_that_swallows_exceptions_is_broken_off(watched):
    def stubborn():
        while True:
            try:
                time.sleep(0.01)
            except Exception:
                continue

    with pytest.raises(DeadlineError), watched[0].waiting("grade", "judge"):
        stubborn()


def test_a_wait_of_the_event_loop_is_cancelled_and_the_loop_goes_on(watched):
    async def waits():
        with pytest.raises(DeadlineError, match="the engine took longer"), watched[0].waiting("sample", "the engine"):
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(0.01)
        return asyncio.current_task().cancelling()

    assert asyncio.run(waits()) == 0


def test_a_cancellation_of_someone_else_stays_one(watched):
    async def waits():
        with watched[0].waiting("sample", "the engine"):
            await asyncio.sleep(10)

    async def cancels():
        task = asyncio.create_task(waits())
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancels())


def test_quick_waits_and_phases_without_a_deadline_say_nothing(watched):
    deadlines, said, _ = watched
    for _ in range(3):
        with deadlines.waiting("grade", "judge"), deadlines.waiting("sample", "inside"):
            pass
    time.sleep(0.4)
    assert said == []
    with deadlines.waiting("tidying", "nobody"):
        time.sleep(0.4)
    assert said and all("waiting for nobody" in text and "until" not in text for text in said)


def test_no_thread_and_no_handler_is_left(tmp_path):
    import signal

    before, handler = threading.active_count(), signal.getsignal(signal.SIGUSR2)
    with Deadlines(DeadlinesSection(), tmp_path / "log", print):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
    assert signal.getsignal(signal.SIGUSR2) == handler


HOLDS_THE_INTERPRETER = """
import itertools, sys
from pathlib import Path
from groupwise.config.guards import DeadlinesSection
from groupwise.training.deadlines import Deadlines

def judge():
    sum(itertools.repeat(0))      # a loop in C that keeps the interpreter's lock: no thread and no handler can run

with Deadlines(DeadlinesSection(grade=0.3), Path(sys.argv[1]), print, grace=0.5) as deadlines:
    with deadlines.waiting("grade", "judge"):
        judge()
"""


def test_what_no_signal_ends_is_ended_by_its_exit(tmp_path):
    began = time.monotonic()
    command = [sys.executable, "-c", HOLDS_THE_INTERPRETER, str(tmp_path / "log")]
    done = subprocess.run(command, timeout=50, check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL
    assert time.monotonic() - began < 40
    assert "in judge" in (tmp_path / "log").read_text()
    assert f"What every thread was doing is in {tmp_path / 'log'}" in done.stderr


def test_a_reward_that_never_returns_ends_the_run_and_names_itself(tmp_path):
    def sleeper(completions, **kwargs):
        time.sleep(60)

    given = trainer_of(tmp_path, rewards=(small_letters, sleeper), **{"deadlines.grade": 0.5})
    with pytest.raises(DeadlineError, match="the reward functions small_letters, sleeper took longer"):
        given.train()
    run = tmp_path / "toy"
    assert '"status": "failed"' in (run / "run.json").read_text()
    assert "in sleeper" in (run / "log").read_text()


def test_a_stop_counts_less_than_the_shortest_deadline(tmp_path, monkeypatch):
    """The first look that comes after an hour's stop."""
    said, stopped = [], time.monotonic() + 3600
    section = DeadlinesSection(grade=2.0)
    with Deadlines(section, tmp_path / "log", said.append) as deadlines, deadlines.waiting("grade", "judge"):
        monkeypatch.setattr("groupwise.training.deadlines.time", SimpleNamespace(monotonic=lambda: stopped))
        time.sleep(0.7)
    assert said == []


STOPPED = """
import sys, time
from pathlib import Path
from groupwise.config.guards import DeadlinesSection
from groupwise.training.deadlines import Deadlines

with Deadlines(DeadlinesSection(grade=1.0), Path(sys.argv[1]), print, grace=float(sys.argv[3])) as deadlines:
    with deadlines.waiting("grade", "judge"):
        print("waits", flush=True)
        time.sleep(float(sys.argv[2]))
    print("done", flush=True)
"""


def test_who_was_stopped_is_not_late(tmp_path):
    """Ctrl-Z for longer than the deadline, and than what comes after it; afterwards time counts as before."""
    for sleeps, grace, ends in (("0.3", "0.5", 0), ("30", "60", 1)):
        command = [sys.executable, "-c", STOPPED, str(tmp_path / "log"), sleeps, grace]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "waits\n"
            process.send_signal(signal.SIGSTOP)
            time.sleep(2.0)
            process.send_signal(signal.SIGCONT)
            said, error = process.communicate(timeout=20)
        assert process.returncode == ends, error
        assert ("done" in said) == (not ends)
        assert ("judge took longer than 1 s" in error) == bool(ends)


def test_the_load_of_a_model_and_the_preflight_are_watched_too(tmp_path, monkeypatch):
    async def slow(*_):
        time.sleep(0.5)
        return "tried"

    monkeypatch.setattr(loop, "preflight", slow)
    monkeypatch.setattr(trainer, "build", lambda *given: (time.sleep(0.5), build(*given))[1])
    heard = Listener()
    trainer_of(tmp_path, reporter=heard, **{"guards.preflight": True, "deadlines.silence": 0.2}).train()
    for whom in ("and the problems, to be loaded since 0 s", "the preflight, the worst case of this recipe since 0 s"):
        assert any(f"{whom}, until 7200 s (deadlines.load)" in text for text in heard.messages)
    with pytest.raises(DeadlineError, match=r"to be loaded took longer than 0.1 s.*on standard error"):
        trainer_of(tmp_path / "other", **{"deadlines.load": 0.1}).prepare()


def test_a_watch_that_cannot_be_told_of_goes_on(tmp_path):
    """A full disk, a terminal that is gone: the wait is broken off all the same."""

    def nowhere(text):
        raise OSError("gone")

    with (
        pytest.raises(DeadlineError),
        Deadlines(DeadlinesSection(grade=0.3, silence=0.1), tmp_path / "log", nowhere) as deadlines,
        deadlines.waiting("grade", "judge"),
    ):
        time.sleep(60)


KILLED = """
import os, sys, time
from groupwise.training.watchdog import Watchdog

watchdog = Watchdog(sys.stderr, "log")
if os.fork():
    print(watchdog._process.pid, flush=True)
time.sleep(60)
"""


def test_a_watchdog_outlives_nobody(tmp_path):
    """Also where a child that was forked still has the other end of its pipe."""
    with subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, process_group=0) as process:
        watchdog = int(process.stdout.readline())
        process.kill()
    until = time.monotonic() + 5
    while is_alive(watchdog):
        assert time.monotonic() < until
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)


def is_alive(pid):
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(") ")[2][0] != "Z"
