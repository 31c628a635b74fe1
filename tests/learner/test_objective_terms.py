"""The parts of the objective beside the surrogate, through the learner: corrections, filters, KL, entropy, anchors."""

import math
from dataclasses import replace

import pytest
import torch
from toy_learner import Watched, advantaged, algorithm_of, learner_of, update
from toy_tabular import TabularPolicy, entropies_of, groups_of, logprobs_of, with_logprobs

from groupwise.learner.draws import draws_of

LENGTHS = [[3, 9, 1, 4], [7, 2, 5, 6]]
REWARDS = [[1.0, 0.0, 0.5, 0.2], [0.0, 0.0, 1.0, 3.0]]
LOOSE = {"lr": 1e-30}


def run(algorithm, *, noise=0.0, exact=None, groups=None, optimizer=None, **settings):
    """Gradients of the updates, and the metrics."""
    policy = TabularPolicy()
    groups = groups_of(LENGTHS, REWARDS) if groups is None else groups
    groups = with_logprobs(groups, policy.table, noise)
    learner = learner_of(policy, algorithm, optimizer=optimizer or {"lr": 0.3}, **settings)
    watched = Watched(learner)
    exact = not noise if exact is None else exact
    penalties = learner.penalties(groups, sampler_is_exact=exact)
    report = update(learner, advantaged(groups, algorithm, penalties), exact=exact)
    return [gradients["table"] for gradients in watched.gradients], report


def same(ours, theirs):
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


# --- sampler and trainer ---------------------------------------------------------------------------------------------

FILTERS = ["geometric_rejection", "product_rejection", "k3_rejection", "worst_token_rejection"]


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("name", ["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"])
def test_with_the_embedded_engine_corrections_are_the_identity(name, passes):
    """To the last bit, whatever rounding there is between sampler and learner."""
    plain, _ = run(algorithm_of(), exact=True, noise=1e-6, passes=passes)
    corrected, report = run(algorithm_of(correction=name), exact=True, noise=1e-6, passes=passes)
    assert same(plain, corrected)
    assert not any("mismatch" in metric for metric in report)


@pytest.mark.parametrize("passes", [1, 2])
def test_with_the_embedded_engine_nothing_is_rejected(passes):
    plain, _ = run(algorithm_of(), exact=True, noise=1e-6, passes=passes)
    filtered, _ = run(algorithm_of(filters=FILTERS), exact=True, noise=1e-6, passes=passes)
    assert same(plain, filtered)
    masked, _ = run(algorithm_of(filters=["off_policy_mask"]), exact=True, noise=1e-6, passes=passes)
    assert same(plain[:1], masked[:1])  # later passes have left the sampler, and that is what it looks at


@pytest.mark.parametrize("name", [*FILTERS, "off_policy_mask"])
def test_with_another_sampler_something_is_rejected(name):
    settings = {"k3_rejection": {"k3_limit": 0.04}, "worst_token_rejection": {"worst_ratio": 1.8}}.get(name, {})
    settings |= {"geometric_low": 0.9, "geometric_high": 1.1} if name == "geometric_rejection" else {}
    settings |= {"off_policy_limit": 0.01} if name == "off_policy_mask" else {}
    noise = -0.3 if name == "off_policy_mask" else 0.3  # it minds only what has become rarer
    plain, _ = run(algorithm_of(), noise=noise)
    filtered, report = run(algorithm_of(filters=[name], settings=settings), noise=noise)
    rows = [(gradients[0].abs().sum(1) > 0).sum() for gradients in (plain, filtered)]
    assert 0 < rows[1] < rows[0]
    kept = filtered[0].abs().sum(1) > 0
    torch.testing.assert_close(filtered[0][kept], plain[0][kept], rtol=0, atol=0)  # what stays weighs what it weighed
    assert report["mismatch/ess"] < 1


def test_a_correction_multiplies_the_loss_of_each_token():
    policy, groups = TabularPolicy(), groups_of(LENGTHS, REWARDS)
    sampled = with_logprobs(groups, policy.table, 0.3)
    plain, _ = run(algorithm_of(), noise=0.3)
    corrected, _ = run(algorithm_of(correction="token_truncate", settings={"correction_high": 1.2}), noise=0.3)
    for group in sampled:
        for rollout in group.rollouts:
            for token, logprob in zip(rollout.completion.token_ids, rollout.completion.logprobs, strict=True):
                own = logprobs_of(policy.table, torch.tensor(token)).item()
                factor = min(math.exp(own - logprob), 1.2)
                torch.testing.assert_close(corrected[0][token], factor * plain[0][token], rtol=1e-12, atol=1e-15)


