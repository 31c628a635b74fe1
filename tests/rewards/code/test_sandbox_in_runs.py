"""The sandbox in a run: its section in the recipe, and the views that say which boundary programs ran behind."""

import json
import sys
from pathlib import Path

import pytest

from groupwise.cli.header import header
from groupwise.errors import RewardError, RunError
from groupwise.rewards.code import SandboxSettings
from groupwise.rewards.code import sandbox as sandbox_module
from groupwise.rewards.code.levels import Boundary

sys.path.insert(0, str(Path(__file__).parents[2] / "training"))
from toy_runs import trainer_of

ROWS = [{"prompt": f"{letter}=", "tests": ["assert f(1) == 2"]} for letter in "abcdefgh"]


def trained(tmp_path, **settings):
    trainer = trainer_of(tmp_path, rewards=("code_tests",), rows=ROWS, **settings)
    run = trainer.train()
    return trainer, json.loads((run.path / "run.json").read_text()), run.metrics.read()


def test_a_run_says_which_boundary_it_had(tmp_path):
    try:
        trainer, identity, metrics = trained(tmp_path, **{"train.steps": 1, "sandbox.cpu_seconds": 1.5})
    except RewardError as error:
        pytest.skip(f"no code sandbox on this machine: {error}")
    assert identity["sandbox"]["level"] in ("strong", "good")
    assert identity["sandbox"]["boundary"] in str(header(trainer.parts, "train"))
    assert metrics[0]["sandbox/unknown"] == 0
    assert "sandbox/unsafe" not in metrics[0]
    assert trainer.parts.rewards[0].settings["sandbox"].cpu_seconds == 1.5


def test_an_unsafe_run_says_so_everywhere(tmp_path):
    trainer, identity, metrics = trained(tmp_path, **{"train.steps": 1, "sandbox.level": "unsafe"})
    assert identity["sandbox"]["level"] == "unsafe"
    assert "UNSAFE (no boundary" in str(header(trainer.parts, "train"))
    assert metrics[0]["sandbox/unsafe"] == 1


def test_without_a_boundary_a_run_does_not_begin(tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox_module, "detect", lambda *_: (Boundary("none", reasons=("seccomp: no",)), None))
    with pytest.raises(RewardError, match="NONE: code rewards are disabled"):
        trained(tmp_path, **{"sandbox.memory_mb": 300})
    assert not (tmp_path / "toy" / "run.json").exists()


def test_a_run_does_not_go_on_behind_less(tmp_path):
    try:
        trained(tmp_path, **{"train.steps": 1})
    except RewardError as error:
        pytest.skip(f"no code sandbox on this machine: {error}")
    with pytest.raises(RunError, match=r"began with programs behind (STRONG|GOOD).* it would be UNSAFE"):
        trained(tmp_path, **{"train.steps": 2, "sandbox.level": "unsafe"})
    _, identity, metrics = trained(tmp_path, **{"train.steps": 2})
    assert [row["step"] for row in metrics] == [1, 2]
    assert identity["sandbox"]["level"] in ("strong", "good")


def test_what_runs_no_programs_opens_no_sandbox(tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox_module, "detect", lambda *_: pytest.fail("it was opened"))
    run = trainer_of(tmp_path, **{"train.steps": 1}).train()
    assert json.loads((run.path / "run.json").read_text())["sandbox"] is None


def test_defaults_of_the_recipe_and_of_python_are_the_same():
    from groupwise.config.sandbox import SandboxSection

    values = SandboxSection().model_dump()
    assert SandboxSettings(**{**values, "packages": tuple(values["packages"])}) == SandboxSettings()
