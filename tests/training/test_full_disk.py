"""A disk that is full while a run trains: it goes on, says so, and what waits is written when there is room again."""

import errno
import os

import pytest
from toy_runs import Listener, trainer_of

from groupwise.errors import LearnerError, RunError
from groupwise.runs import disk, rollouts
from groupwise.runs.compare import differences
from groupwise.runs.folder import RunFolder
from groupwise.runs.patience import Patience

SETTINGS = {
    "train.steps": 6,
    "checkpoints.every": 2,
    "task.hold_out": 2,
    "evaluation.every": 2,
    "checkpoints.background": False,
}


class Full:
    """Refuses all that takes room, while it is full."""

    def __init__(self):
        self.full, self.refused = False, 0

    def __call__(self, operation, path):
        if self.full and operation in ("write", "make folder"):
            self.refused += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def trained(tmp_path, name, full_from, room_from, monkeypatch):
    machine = Full()

    def after(step):
        machine.full = full_from <= step < room_from

    monkeypatch.setattr(rollouts, "write_table", table_of(rollouts.write_table, machine))
    heard = Listener(after)
    with disk.watched(machine):
        try:
            trainer_of(tmp_path, reporter=heard, **SETTINGS, **{"run.name": name}).train()
        finally:
            monkeypatch.undo()
    return heard, machine


def table_of(write_table, machine):
    def table(path, *rest):
        try:
            machine("write", path)
        except OSError as error:
            raise RunError("full") from error
        write_table(path, *rest)

    return table


def test_it_goes_on_and_writes_later_what_waits(tmp_path, monkeypatch):
    straight = trainer_of(tmp_path, **SETTINGS, **{"run.name": "straight"}).train()
    heard, machine = trained(tmp_path, "full", 1, 5, monkeypatch)
    assert machine.refused > 10
    run = RunFolder.open(tmp_path / "full")
    assert run.status == "finished"
    missing = [2, 3, 4, 5]
    assert run.rollout_steps() == [step for step in range(1, 7) if step not in missing]
    assert {text.partition(" ")[0] for text in differences(straight, run)} == {"rollouts:"}, "all rows are there"
    for step in missing:
        assert any(
            f"ALARM: training goes on without its records, the rollouts of step {step}" in t for t in heard.messages
        )
    assert any("ALARM: no checkpoint could be written" in text for text in heard.messages)


def test_one_that_never_has_room_again_goes_on_from_what_is_whole(tmp_path, monkeypatch):
    straight = trainer_of(tmp_path, **SETTINGS, **{"run.name": "straight"}).train()
    with pytest.raises((RunError, OSError)):
        trained(tmp_path, "full", 3, 99, monkeypatch)
    kept = RunFolder.open(tmp_path / "full").checkpoints.newest()
    assert kept.checkpoint.step == 2 and kept.faults == ()
    run = trainer_of(tmp_path, **SETTINGS, **{"run.name": "full"}).train()
    assert differences(straight, run) == []


def test_one_that_fails_besides_gives_its_folder_free(tmp_path):
    def after(step):
        machine.full = True
        if step == 2:
            raise LearnerError("something else")

    machine = Full()
    with disk.watched(machine), pytest.raises(LearnerError, match="something else"):
        trainer_of(tmp_path, reporter=Listener(after), **SETTINGS).train()
    assert machine.refused
    assert not (tmp_path / "toy" / "lock").exists()
    trainer_of(tmp_path, **SETTINGS).train()


def test_one_that_is_full_from_the_first_step_goes_on_too(tmp_path):
    """Before the folders of the records are there."""
    machine = Full()

    def judge(completions, **kwargs):
        machine.full = True
        return [float(len(text)) for text in completions]

    heard = Listener(lambda step: setattr(machine, "full", False))
    with disk.watched(machine):
        run = trainer_of(tmp_path, rewards=(judge,), reporter=heard).train()
    assert machine.refused and run.status == "finished"
    assert any("the rollouts of step 1 are not kept" in text for text in heard.messages)


def test_before_training_a_full_disk_is_an_error(tmp_path):
    machine = Full()
    machine.full = True
    with disk.watched(machine), pytest.raises(RunError, match="free some space"):
        Patience().append(tmp_path / "metrics.jsonl", {"step": 1})


def test_a_row_that_was_taken_in_part_is_whole_later(tmp_path, monkeypatch):
    path, write = tmp_path / "metrics.jsonl", os.write
    patience = Patience()
    patience.begin(lambda text: None)
    patience.append(path, {"step": 1})

    def part(descriptor, piece):
        if len(piece) < 2:
            raise OSError(errno.ENOSPC, "full")
        return write(descriptor, piece[: len(piece) - 1])  # all but the end of the line

    with monkeypatch.context() as full:
        full.setattr(disk.os, "write", part)
        patience.append(path, {"step": 2})
    assert path.read_text() == '{"step": 1}\n'
    patience.append(path, {"step": 3})
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3}\n'
