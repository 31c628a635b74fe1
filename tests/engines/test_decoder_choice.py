"""A decoder that does not give the learner's logprobs is not used, and that is said."""

import pytest
import torch
from toy_engine import as_trees, ids, reported, sampled

from architectures import alone, model_of, policy_of, tokens
from groupwise.engines.cache import BranchCache
from groupwise.engines.choice import choose_decoder
from groupwise.engines.decoders import PlainDecoder, RereadingDecoder, TrunkAndBranchDecoder
from groupwise.engines.native import NativeDecoder
from groupwise.types import Sampling

CALLS = [(tokens(length, i), 3, Sampling(max_new_tokens=9), range(3)) for i, length in enumerate((5, 8, 8))]


def is_right(policy, name):
    groups = sampled(policy, CALLS, max_rows=6)
    with torch.no_grad():
        expected_T = alone(model_of(name), as_trees(CALLS, groups))
    return torch.allclose(reported(groups), expected_T, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "decoder"),
    [
        ("qwen2", NativeDecoder),
        ("gemma3", TrunkAndBranchDecoder),
        ("mamba", PlainDecoder),
        ("diffllama", PlainDecoder),
        ("gpt-1, no cache", RereadingDecoder),
    ],
)
def test_which_decoder_samples(name, decoder, caplog):
    policy = policy_of(name)
    caplog.clear()
    assert choose_decoder(policy) is decoder
    messages = [record.getMessage() for record in caplog.records]
    assert bool(messages) is (decoder is RereadingDecoder)
    if messages:
        assert "OpenAIGPTLMHeadModel reads every completion anew for each token, which is slow" in messages[0]


def test_the_choice_is_made_once_for_an_engine(caplog):
    policy = policy_of("gpt-1, no cache")
    caplog.clear()
    sampled(policy, CALLS, max_rows=3)
    assert len(caplog.records) == 1


def test_positions_that_are_off_by_one(monkeypatch, by_torch):
    right = BranchCache.positions.fget
    monkeypatch.setattr(BranchCache, "positions", property(lambda self: right(self) + 1))
    policy = policy_of("llama")
    assert choose_decoder(policy) is RereadingDecoder
    assert is_right(policy, "llama")


def test_a_cache_that_cannot_be_reordered(monkeypatch):
    monkeypatch.setattr(PlainDecoder, "_reorder", lambda self, index: None)
    policy = policy_of("mamba")
    assert choose_decoder(policy) is RereadingDecoder
    assert is_right(policy, "mamba")


def test_a_cache_that_mixes_rows_up(monkeypatch):
    reorder = PlainDecoder._reorder
    monkeypatch.setattr(PlainDecoder, "_reorder", lambda self, index: reorder(self, index.flip(0)))
    policy = policy_of("mamba")
    assert choose_decoder(policy) is RereadingDecoder
    assert is_right(policy, "mamba")


def test_a_cache_that_raises(monkeypatch, caplog):
    def fail(*_):
        raise NotImplementedError("this cache\ncannot do that")

    monkeypatch.setattr(PlainDecoder, "_reorder", fail)
    policy = policy_of("mamba")
    caplog.clear()
    assert choose_decoder(policy) is RereadingDecoder
    assert "its cache fails on the probe, NotImplementedError: this cache" in caplog.records[0].getMessage()
    assert is_right(policy, "mamba")


@pytest.mark.parametrize("attention", ["trunk_and_branch", "plain"])
def test_reading_anew_gives_the_same_completions(attention, monkeypatch):
    policy = policy_of("gemma3", attention=attention)
    cached = sampled(policy, CALLS, max_rows=6)
    monkeypatch.setattr("groupwise.engines.embedded.choose_decoder", lambda _: RereadingDecoder)
    anew = sampled(policy, CALLS, max_rows=6)
    assert ids(anew) == ids(cached)
    assert torch.allclose(reported(anew), reported(cached), atol=1e-5, rtol=0)


def test_reading_anew_stays_in_the_context(monkeypatch):
    monkeypatch.setattr("groupwise.engines.embedded.choose_decoder", lambda _: RereadingDecoder)
    policy = policy_of(model_of("gpt2", n_positions=24))
    calls = [(tokens(22), 1, Sampling(max_new_tokens=9), [0]), (tokens(3), 12, Sampling(max_new_tokens=9), range(12))]
    (end,), _ = sampled(policy, calls)
    assert len(end.token_ids) <= 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["qwen2", "gemma2", "qwen3-moe"])
def test_in_16_bits_rounding_is_no_reason(name, dtype):
    policy = policy_of(model_of(name).to(dtype))
    assert choose_decoder(policy) is (NativeDecoder if name == "qwen2" else TrunkAndBranchDecoder)
    groups = sampled(policy, CALLS)
    with torch.no_grad():
        learners_T, _ = policy.logprobs(as_trees(CALLS, groups))
    assert float((reported(groups) - learners_T).abs().mean()) < 0.05
