"""Batches at the edge, under every surrogate: nothing to learn changes nothing, and absurd numbers stay numbers."""

import math
from dataclasses import replace

import pytest
import torch
from toy_learner import Watched, advantaged, algorithm_of, learner_of, update
from toy_tabular import TabularPolicy, groups_of, with_logprobs

from groupwise.learner.finite import NonFiniteError
from groupwise.maths.advantages import ADVANTAGES
from groupwise.maths.corrections import CORRECTIONS
from groupwise.maths.filters import FILTERS
from groupwise.maths.ratios import RATIOS
from groupwise.maths.surrogates import SURROGATES
from groupwise.maths.tables import data_of


def gradients_of(algorithm, groups, *, exact=True, reworked=None, **settings):
    policy = TabularPolicy()
    groups = with_logprobs(groups, policy.table)
    groups = groups if reworked is None else [reworked(group) for group in groups]
    learner = learner_of(policy, algorithm, passes=2, optimizer={"lr": 0.05}, **settings)
    watched = Watched(learner)
    report = update(learner, advantaged(groups, algorithm), exact=exact)
    assert policy.table.isfinite().all()
    assert all(math.isfinite(value) for value in report.values())
    return [gradient for step in watched.gradients for gradient in step.values()], report


def rows(gradient):
    """The tokens that have a gradient."""
    return set((gradient.abs().sum(1) > 0).nonzero()[:, 0].tolist())


SILENT = {
    "all rewards equal": ([[2, 3], [1, 4]], [[1.0, 1.0], [0.5, 0.5]]),
    "all None": ([[2, 3], [1, 4]], [[None, None], [None, None]]),
    "groups of one": ([[2], [1]], [[1.0], [1.0]]),
    "one graded": ([[2, 3], [4, 1]], [[None, 1.0], [1.0, None]]),
    "all empty": ([[0, 0], [0, 0]], [[1.0, 0.0], [0.0, 3.0]]),
    "no rollouts": ([[], []], [[], []]),
}


@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("case", SILENT)
def test_nothing_to_learn_changes_nothing(case, surrogate):
    """On the first pass, that is, and for one that pulls at silent rollouts: until something else has moved."""
    gradients, report = gradients_of(algorithm_of(surrogate=surrogate), groups_of(*SILENT[case]))
    assert all(not gradient.any() for gradient in gradients)
    assert report["grad_norm"] == 0.0


@pytest.mark.parametrize("advantage", ADVANTAGES)
@pytest.mark.parametrize("case", SILENT)
def test_nor_do_advantages_find_anything_in_them(case, advantage):
    if case != "groups of one" and case != "all empty":
        lengths, rewards = SILENT[case]
        rewards = [[1.0 if reward is not None else None for reward in group] for group in rewards]
        gradients, _ = gradients_of(algorithm_of(advantage=advantage), groups_of(lengths, rewards))
        assert all(not gradient.any() for gradient in gradients)


def takes_ratios(surrogate):
    """Some have no ratio, some make one of the whole completion themselves: these only have that of the token."""
    data = data_of(SURROGATES[surrogate])
    return "log_ratio_T" in data and "rollout_T" not in data


@pytest.mark.parametrize(
    ("surrogate", "ratio"), [(s, r) for s in SURROGATES for r in RATIOS if r == "token" or takes_ratios(s)]
)
def test_empty_and_one_token_completions_beside_others(surrogate, ratio):
    groups = groups_of([[0, 1, 5], [1, 1, 1], [3, 0, 0]], [[1.0, 0.0, 0.3], [1.0, 0.0, None], [2.0, 0.0, 1.0]])
    first, second = gradients_of(algorithm_of(surrogate=surrogate, ratio=ratio), groups)[0]
    # tokens 1 to 6 of the first group, 7 and 8 of the second (9 is not graded), 10 to 12 of the third
    assert rows(first) == {1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12}
    assert second.isfinite().all()


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_where_every_token_is_filtered_nothing_is_learnt(surrogate):
    def off(group):
        return replace(group, rollouts=tuple(map(shifted, group.rollouts)))

    def shifted(rollout):
        logprobs = tuple(x - 1.0 for x in rollout.completion.logprobs)
        return replace(rollout, completion=replace(rollout.completion, logprobs=logprobs))

    groups = groups_of([[2, 3], [1, 4]], [[1.0, 0.0], [0.5, 3.0]])
    for settings in (
        {"filters": ["worst_token_rejection"], "settings": {"worst_ratio": 2.0}},
        {"correction": "token_mask", "settings": {"correction_high": 1.5}},
    ):
        first, *_ = gradients_of(algorithm_of(surrogate=surrogate, **settings), groups, exact=False, reworked=off)[0]
        assert first.abs().max() < 1e-14  # VESPO's weight of what is rejected is (1e-8)^2 e^3, not 0


@pytest.mark.parametrize("advantage", [1.0, -1.0])
@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("logprob", [-math.inf, -1e4, -1e5, 0.0])
def test_whatever_an_engine_reports_of_a_token(logprob, surrogate, advantage):
    """An engine that renormalises after top-k reports -inf for a token that it cut; others have bugs."""

    def broken(group):
        first, *others = group.rollouts
        logprobs = (logprob, *first.completion.logprobs[1:])
        return replace(
            group, rollouts=(replace(first, completion=replace(first.completion, logprobs=logprobs)), *others)
        )

    groups = groups_of([[3, 3]], [[max(advantage, 0.0), max(-advantage, 0.0)]])
    for settings in (
        *({"correction": name} for name in CORRECTIONS if surrogate != "vespo" or "token" in name),
        *({"filters": [name]} for name in FILTERS),
        {"anchor": "sampler"},
        {"anchor": "sampler", "ratio": "sequence" if takes_ratios(surrogate) else "token"},
    ):
        gradients, _ = gradients_of(algorithm_of(surrogate=surrogate, **settings), groups, exact=False, reworked=broken)
        assert all(gradient.isfinite().all() for gradient in gradients), settings


def test_a_token_that_the_policy_cannot_say_is_named():
    """A logit of -inf: whoever drew that token was not this policy, so there is no update."""
    policy, algorithm = TabularPolicy(), algorithm_of()
    policy.table.data[2, 2] = -math.inf
    groups = advantaged(with_logprobs(groups_of([[3, 3]], [[1.0, 0.0]]), policy.table), algorithm)
    with pytest.raises(NonFiniteError, match=r"the policy's logprob is -inf at token 1 .id 2."):
        update(learner_of(policy, algorithm, optimizer={"lr": 0.05}), groups, exact=True)


def test_a_group_may_be_silent_in_a_step_that_is_not():
    groups = groups_of([[2, 3], [1, 4], [2, 2]], [[1.0, 1.0], [0.5, 0.0], [None, 1.0]])
    first, *_ = gradients_of(algorithm_of(), groups)[0]
    assert rows(first) == {6, 7, 8, 9, 10}
    assert torch.isfinite(first).all()