def test_the_mismatch_is_measured():
    _, report = run(algorithm_of(), noise=0.3)
    assert report["sampler_gap"] > 0.3
    assert 0.01 < report["mismatch/k3"] < 0.2
    assert 0.8 < report["mismatch/ess"] < 0.99
    assert report["mismatch/ppl_ratio"] == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("passes", [1, 2])
def test_the_sampler_as_anchor(passes):
    """`anchor = "sampler"`: the ratio is policy / sampler from the start, and then there is nothing to correct."""
    algorithm = algorithm_of(anchor="sampler", clip_low=1.0, clip_high=math.inf)
    anchored, report = run(algorithm, noise=0.3, passes=passes)
    # -ratio A logprob with the ratio to the sampler is the policy gradient under the token's correction
    corrected, _ = run(
        algorithm_of(surrogate="reinforce", correction="token_truncate", settings={"correction_high": 1e9}), noise=0.3
    )
    torch.testing.assert_close(anchored[0], corrected[0], rtol=1e-12, atol=1e-15)
    assert report["ratio"] != pytest.approx(1.0, abs=1e-6)


# --- KL --------------------------------------------------------------------------------------------------------------


def perturbed(algorithm, **settings):
    """A learner whose policy has left its reference, and groups that it sampled."""
    policy = TabularPolicy()
    learner = learner_of(policy, algorithm, **settings)
    random = torch.Generator().manual_seed(4)
    start = policy.table.detach().clone()
    policy.table.data.add_(0.3 * torch.randn(policy.table.shape, dtype=torch.float64, generator=random))
    return learner, start, with_logprobs(groups_of(LENGTHS, REWARDS), policy.table)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(("divergence", "by_hand"), [("k1", lambda x: x), ("k2", lambda x: x * x / 2)])
def test_the_kl_in_the_reward_is_the_sum_over_the_completion(divergence, by_hand, exact):
    algorithm = algorithm_of(beta=0.5, kl_in="reward", divergence=divergence, advantage="group_centred")
    learner, start, groups = perturbed(algorithm)
    rollouts = list(groups[0].rollouts)
    rollouts[2] = replace(rollouts[2], reward=None)
    groups = [replace(groups[0], rollouts=tuple(rollouts)), groups[1]]
    penalties = learner.penalties(groups, sampler_is_exact=exact)
    for group, penalties_G in zip(groups, penalties, strict=True):
        for rollout, penalty in zip(group.rollouts, penalties_G, strict=True):
            tokens = torch.tensor(rollout.completion.token_ids)
            x = logprobs_of(learner.policy.table, tokens) - logprobs_of(start, tokens)
            expected = 0.0 if rollout.reward is None else 0.5 * by_hand(x).sum().item()
            assert penalty == pytest.approx(expected, abs=1e-12)
    report = update(learner, advantaged(groups, algorithm, penalties), exact=exact)
    sizes = [len(r.completion.token_ids) for group in groups for r in group.rollouts if r.reward is not None]
    assert report["kl"] == pytest.approx(sum(map(sum, penalties)) / 0.5 / sum(sizes))


def test_the_kl_in_the_reward_leaves_the_loss_alone():
    algorithm = algorithm_of(beta=0.5, kl_in="reward")
    learner, _, groups = perturbed(algorithm)
    watched = Watched(learner)
    update(learner, advantaged(groups, algorithm), exact=True)  # with the plain rewards
    other, _, _ = perturbed(algorithm_of())
    plain = Watched(other)
    update(other, advantaged(groups, algorithm), exact=True)
    assert torch.equal(watched.gradients[0]["table"], plain.gradients[0]["table"])


def test_without_a_kl_in_the_reward_there_are_no_penalties():
    for settings in ({}, {"beta": 0.5}, {"kl_in": "reward"}):
        learner, _, groups = perturbed(algorithm_of(**settings))
        assert learner.penalties(groups, sampler_is_exact=True) is None


def test_beta_follows_the_kl():
    settings = {"kl_target": 1e-6, "kl_horizon": 10.0}
    algorithm = algorithm_of(beta=0.5, beta_control="proportional", settings=settings)
    learner, _, groups = perturbed(algorithm, updates_per_batch=2)
    first = learner.coefficients.beta
    report = update(learner, advantaged(groups, algorithm), exact=True)
    # two updates of 4 graded rollouts each, both above the target: (1 + 0.2 * 4 / 10)^2
    assert first == 0.5
    assert learner.coefficients.beta == report["beta"] == pytest.approx(0.5 * 1.08**2)


