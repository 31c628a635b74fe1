"""What a run does with steps that must not be made, with alarms that act, and with budgets."""

import errno
import json
import math
import os
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from toy_runs import Listener, trainer_of

from groupwise.errors import LearnerError
from groupwise.learner.finite import NonFiniteError
from groupwise.learner.learner import Learner
from groupwise.runs import disk
from groupwise.runs.files import read_rows
from groupwise.runs.folder import RunFolder
from groupwise.runs.rollouts import read_rollouts
from groupwise.training import replay
from groupwise.training.guards import bad_steps
from toys import ids_of, tiny_model


@pytest.fixture
def spoil(monkeypatch):
    """Lets the advantage of one completion be NaN in these steps (the learner cannot tell where it came from)."""
    from dataclasses import replace

    update = Learner.update

    def at(*steps):
        count = iter(range(1, 100))

        async def spoilt(self, groups, **settings):
            if next(count) in steps:
                rollouts = list(groups[1].rollouts)
                rollouts[2] = replace(rollouts[2], advantage=math.nan)
                groups = [groups[0], replace(groups[1], rollouts=tuple(rollouts))]
            return await update(self, groups, **settings)

        monkeypatch.setattr(Learner, "update", spoilt)

    return at


def test_a_bad_step_ends_the_run_and_is_kept(tmp_path, spoil):
    spoil(2)
    trainer = trainer_of(tmp_path, **{"train.steps": 5})
    with pytest.raises(NonFiniteError, match=r"the advantage is nan in completion 2 of the problem 'rows/train/\d+'"):
        trainer.train()
    run = RunFolder.open(tmp_path / "toy")
    assert run.status == "failed"
    assert bad_steps(run) == [2]
    folder = run.path / "bad_step" / "000002"
    told = json.loads((folder / "error.json").read_text())
    assert (told["step"], told["what"], told["value"], told["completion"]) == (2, "the advantage", "nan", 2)
    rows = read_rollouts(folder / "rollouts.parquet")
    assert [math.isnan(row.advantage) for row in rows] == [False] * 6 + [True, False]
    assert told["problem"] == rows[6].problem_id
    kept = load_file(folder / "weights.safetensors")
    assert kept.keys() == trainer.policy.trainable().keys()
    assert all(torch.equal(kept[name], value) for name, value in trainer.policy.trainable().items())


def test_a_disk_that_cannot_keep_it_does_not_hide_what_was_wrong(tmp_path, spoil):
    def full(operation, path):
        if "bad_step" in path.parts and operation == "sync":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    spoil(1)
    with disk.watched(full), pytest.raises(NonFiniteError, match=r"the advantage is nan(.|\n)*could not be kept.*free"):
        trainer_of(tmp_path).train()
    assert not list((tmp_path / "toy" / "bad_step").rglob("*.tmp"))


def test_bad_steps_can_be_skipped(tmp_path, spoil):
    spoil(2, 3)
    heard = Listener()
    run = trainer_of(tmp_path, reporter=heard, **{"train.steps": 4, "guards.non_finite": "skip"}).train()
    rows = run.metrics.read()
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert [row.get("skipped") for row in rows] == [None, 1.0, 1.0, None]
    assert ["loss" in row for row in rows] == [True, False, False, True]
    assert sum("is skipped: the advantage is nan" in text for text in heard.messages) == 2
    assert run.status == "finished"


def test_too_many_in_a_row_end_it_and_one_good_one_starts_the_count_anew(tmp_path, spoil):
    spoil(1, 2, 4, 5, 6)
    trainer = trainer_of(tmp_path, **{"train.steps": 9, "guards.non_finite": "skip"})
    with pytest.raises(NonFiniteError, match="the last of 3 such steps in a row"):
        trainer.train()
    run = RunFolder.open(tmp_path / "toy")
    assert len(run.metrics.read()) == 5
    assert bad_steps(run) == [1, 2, 4, 5, 6]
    with_weights = sorted(path.parent.name for path in (run.path / "bad_step").glob("*/weights.safetensors"))
    assert with_weights == ["000004", "000005", "000006"]


