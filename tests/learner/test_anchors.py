"""Old and reference logprobs: where they come from, when they are needed, and what they are."""

import asyncio
import math
from dataclasses import replace

import pytest
import torch
from toy_learner import (
    Watched,
    advantaged,
    algorithm_of,
    learner_of,
    perturb,
    policy_of,
    ragged_groups,
    sampled_by,
    update,
    weights_of,
)

from groupwise.models.trees import Tree
from toys import graded_group, tiny_model

TREES = [Tree((5, 6), ((30, 31, 32), (40, 41)))]


def logprobs(policy):
    with torch.no_grad():
        return policy.logprobs(TREES)[0]


# --- old ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exact", [True, False])
def test_strictly_on_policy_asks_nobody_for_an_anchor(exact):
    algorithm = algorithm_of()
    groups = ragged_groups(algorithm)  # their logprobs are all -9, which no anchor could be
    learner = learner_of(policy_of(), algorithm, token_budget=30)
    for _ in range(2):
        report = update(learner, groups, exact=exact)
        assert report["ratio"] == 1.0
        assert report["clip_low"] == report["clip_high"] == 0.0


@pytest.mark.parametrize("settings", [{"passes": 3}, {"updates_per_batch": 3}], ids=["passes", "updates"])
def test_the_ratio_is_1_until_the_first_step_and_not_after_it(settings):
    algorithm = algorithm_of()
    policy = policy_of()
    groups = sampled_by(policy, ragged_groups(algorithm))
    still = update(learner_of(policy, algorithm, optimizer={"lr": 1e-30}, **settings), groups)
    assert still["ratio"] == pytest.approx(1.0, abs=1e-12)
    moving = update(learner_of(policy, algorithm, **settings), groups)
    assert abs(moving["ratio"] - 1.0) > 1e-4


def test_sampled_and_recomputed_anchors_agree():
    algorithm = algorithm_of()
    outcomes = []
    for exact in (True, False):
        policy = policy_of()
        groups = sampled_by(policy, ragged_groups(algorithm), temperature=0.8)
        report = update(learner_of(policy, algorithm, passes=3, temperature=0.8), groups, exact=exact)
        outcomes.append((weights_of(policy), report))
    (sampled, report), (recomputed, other) = outcomes
    assert all(torch.allclose(sampled[name], recomputed[name], rtol=0, atol=1e-10) for name in sampled)
    assert report["sampler_gap"] < 1e-12
    assert report["ratio"] == pytest.approx(other["ratio"], abs=1e-10)


def test_an_anchor_that_is_off_is_noticed():
    algorithm = algorithm_of()
    policy = policy_of()
    groups = sampled_by(policy, ragged_groups(algorithm), off_by=0.25)
    report = update(learner_of(policy, algorithm, passes=2, optimizer={"lr": 1e-30}), groups, exact=True)
    assert report["sampler_gap"] == pytest.approx(0.25, abs=1e-9)
    assert report["clip_low"] > 0
    assert report["clip_high"] > 0


def test_the_gap_is_measured_before_the_weights_move():
    algorithm = algorithm_of()
    policy = policy_of()
    groups = sampled_by(policy, ragged_groups(algorithm))
    report = update(learner_of(policy, algorithm, passes=3, optimizer={"lr": 0.1}), groups, exact=True)
    assert report["sampler_gap"] < 1e-12


def test_the_clip_metrics_by_hand():
    # One token a rollout; the anchor is the policy's own logprob minus log(ratio).
    policy = policy_of()
    group = graded_group([5, 6], *(([30 + i], None) for i in range(6)))
    (group,) = sampled_by(policy, [group])
    ratios, advantages = [1.5, 1.5, 0.5, 0.5, 1.1, 0.95], [1.0, -1.0, 1.0, -1.0, 1.0, -1.0]
    rollouts = [
        replace(
            r,
            reward=a,
            advantage=a,
            completion=replace(r.completion, logprobs=(r.completion.logprobs[0] - math.log(ratio),)),
        )
        for r, ratio, a in zip(group.rollouts, ratios, advantages, strict=True)
    ]
    learner = learner_of(policy, passes=2, optimizer={"lr": 1e-30})
    report = update(learner, [replace(group, rollouts=tuple(rollouts))], exact=True)
    assert report["ratio"] == pytest.approx(sum(ratios) / 6)
    assert report["clip_high"] == pytest.approx(1 / 6)  # 1.5 and still pushed up
    assert report["clip_low"] == pytest.approx(1 / 6)  # 0.5 and still pushed down
    # -min(ratio A, clip A): 1.2, -1.5, 0.5, -0.8, 1.1, -0.95, each a sixth
    assert report["loss"] == pytest.approx(-(1.2 - 1.5 + 0.5 - 0.8 + 1.1 - 0.95) / 6)
    assert report["trained_tokens"] == 12


# --- reference ------------------------------------------------------------------------------------------------------


def lora(policy_dtype=torch.float64):
    return policy_of(tiny_model("gpt2", dtype=policy_dtype), lora={"r": 2, "targets": ["c_attn", "c_fc"]})


@pytest.mark.parametrize("make", [policy_of, lora], ids=["full", "lora"])
def test_the_kl_is_0_where_training_begins_and_grows(make):
    algorithm = algorithm_of(beta=0.1)
    groups = ragged_groups(algorithm)
    policy = make()
    start = logprobs(policy)
    learner = learner_of(policy, algorithm)
    kl = [update(learner, groups)["kl"] for _ in range(4)]
    assert abs(kl[0]) < 1e-15
    assert kl[3] > kl[1] > 1e-6
    with learner.reference.active():
        assert torch.equal(logprobs(policy), start)
    assert not torch.allclose(logprobs(policy), start)


