"""Which groups are kept and how many more are sampled, worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groupwise.maths.selections import SELECTIONS, Choice, dynamic_sampling, everything, in_band, most_varied

GOOD, BAD, MIXED, OTHER = [1.0, 1.0], [0.0, 0.0], [1.0, 0.0], [0.0, None, 0.5]


def test_everything_is_one_round():
    assert everything([], 3) == Choice([], 3)
    assert everything([GOOD, BAD, MIXED], 3) == Choice([0, 1, 2], 0)


def test_dynamic_sampling_refills_at_the_share_that_speaks():
    assert dynamic_sampling([], 4, 0) == Choice([], 4)
    # two of four speak, two are missing: 2 / (2 / 4) = 4
    assert dynamic_sampling([MIXED, GOOD, OTHER, BAD], 4, 1) == Choice([0, 2], 4)
    # three of four speak, one is missing: 4 / 3, rounded up
    assert dynamic_sampling([MIXED, GOOD, OTHER, MIXED], 4, 1) == Choice([0, 2, 3], 2)
    # none speaks: a whole batch more, never a larger one
    assert dynamic_sampling([GOOD] * 4, 4, 1) == Choice([], 4)
    assert dynamic_sampling([GOOD] * 9 + [MIXED], 4, 2) == Choice([9], 4)


def test_dynamic_sampling_stops_when_it_is_full_or_at_the_cap():
    assert dynamic_sampling([MIXED, GOOD, OTHER, MIXED], 2, 1) == Choice([0, 2], 0)
    assert dynamic_sampling([MIXED, GOOD, GOOD], 3, 4) == Choice([0], 0)
    assert dynamic_sampling([MIXED, GOOD, GOOD], 3, 1, max_rounds=1) == Choice([0], 0)
    # nothing says anything: the first stay, so that there is a step, which teaches nothing
    assert dynamic_sampling([GOOD, BAD, GOOD, BAD], 3, 4) == Choice([0, 1, 2], 0)


def test_nearly_equal_rewards_speak_and_ungraded_groups_do_not():
    assert dynamic_sampling([[0.1 + 0.2, 0.3], [None, None], [None, 1.0], [0.1, 0.1]], 4, 4).kept == [0]


def test_a_band_of_mean_rewards():
    quarter, three_quarters = [1, 0, 0, 0], [1, 1, 1, 0]
    rewards = [quarter, three_quarters, GOOD, BAD, [None, None], [0.5, None]]
    assert in_band(rewards, 3, 4).kept == [0, 1, 5]
    assert in_band(rewards, 3, 4, band=(0.3, 0.75)).kept == [1, 5]
    # two of six, one missing: 1 / (2 / 6) = 3
    assert in_band(rewards, 3, 1, band=(0.3, 0.75)) == Choice([1, 5], 3)


def test_oversampling_keeps_those_that_differ_most_in_the_order_of_sampling():
    assert most_varied([], 2, oversample=1.5) == Choice([], 3)
    assert most_varied([], 3, oversample=1.1) == Choice([], 4)
    assert most_varied([[2, 0], GOOD, MIXED], 2, oversample=1.5) == Choice([0, 2], 0)
    assert most_varied([GOOD, MIXED, BAD, MIXED], 1, oversample=4.0).kept == [1]
    assert most_varied([GOOD, BAD, GOOD], 2, oversample=1.5).kept == [0, 1]


@pytest.mark.parametrize("name", SELECTIONS)
@given(data=st.data(), wanted=st.integers(1, 6))
def test_every_selection_ends_and_keeps_some_of_what_was_sampled(name, data, wanted):
    reward = st.one_of(st.none(), st.sampled_from([0.0, 0.5, 1.0]))
    rewards, rounds = [], 0
    bound = SELECTIONS[name]
    wants = {"rewards_QG": rewards, "wanted": wanted, "rounds": rounds}
    while (choice := bound(**{k: v for k, v in wants.items() if k in _names(bound)})).further > 0:
        rewards += data.draw(st.lists(st.lists(reward, min_size=2, max_size=3), **_exactly(choice.further)))
        rounds += 1
        wants["rounds"] = rounds
        assert rounds <= 4
    assert 1 <= len(choice.kept) <= wanted
    assert choice.kept == sorted(set(choice.kept))
    assert choice.kept[-1] < len(rewards)


def _exactly(count):
    return {"min_size": count, "max_size": count}


def _names(function):
    return function.__code__.co_varnames[: function.__code__.co_argcount]