def test_a_bad_step_changes_nothing_for_those_after_it(tmp_path, spoil):
    spoil(1)
    run = trainer_of(tmp_path, **{"guards.non_finite": "skip", "optimizer.schedule": "constant"}).train()
    clean = trainer_of(tmp_path, **{"run.name": "clean"})
    policy = clean.policy
    first = {name: p.detach().clone() for name, p in policy.trainable().items()}
    assert all(torch.equal(value, first[name]) for name, value in load_bad(run, 1).items())


def load_bad(run, step):
    return load_file(run.path / "bad_step" / f"{step:06d}" / "weights.safetensors")


def test_an_alarm_may_end_the_run(tmp_path):
    def always(completions, **kwargs):
        return [0.0] * len(completions)

    heard = Listener()
    settings = {"train.steps": 9, "alarms.action": "stop", "alarms.act_on": ["no_signal"]}
    run = trainer_of(tmp_path, [always], reporter=heard, **settings).train()
    assert run.status == "finished"
    assert len(run.metrics.read()) == 5
    rows = read_rows(run.path / "alarms.jsonl")
    assert [(row["alarm"], row["step"]) for row in rows if row["alarm"] == "no_signal"] == [("no_signal", 5)]
    assert any(text.startswith("ALARM no_signal, step 5: 100% of the groups") for text in heard.messages)
    assert "the run ends: alarm no_signal at step 5 (alarms.action)" in heard.messages


def test_a_budget_ends_the_run_in_good_order(tmp_path):
    heard = Listener()
    run = trainer_of(tmp_path, reporter=heard, **{"train.steps": 50, "budgets.sampled_tokens": 100}).train()
    sampled = [row["sampled_tokens"] for row in run.metrics.read()]
    assert sum(sampled) >= 100 > sum(sampled[:-1])
    assert run.status == "finished"
    assert run.trained_model().is_dir()
    assert any("(budgets.sampled_tokens = 100)" in text for text in heard.messages)


def test_what_a_run_says_of_itself_has_the_signs(tmp_path):
    (row, _) = trainer_of(tmp_path).train().metrics.read()
    assert {"repetition", "reward_size", "solved"} <= row.keys()


@pytest.mark.parametrize("lora", [None, {"r": 2}], ids=["full", "lora"])
def test_a_last_update_that_breaks_the_weights_is_no_end(tmp_path, lora):
    """Nothing samples after the last step, so nothing but a look at the weights finds it out."""
    settings = {"optimizer.lr": 1e38, "optimizer.warmup": 0.0, "train.steps": 1, "optimizer.schedule": "constant"}
    trainer = trainer_of(tmp_path, **settings, **({} if lora is None else {"lora": lora}))
    with pytest.raises(LearnerError, match=r"after step 1 .* not finite; nothing is saved of it"):
        trainer.train()
    run = RunFolder.open(tmp_path / "toy")
    assert run.status == "failed"
    assert not run.model_path.exists() and run.checkpoints.steps() == []


def test_loops_are_cut_marked_and_paid_as_stated(tmp_path, monkeypatch):
    """A model that says one letter for ever."""
    model = tiny_model()
    with torch.no_grad():
        model.get_input_embeddings().weight[ids_of("a")[0]] *= 400
    settings = {"sampling.max_new_tokens": 40, "loops.tokens": 8, "loops.reward": -0.5, "optimizer.lr": 1e-9}
    trainer = trainer_of(tmp_path, model=model, **settings)
    parts = replace(trainer.parts)
    run = trainer.train()
    rows = [row for step in (1, 2) for row in run.rollouts(step)]
    cut = [row for row in rows if row.finish_reason == "loop"]
    assert cut and all(row.reward == -0.5 and row.outcome == "wrong" and len(row.token_ids) == 16 for row in cut)
    shares = [row["looped"] for row in run.metrics.read()]
    assert sum(shares) / 2 == pytest.approx(len(cut) / len(rows))
    monkeypatch.setattr(replay, "_parts", lambda run: parts)
    assert next(replay.replay_step(run, 1)).same, "graded again they get the same"
