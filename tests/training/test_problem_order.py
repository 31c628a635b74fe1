"""The order in which problems are drawn: every one once an epoch, none left out, the same for the same seed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groupwise.training.problems import Epochs


@given(count=st.integers(1, 20), size=st.integers(1, 25), seed=st.integers(0, 2**32 - 1))
def test_every_epoch_holds_everything_once_wherever_batches_end(count, size, seed):
    items = list(range(count))
    epochs = Epochs(items, seed)
    drawn = [item for step in range(12) for item in epochs.batch(step * size, size)]
    for start in range(0, len(drawn) - count + 1, count):
        assert sorted(drawn[start : start + count]) == items


def test_every_epoch_and_every_seed_has_its_own_order():
    items = list(range(50))
    orders = [tuple(Epochs(items, seed).batch(epoch * 50, 50)) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert len({*orders, tuple(items)}) == 7


def test_a_step_can_be_drawn_again():
    epochs = Epochs(list("abcdefg"), 3)
    batches = [epochs.batch(start, 4) for start in range(0, 40, 4)]
    assert Epochs(list("abcdefg"), 3).batch(20, 4) == batches[5]
    assert epochs.batch(0, 4) == batches[0]


def test_epochs_are_counted():
    epochs = Epochs(list("abcd"), 0)
    assert [epochs.epoch(drawn) for drawn in (0, 2, 4, 9)] == [0.0, 0.5, 1.0, 2.25]
    with pytest.raises(AssertionError):
        Epochs([], 0)
