"""Advantages against numbers worked by hand, and the cases in which a group has nothing to say."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groupwise.errors import RecipeError
from groupwise.maths.advantages import (
    ADVANTAGES,
    group_centred,
    group_normalized,
    leave_one_out,
    maxrl,
    optimal_baseline,
    pass_at_k,
    shortest,
)
from groupwise.maths.batch_advantages import batch_normalized, gdpo, gpg, reinforce_pp, reinforce_pp_baseline
from groupwise.maths.tables import bind


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


def of(name, rewards_QG, lengths_QG=None, **settings):
    """The entry under all that it might ask for: lengths 1, 2, 3, ..., and one reward function called `a`."""
    return bind(ADVANTAGES, name, settings)(
        rewards_QG=rewards_QG,
        lengths_QG=lengths_QG or [[i + 1 for i in range(len(rewards_G))] for rewards_G in rewards_QG],
        parts_QG=[[{"a": reward} for reward in rewards_G] for rewards_G in rewards_QG],
        reward_weights={"a": 1.0},
    )


SILENT = [[], [None], [None, None], [7.0], [None, 7.0], [0, 0, 0], [0.1] * 3, [0.1] * 10, [1 / 3] * 49]
ACROSS = ("reinforce_pp", "reinforce_pp_baseline")
"""They compare with the whole step, so that equal rewards in one group are not nothing."""


@pytest.mark.parametrize("name", ADVANTAGES)
@pytest.mark.parametrize("rewards_G", [*SILENT, [2.8, 2.8, None]])
def test_a_step_that_says_nothing_has_advantages_of_exactly_zero(name, rewards_G):
    assert of(name, [rewards_G]) == [[0.0] * len(rewards_G)]
    assert of(name, [rewards_G, rewards_G]) == [[0.0] * len(rewards_G)] * 2


@pytest.mark.parametrize("name", [name for name in ADVANTAGES if name not in ACROSS])
def test_a_group_that_says_nothing_has_advantages_of_exactly_zero_beside_others_too(name):
    for rewards_G in SILENT:
        first, *others = of(name, [rewards_G, [1.0, 0.0, 0.3, 0.2, 0.9], [0.5, None, 0.7, 0.1, 0.0]])
        assert first == [0.0] * len(rewards_G)
        assert any(value for other in others for value in other)


@pytest.mark.parametrize("name", ADVANTAGES)
def test_an_ungraded_rollout_has_no_advantage_and_no_part_in_the_others(name):
    whole_QG, shorter_QG = [[1.0, None, 0.0, 0.5, 0.2], [0.0, 1.0]], [[1.0, 0.0, 0.5, 0.2], [0.0, 1.0]]
    (a, gap, *others), second = of(
        name, whole_QG, [[3, 9, 4, 5, 2], [2, 2]], **({"k": 2} if name == "pass_at_k" else {})
    )
    assert gap == 0.0
    expected = of(name, shorter_QG, [[3, 4, 5, 2], [2, 2]], **({"k": 2} if name == "pass_at_k" else {}))
    assert [[a, *others], second] == expected


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


# --- the others, by hand ----------------------------------------------------------------------------------------------


def test_leave_one_out_compares_with_the_others():
    # 1 - (0 + 0 + 2)/3, 0 - (1 + 0 + 2)/3, ..., 2 - (1 + 0 + 0)/3
    assert leave_one_out([[1.0, 0.0, 0.0, 2.0]])[0] == pytest.approx([1 / 3, -1.0, -1.0, 5 / 3])


def test_the_optimal_baseline_weighs_by_length():
    # baseline (1*1 + 0*2 + 3*2) / (1 + 2 + 2) = 7/5
    assert optimal_baseline([[1.0, 0.0, 3.0]], [[1, 2, 2]])[0] == pytest.approx([-0.4, -1.4, 1.6])
    assert optimal_baseline([[1.0, 0.0, 3.0]], [[2, 2, 2]])[0] == pytest.approx(group_centred([[1.0, 0.0, 3.0]])[0])
    assert optimal_baseline([[1.0, 0.0]], [[0, 0]]) == [[1.0, 0.0]]  # of empty completions, which train nothing


def test_maxrl_divides_by_the_mean():
    assert maxrl([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]]) == [
        pytest.approx([3.0, -1.0, -1.0, -1.0]),
        pytest.approx([1 / 3, 1 / 3, 1 / 3, -1.0]),
    ]


def test_maxrl_refuses_rewards_that_it_would_turn_around():
    with pytest.raises(RecipeError, match=r"no reward may be negative, .* one is -0\.5. Shift the rewards"):
        maxrl([[1.0, -0.5]])


def test_pass_at_k_by_hand():
    # 1 of 4 right, pairs: 3 of 6 succeed, std 0.5. The right one: (1 - 0.5) / 0.5. A wrong one: in 3 pairs, of which 1
    # succeeds: (1/3 - 0.5) / 0.5.
    assert pass_at_k([[1, 0, 0, 0]], k=2)[0] == pytest.approx([1.0, -1 / 3, -1 / 3, -1 / 3], abs=3e-4)
    # 2 of 4 right: 5 of 6 succeed, std sqrt(5/36) = 0.3726780; right: (1 - 5/6) / std = 0.4472136; wrong: in 3 pairs of
    # which 2 succeed: (2/3 - 5/6) / std
    assert pass_at_k([[1, 0, 1, 0]], k=2)[0] == pytest.approx([0.4472136, -0.4472136] * 2, abs=2e-4)
    # Rewards 0, 1, 3, pairs: best 1, 3, 3: mean 7/3, std sqrt(8/9) = 0.9428090. 0 is in (1, 3): mean 2; 1 too; 3 in
    # (3, 3).
    (low, middle, high) = pass_at_k([[0.0, 1.0, 3.0]], k=2)[0]
    assert (low, middle, high) == pytest.approx((-0.3535534, -0.3535534, 0.7071068), abs=1e-4)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_pass_at_k_is_the_mean_over_all_subsets(k):
    rewards_G = [0.3, 1.0, 0.0, 1.0, 2.5, 0.3]
    best = {subset: max(rewards_G[i] for i in subset) for subset in itertools.combinations(range(6), k)}
    mean = math.fsum(best.values()) / len(best)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in best.values()) / len(best))
    expected = []
    for i in range(6):
        mine = [(value - mean) / (std + 1e-4) for subset, value in best.items() if i in subset]
        expected.append(math.fsum(mine) / len(mine))
    assert pass_at_k([rewards_G], k=k)[0] == pytest.approx(expected)


def test_pass_at_k_of_everybody_says_nothing():
    assert pass_at_k([[1.0, 0.0, 0.0]], k=3) == pass_at_k([[1.0, 0.0, 0.0]], k=9) == [[0.0] * 3]


def test_shortest_trains_the_shortest():
    # lengths 2 and 5 of four: rewards 1 and 0, +-0.5 / (0.7071068 + 1e-4)
    assert shortest([[1, 1, 0, 0]], [[9, 2, 5, 7]])[0] == pytest.approx([0, 0.7070068, -0.7070068, 0])
    # three of four (0.6 * 4 = 2.4, rounded up): 1, 0, 0: mean 1/3, std 0.5773503
    kept = shortest([[1, 1, 0, 0]], [[9, 2, 5, 7]], keep=0.6)[0]
    assert kept == pytest.approx([0, 1.1545005, -0.5772503, -0.5772503], abs=1e-6)
    # at least two, of equally long ones the first; an ungraded one is not kept
    assert [round(x, 2) for x in shortest([[1, 0, 0, None]], [[4, 4, 4, 1]], keep=0.0)[0]] == [0.71, -0.71, 0.0, 0.0]


def test_batch_normalized_divides_by_the_spread_of_all_rewards():
    # 1, 0, 4, 2: mean 1.75, squares 0.5625 + 3.0625 + 5.0625 + 0.0625 = 8.75, std sqrt(8.75 / 3) = 1.7078251
    assert batch_normalized([[1, 0], [4, 2]]) == [
        pytest.approx([0.2927529, -0.2927529], abs=1e-7),
        pytest.approx([0.5855058, -0.5855058], abs=1e-7),
    ]


def test_reinforce_pp_whitens_over_tokens():
    # Tokens 1, 0, 0, 0: mean 1/4, squares (9/16 + 3/16) / 3 = 1/4, std 1/2
    assert reinforce_pp([[1.0, 0.0]], [[1, 3]])[0] == pytest.approx([1.5, -0.5], abs=5e-4)
    # across groups: 2, 2, 5 with lengths 1, 1, 2: mean 14/4, squares (2.25 * 4) / 3 = 3
    root = math.sqrt(3) + 1e-4
    assert reinforce_pp([[2.0, 2.0], [5.0]], [[1, 1], [2]]) == [[-1.5 / root] * 2, [1.5 / root]]


def test_reinforce_pp_baseline_takes_the_group_away_first():
    # +-0.5 and +-1 in tokens of their own: mean 0, std sqrt(2.5 / 3) = 0.9128709
    assert reinforce_pp_baseline([[1, 0], [4, 2]], [[1, 1], [1, 1]]) == [
        pytest.approx([0.5476624, -0.5476624], abs=1e-6),
        pytest.approx([1.0953248, -1.0953248], abs=1e-6),
    ]
    # lengths 3 and 1: 0.5, 0.5, 0.5, -0.5: mean 0.25, squares (3 * 0.0625 + 0.5625) / 3 = 0.25
    assert reinforce_pp_baseline([[1, 0]], [[3, 1]])[0] == pytest.approx([0.5, -1.5], abs=5e-4)


def test_gdpo_hears_every_function():
    # a: 1 0 1 0, mean 0.5, std 0.5773503: +-0.8660; b: 0 0 10 10: +-0.8660 in groups. Sums 0, -2w, 2w, 0 with w the
    # normalised 0.5 / 0.5774503 and 5 / 5.7736025; over the step mean 0.
    parts_G = [{"a": 1.0, "b": 0.0}, {"a": 0.0, "b": 0.0}, {"a": 1.0, "b": 10.0}, {"a": 0.0, "b": 10.0}]
    rewards_G = [part["a"] + part["b"] for part in parts_G]
    a, b = 0.5 / 0.5774503, 5 / 5.7736027
    total = [a - b, -a - b, a + b, -a + b]
    std = math.sqrt(sum(value**2 for value in total) / 3)
    expected = [value / (std + 1e-4) for value in total]
    assert gdpo([rewards_G], [parts_G], {"a": 1.0, "b": 1.0})[0] == pytest.approx(expected, abs=1e-7)
    # A weight counts after the normalisation: with b out, it is a alone.
    alone = gdpo([rewards_G], [parts_G], {"a": 1.0, "b": 0.0})[0]
    assert alone == pytest.approx([0.8660, -0.8660, 0.8660, -0.8660], abs=2e-4)


def test_gdpo_leaves_out_a_function_that_did_not_grade():
    # b graded only one: nothing to compare, and a alone decides
    parts_G = [{"a": 1.0, "b": None}, {"a": 0.0, "b": 9.0}, {"a": None, "b": None}]
    both = gdpo([[1.0, 9.0, None]], [parts_G], {"a": 1.0, "b": 1.0})[0]
    assert both == pytest.approx([0.7070, -0.7070, 0.0], abs=2e-4)


def test_gpg_makes_up_for_silent_groups():
    assert gpg([[1, 0], [1, 1], [0, 0], [None, 3]]) == [[2.0, -2.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    assert gpg([[1, 0], [0, 1]]) == [[0.5, -0.5], [-0.5, 0.5]]


# --- of all of them --------------------------------------------------------------------------------------------------

rewards = st.lists(st.none() | st.floats(0, 100).map(lambda x: round(x, 3)), min_size=1, max_size=9)
WITHIN = ("group_normalized", "group_centred", "batch_normalized", "leave_one_out", "maxrl", "gpg", "gdpo")
"""Their mean over a group is 0, and more reward is more advantage."""


@pytest.mark.parametrize("name", WITHIN)
@given(rewards)
def test_advantages_sum_to_zero_and_follow_the_rewards(name, rewards_G):
    (advantages_G,) = of(name, [rewards_G])
    assert all(type(value) is float for value in advantages_G)
    assert math.fsum(advantages_G) == pytest.approx(0, abs=1e-9)
    graded = sorted((r, a) for r, a in zip(rewards_G, advantages_G, strict=True) if r is not None)
    assert all(a2 > a1 if r2 > r1 else a2 == a1 for (r1, a1), (r2, a2) in itertools.pairwise(graded))


@pytest.mark.parametrize("name", [name for name in ADVANTAGES if name not in ("maxrl", "shortest")])
@given(rewards, st.floats(-100, 100), st.randoms())
def test_neither_a_constant_nor_the_order_matters(name, rewards_G, constant, random):
    """`maxrl` divides by the mean, and `shortest` breaks ties by order: these two may."""
    places, lengths_G = list(range(len(rewards_G))), [i % 4 + 1 for i in range(len(rewards_G))]
    random.shuffle(places)
    moved = [None if rewards_G[i] is None else rewards_G[i] + constant for i in places]
    (before,) = of(name, [rewards_G], [lengths_G])
    (after,) = of(name, [moved], [[lengths_G[i] for i in places]])
    assert after == pytest.approx([before[i] for i in places], abs=1e-8)


@pytest.mark.parametrize("name", ADVANTAGES)
@given(st.lists(rewards, min_size=1, max_size=4), st.randoms())
def test_the_order_of_groups_does_not_matter(name, rewards_QG, random):
    places = list(range(len(rewards_QG)))
    random.shuffle(places)
    before, after = of(name, rewards_QG), of(name, [rewards_QG[i] for i in places])
    for place, values in zip(places, after, strict=True):
        assert values == pytest.approx(before[place], abs=1e-9)


@pytest.mark.parametrize("name", ADVANTAGES)
@given(st.lists(rewards, min_size=1, max_size=4))
def test_every_rollout_has_one_finite_advantage(name, rewards_QG):
    advantages_QG = of(name, rewards_QG)
    assert [len(group) for group in advantages_QG] == [len(group) for group in rewards_QG]
    assert all(type(value) is float and math.isfinite(value) for group in advantages_QG for value in group)


@given(rewards)
def test_normalized_advantages_have_a_spread_of_one(rewards_G):
    (advantages_G,) = group_normalized([rewards_G])
    graded = [r for r in rewards_G if r is not None]
    if len(set(graded)) > 1:
        std = math.sqrt(sum(a * a for a in advantages_G) / (len(graded) - 1))
        # rewards are thousandths here, so the std of unequal ones is above 3e-4 and the floor takes a quarter at most
        assert 0.75 < std < 1
