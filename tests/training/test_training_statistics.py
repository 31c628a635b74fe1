"""Intervals and tests against numbers worked out by hand (or, where said, taken from the published tables)."""

import itertools
from statistics import mean

import pytest

from groupwise.training.statistics import accuracy, chance_of_a_pass, change, pass_at_k


def test_wilson_by_hand():
    # share 3/4, n = 4, z = 1.96: z^2/n = 0.9604; middle = (0.75 + 0.4802) / 1.9604 = 0.62753;
    # half = 1.96 * sqrt(0.1875/4 + 0.9604/16) / 1.9604 = 1.96 * 0.32697 / 1.9604 = 0.32690
    estimate = accuracy([True, True, False, True])
    assert (estimate.value, estimate.problems) == (0.75, 4)
    assert (estimate.low, estimate.high) == pytest.approx((0.30064, 0.95443), abs=2e-4)
    assert str(estimate) == "0.750 [0.301, 0.954]"


@pytest.mark.parametrize(
    ("right", "of", "low", "high"),
    [  # Newcombe 1998 (Statistics in Medicine 17:857), table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_as_published(right, of, low, high):
    estimate = accuracy([True] * right + [False] * (of - right))
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=5e-5)


def test_a_perfect_score_is_not_certain():
    assert (accuracy([True] * 10).low, accuracy([True] * 10).high) == (pytest.approx(0.7225, abs=1e-4), 1.0)
    assert (accuracy([False] * 10).low, accuracy([False] * 10).high) == (0.0, pytest.approx(0.2775, abs=1e-4))


@pytest.mark.parametrize(
    ("samples", "right", "k", "chance"),
    [
        (4, 1, 1, 0.25),
        (4, 1, 2, 0.5),  # 1 - 3/6
        (4, 2, 2, 1 - 1 / 6),
        (8, 2, 4, 1 - 15 / 70),
        (8, 0, 8, 0.0),
        (8, 1, 8, 1.0),
        (5, 4, 2, 1.0),  # two samples cannot both be the single wrong one
        (2000, 1000, 1, 0.5),  # no overflow
    ],
)
def test_chance_of_a_pass_by_hand(samples, right, k, chance):
    assert chance_of_a_pass(samples, right, k) == pytest.approx(chance)


def test_chance_of_a_pass_is_the_share_of_all_subsets_that_pass():
    answers = [True, True, True, False, False, False, False]
    for k in range(1, 8):
        passes = mean(float(any(subset)) for subset in itertools.combinations(answers, k))
        assert chance_of_a_pass(7, 3, k) == pytest.approx(passes)


def test_pass_at_k_averages_over_problems_that_may_differ_in_samples():
    estimate = pass_at_k([(8, 2), (4, 1), (2, 0)], k=2)
    # 1 - C(6,2)/C(8,2) = 1 - 15/28; 1 - 3/6; 0
    assert estimate.value == pytest.approx((13 / 28 + 1 / 2 + 0) / 3)
    assert estimate.problems == 3


def test_the_interval_of_pass_at_k_by_hand():
    # chances 0.25, 1, 0: mean 5/12, variance of the mean 0.0902778, (5/12)(7/12)/0.0902778 = 2.69 trials: raised to 3
    # share 0.41667, n = 3: z^2/n = 1.28049; middle = 1.05691/2.28049 = 0.46346
    # half = 1.95996 * sqrt(0.243056/3 + 1.28049/12) / 2.28049 = 1.95996 * 0.43325 / 2.28049 = 0.37236
    estimate = pass_at_k([(8, 2), (8, 8), (8, 0)], k=1)
    assert (estimate.low, estimate.high) == pytest.approx((0.09110, 0.83582), abs=2e-4)


def test_one_sample_and_k_1_is_accuracy():
    counted, sampled = accuracy([True, True, False, True]), pass_at_k([(1, 1), (1, 1), (1, 0), (1, 1)], k=1)
    assert sampled == counted


def test_more_samples_narrow_the_interval_but_never_beyond_all_disjoint_sets():
    # Ten problems with 4 right of 8 each do not vary: at most 10 * 8 independent trials for k = 1, 10 * 2 for k = 4.
    for k, trials in ((1, 80), (4, 20)):
        share = chance_of_a_pass(8, 4, k)
        estimate = pass_at_k([(8, 4)] * 10, k)
        z2 = 1.959964**2 / trials
        half = 1.959964 * (share * (1 - share) / trials + z2 / trials / 4) ** 0.5 / (1 + z2)
        assert estimate.high - estimate.low == pytest.approx(2 * half, rel=1e-5)


def test_a_perfect_pass_at_k_is_not_certain():
    assert pass_at_k([(8, 8)] * 10, 4).low == pytest.approx(accuracy([True] * 10).low)
    assert pass_at_k([(8, 0)] * 10, 1).high == pytest.approx(accuracy([False] * 10).high)


def test_change_by_hand():
    # 9 won, 0 lost of 10: difference 0.9; with half a problem more in each: 9 / 12 = 0.75,
    # half = 1.95996 * sqrt((10/12 - 0.5625) / 12) = 1.95996 * 0.150231 = 0.294447; p = 2 / 2^9
    moved = change([False] * 9 + [True], [True] * 10)
    assert (moved.value, moved.won, moved.lost, moved.problems) == (0.9, 9, 0, 10)
    assert (moved.low, moved.high) == (pytest.approx(0.455553, abs=1e-5), 1.0)
    assert moved.p == pytest.approx(2 / 512)
    assert str(moved) == "+0.900 [+0.456, +1.000], p = 0.0039"


def test_a_change_is_judged_by_the_answers_that_changed():
    # 3 won, 1 lost: p = 2 * (1 + 4) / 16 = 0.625, however many stayed.
    before = [False, False, False, True] + [True] * 96
    after = [True, True, True, False] + [True] * 96
    assert change(before, after).p == pytest.approx(0.625)
    assert change(after, before).value == pytest.approx(-0.02)
    assert change(after, before).low == pytest.approx(-change(before, after).high)


def test_no_change_is_no_news():
    same = change([True, False] * 50, [True, False] * 50)
    assert (same.value, same.p) == (0.0, 1.0)
    assert same.low == -same.high < 0
    assert change([False] * 4, [True, True, False, False]).p == pytest.approx(0.5)


def test_tiny_probabilities_are_said_as_such():
    assert str(change([False] * 100, [True] * 100)).endswith("p < 0.0001")


def test_what_cannot_be_counted_is_our_mistake():
    for wrong in (
        lambda: accuracy([]),
        lambda: pass_at_k([], 1),
        lambda: pass_at_k([(4, 1)], 8),
        lambda: pass_at_k([(4, 5)], 1),
        lambda: change([True], []),
    ):
        with pytest.raises(AssertionError):
            wrong()
