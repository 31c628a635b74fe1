"""What the tests of the engine share."""

import asyncio

import torch

from architectures import model_of, policy_of
from groupwise.engines.embedded import EmbeddedEngine
from groupwise.models.trees import Tree
from groupwise.types import Sampling
from toys import char_tokenizer


async def gathered(engine, calls):
    """The answers to `(prompt_ids, n, sampling, seeds)` calls that wait together."""
    return await asyncio.gather(*(engine.sample(*call) for call in calls))


def sampled(policy, calls, max_rows=64):
    """The same from a fresh engine."""
    return asyncio.run(gathered(EmbeddedEngine(policy, max_rows), calls))


def one(policy, prompt_ids, sampling=None, *, seed=0, max_rows=64):
    """A single completion."""
    ((completion,),) = sampled(policy, [(prompt_ids, 1, sampling or Sampling(max_new_tokens=8), [seed])], max_rows)
    return completion


def ids(groups):
    """The token ids of all completions, group by group."""
    return [[completion.token_ids for completion in group] for group in groups]


def as_trees(calls, groups):
    """What was sampled as the learner reads it."""
    return [Tree(tuple(call[0]), tuple(c.token_ids for c in group)) for call, group in zip(calls, groups, strict=True)]


def reported(groups):
    """All logprobs in the learner's order."""
    return torch.tensor([logprob for group in groups for c in group for logprob in c.logprobs])


def without_ends(policy):
    """The same policy with a model and a tokenizer that know no end token."""
    policy.model.config.eos_token_id = None
    policy.model.generation_config.eos_token_id = None
    policy.tokenizer.eos_token = None
    return policy


def chain(text, *, tokenizer=None, context=256, **changes):
    """A policy that goes through `text` letter by letter, round and round, whatever stands in front.

    Its layers add nothing to what an embedding says of the token, and its head knows the next one by heart.

    Example: `chain("abc")` greedily continues "b" with "cabcab...".
    """
    tokenizer = tokenizer or char_tokenizer()
    model = model_of("gpt2", n_embd=256, vocab_size=256, n_layer=1, n_positions=context, tie_word_embeddings=False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.transformer.ln_f.weight.fill_(1.0)
        model.transformer.wte.weight.copy_(torch.eye(256))
        path = tokenizer.encode(text, add_special_tokens=False) if isinstance(text, str) else list(text)
        model.lm_head.weight[[*path[1:], path[0]], path] = 1.0
    return policy_of(model, tokenizer=tokenizer, **changes)
