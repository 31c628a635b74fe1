"""What is sampled is what the policy says: same logprobs as the learner, same tokens as transformers, any batch."""

import asyncio
import random

import pytest
import torch
from toy_engine import as_trees, gathered, ids, one, reported, sampled, without_ends

from architectures import ARCHITECTURES, alone, model_of, policy_of, tokens
from groupwise.config.presets import PRESETS
from groupwise.config.sections import AlgorithmSection, LearnerSection, LoraSection, OptimizerSection, ReferenceSection
from groupwise.engines.embedded import EmbeddedEngine
from groupwise.learner.algorithm import Algorithm
from groupwise.learner.learner import Learner
from groupwise.types import Group, Problem, Rollout, Sampling

CLOSE = 1e-5
"""The promise: sampler and learner agree so far in fp32."""


def calls_of(sampling, lengths=(5, 9, 9, 1, 26), n=4):
    return [
        (tokens(length, i), n, sampling, [1000 * i + branch for branch in range(n)]) for i, length in enumerate(lengths)
    ]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_logprobs_are_the_learners_and_no_batch_changes_the_tokens(name):
    policy = policy_of(name)
    calls = calls_of(Sampling(max_new_tokens=10, temperature=0.7))
    groups = sampled(policy, calls, max_rows=64)
    trees = as_trees(calls, groups)
    with torch.no_grad():
        expected_T = alone(model_of(name), trees, temperature=0.7)
        learners_T, _ = policy.logprobs(trees, temperature=0.7)
    assert float((reported(groups) - learners_T).abs().max()) < CLOSE
    assert float((reported(groups) - expected_T).abs().max()) < CLOSE
    assert len({completion.token_ids for group in groups for completion in group}) > 15, "the seeds differ"
    for max_rows in (8, 3):  # 3 cuts every group in two
        order = random.Random(max_rows).sample(range(len(calls)), len(calls))
        again = sampled(policy, [calls[i] for i in order], max_rows)
        assert ids(again) == [ids(groups)[i] for i in order]


@pytest.mark.parametrize("name", ["qwen2", "mistral", "gemma2", "gpt2", "mamba"])
def test_a_completion_alone_is_the_completion_in_company(name):
    policy = policy_of(name)
    sampling = Sampling(max_new_tokens=10)
    calls = calls_of(sampling)
    groups = sampled(policy, calls)
    for (prompt, _, _, seeds), group in zip(calls, groups, strict=True):
        alone_again = one(policy, prompt, sampling, seed=seeds[2])
        assert alone_again.token_ids == group[2].token_ids
        assert alone_again.logprobs == pytest.approx(group[2].logprobs, abs=CLOSE)


@pytest.mark.parametrize("name", ["qwen2", "mistral", "gemma3", "mamba"])
def test_many_more_tokens_than_the_cache_has_room_for_at_first(name):
    """Rooms double at 64 and at 128 tokens; windows pass from the prompt into the completion on the way."""
    policy = without_ends(policy_of(name))
    calls = calls_of(Sampling(max_new_tokens=140, temperature=1.3), lengths=(5, 30), n=2)
    groups = sampled(policy, calls)
    assert all(len(completion.token_ids) == 140 for group in groups for completion in group)
    with torch.no_grad():
        expected_T = alone(model_of(name), as_trees(calls, groups), temperature=1.3)
    assert float((reported(groups) - expected_T).abs().max()) < CLOSE


@pytest.mark.parametrize("name", ["gpt2", "opt", "falcon, alibi"])  # all of them in fp64 throughout
def test_in_fp64_nothing_is_left_but_rounding(name):
    """What differs in fp32 is rounding: in fp64 sampler, learner and transformers agree to twelve digits."""
    policy = without_ends(policy_of(model_of(name).double()))
    calls = calls_of(Sampling(max_new_tokens=70, temperature=0.7), lengths=(5, 30, 11), n=3)
    groups = sampled(policy, calls, max_rows=6)
    trees = as_trees(calls, groups)
    found_T = torch.tensor([x for group in groups for c in group for x in c.logprobs], dtype=torch.float64)
    with torch.no_grad():
        assert float((found_T - policy.logprobs(trees, temperature=0.7)[0]).abs().max()) < 1e-12
        assert float((found_T - alone(model_of(name).double(), trees, temperature=0.7)).abs().max()) < 1e-12


def test_a_late_group_joins_rows_that_are_far_ahead():
    """Continuous batching: prompts of other lengths join, leave and are joined again; nobody's numbers change."""
    policy = without_ends(policy_of("gemma3"))
    calls = [
        (tokens(4 + 7 * i, i), 2, Sampling(max_new_tokens=limit, temperature=0.9), [10 * i, 10 * i + 1])
        for i, limit in enumerate((90, 3, 70, 1, 40, 9))
    ]

    async def staggered():
        engine, tasks = EmbeddedEngine(policy, max_rows=6), []
        for call in calls:
            tasks.append(asyncio.create_task(engine.sample(*call)))
            for _ in range(13):
                await asyncio.sleep(0)
        return await asyncio.gather(*tasks)

    groups = asyncio.run(staggered())
    assert [[len(c.token_ids) for c in group] for group in groups] == [[n, n] for n in (90, 3, 70, 1, 40, 9)]
    with torch.no_grad():
        expected_T = alone(model_of("gemma3"), as_trees(calls, groups), temperature=0.9)
    assert float((reported(groups) - expected_T).abs().max()) < CLOSE
    assert ids(groups) == ids(sampled(policy, calls))


