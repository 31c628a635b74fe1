"""A real training process is killed, again and again, and the same command goes on with its run each time. A small
version of `python bench/reliability.py`, which does it hundreds of times."""

import pytest

from crash import child, killed
from groupwise.runs.checkpoints.store import Checkpoints
from groupwise.runs.folder import RunFolder
from soak import Soak


@pytest.fixture(scope="module")
def soak(tmp_path_factory):
    return Soak(tmp_path_factory.mktemp("soak"))


def test_killed_at_operations_all_over_a_run_it_ends_as_if_it_had_not_been(soak):
    """Every 17th operation on the disk, another one in each attempt."""
    at, kills = 5, 0
    while killed(lambda: soak.train("ops", background=False), at):
        kills += 1
        at += 17 if kills % 3 else -20
        found = Checkpoints(soak.runs / "ops" / "checkpoints", "?").folder
        assert not found.exists() or RunFolder.open(soak.runs / "ops").checkpoints.newest().faults == ()
        assert kills < 60
    assert kills > 5
    assert soak.difference("ops") == ""


def test_killed_at_random_moments_it_ends_as_if_it_had_not_been(soak):
    kills = soak.kill_at_random("moments", kills=6, seed=1)
    assert kills >= 3
    assert soak.difference("moments") == ""


def test_nothing_is_left_of_a_killed_process(soak):
    assert child(lambda: soak.train("left")) == 0
    assert soak.leftovers() == []
