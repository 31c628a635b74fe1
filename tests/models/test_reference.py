"""The reference: what it says, how it moves, and that the policy is itself again afterwards, to the bit."""

import pytest
import torch

from architectures import alone, model_of, policy_of, ragged_trees
from groupwise.config.sections import LoraSection, ReferenceSection
from groupwise.models.reference import Reference

FULL, LORA = None, LoraSection(r=4)


def logprobs(policy):
    with torch.no_grad():
        return policy.logprobs(ragged_trees())[0]


def referred(reference, policy):
    with reference.active():
        return policy.logprobs(ragged_trees())[0]


def shake(policy, seed=0):
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for parameter in policy.trainable().values():
            parameter += 0.1 * torch.randn_like(parameter)


def state(policy):
    return {name: parameter.clone() for name, parameter in policy.model.named_parameters()}


def identical(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("lora", [FULL, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("name", ["qwen2", "llama", "mamba"])
def test_the_reference_is_where_training_began(name, lora):
    lora = LoraSection(r=4, targets=["in_proj"]) if lora and name == "mamba" else lora
    policy = policy_of(name, lora=lora)
    reference = Reference(policy, ReferenceSection())
    first = logprobs(policy)
    for seed in range(3):
        shake(policy, seed)
        assert reference.follow(seed + 1) is False
    assert not torch.allclose(logprobs(policy), first, atol=1e-2, rtol=0)
    assert torch.equal(referred(reference, policy), first)
    assert torch.allclose(first, alone(model_of(name), ragged_trees()).detach(), atol=1e-5, rtol=0)


def test_under_lora_it_costs_nothing():
    """The adapter switched off is the reference: no copy of anything."""
    policy = policy_of("llama", lora=LORA)
    reference = Reference(policy, ReferenceSection())
    assert not [value for value in vars(reference).values() if isinstance(value, dict) and value]


@pytest.mark.parametrize("section", [ReferenceSection(), ReferenceSection(every=1)], ids=["frozen", "moving"])
@pytest.mark.parametrize("lora", [FULL, LORA], ids=["full", "lora"])
def test_the_policy_comes_back_to_the_bit(lora, section):
    policy = policy_of("qwen2", lora=lora)
    reference = Reference(policy, section)
    shake(policy)
    before, requires = state(policy), {n: p.requires_grad for n, p in policy.model.named_parameters()}
    trainable = list(policy.trainable())
    referred(reference, policy)
    assert identical(state(policy), before)
    with pytest.raises(ZeroDivisionError), reference.active():
        policy.logprobs(ragged_trees())
        raise ZeroDivisionError
    assert identical(state(policy), before)
    assert {n: p.requires_grad for n, p in policy.model.named_parameters()} == requires
    assert list(policy.trainable()) == trainable
    assert torch.is_grad_enabled()


def test_the_optimizers_parameters_stay_the_policys():
    """Values are swapped, not parameters: an optimizer that holds them must go on moving the policy."""
    policy = policy_of("qwen2")
    held = dict(policy.trainable())
    reference = Reference(policy, ReferenceSection())
    shake(policy)
    referred(reference, policy)
    assert all(policy.trainable()[name] is parameter for name, parameter in held.items())
    assert policy.model.get_input_embeddings().weight is policy.model.get_output_embeddings().weight


def test_the_reference_has_no_gradient():
    policy = policy_of("qwen2")
    reference = Reference(policy, ReferenceSection())
    assert not referred(reference, policy).requires_grad
    assert policy.logprobs(ragged_trees())[0].requires_grad


@pytest.mark.parametrize("lora", [FULL, LORA], ids=["full", "lora"])
def test_mixing_by_hand(lora):
    """mix 0.75 of a policy at 3 into a reference at 1 is 2.5; then of a policy at 4, 0.75 * 4 + 0.25 * 2.5 = 3.625."""
    policy = policy_of("llama", lora=lora)
    (name, parameter), *_ = policy.trainable().items()

    def set_to(value):
        with torch.no_grad():
            parameter.fill_(value)

    set_to(1.0)
    reference = Reference(policy, ReferenceSection(every=2, mix=0.75))
    seen = []
    for step, value in ((1, 2.0), (2, 3.0), (3, 5.0), (4, 4.0)):
        set_to(value)
        moved = reference.follow(step)
        with reference.active():
            seen.append((moved, float(policy.trainable()[name].detach().flatten()[0])))
        assert float(parameter.detach().flatten()[0]) == value
    assert seen == [(False, 1.0), (True, 2.5), (False, 2.5), (True, 3.625)]


def test_a_mix_of_one_is_a_copy():
    policy = policy_of("qwen2")
    reference = Reference(policy, ReferenceSection(every=1, mix=1.0))
    shake(policy)
    assert reference.follow(1)
    assert torch.equal(referred(reference, policy), logprobs(policy))
    shake(policy, 1)
    assert not torch.allclose(referred(reference, policy), logprobs(policy), atol=1e-3, rtol=0)


def test_a_moving_reference_under_lora_begins_at_the_base():
    policy = policy_of("llama", lora=LORA)
    reference = Reference(policy, ReferenceSection(every=5, mix=0.5))
    shake(policy)
    assert torch.allclose(
        referred(reference, policy), alone(model_of("llama"), ragged_trees()).detach(), atol=1e-5, rtol=0
    )


def test_what_cannot_move_says_so():
    with pytest.raises(AssertionError, match="cannot move"):
        Reference(policy_of("llama", lora=LORA), ReferenceSection()).mix(0.5)


def test_a_small_mix_is_not_rounded_away_in_16_bits():
    policy = policy_of(model_of("qwen2").bfloat16())
    reference = Reference(policy, ReferenceSection(every=1, mix=0.001))
    name, parameter = next(iter(policy.trainable().items()))
    before = parameter.detach().float().clone()
    with torch.no_grad():
        parameter.add_(1.0)
    for _ in range(200):
        reference.mix(0.001)
    with reference.active():
        moved = (policy.trainable()[name].float() - before).mean()
    assert abs(float(moved) - (1 - 0.999**200)) < 0.01  # in bf16 alone nothing would have moved