def test_beta_follows_the_kl_in_the_reward_once_a_batch():
    settings = {"kl_target": 1e6, "kl_horizon": 10.0}
    algorithm = algorithm_of(beta=0.5, beta_control="proportional", kl_in="reward", settings=settings)
    learner, _, groups = perturbed(algorithm, passes=3)
    penalties = learner.penalties(groups, sampler_is_exact=True)
    report = update(learner, advantaged(groups, algorithm, penalties), exact=True)
    assert report["beta"] == pytest.approx(0.5 * (1 - 0.2 * 8 / 10))


# --- entropy ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [1, 12, 10_000])
def test_the_bonus_is_the_mean_entropy_of_the_updates_tokens(budget):
    policy, groups = TabularPolicy(), groups_of(LENGTHS, REWARDS)
    tokens = torch.tensor([t for g in groups for r in g.rollouts for t in r.completion.token_ids])
    bonus = entropies_of(policy.table, tokens).mean()
    bonus.backward()
    plain, without = run(algorithm_of(), token_budget=budget)
    with_bonus, report = run(algorithm_of(entropy=0.3), token_budget=budget)
    torch.testing.assert_close(with_bonus[0], plain[0] - 0.3 * policy.table.grad, rtol=1e-9, atol=1e-13)
    assert report["entropy"] == pytest.approx(bonus.item())
    assert report["loss"] == pytest.approx(without["loss"] - 0.3 * bonus.item())


def test_rollouts_of_advantage_0_count_in_the_bonus():
    groups = groups_of([[3, 4], [2, 2]], [[1.0, 1.0], [1.0, 0.0]])
    _, silent = run(algorithm_of(), groups=groups)
    gradients, heard = run(algorithm_of(entropy=0.3), groups=groups)
    assert (silent["trained_tokens"], heard["trained_tokens"]) == (4, 11)
    assert (gradients[0].abs().sum(1) > 0).sum() == 11


def test_the_coefficient_of_the_bonus_follows_the_entropy():
    settings = {"entropy_target": 9.0, "entropy_step": 0.1, "entropy_max": 0.35}
    algorithm = algorithm_of(entropy=0.1, entropy_control="stepped", settings=settings)
    plain, _ = run(algorithm_of(), passes=3, optimizer=LOOSE)
    gradients, report = run(algorithm, passes=3, optimizer=LOOSE)
    # nothing is applied before something was seen; then 0.2 and 0.3
    torch.testing.assert_close(plain[0], gradients[0], rtol=0, atol=1e-14)
    bonus = (plain[1] - gradients[1]) / 0.2
    torch.testing.assert_close(plain[2] - gradients[2], 0.3 * bonus, rtol=1e-9, atol=1e-13)
    assert report["entropy_coefficient"] == pytest.approx(0.35)


# --- the whole update ------------------------------------------------------------------------------------------------


def test_draws_belong_to_the_token():
    groups = groups_of(LENGTHS, REWARDS)
    draws = draws_of(groups, step=3)
    assert draws.shape == (37,) and draws.min() >= 0 and draws.max() < 1
    assert len(set(draws.tolist())) == 37
    backwards = draws_of(groups[::-1], step=3)
    assert torch.equal(backwards, torch.cat([draws[17:], draws[:17]]))
    assert not torch.equal(draws, draws_of(groups, step=4))
    ungraded = replace(groups[0], rollouts=(replace(groups[0].rollouts[0], reward=None), *groups[0].rollouts[1:]))
    assert torch.equal(draws_of([ungraded], step=3), draws[3:17])
    assert draws_of([], step=3).shape == (0,)


def test_top_entropy_trains_the_least_certain_tokens_of_the_update():
    policy, groups = TabularPolicy(), groups_of(LENGTHS, REWARDS)
    tokens = torch.tensor([t for g in groups for r in g.rollouts for t in r.completion.token_ids])
    entropies = entropies_of(policy.table, tokens).detach()
    chosen = set(tokens[entropies >= torch.quantile(entropies, 0.8)].tolist())
    for budget in (1, 15, 10_000):
        gradients, _ = run(algorithm_of(filters=["top_entropy"]), token_budget=budget)
        trained = set((gradients[0].abs().sum(1) > 0).nonzero()[:, 0].tolist())
        assert trained == chosen
    assert len(chosen) == 8


def test_without_anyone_looking_ahead_there_is_no_pass_ahead():
    def forwards(**settings):
        policy, algorithm = TabularPolicy(), algorithm_of(**settings)
        groups = advantaged(with_logprobs(groups_of(LENGTHS, REWARDS), policy.table), algorithm)
        logprobs, calls = policy.logprobs, []
        policy.logprobs = lambda *args, **settings: calls.append(1) or logprobs(*args, **settings)
        update(learner_of(policy, algorithm), groups, exact=True)
        return len(calls)

    assert (forwards(), forwards(filters=["top_entropy"]), forwards(surrogate="kl_cov")) == (1, 2, 2)
