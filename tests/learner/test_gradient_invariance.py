"""What changes memory and speed never changes the gradient: cuts, order, attention, checkpointing, chunks."""

from dataclasses import replace

import pytest
import torch
from toy_learner import (
    Watched,
    algorithm_of,
    learner_of,
    perturb,
    policy_of,
    ragged_groups,
    sampled_by,
    update,
    weights_of,
)

VARIATIONS = {
    "one rollout at a time": {"token_budget": 1},
    "a few rollouts": {"token_budget": 50},
    "tiny chunks of logits": {"logprob_chunk": 3},
    "plain padded batches": {"attention": "plain"},
    "plain, cut": {"attention": "plain", "token_budget": 20},
    "checkpointing": {"gradient_checkpointing": True, "token_budget": 50},
}
OF_THE_MODEL = ("attention", "gradient_checkpointing")


def moved(algorithm, groups, *, optimizer=None, exact=False, **settings):
    """The policy after an update, and what was watched on the way. It starts away from its reference."""
    policy = policy_of(**{name: settings.pop(name) for name in OF_THE_MODEL if name in settings})
    learner = learner_of(policy, algorithm, optimizer=optimizer, **settings)
    perturb(policy)
    watched = Watched(learner)
    report = update(learner, sampled_by(policy, groups, off_by=0.15) if exact else groups, exact=exact)
    return watched, weights_of(policy), report


def same(ours, theirs, within):
    assert ours.keys() == theirs.keys()
    return all(torch.allclose(ours[name], theirs[name], rtol=0, atol=within) for name in ours)


@pytest.mark.parametrize("beta", [0.0, 0.5])
@pytest.mark.parametrize("weights", ["sequence_mean", "token_mean", "fixed_length"])
def test_the_gradient_of_an_update_is_one_whatever_the_split(weights, beta):
    algorithm = algorithm_of(weights=weights, beta=beta)
    groups = ragged_groups(algorithm)
    watched, _, report = moved(algorithm, groups)
    (expected,) = watched.gradients
    assert max(gradient.abs().max() for gradient in expected.values()) > 1e-2  # 1e-10 is a claim
    for name, variation in VARIATIONS.items():
        watched, _, theirs = moved(algorithm, groups, **variation)
        assert same(watched.gradients[0], expected, 1e-10), name
        assert theirs["loss"] == pytest.approx(report["loss"], abs=1e-10), name
        assert theirs["grad_norm"] == pytest.approx(report["grad_norm"], abs=1e-10), name
    for order in ([4, 3, 2, 1, 0], [2, 0, 4, 1, 3]):
        watched, _, _ = moved(algorithm, [groups[i] for i in order], token_budget=60)
        assert same(watched.gradients[0], expected, 1e-10), order


@pytest.mark.parametrize("exact", [True, False], ids=["sampled anchor", "computed anchor"])
@pytest.mark.parametrize("weights", ["sequence_mean", "token_mean", "fixed_length"])
def test_so_are_the_weights_after_several_passes_of_several_updates(weights, exact):
    algorithm = algorithm_of(weights=weights, beta=0.3)
    groups = ragged_groups(algorithm)
    several = {"passes": 2, "updates_per_batch": 2, "exact": exact, "optimizer": {"weight_decay": 0.1}}
    watched, expected, report = moved(algorithm, groups, **several)
    assert len(watched.gradients) == 4
    assert report["clip_low"] + report["clip_high"] > 0  # the clip is at work, so ratios matter
    for name, variation in VARIATIONS.items():
        _, theirs, _ = moved(algorithm, groups, **several, **variation)
        assert same(theirs, expected, 1e-9), name


def test_skipping_silent_rollouts_changes_nothing():
    groups = ragged_groups(algorithm_of())
    groups[2] = replace(groups[2], rollouts=tuple(replace(r, advantage=0.0) for r in groups[2].rollouts))
    skipped, _, report = moved(algorithm_of(), groups)
    # beta > 0 computes silent rollouts too, and a beta of next to nothing adds next to nothing.
    computed, _, theirs = moved(algorithm_of(beta=1e-14), groups)
    assert theirs["trained_tokens"] > report["trained_tokens"]
    assert same(skipped.gradients[0], computed.gradients[0], 1e-10)


def test_checkpointing_really_recomputes():
    def forwards(**settings):
        policy = policy_of(**settings)
        count = []
        policy.model.transformer.h[0].mlp.register_forward_pre_hook(lambda *_: count.append(1))
        algorithm = algorithm_of()
        update(learner_of(policy, algorithm), ragged_groups(algorithm))
        return len(count)

    assert (forwards(), forwards(gradient_checkpointing=True)) == (1, 2)


def test_the_comparison_can_fail():
    algorithm = algorithm_of()
    groups = ragged_groups(algorithm)
    watched, _, _ = moved(algorithm, groups)
    without, _, _ = moved(algorithm, groups[:-1])
    assert not same(watched.gradients[0], without.gradients[0], 1e-10)
