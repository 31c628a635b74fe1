"""A checkpoint that is written beside the training: that it failed is told within a step, and `latest` stays."""

import errno
import os
import threading

from toy_runs import Listener, trainer_of

from groupwise.runs import disk


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
        if threading.current_thread() is threading.main_thread():
            return
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
