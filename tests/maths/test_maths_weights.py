"""The loss reductions as weights, against hand-computed means."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import tensor

from groupwise.errors import RecipeError
from groupwise.maths.tables import bind
from groupwise.maths.weights import WEIGHTS

SETTINGS = {"max_new_tokens": 5}


def weights(name, lengths, groups):
    weight_R = bind(WEIGHTS, name, SETTINGS)(lengths_R=tensor(lengths).long(), group_R=tensor(groups).long())
    assert weight_R.dtype == torch.float64
    return weight_R.tolist()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("token_mean", [1 / 10, 1 / 10, 1 / 10, 1 / 10]),  # 1 + 3 + 2 + 4 tokens
        ("sequence_mean", [1 / 4, 1 / 12, 1 / 8, 1 / 16]),  # 4 rollouts, each shared by its tokens
        ("fixed_length", [1 / 20, 1 / 20, 1 / 20, 1 / 20]),  # 4 rollouts that could have had 5 tokens
        ("prompt_mean", [1 / 8, 1 / 8, 1 / 12, 1 / 12]),  # 2 groups, of 4 and 6 tokens
        ("sequence_sum", [1 / 4, 1 / 4, 1 / 4, 1 / 4]),  # a mean over 4 rollouts, of sums
        ("token_sum", [1, 1, 1, 1]),
    ],
)
def test_by_hand(name, expected):
    assert weights(name, [1, 3, 2, 4], [0, 0, 1, 1]) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("token_mean", [1 / 4, 0, 1 / 4]),
        ("sequence_mean", [1 / 9, 0, 1 / 3]),  # the empty one is still one of three
        ("fixed_length", [1 / 15, 0, 1 / 15]),
        ("prompt_mean", [1 / 8, 0, 1 / 8]),  # all three belong to group 0; group 1 is empty and counts
        ("sequence_sum", [1 / 3, 0, 1 / 3]),
        ("token_sum", [1, 0, 1]),
    ],
)
def test_an_empty_rollout_weighs_nothing_and_counts_as_a_rollout(name, expected):
    if name == "prompt_mean":
        assert weights(name, [3, 0, 1, 0], [0, 0, 0, 1]) == pytest.approx([*expected, 0])
    else:
        assert weights(name, [3, 0, 1], [0, 0, 0]) == pytest.approx(expected)


@pytest.mark.parametrize("name", WEIGHTS)
def test_nothing_to_train_is_all_zeros_and_no_division_by_zero(name):
    assert weights(name, [0, 0], [0, 1]) == [0, 0]
    assert weights(name, [], []) == []


def test_groups_need_not_come_in_order_nor_all_be_here():
    # groups 7 and 2, of 5 and 1 tokens: the weights of 1/2 mean each
    assert weights("prompt_mean", [2, 1, 3], [7, 2, 7]) == pytest.approx([1 / 10, 1 / 2, 1 / 10])


def test_millions_of_tokens_are_counted_exactly():
    # 2^24 + 1 has no fp32 neighbour that equals it
    assert weights("token_mean", [2**24, 1], [0, 0]) == [1 / (2**24 + 1)] * 2


def test_fixed_length_says_what_it_needs():
    with pytest.raises(RecipeError, match="max_new_tokens"):
        bind(WEIGHTS, "fixed_length", {})


rollouts = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=12)


@given(rollouts)
def test_a_constant_loss_keeps_its_value_under_a_mean(rollouts):
    lengths, groups = [length for length, _ in rollouts], [group for _, group in rollouts]
    share = {name: sum(w * n for w, n in zip(weights(name, lengths, groups), lengths, strict=True)) for name in WEIGHTS}
    tokens, filled = sum(lengths), sum(n > 0 for n in lengths)
    groups_filled = len({g for n, g in rollouts if n > 0})
    assert share["token_mean"] == pytest.approx(1 if tokens else 0)
    assert share["sequence_mean"] == pytest.approx(filled / len(lengths))
    assert share["fixed_length"] == pytest.approx(tokens / (len(lengths) * 5))
    assert share["prompt_mean"] == pytest.approx(groups_filled / len(set(groups)))
    assert share["sequence_sum"] == pytest.approx(tokens / len(lengths))
    assert share["token_sum"] == tokens
