"""Advantages against numbers worked by hand, and the cases in which a group has nothing to say."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groupwise.maths.advantages import ADVANTAGES, group_centred, group_normalized


def test_four_right_of_eight_give_plus_and_minus_0_94():
    # mean 4/8 = 0.5; squares 8 * 0.25 = 2; Bessel 2/7, root 0.5345225; 0.5 / 0.5346225 = 0.9352394
    ((*right, a, b, c, d),) = group_normalized([[1, 1, 1, 1, 0, 0, 0, 0]])
    assert right == pytest.approx([0.9352394] * 4, abs=1e-7)
    assert [a, b, c, d] == pytest.approx([-0.9352394] * 4, abs=1e-7)
    assert round(right[0], 2) == 0.94


def test_two_groups_are_compared_each_with_itself():
    # means 2 and 5, std sqrt((1 + 0 + 1) / 2) = 1 in both: -1/1.0001, 0, 1/1.0001
    expected = [-0.99990001, 0.0, 0.99990001]
    first, second = group_normalized([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert first == pytest.approx(expected, abs=1e-8)
    assert second == pytest.approx(expected, abs=1e-8)


def test_centred_keeps_the_scale_of_the_rewards():
    # mean (10 + 0 + 0 + 2) / 4 = 3
    assert group_centred([[10, 0, 0, 2]]) == [[7.0, -3.0, -3.0, -1.0]]


def test_groups_may_differ_in_size():
    # mean 1, std sqrt((1 + 1) / 1) = 1.4142136, 1 / 1.4143136 = 0.7070568
    first, second = group_normalized([[2, 0], [1.0, 2.0, 3.0]])
    assert first == pytest.approx([0.7070568, -0.7070568], abs=1e-7)
    assert len(second) == 3


def test_an_ungraded_rollout_takes_no_part():
    # of 1 and 0 alone: mean 0.5, std sqrt(0.5) = 0.7071068, 0.5 / 0.7072068 = 0.7070068
    (advantages_G,) = group_normalized([[1.0, None, 0.0, None]])
    assert advantages_G == pytest.approx([0.7070068, 0.0, -0.7070068, 0.0], abs=1e-7)
    assert advantages_G[1] == 0.0 and advantages_G[3] == 0.0
    assert group_centred([[None, 4.0, 2.0]]) == [[0.0, 1.0, -1.0]]


@pytest.mark.parametrize("name", ADVANTAGES)
@pytest.mark.parametrize(
    "rewards_G",
    [[], [None], [None, None], [7.0], [None, 7.0], [0, 0, 0], [0.1] * 3, [0.1] * 10, [1 / 3] * 49, [-2.8, -2.8, None]],
)
def test_a_group_that_says_nothing_has_advantages_of_exactly_zero(name, rewards_G):
    assert ADVANTAGES[name]([rewards_G]) == [[0.0] * len(rewards_G)]


def test_the_case_above_is_not_empty():
    # Why equality needs care: the mean of equal numbers is not always that number.
    assert any(sum([x / 100] * n) / n != x / 100 for x in range(1, 50) for n in range(2, 50))


def test_nearly_equal_rewards_are_not_blown_up():
    # 0.1 + 0.2 differs from 0.3 by 5.6e-17: std 3.9e-17, and the floor of 1e-4 keeps the advantages below 1e-12.
    assert max(map(abs, group_normalized([[0.1 + 0.2, 0.3]])[0])) < 1e-12


def test_very_large_rewards_do_not_overflow():
    # mean 0.5e200, std sqrt(2) / 2 * 1e200: the floor no longer counts, +-sqrt(0.5)
    assert group_normalized([[1e200, 0.0]])[0] == pytest.approx([math.sqrt(0.5), -math.sqrt(0.5)])


def test_a_reward_that_is_not_finite_is_our_own_mistake():
    with pytest.raises(AssertionError, match="finite"):
        group_normalized([[1.0, math.nan]])


rewards = st.lists(st.none() | st.floats(-100, 100).map(lambda x: round(x, 3)), min_size=1, max_size=9)


@pytest.mark.parametrize("name", ADVANTAGES)
@given(rewards)
def test_advantages_sum_to_zero_and_follow_the_rewards(name, rewards_G):
    (advantages_G,) = ADVANTAGES[name]([rewards_G])
    assert all(type(value) is float for value in advantages_G)
    assert math.fsum(advantages_G) == pytest.approx(0, abs=1e-9)
    graded = sorted((r, a) for r, a in zip(rewards_G, advantages_G, strict=True) if r is not None)
    assert all(a2 > a1 if r2 > r1 else a2 == a1 for (r1, a1), (r2, a2) in itertools.pairwise(graded))


@pytest.mark.parametrize("name", ADVANTAGES)
@given(rewards, st.floats(-100, 100), st.randoms())
def test_neither_a_constant_nor_the_order_matters(name, rewards_G, constant, random):
    places = list(range(len(rewards_G)))
    random.shuffle(places)
    moved = [None if rewards_G[i] is None else rewards_G[i] + constant for i in places]
    (before,), (after,) = ADVANTAGES[name]([rewards_G]), ADVANTAGES[name]([moved])
    assert after == pytest.approx([before[i] for i in places], abs=1e-8)


@given(rewards)
def test_normalized_advantages_have_a_spread_of_one(rewards_G):
    (advantages_G,) = group_normalized([rewards_G])
    graded = [r for r in rewards_G if r is not None]
    if len(set(graded)) > 1:
        std = math.sqrt(sum(a * a for a in advantages_G) / (len(graded) - 1))
        # rewards are thousandths here, so the std of unequal ones is above 3e-4 and the floor takes a quarter at most
        assert 0.75 < std < 1
