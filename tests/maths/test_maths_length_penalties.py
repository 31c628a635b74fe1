"""What lengths take off rewards, worked out by hand."""

import math

import pytest

from groupwise.errors import RecipeError
from groupwise.maths.length_penalties import LENGTH_PENALTIES, none, shorter_of_right, soft_overlong
from groupwise.maths.tables import bind


def test_none_takes_nothing():
    assert none([[1, 99], []]) == [[0.0, 0.0], []]


def test_soft_overlong_rises_in_the_buffer():
    # 100 tokens at most, the last 20 are the buffer
    (taken,) = soft_overlong([[1, 80, 85, 90, 100]], max_new_tokens=100)
    assert taken == pytest.approx([0, 0, 0.25, 0.5, 1.0])
    # DAPO's own numbers: 20,480 tokens, a buffer of 4,096; 18,432 is in the middle of it
    (taken,) = soft_overlong([[16384, 18432, 20480]], max_new_tokens=20480, overlong_penalty=2.0)
    assert taken == pytest.approx([0, 1.0, 2.0])


def test_of_the_right_ones_the_longer_lose_more():
    ((short, long, wrong, ungraded),) = shorter_of_right([[1.0, 1.0, 0.0, None]], [[2, 4, 9, 50]])
    # mean 3, std 1: sigmoid(-1) = 0.2689414
    assert (short, long) == pytest.approx((0.02689414, 0.07310586))
    assert (wrong, ungraded) == (0.0, 0.0)
    # of one length: sigmoid(0); twice the reward loses twice as much
    assert shorter_of_right([[2.0, 1.0]], [[3, 3]], length_share=0.4) == [[0.4, 0.2]]
    assert shorter_of_right([[0.0, -1.0]], [[3, 4]]) == [[0.0, 0.0]]
    (extreme,) = shorter_of_right([[1.0] * 400], [[1] * 399 + [10**9]])
    assert all(map(math.isfinite, extreme))


def test_settings_have_bounds():
    for settings in ({"overlong_share": 0.0}, {"overlong_share": 1.5}, {"overlong_penalty": 0.0}):
        with pytest.raises(RecipeError):
            bind(LENGTH_PENALTIES, "soft_overlong", {"max_new_tokens": 10, **settings})