@pytest.mark.parametrize("make", [policy_of, lora], ids=["full", "lora"])
def test_a_strong_reference_holds_the_policy_back(make):
    def distance(beta):
        algorithm = algorithm_of(beta=beta)
        policy = make()
        start = logprobs(policy)
        learner = learner_of(policy, algorithm, passes=4)
        for _ in range(3):
            update(learner, ragged_groups(algorithm))
        return float((logprobs(policy) - start).abs().mean())

    assert distance(30.0) < distance(0.01) / 2


@pytest.mark.parametrize("make", [policy_of, lora], ids=["full", "lora"])
def test_a_moving_reference_moves_at_its_steps(make):
    algorithm = algorithm_of(beta=0.01)
    groups = ragged_groups(algorithm)
    # Two passes of two updates: it counts steps, not updates.
    learner = learner_of(
        make(), algorithm, reference={"every": 2, "mix": 1.0}, passes=2, updates_per_batch=2, optimizer={"lr": 1e-3}
    )
    at_start = []
    for _ in range(6):
        with learner.reference.active():
            reference = logprobs(learner.policy)
        at_start.append(torch.equal(reference, logprobs(learner.policy)))
        update(learner, groups)
    assert at_start == [True, False, True, False, True, False]


def test_a_moving_reference_is_the_mixture():
    algorithm = algorithm_of(beta=0.01)
    groups = ragged_groups(algorithm)
    learner = learner_of(policy_of(), algorithm, reference={"every": 1, "mix": 0.25})
    start = weights_of(learner.policy)
    update(learner, groups)
    moved = weights_of(learner.policy)
    with learner.reference.active():
        mixed = weights_of(learner.policy)
    for name in start:
        assert torch.allclose(mixed[name], 0.25 * moved[name] + 0.75 * start[name], rtol=0, atol=1e-14)


def test_without_beta_there_is_no_reference():
    learner = learner_of(policy_of())
    assert learner.reference is None
    assert "kl" not in update(learner, ragged_groups(algorithm_of()))


# --- nothing to learn -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"passes": 2, "updates_per_batch": 2}])
@pytest.mark.parametrize("rewards", [(1.0, 1.0), (None, None), (None, 1.0)])
def test_groups_that_say_nothing_change_nothing(rewards, settings):
    algorithm = algorithm_of()
    groups = [graded_group([5, 6], ([30, 31], rewards[0]), ([40], rewards[1])) for _ in range(3)]
    learner = learner_of(policy_of(), algorithm, optimizer={"weight_decay": 0.5}, **settings)
    before = weights_of(learner.policy)
    report = update(learner, advantaged(groups, algorithm))
    after = weights_of(learner.policy)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (report["loss"], report["grad_norm"], report["trained_tokens"]) == (0.0, 0.0, 0.0)


def test_without_rewards_even_the_reference_pulls_at_nothing():
    algorithm = algorithm_of(beta=1.0)
    learner = learner_of(policy_of(), algorithm, passes=2)
    perturb(learner.policy)
    before = weights_of(learner.policy)
    update(learner, [graded_group([5, 6], ([30, 31], None), ([40], None))])
    assert all(torch.equal(before[name], value) for name, value in weights_of(learner.policy).items())


# --- modes ----------------------------------------------------------------------------------------------------------


def test_dropout_of_the_adapter_is_on_in_the_update_and_off_around_it():
    policy = policy_of(lora={"r": 4, "dropout": 0.5, "targets": ["c_attn", "c_fc"]})
    perturb(policy)
    assert torch.equal(logprobs(policy), logprobs(policy))
    algorithm = algorithm_of()
    groups = sampled_by(policy, ragged_groups(algorithm))
    report = update(learner_of(policy, algorithm), groups, exact=True)
    assert report["sampler_gap"] > 1e-3
    assert report["ratio"] == 1.0
    assert torch.equal(logprobs(policy), logprobs(policy))


def test_checkpointing_draws_the_same_dropout_again():
    """What is recomputed in the backward pass has to be what the forward pass computed, dropout included."""
    gradients = []
    for checkpointing in (False, True):
        policy = policy_of(
            lora={"r": 4, "dropout": 0.5, "targets": ["c_attn", "c_fc"]}, gradient_checkpointing=checkpointing
        )
        perturb(policy)
        algorithm = algorithm_of()
        watched = Watched(learner := learner_of(policy, algorithm))
        torch.manual_seed(4)
        update(learner, ragged_groups(algorithm))
        gradients.append(watched.gradients[0])
    plain, checkpointed = gradients
    assert all(torch.allclose(plain[name], checkpointed[name], rtol=0, atol=1e-12) for name in plain)


def test_an_update_can_be_interrupted_between_micro_batches():
    algorithm = algorithm_of()
    learner = learner_of(policy_of(), algorithm, token_budget=1)
    before = weights_of(learner.policy)

    async def interrupted():
        task = asyncio.create_task(learner.update(ragged_groups(algorithm), sampler_is_exact=False))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(interrupted())
    assert all(torch.equal(before[name], value) for name, value in weights_of(learner.policy).items())
    assert not learner.policy.model.training
