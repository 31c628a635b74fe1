"""A number that is not finite: found before the update, and blamed on its tensor, problem, completion and token."""

import math
from dataclasses import replace

import pytest
import torch
from toy_learner import algorithm_of, learner_of, policy_of, ragged_groups, sampled_by, update, weights_of

from groupwise.learner.finite import NonFiniteError, check_groups
from groupwise.learner.packing import at_place
from toys import graded_group

BAD_TOKEN = 3
"""In no group until a test puts it there."""


def with_token(groups, group, branch, place, token=BAD_TOKEN):
    """The groups with one token of one completion replaced."""
    rollouts = list(groups[group].rollouts)
    ids = list(rollouts[branch].completion.token_ids)
    ids[place] = token
    completion = replace(rollouts[branch].completion, token_ids=tuple(ids))
    rollouts[branch] = replace(rollouts[branch], completion=completion)
    return [*groups[:group], replace(groups[group], rollouts=tuple(rollouts)), *groups[group + 1 :]]


def long_one(groups):
    """A group and a graded completion in it of at least four tokens."""
    return next(
        (g, b)
        for g, group in enumerate(groups)
        for b, r in enumerate(group.rollouts)
        if g and r.reward is not None and len(r.completion.token_ids) >= 4
    )


def refused(learner, groups, **settings):
    before = weights_of(learner.policy)
    with pytest.raises(NonFiniteError) as caught:
        update(learner, groups, **settings)
    assert all(torch.equal(before[name], value) for name, value in weights_of(learner.policy).items())
    assert all(p.grad is None for p in learner.policy.trainable().values())
    assert caught.value.groups == tuple(groups)
    return caught.value


@pytest.fixture
def setting():
    algorithm = algorithm_of()
    learner = learner_of(policy_of(), algorithm, token_budget=40)
    return learner, ragged_groups(algorithm)


def test_places_are_those_of_the_packed_tokens():
    groups = [
        graded_group([5], ([1, 2, 3], 1.0), ([4], None), ([5, 6], 0.0)),
        graded_group([5], ([7], 1.0)),
    ]
    assert [at_place(groups, place) for place in range(6)] == [
        *[(0, 0, 0), (0, 0, 1), (0, 0, 2)],
        *[(0, 2, 0), (0, 2, 1)],
        (1, 0, 0),
    ]
    with pytest.raises(AssertionError):
        at_place(groups, 6)


def test_places_in_a_conversation_are_those_of_the_policys_own_tokens():
    (group,) = [graded_group([5], ([1, 2, 3, 4], 1.0), ([5], 0.0))]
    first, second = group.rollouts
    talk = replace(first, completion=replace(first.completion, own=(True, False, False, True)))
    groups = [replace(group, rollouts=(talk, second))]
    assert [at_place(groups, place) for place in range(3)] == [(0, 0, 0), (0, 0, 3), (0, 1, 0)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("what", "spoil"),
    [
        ("the reward", lambda r, x: replace(r, reward=x)),
        ("the advantage", lambda r, x: replace(r, advantage=x)),
        (
            "the sampler's logprob",
            lambda r, x: replace(r, completion=replace(r.completion, logprobs=(*r.completion.logprobs[:-1], x))),
        ),
    ],
)
def test_what_the_groups_bring_is_looked_at_first(setting, what, spoil, value):
    if what == "the sampler's logprob" and value == -math.inf:
        value = math.nan  # -inf is what top-k leaves of a token: see test_degenerate_updates
    learner, groups = setting
    group, branch = long_one(groups)
    rollouts = list(groups[group].rollouts)
    rollouts[branch] = spoil(rollouts[branch], value)
    spoilt = [*groups[:group], replace(groups[group], rollouts=tuple(rollouts)), *groups[group + 1 :]]
    error = refused(learner, spoilt)
    assert (error.blame.what, error.blame.group, error.blame.branch) == (what, group, branch)
    assert f"in completion {branch} of the problem 'p{group}'" in str(error)
    check_groups(groups)


def test_a_logprob_names_its_token(setting):
    learner, groups = setting
    group, branch = long_one(groups)
    spoilt = with_token(groups, group, branch, 2)
    head = learner.policy.model.get_output_embeddings()
    plain = head.forward

    def spoil_one_column(features):
        logits = plain(features).clone()
        logits[..., BAD_TOKEN] = -math.inf
        return logits

    learner.policy.head = spoil_one_column
    error = refused(learner, spoilt)
    assert (error.blame.what, error.blame.value) == ("the policy's logprob", -math.inf)
    assert (error.blame.group, error.blame.branch, error.blame.token) == (group, branch, 2)
    assert f"at token 2 (id {BAD_TOKEN}) of" in str(error)


def test_a_gradient_names_its_parameter_and_the_token_that_it_comes_from(setting):
    """Finite forward, a gradient that is not: found by bisection, first the completion, then the token."""
    learner, groups = setting
    group, branch = long_one(groups)
    spoilt = with_token(groups, group, branch, 2)
    policy = learner.policy
    features = policy.features

    class Spoils(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return torch.full_like(gradient, math.nan)

    def spoil_backward(trees):
        found = features(trees)
        bad = any(BAD_TOKEN in branch for tree in trees for branch in tree.branches)
        return Spoils.apply(found) if bad else found

    policy.features = spoil_backward
    error = refused(learner, spoilt)
    assert error.blame.what.startswith("update 1: the gradient of transformer.")
    assert (error.blame.group, error.blame.branch, error.blame.token) == (group, branch, 2)


def test_a_gradient_that_only_together_is_too_large_blames_nobody():
    """Two completions whose gradients are finite in fp32, and whose sum is not."""
    algorithm = algorithm_of()
    learner = learner_of(policy_of(), algorithm)
    groups = ragged_groups(algorithm)
    plain = learner.optimizer.gradient_is_finite
    learner.optimizer.gradient_is_finite = lambda: True  # asked one by one, all are

    def refuse():
        learner.optimizer._masters[0].grad.fill_(math.inf)
        return step()

    step, learner.optimizer.step = learner.optimizer.step, refuse
    error = refused(learner, groups)
    assert (error.blame.group, error.blame.branch, error.blame.token) == (None, None, None)
    assert plain()


def test_the_reference_is_looked_at_too():
    algorithm = algorithm_of(beta=0.1)
    learner = learner_of(policy_of(), algorithm)
    next(iter(learner.reference._values.values())).fill_(math.nan)
    groups = ragged_groups(algorithm)
    assert refused(learner, groups).blame.what == "the reference's logprob"


def test_after_a_refusal_the_next_update_is_what_it_would_have_been(setting):
    learner, groups = setting
    algorithm = algorithm_of()
    other = learner_of(policy_of(), algorithm, token_budget=40)
    spoilt = [*groups[:-1], replace(groups[-1], rollouts=(replace(groups[-1].rollouts[0], advantage=math.nan),))]
    refused(learner, spoilt)
    groups = sampled_by(learner.policy, groups)
    assert update(learner, groups) == update(other, groups)
    for name, value in weights_of(learner.policy).items():
        assert torch.equal(value, weights_of(other.policy)[name])
