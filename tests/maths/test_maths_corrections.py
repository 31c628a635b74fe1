"""Corrections, filters and mismatch metrics: what a sampler that is not quite the learner does to the loss, by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import tensor

from groupwise.maths.corrections import CORRECTIONS
from groupwise.maths.filters import FILTERS
from groupwise.maths.mismatch import mismatch_metrics, mismatch_sums
from groupwise.maths.tables import bind
from groupwise.maths.whole import Whole, at_least, largest, quantile

ROLLOUT_T = tensor([0, 0, 3, 3])
"""Two completions of two tokens."""

RATIOS = [2.0, 3.0, 0.25, 1.0]
"""Old policy / sampler of the four tokens; products 6 and 0.25."""


def logs(ratios):
    return tensor(ratios, dtype=torch.float64).log()


def correct(name, ratios=RATIOS, rollout_T=ROLLOUT_T, **settings):
    return bind(CORRECTIONS, name, settings)(mismatch_T=logs(ratios), rollout_T=rollout_T).tolist()


@pytest.mark.parametrize(
    ("name", "settings", "factors"),
    [
        ("token_truncate", {}, [2.0, 2.0, 0.25, 1.0]),
        ("token_truncate", {"correction_low": 0.5, "correction_high": 2.5}, [2.0, 2.5, 0.5, 1.0]),
        ("token_mask", {}, [2.0, 3.0, 0.0, 1.0]),
        ("token_mask", {"correction_low": 0.0, "correction_high": 2.5}, [2.0, 0.0, 0.25, 1.0]),
        ("sequence_truncate", {}, [2.0, 2.0, 0.25, 0.25]),
        ("sequence_truncate", {"correction_low": 0.5, "correction_high": 10.0}, [6.0, 6.0, 0.5, 0.5]),
        ("sequence_mask", {}, [0.0, 0.0, 0.25, 0.25]),
        ("sequence_mask", {"correction_low": 0.5, "correction_high": 10.0}, [6.0, 6.0, 0.0, 0.0]),
    ],
)
def test_factors_by_hand(name, settings, factors):
    assert correct(name, **settings) == pytest.approx(factors)


@pytest.mark.parametrize("name", CORRECTIONS)
def test_without_mismatch_every_factor_is_exactly_1(name):
    assert correct(name, [1.0] * 4) == [1.0] * 4
    assert correct(name, [], tensor([], dtype=torch.long)) == []


@pytest.mark.parametrize("name", CORRECTIONS)
def test_an_absurd_mismatch_has_a_finite_factor(name):
    mismatch_T = tensor([1e5, 0.0, -1e5, 0.0], dtype=torch.float64)
    factors_T = bind(CORRECTIONS, name, {})(mismatch_T=mismatch_T, rollout_T=ROLLOUT_T)
    assert factors_T.isfinite().all()
    assert factors_T.max() <= 5.0


def keep(name, ratios=RATIOS, **given):
    settings = given.pop("settings", {})
    return bind(FILTERS, name, settings)(**{"mismatch_T": logs(ratios), "rollout_T": ROLLOUT_T, **given}).tolist()


def test_geometric_rejection_by_hand():
    # geometric means sqrt(1.02) = 1.00995, just within 1.01, and sqrt(0.98 * 0.99) = 0.98499, below 0.99
    assert keep("geometric_rejection", [1.02, 1.0, 0.98, 0.99]) == [True, True, False, False]
    assert keep("geometric_rejection", [1.02, 1.0, 0.98, 0.99], settings={"geometric_low": 0.98}) == [True] * 4
    assert (
        keep("geometric_rejection", [1.02, 1.0, 1, 1], settings={"geometric_high": 1.005}) == [False] * 2 + [True] * 2
    )


def test_product_rejection_by_hand():
    assert keep("product_rejection") == [False, False, False, False]  # 6 and 0.25
    assert keep("product_rejection", [1.9, 1.0, 0.6, 1.0]) == [True] * 4
    assert keep("product_rejection", settings={"product_low": 0.2, "product_high": 7.0}) == [True] * 4


def test_k3_rejection_by_hand():
    # e^x - 1 - x for ratio 1.2: 0.2 - 0.1823216 = 0.0176784; for 1/1.2: -1/6 + 0.1823216 = 0.0156549. Mean 0.0166667.
    # For 1.1 and 1/1.1: 0.0046898 and 0.0044011, mean 0.0045454.
    assert keep("k3_rejection", [1.2, 1 / 1.2, 1.1, 1 / 1.1]) == [False, False, True, True]
    assert keep("k3_rejection", [1.2, 1 / 1.2, 1.1, 1 / 1.1], settings={"k3_limit": 0.0167}) == [True] * 4


def test_worst_token_rejection_by_hand():
    assert keep("worst_token_rejection", [1.0, 2e4, 5e-5, 9e3]) == [False, False, False, False]
    assert keep("worst_token_rejection", [1.0, 9e3, 1e-3, 1.0]) == [True] * 4
    assert (
        keep("worst_token_rejection", [1.0, 1.4, 1.0, 1.6], settings={"worst_ratio": 1.5}) == [True] * 2 + [False] * 2
    )


def test_the_off_policy_mask_by_hand():
    # Sampled less now: 0.1 and 0.3, mean 0.2; -0.4 and 0.5, mean 0.05.
    now, sampled = tensor([-1.1, -1.3, -1.0, -2.0]), tensor([-1.0, -1.0, -1.4, -1.5])
    given = {"logprobs_T": now, "sampled_logprobs_T": sampled}
    assert keep("off_policy_mask", advantages_T=tensor([-1.0] * 4), **given) == [False, False, True, True]
    assert keep("off_policy_mask", advantages_T=tensor([1.0, 1.0, 0.0, 0.0]), **given) == [True] * 4
    loose = {"off_policy_limit": 0.25}
    assert keep("off_policy_mask", advantages_T=tensor([-1.0] * 4), settings=loose, **given) == [True] * 4


def whole(entropies, here):
    entropies_T = tensor(entropies, dtype=torch.float64)
    return Whole(*[entropies_T] * 5, torch.tensor(here, dtype=torch.long))


def test_top_entropy_by_hand():
    # 5 values, share 0.4: quantile 0.6, place 2.4 between 0.3 and 1.5: 0.3 + 0.4 * 1.2 = 0.78
    entropies = [0.1, 2.0, 0.3, 0.2, 1.5]
    assert keep("top_entropy", update=whole(entropies, [0, 1, 2, 3, 4]), settings={"top_share": 0.4}) == [
        False, True, False, False, True,
    ]  # fmt: skip
    assert keep("top_entropy", update=whole(entropies, [4, 0]), settings={"top_share": 0.4}) == [True, False]
    assert keep("top_entropy", update=whole(entropies, [3, 1])) == [False, True]  # 0.8: place 3.2, 1.6
    assert keep("top_entropy", update=whole(entropies, [0, 3]), settings={"top_share": 1.0}) == [True, True]
    assert keep("top_entropy", update=whole([], []), settings={"top_share": 0.4}) == []


def test_equal_entropies_pass_together():
    entropies = [0.5, 0.5 + 1e-16, 0.1, 0.5 - 1e-16]
    assert keep("top_entropy", update=whole(entropies, [0, 1, 2, 3]), settings={"top_share": 0.3}) == [
        True, True, False, True,
    ]  # fmt: skip


@pytest.mark.parametrize("name", FILTERS)
def test_without_mismatch_every_token_passes(name):
    """On policy and with the embedded engine. The one that looks at entropy has nothing to do with mismatch."""
    now = tensor([-1.0, -2.0, -0.5, -0.1])
    given = {"logprobs_T": now, "sampled_logprobs_T": now, "advantages_T": tensor([1.0, 1.0, -1.0, -1.0])}
    settings = {"top_share": 1.0} if name == "top_entropy" else {}
    kept = keep(name, [1.0] * 4, update=whole([0.1, 0.2, 0.3, 0.4], [0, 1, 2, 3]), settings=settings, **given)
    assert kept == [True] * 4


def test_choosing_the_largest():
    assert largest(tensor([3.0, 1.0, 2.0]), 2).tolist() == [True, False, True]
    assert largest(tensor([3.0, 1.0]), 5).tolist() == [True, True]
    assert largest(tensor([1.0, 1.0, 0.5]), 1).tolist() == [True, True, False]
    assert at_least(tensor([1.0, 1.0 - 1e-7, 0.9]), tensor(1.0)).tolist() == [True, True, False]


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=20), st.floats(0, 1))
def test_quantiles_are_those_of_torch(values, share):
    values_T = tensor(values, dtype=torch.float64)
    assert quantile(values_T, share).item() == pytest.approx(torch.quantile(values_T, share).item(), abs=1e-12)


# --- mismatch metrics ------------------------------------------------------------------------------------------------


def test_the_metrics_by_hand():
    metrics = mismatch_metrics(mismatch_sums(logs(RATIOS), ROLLOUT_T))
    log2, log3, log4 = math.log(2), math.log(3), math.log(4)
    assert metrics["kl"] == pytest.approx(-(log2 + log3 - log4 + 0) / 4)
    assert metrics["k3"] == pytest.approx(((1 - log2) + (2 - log3) + (-0.75 + log4) + 0) / 4)
    # geometric means sqrt(6) and sqrt(1/4): perplexities stand in the inverse ratio, 0.4082 and 2
    assert metrics["ppl_ratio"] == pytest.approx((1 / math.sqrt(6) + 2) / 2)
    assert metrics["chi2_token"] == pytest.approx((4 + 9 + 1 / 16 + 1) / 4 - 1)
    assert metrics["chi2_rollout"] == pytest.approx((36 + 1 / 16) / 2 - 1)
    assert metrics["ess"] == pytest.approx((2 + 3 + 0.25 + 1) ** 2 / (4 * (4 + 9 + 1 / 16 + 1)))


def test_equal_policies_have_none():
    metrics = mismatch_metrics(mismatch_sums(torch.zeros(4), ROLLOUT_T))
    nothing = {"kl": 0, "k3": 0, "chi2_token": 0, "chi2_rollout": 0}
    assert metrics == {**nothing, "ppl_ratio": 1, "ess": 1}


def test_sums_of_micro_batches_add_up():
    one, other = (mismatch_sums(logs(RATIOS[i : i + 2]), ROLLOUT_T[i : i + 2]) for i in (0, 2))
    both = mismatch_sums(logs(RATIOS), ROLLOUT_T)
    assert {name: one[name] + other[name] for name in one} == pytest.approx(both)


def test_no_tokens_have_metrics_too():
    metrics = mismatch_metrics(mismatch_sums(torch.zeros(0), torch.zeros(0, dtype=torch.long)))
    assert all(map(math.isfinite, metrics.values()))
