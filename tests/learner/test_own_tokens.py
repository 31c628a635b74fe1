"""What an environment said is context and nothing else: no weight, no logprob, no KL, no gradient of its own."""

from dataclasses import replace

import pytest
import torch
from toy_learner import Watched, algorithm_of, learner_of, perturb, policy_of, ragged_groups, update

from groupwise.models.trees import Tree
from toys import tiny_model


def own_of(length, seed):
    """Some tokens of each branch, the first and the last among them in turn."""
    generator = torch.Generator().manual_seed(seed)
    own = (torch.rand(length, generator=generator) < 0.6).tolist()
    own[0 if seed % 2 else -1] = True
    return tuple(own)


def talked(groups, *, logprob_of_others=0.0):
    """The groups as conversations: about half of the tokens are an environment's."""
    made = []
    for index, group in enumerate(groups):
        rollouts = []
        for branch, rollout in enumerate(group.rollouts):
            completion = rollout.completion
            own = own_of(len(completion.token_ids), 10 * index + branch)
            logprobs = tuple(x if o else logprob_of_others for x, o in zip(completion.logprobs, own, strict=True))
            rollouts.append(replace(rollout, completion=replace(completion, own=own, logprobs=logprobs)))
        made.append(replace(group, rollouts=tuple(rollouts)))
    return made


def trees_of(groups, own=True):
    return [
        Tree(
            g.prompt_ids,
            tuple(r.completion.token_ids for r in g.rollouts),
            tuple(r.completion.own for r in g.rollouts) if own else (),
        )
        for g in groups
    ]


@pytest.mark.parametrize("attention", ["trunk_and_branch", "plain"])
def test_logprobs_of_own_tokens_are_those_among_all(attention):
    policy = policy_of()
    policy.use(attention)
    groups = talked(ragged_groups(algorithm_of(), ungraded=False))
    own = torch.tensor([o for g in groups for r in g.rollouts for o in r.completion.own])
    everything_T, entropies_T = policy.logprobs(trees_of(groups, own=False), with_entropy=True)
    asked_T, asked_entropies_T = policy.logprobs(trees_of(groups), with_entropy=True)
    assert 0.3 < own.double().mean() < 0.8
    assert torch.allclose(asked_T, everything_T[own], atol=1e-12)
    assert torch.allclose(asked_entropies_T, entropies_T[own], atol=1e-12)


def gradient_of(groups, algorithm, **settings):
    policy = policy_of(tiny_model("gpt2", dtype=torch.float64))
    perturb(policy)
    learner = learner_of(policy, algorithm, **settings)
    watched = Watched(learner)
    metrics = update(learner, groups, exact=True)
    return watched.gradients[0], metrics


@pytest.mark.parametrize(
    ("preset", "settings"), [("grpo", {}), ("dapo", {}), ("grpo", {"beta": 0.3}), ("dr_grpo", {})], ids=str
)
def test_the_gradient_is_that_of_the_formula_on_own_tokens(preset, settings):
    """By hand: -1/count * sum of A * logprob over the tokens that were drawn, whatever stands between them."""
    algorithm = algorithm_of(preset, **settings)
    groups = talked(ragged_groups(algorithm, ungraded=False))
    found, metrics = gradient_of(groups, algorithm)
    policy = policy_of(tiny_model("gpt2", dtype=torch.float64))
    perturb(policy)
    own = torch.tensor([o for g in groups for r in g.rollouts for o in r.completion.own])
    rollouts = [r for g in groups for r in g.rollouts]
    lengths = torch.tensor([sum(r.completion.own) for r in rollouts])
    weights = {"grpo": 1 / (lengths.double() * len(rollouts)), "dapo": torch.ones(len(rollouts)) / lengths.sum()}.get(
        preset, torch.ones(len(rollouts)) / (len(rollouts) * 9)
    )
    logprobs_T = policy.logprobs(trees_of(groups, own=False))[0][own]
    advantages = torch.tensor([r.advantage for r in rollouts], dtype=torch.float64)
    loss = -((advantages * weights).repeat_interleave(lengths) * logprobs_T).sum()
    if settings:  # k3 of the reference, which is the policy where it stands: no gradient, and none of the others
        assert metrics["kl"] == pytest.approx(0, abs=1e-12)
    loss.backward()
    for name, parameter in policy.trainable().items():
        assert torch.allclose(found[name], parameter.grad, atol=1e-10), name
    assert metrics["trained_tokens"] == int(lengths.sum())


def test_numbers_of_an_environments_tokens_are_never_looked_at():
    algorithm = algorithm_of()
    plain, _ = gradient_of(talked(ragged_groups(algorithm)), algorithm, passes=2)
    odd, _ = gradient_of(talked(ragged_groups(algorithm), logprob_of_others=-1e9), algorithm, passes=2)
    assert all(torch.equal(plain[name], odd[name]) for name in plain)


def test_any_split_gives_the_same_gradient():
    algorithm = algorithm_of("grpo", beta=0.1)
    groups = talked(ragged_groups(algorithm))
    whole, _ = gradient_of(groups, algorithm)
    split, _ = gradient_of(groups, algorithm, token_budget=1)
    assert all(torch.allclose(whole[name], split[name], atol=1e-12) for name in whole)


def test_a_branch_may_begin_with_the_environment_and_have_nothing_of_the_model():
    algorithm = algorithm_of()
    groups = ragged_groups(algorithm, ungraded=False)
    silent = replace(
        groups[0],
        rollouts=tuple(
            replace(r, completion=replace(r.completion, own=(False,) * len(r.completion.token_ids)))
            for r in groups[0].rollouts
        ),
    )
    metrics = update(learner_of(policy_of(), algorithm), [silent, *groups[1:]], exact=True)
    assert metrics["trained_tokens"] == sum(len(r.completion.token_ids) for g in groups[1:] for r in g.rollouts)


def test_a_penalty_in_the_reward_counts_own_tokens():
    algorithm = algorithm_of("grpo", beta=0.5, kl_in="reward")
    policy = policy_of()
    learner = learner_of(policy, algorithm)
    perturb(policy)
    groups = talked(ragged_groups(algorithm, ungraded=False))
    penalties = learner.penalties(groups, sampler_is_exact=False)
    with torch.no_grad():
        now_T = policy.logprobs(trees_of(groups))[0]
        before_T = policy_of().logprobs(trees_of(groups))[0]
    kl_T = algorithm.divergence(logprobs_T=now_T, reference_logprobs_T=before_T)
    lengths = [r.completion.drawn for g in groups for r in g.rollouts]
    expected = [0.5 * float(piece.sum()) for piece in kl_T.split(lengths)]
    assert [x for penalties_G in penalties for x in penalties_G] == pytest.approx(expected, abs=1e-9)
    assert max(map(abs, expected)) > 1e-3
