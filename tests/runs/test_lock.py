"""The lock of a run folder where process numbers say nothing: other containers, a machine that was started anew."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import pytest

from groupwise.errors import RunError
from groupwise.runs import disk, lock

HOLDER = """
import os, sys, time
from pathlib import Path
from groupwise.runs import lock
lock.take(Path(sys.argv[1]))
if len(sys.argv) > 2 and os.fork() == 0:
    time.sleep(20)
print(os.getpid(), flush=True)
time.sleep(20)
"""


@contextmanager
def held(path, *arguments, before=()):
    """Another process has the lock as long as one is inside, or until it is killed."""
    command = [*before, sys.executable, "-c", HOLDER, str(path), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout.readline().strip().isdigit()
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def is_soon_left_behind(path):
    """The system takes a moment to take a process apart."""
    until = time.monotonic() + 5
    while not lock.is_left_behind(path) and time.monotonic() < until:
        time.sleep(0.01)
    return lock.is_left_behind(path)


def say(path, **facts):
    """Other words in the same file, whose lock of the system stays as it is."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


@pytest.mark.parametrize("elsewhere", [{"processes": "pid:[1]"}, {"boot": "an earlier start"}])
def test_where_the_number_says_nothing_the_systems_lock_does(tmp_path, elsewhere):
    path = tmp_path / "lock"
    with held(path) as process:
        say(path, **elsewhere, pid=4_000_000)
        assert not lock.is_left_behind(path), "its number is free here, and it lives"
        with pytest.raises(RunError, match=r"being written by process 4000000 on .* running now"):
            lock.take(path)
        process.kill()
        process.wait()
        assert is_soon_left_behind(path)
        lock.take(path)
    assert json.loads(path.read_text())["pid"] == os.getpid()
    lock.release(path)
    assert not path.exists()


def test_what_cannot_be_told_is_left_alone(tmp_path):
    """A disk without such locks, and another container."""
    path = tmp_path / "lock"
    path.write_text(json.dumps({"pid": 1, "host": lock.socket.gethostname(), "since": "x", "processes": "pid:[1]"}))
    with pytest.raises(RunError, match=r"in use by process 1 .* if that process is no longer running, delete"):
        lock.take(path)


def test_a_child_that_outlives_its_parent_holds_nothing(tmp_path):
    path = tmp_path / "lock"
    with held(path, "forks") as process:
        say(path, processes="pid:[1]")
        process.kill()
        process.wait()
        assert is_soon_left_behind(path)


def test_a_disk_without_links(tmp_path, monkeypatch):
    def none(source, target):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(disk, "link", none)
    path = tmp_path / "lock"
    lock.take(path)
    with pytest.raises(RunError, match="running now"):
        lock.take(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["lock"]
    lock.release(path)
    lock.take(path)
    lock.release(path)
    assert list(tmp_path.iterdir()) == []


def test_of_many_that_take_over_one_wins(tmp_path):
    path = tmp_path / "lock"
    path.write_text(json.dumps({"pid": 4_000_000, "host": lock.socket.gethostname(), "since": "x"}))
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom groupwise.runs import lock\n"
        "time.sleep(max(float(sys.argv[2]) - time.time(), 0))\n"
        "try: lock.take(Path(sys.argv[1])); print('took it', flush=True); time.sleep(1)\nexcept OSError: pass"
    )
    at = str(time.time() + 1.5)
    command = [sys.executable, "-c", script, str(path), at]
    several = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert sorted(process.communicate()[0].strip() for process in several) == ["", "", "", "took it"]


@pytest.mark.skipif(
    not shutil.which("unshare") or subprocess.run(["unshare", "-pf", "true"], capture_output=True).returncode != 0,
    reason="namespaces of processes cannot be made here",
)
def test_a_process_of_another_container(tmp_path):
    """In its own eyes it is number 1; here that is somebody else."""
    path = tmp_path / "lock"
    with held(path, before=["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]):
        assert json.loads(path.read_text())["pid"] == 1
        assert not lock.is_left_behind(path)
        with pytest.raises(RunError, match=r"process 1 on .* running now"):
            lock.take(path)
    assert is_soon_left_behind(path)
