"""Advantages of a step that several ranks share: those of one rank that holds it all, wherever the groups lie."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_learner import algorithm_of
from toy_tabular import groups_of

from groupwise.learner.graded import Graded
from groupwise.learner.world import ALONE
from groupwise.maths.advantages import ADVANTAGES


class Thread:
    """One of several ranks that are threads of this process."""

    def __init__(self, rank, size, said, barrier):
        self.rank, self.size, self._said, self._barrier = rank, size, said, barrier

    def gather(self, values):
        self._said[self.rank] = values
        self._barrier.wait(10)
        heard = list(self._said)
        self._barrier.wait(10)
        return torch.cat(heard), sum(map(len, heard[: self.rank]))

    def largest(self, value):
        return int(self.gather(torch.tensor([value]))[0].max())


def on_ranks(size, work):
    """What `work(rank, world)` gives on each rank."""
    said, barrier = [None] * size, threading.Barrier(size)
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(lambda rank: work(rank, Thread(rank, size, said, barrier)), range(size)))


def part(reward):
    return None if reward is None else {"a": reward, "b": 1.0 - reward / 2}


REWARDS = [[1.0, 0.0, None, 0.5], [0.0, 0.0], [None, None, None], [3.0, 0.25, 1.0], [0.7], [0.1, 0.2, 0.3, 0.4, 0.6]]
LENGTHS = [[3, 9, 1, 4], [7, 2], [1, 8, 3], [2, 5, 0], [4], [1, 2, 3, 2, 1]]
GROUPS = groups_of(LENGTHS, [[part(r) or {"a": None, "b": None} for r in rewards] for rewards in REWARDS])


@pytest.mark.parametrize("name", ADVANTAGES)
@settings(max_examples=5)
@given(held=st.lists(st.integers(0, 2), min_size=6, max_size=6), fee=st.sampled_from([0.0, 0.03]))
def test_wherever_the_groups_lie(name, held, fee):
    algorithm = algorithm_of(advantage=name, settings={"k": 2} if name == "pass_at_k" else {})
    penalties = [[fee * branch for branch in range(len(rewards))] for rewards in REWARDS]
    penalties = [[0.0] * len(rewards) for rewards in REWARDS] if name in ("maxrl", "gdpo") else penalties
    expected = algorithm.advantages(GROUPS, penalties)
    assert any(any(group) for group in expected)

    def work(rank, world):
        mine = [place for place in range(6) if held[place] == rank]
        found = algorithm.advantages([GROUPS[i] for i in mine], [penalties[i] for i in mine], world)
        return dict(zip(mine, found, strict=True))

    merged = {place: group for ranks in on_ranks(3, work) for place, group in ranks.items()}
    for place in range(6):
        assert merged[place] == pytest.approx(expected[place], rel=1e-12, abs=1e-14)


def test_it_matters_to_those_that_look_at_the_whole_step():
    """Each rank for itself would come to other numbers: the test above can fail."""
    across = {"batch_normalized", "reinforce_pp", "reinforce_pp_baseline", "gdpo", "gpg"}
    for name in ADVANTAGES:
        algorithm = algorithm_of(advantage=name, settings={"k": 2} if name == "pass_at_k" else {})
        apart = algorithm.advantages(GROUPS[:2]) + algorithm.advantages(GROUPS[2:])
        assert (apart != algorithm.advantages(GROUPS)) == (name in across), name


def test_what_crosses_is_what_was_graded():
    graded = Graded.of(GROUPS[:2], {"a": 1.0, "b": 0.3})
    assert graded.of_all(ALONE) == (graded, slice(2))
    first, second = on_ranks(
        2, lambda rank, world: Graded.of(GROUPS[2 * rank :][:2], graded.reward_weights).of_all(world)
    )
    everyone = Graded.of(GROUPS[:4], graded.reward_weights)
    assert first == (everyone, slice(0, 2))
    assert second == (everyone, slice(2, 4))