@pytest.mark.parametrize("name", ["qwen2", "llama", "gemma2", "gemma3", "gpt2", "cohere", "mamba", "gpt-oss", "bloom"])
def test_greedy_is_transformers_own_generate(name):
    policy, plain = policy_of(name), model_of(name)
    for seed, length in enumerate((3, 8, 20)):
        prompt = tokens(length, seed)
        ids_of_prompt = torch.tensor([prompt])
        generated = plain.generate(
            ids_of_prompt, attention_mask=torch.ones_like(ids_of_prompt), max_new_tokens=24, do_sample=False
        )
        completion = one(policy, prompt, Sampling(max_new_tokens=24, temperature=0.0))
        assert list(completion.token_ids) == generated[0, length:].tolist()
        expected_T = alone(plain, as_trees([(prompt,)], [[completion]]))
        assert torch.allclose(torch.tensor(completion.logprobs), expected_T.detach(), atol=CLOSE, rtol=0)


@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0])
def test_one_definition_of_temperature(temperature):
    policy = policy_of("llama")
    calls = calls_of(Sampling(max_new_tokens=10, temperature=temperature))
    groups = sampled(policy, calls)
    with torch.no_grad():
        learners_T, _ = policy.logprobs(as_trees(calls, groups), temperature=temperature)
    assert float((reported(groups) - learners_T).abs().max()) < CLOSE


def test_large_logits_cost_no_precision():
    """exp of 300 would overflow and 300 - 299.7 would be rounded to 3e-5: log-softmax does neither."""
    policy = policy_of("gpt2")
    with torch.no_grad():
        policy.model.transformer.wte.weight.zero_()
        policy.model.transformer.ln_f.weight.zero_()
        policy.model.transformer.ln_f.bias.zero_()[0] = 1.0
        policy.model.transformer.wte.weight[:, 0] = 300 + torch.linspace(0, 1, 99)
    group = sampled(policy, [(tokens(4), 8, Sampling(max_new_tokens=6), range(8))])[0]
    every_token = policy.model.transformer.wte.weight[:, 0].detach().double().log_softmax(0)
    for completion in group:
        for token, logprob in zip(completion.token_ids, completion.logprobs, strict=True):
            assert logprob == pytest.approx(float(every_token[token]), abs=1e-6)


def graded(call, group):
    """Completions with many small tokens are good."""
    rollouts = []
    for completion in group:
        share = sum(token < 50 for token in completion.token_ids) / len(completion.token_ids)
        rollouts.append(Rollout(completion, {"small": share}, share, advantage=share - 0.5))
    return Group(Problem("p", "", {}), tuple(call[0]), tuple(rollouts))


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize(
    ("name", "lora"),
    [("qwen2", None), ("llama", None), ("gemma2", None), ("llama", LoraSection(r=4)), ("mamba", None)],
    ids=["tied", "untied", "tied, capped", "lora", "plain"],
)
def test_after_updates_the_sampler_is_still_the_learner(name, lora, temperature):
    """`sampler_gap` of each update, at a learning rate that moves the policy far; and the tokens move with it."""
    policy = policy_of(name, lora=lora)
    section = AlgorithmSection(preset="grpo", **PRESETS["grpo"])
    learner = Learner(
        policy,
        Algorithm.of(section, max_new_tokens=12),
        LearnerSection(),
        OptimizerSection(lr=2e-2),
        reference=ReferenceSection(),
        temperature=temperature,
        total_steps=5,
    )
    engine = EmbeddedEngine(policy)
    calls = calls_of(Sampling(max_new_tokens=12, temperature=temperature), lengths=(5, 9), n=8)

    async def step():
        groups = await gathered(engine, calls)
        report = await learner.update(
            [graded(*pair) for pair in zip(calls, groups, strict=True)], sampler_is_exact=True
        )
        await engine.load_weights(learner.weights())
        return ids(groups), report.metrics()["sampler_gap"]

    drawn = []
    for _ in range(5):
        tokens_now, gap = asyncio.run(step())
        drawn.append(tokens_now)
        assert 0 < gap < CLOSE
    assert drawn[0] != drawn[-1]
    fresh = sampled(policy, calls)
    with torch.no_grad():
        learners_T, _ = policy.logprobs(as_trees(calls, fresh), temperature=temperature)
    assert float((reported(fresh) - learners_T).abs().max()) < CLOSE
