"""A checkpoint that is written beside the training: that it failed is told within a step, and `latest` stays."""

import errno
import os
import threading

import pytest
from toy_runs import Listener, trainer_of

from groupwise.runs import disk
from groupwise.training.keeper import Keeper


class Hearing(Listener):
    """Remembers after which step it heard that nothing could be written."""

    def __init__(self, on_step):
        super().__init__(on_step)
        self.alarmed_at = None

    def message(self, text):
        super().message(text)
        if "no checkpoint could be written" in text:
            self.alarmed_at = self.steps
            self.alarm = text


def test_a_writer_that_fails_is_heard_of_within_a_step(tmp_path):
    failed, pointed = threading.Event(), []

    def broken(operation, path):
        if operation == "rename" and path.name == "latest":
            pointed.append(max(found.name for found in path.parent.glob("step_*")))
        if operation == "sync" and any(".step_000004" in part for part in path.parts):
            failed.set()
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    heard = Hearing(lambda count: count == 5 and failed.wait(30))
    with disk.watched(broken):
        run = trainer_of(tmp_path, reporter=heard, **{"train.steps": 8, "checkpoints.every": 2}).train()
    assert heard.alarmed_at in (4, 5)
    assert "step_000004" in heard.alarm and "the last good one is that of step 2" in heard.alarm
    assert pointed == ["step_000002", "step_000006", "step_000008"]  # each was there before it was pointed to
    assert run.checkpoints.steps() == [6, 8] and run.checkpoints.pointed("latest") == 8


@pytest.mark.parametrize("background", [True, False])
def test_only_what_training_goes_on_to_change_is_copied(tmp_path, monkeypatch, background):
    """The last checkpoint is waited for: a copy of weights and moments would be the most that a run holds. What is not
    copied is written by whoever could change it."""
    trainer = trainer_of(tmp_path, **{"train.steps": 3, "checkpoints.every": 1, "checkpoints.background": background})
    lives = [parameter.data_ptr() for parameter in trainer.parts.policy.trainable().values()]
    written, write = [], Keeper._write

    def watched(self, step, contents, best):
        tensors = [tensor for named in contents.tensors.values() for tensor in named.values()]
        copied = not any(tensor.data_ptr() in lives for tensor in tensors)
        written.append((copied, threading.current_thread() is not threading.main_thread()))
        write(self, step, contents, best)

    monkeypatch.setattr(Keeper, "_write", watched)
    trainer.train()
    assert written == [(background, background)] * 2 + [(False, False)]
