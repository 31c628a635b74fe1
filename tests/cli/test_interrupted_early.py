"""Ctrl-C and SIGTERM before a run has begun: no traceback, and the exit code says what to do."""

import os
import signal
import subprocess
import sys

import pytest

SLOW_TO_IMPORT = "import time\nprint('importing', flush=True)\ntime.sleep(30)\n"


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_while_python_imports_ends_without_a_word(tmp_path):
    """A typer that never comes stands for all that is imported first."""
    (tmp_path / "typer.py").write_text(SLOW_TO_IMPORT)
    path = os.pathsep.join([str(tmp_path), *sys.path])
    words = [sys.executable, "-m", "groupwise", "version"]
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, env={**os.environ, "PYTHONPATH": path}, **settings) as process:
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=20)
    assert (process.returncode, out, error) == (-signal.SIGINT, "", "")


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_cluster_that_wants_its_machine_back_while_a_run_is_loaded_is_told_to_come_again(groupwise, recipe, name):
    handler = signal.getsignal(signal.Signals[name])
    once = f"if not os.path.exists('asked'): open('asked', 'w'); os.kill(os.getpid(), signal.{name})\n"
    (recipe.parent / "reward.py").write_text(
        f"import os, signal\n{once}def judge(completions, **columns): return [float(len(c)) for c in completions]\n"
    )
    words = ("train", recipe, 'rewards=[{function = "reward.py:judge"}]', "train.steps=1")
    ended = groupwise(*words)
    assert ended.code == 75
    assert ended.err == f"{name}: nothing had begun yet; the same command begins, or goes on\n"
    assert signal.getsignal(signal.Signals[name]) == handler
    assert groupwise(*words).code == 0
