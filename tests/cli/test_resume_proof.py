"""`groupwise doctor --resume`: the proof says so when a killed run goes on exactly, and when it does not."""

import json
import os
import signal
from types import SimpleNamespace

import pytest

from crash import child
from groupwise.cli import resume_proof
from groupwise.cli.main import main

REWARD = """\
calls = 0

def forgetful(completions, **columns):
    global calls
    calls += 1
    return [calls + len(text) / 10 for text in completions]
"""


class Forked:
    """What the proof knows of `subprocess.Popen`, as a fork: torch is loaded already."""

    def __init__(self, words, **_):
        self.pid = os.fork()
        if self.pid == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os._exit(main(words[3:]))
        self._code = None

    def poll(self):
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def ran(words, **_):
    code = child(lambda: main(words[3:]))
    return SimpleNamespace(returncode=code, stderr="" if code == 0 else "it said why")


@pytest.fixture
def proven(recipe, groupwise, monkeypatch):
    recipe.write_text(recipe.read_text() + "\n[guards]\npreflight = false\n")
    killed = []

    class Watched(Forked):
        def __exit__(self, *_):
            super().__exit__()
            killed.append(self._code)

    names = {"run": ran, "Popen": Watched, "DEVNULL": None}
    monkeypatch.setattr(resume_proof, "subprocess", SimpleNamespace(**names))

    def call():
        ended = groupwise("doctor", "--resume", recipe, "--json")
        return ended.code, json.loads(ended.out)["findings"], killed

    return call


def test_a_run_that_was_killed_ends_the_same(proven):
    code, found, killed = proven()
    assert (code, killed) == (0, [-signal.SIGKILL])
    assert [finding["level"] for finding in found] == ["ok", "ok", "ok"]
    assert found[-1]["text"] == "weights, optimizer, metrics, evaluations and rollouts are equal to the last bit"
    assert found[-1]["values"]["killed_after"] >= resume_proof.KILL_AFTER


def test_a_reward_that_forgets_is_found_out(proven, recipe):
    (recipe.parent / "reward.py").write_text(REWARD)
    recipe.write_text(recipe.read_text().replace('function = "correctness"', 'function = "reward.py:forgetful"'))
    code, found, _ = proven()
    assert code == 1
    assert found[-1]["level"] == "error" and "rewards/forgetful/mean" in found[-1]["text"]
    assert "state() and restore(state)" in found[-1]["cure"]


def test_a_recipe_that_does_not_run_is_said_to(proven, recipe):
    recipe.write_text(recipe.read_text().replace("digits = 1", "digits = 99"))
    code, found, _ = proven()
    assert code == 1 and found[0]["text"] == "the recipe does not run: it said why"
