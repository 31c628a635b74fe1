"""A run that was left, however it was left, ends as if it had never been: to the last bit."""

import hashlib
import json
import random

import numpy as np
import pytest
import torch
from toy_runs import ROWS, TIMES, Listener, small_letters, trainer_of

from groupwise.runs.folder import RunFolder
from groupwise.training.keeper import Keeper
from toys import tiny_model


class LeftError(BaseException):
    """What ends a process at the end of a step. (The kills are in tests/runs.)"""


def leaving_after(step):
    def leave(count):
        if count == step:
            raise LeftError

    return Listener(leave)


class Centred:
    """A reward that remembers, and draws from every generator that there is."""

    __name__ = "centred"

    def __init__(self):
        self.mean = 0.0

    def __call__(self, completions, **kwargs):
        grades = [grade + 0.1 * random.random() + 0.1 * np.random.rand() for grade in small_letters(completions)]
        self.mean = 0.9 * self.mean + 0.1 * sum(grades) / len(grades)
        return [grade - self.mean + 0.01 * float(torch.rand(())) for grade in grades]

    def state(self):
        return {"mean": self.mean}

    def restore(self, state):
        self.mean = state["mean"]


def digest(folder):
    """SHA-256 of each file in a folder."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


def told(run):
    """All that a run has written down, times apart."""
    rows = [{name: value for name, value in row.items() if name not in TIMES} for row in run.metrics.read()]
    evaluations = [{name: value for name, value in row.items() if name != "time"} for row in run.evaluations()]
    rollouts = [run.rollouts(step) for step in run.rollout_steps()]
    return json.dumps(rows), json.dumps(evaluations), rollouts


def final_state(run):
    """The last checkpoint: weights, optimizer, generators and all else."""
    checkpoint = run.checkpoints.newest().checkpoint
    files = digest(checkpoint.path) | digest(checkpoint.model)
    del files["MANIFEST.json"], files["state.json"]  # the one names the run, the other has the time it took
    state = json.loads((checkpoint.path / "state.json").read_text())
    del state["run"]["seconds"]
    return {**files, **state}


MOVING = {"algorithm.beta": 0.1, "reference.every": 3, "reference.mix": 0.3}
KINDS = {
    "full": {},
    "frozen reference": {"algorithm.beta": 0.1},
    "moving reference": MOVING,
    "lora": {"lora": {"r": 2, "dropout": 0.1}},
    "lora, moving reference": {"lora": {"r": 2}, **MOVING},
    "several passes": {"learner.passes": 3},
    "several updates": {"learner.updates_per_batch": 2, "train.prompts_per_step": 4},
    "bf16": {"model.dtype": "bf16", **MOVING},
    "fp16": {"model.dtype": "fp16"},
    "adaptive coefficients": {
        "algorithm.beta": 0.1,
        "algorithm.beta_control": "proportional",
        "algorithm.settings": {"kl_target": 0.01},
    },
    "dynamic sampling": {"algorithm.preset": "dapo"},
    "by difficulty": {"problems.order": "difficulty"},
}
STEPS = {"train.steps": 9, "evaluation.every": 3, "task.hold_out": 3, "checkpoints.every": 2}


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_left_ends_as_if_it_had_not_been(tmp_path, monkeypatch, kind):
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(kind, torch.float32)
    settings = {**STEPS, **KINDS[kind], "optimizer.lr": 3e-3}

    def trainer(name, reporter=None):
        model = tiny_model(loudness=8.0, dtype=dtype)
        return trainer_of(tmp_path, [Centred()], model=model, reporter=reporter, **settings, **{"run.name": name})

    straight = trainer("straight").train()
    with pytest.raises(LeftError):
        trainer("left", leaving_after(1)).train()
    with pytest.raises(LeftError), monkeypatch.context() as killed:
        killed.setattr(
            Keeper, "close", lambda keeper, seconds: keeper._beside.finish()
        )  # what was not saved yet is lost
        trainer("left", leaving_after(4)).train()
    assert RunFolder.open(tmp_path / "left").checkpoints.newest().checkpoint.step < 5
    with pytest.raises(LeftError):
        trainer("left", leaving_after(2)).train()
    run = trainer("left").train()
    assert told(run) == told(straight)
    assert final_state(run) == final_state(straight)
    assert digest(run.model_path) == digest(straight.model_path)
    assert len(run.identity["attempts"]) == 3
    steps = [row["step"] for row in run.metrics.read()]
    assert steps == list(range(1, 10))


def test_the_rows_are_all_different(tmp_path):
    """Else the comparison above could not fail."""
    run = trainer_of(tmp_path, [Centred()], **STEPS).train()
    for name in ("reward", "grad_norm", "entropy"):
        values = [value for _, value in run.metrics.series(name)]
        assert len(set(values)) > 5, name


def test_a_warm_start_too(tmp_path):
    rows = [{"prompt": row["prompt"], "completion": row["answer"]} for row in ROWS]
    settings = {"sft.steps": 6, "sft.rows_per_step": 5, "checkpoints.every": 2, "task.hold_out": 2}

    def trainer(name, reporter=None):
        return trainer_of(tmp_path, (), rows, reporter=reporter, **settings, **{"run.name": name})

    straight = trainer("straight").sft()
    with pytest.raises(LeftError):
        trainer("left", leaving_after(3)).sft()
    run = trainer("left").sft()
    assert told(run) == told(straight)
    assert final_state(run) == final_state(straight)


def test_a_run_that_was_left_before_its_first_checkpoint_begins_again(tmp_path):
    def broken(completions, trainer_state, **kwargs):
        if trainer_state.global_step == 1 and not mended:
            raise ValueError("no")
        return small_letters(completions)

    mended = []
    settings = {"train.steps": 3, "task.hold_out": 2}
    with pytest.raises(ValueError, match="no"):
        trainer_of(tmp_path, [broken], **settings).train()
    failed = RunFolder.open(tmp_path / "toy")
    assert (failed.status, failed.checkpoints.steps()) == ("failed", [])
    mended.append(True)
    run = trainer_of(tmp_path, [broken], **settings).train()
    assert run.status == "finished"
    assert [row["label"] for row in run.evaluations()] == ["before", "after"]
    assert run.identity["error"] is None
    assert len(list((run.path / "evals").iterdir())) == 2


def test_a_finished_run_goes_on_with_more_steps(tmp_path):
    listener = Listener()
    trainer_of(tmp_path, **{"train.steps": 2}).train()
    run = trainer_of(tmp_path, reporter=listener, **{"train.steps": 4}).train()
    assert [row["step"] for row in run.metrics.read()] == [1, 2, 3, 4]
    assert "changed since the run was here: train.steps: 2 -> 4" in listener.messages
    assert "going on from step 2 of 4" in listener.messages
    assert run.recipe().recipe.train.steps == 4
