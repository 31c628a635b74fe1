"""A real training process is killed, again and again, and the same command goes on with its run each time. A small
version of `python bench/reliability.py`, which does it hundreds of times."""

import pytest

from crash import child, killed
from groupwise.runs.folder import RunFolder
from soak import Soak


@pytest.fixture(scope="module")
def soak(tmp_path_factory):
    return Soak(tmp_path_factory.mktemp("soak"))


def test_killed_at_operations_all_over_a_run_it_ends_as_if_it_had_not_been(soak):
    """Another operation on the disk in each attempt: while it begins, between two files of a checkpoint, and so on."""
    for at in (2, 6, 45, 71, 90):
        assert killed(lambda: soak.train("ops", background=False), at), f"it has no operation {at}"
        run = soak.runs / "ops"
        assert not (run / "run.json").exists() or RunFolder.open(run).checkpoints.newest().faults == ()
    assert child(lambda: soak.train("ops")) == 0
    assert soak.difference("ops") == ""


def test_killed_at_random_moments_it_ends_as_if_it_had_not_been(soak):
    runs = soak.kill_at_random(kills=3, seed=1)
    assert soak.met.total() == 3
    assert [soak.difference(run) for run in runs] == [""] * len(runs)


def test_nothing_is_left_of_a_killed_process(soak):
    assert child(lambda: soak.train("left")) == 0
    assert soak.leftovers() == []
