"""Every architecture gives the logprobs and the gradients of its own plain forward, whichever way it is run."""

import pytest
import torch

from architectures import (
    ARCHITECTURES,
    TRUNK_AND_BRANCH,
    alone,
    gradients,
    largest_difference,
    model_of,
    policy_of,
    ragged_trees,
)

CLOSE = 1e-4


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_logprobs_and_gradients_are_those_of_each_sequence_alone(name):
    untouched, trees = model_of(name), ragged_trees()
    expected_T = alone(untouched, trees, temperature=0.8)
    expected = gradients(untouched, expected_T)
    policy = policy_of(name)
    with policy.training():
        logprobs_T, _ = policy.logprobs(trees, temperature=0.8, chunk=16)
        found = gradients(policy.model, logprobs_T)
    assert len(logprobs_T) == 5 + 1 + 17 + 3 + 21 + 2 + 12
    assert float((logprobs_T - expected_T).abs().max()) < CLOSE
    assert largest_difference(found, expected) < CLOSE
    # And the comparison means something: the tokens differ in their logprobs, and they pull.
    assert float(expected_T.detach().std()) > 0.05
    assert max(float(gradient.abs().max()) for gradient in expected.values()) > 0.1


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_which_way_is_chosen_and_why(name):
    policy = policy_of(name)
    assert policy.why_plain == ARCHITECTURES[name].why_plain
    assert policy.attention == ("plain" if policy.why_plain else "trunk_and_branch")


@pytest.mark.parametrize("name", TRUNK_AND_BRANCH)
def test_packed_is_plain(name):
    trees = ragged_trees()
    packed, padded = policy_of(name), policy_of(name, attention="plain")
    assert (packed.attention, padded.attention) == ("trunk_and_branch", "plain")
    one, two = packed.logprobs(trees)[0], padded.logprobs(trees)[0]
    assert float((one - two).abs().max()) < 1e-5
    assert largest_difference(gradients(packed.model, one), gradients(padded.model, two)) < CLOSE


def test_a_batch_of_one_prompt_gives_the_same_numbers():
    """Nothing of one tree reaches another, and nothing of one branch another."""
    policy, trees = policy_of("gemma3"), ragged_trees()
    with torch.no_grad():
        together = policy.logprobs(trees)[0]
        apart = torch.cat([policy.logprobs([tree])[0] for tree in trees])
    assert torch.allclose(together, apart, atol=1e-5, rtol=0)
