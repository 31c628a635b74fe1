"""Completions that go round in circles: found by their period, cut at the same place whoever is beside them, marked."""

import asyncio

import pytest
import torch
from toy_engine import chain, gathered, one, sampled

from architectures import policy_of, tokens
from groupwise.engines.embedded import EmbeddedEngine
from groupwise.engines.loops import Loops, looping
from groupwise.errors import EngineError
from groupwise.types import Sampling
from toys import char_tokenizer, ids_of


def columns_of(*texts):
    """Letters as [columns, rows]."""
    return torch.tensor([[ord(letter) for letter in column] for column in zip(*texts, strict=True)])


def greedy(limit=100, window=None, **settings):
    return Sampling(max_new_tokens=limit, temperature=0.0, loop_tokens=window, **settings)


def test_a_loop_is_a_phrase_four_times_over():
    texts = ("abababab", "aaaaaaaa", "abcabcab", "abababaa", "xyzababa")
    assert looping(columns_of(*texts), 8).tolist() == [True, True, False, False, False]
    longer = ("0123abcdabcdabcdabcd", "0123abcdabcdabcdabce", "012345abababababababa"[:20])
    assert looping(columns_of(*longer), 16).tolist() == [True, False, False]


def test_it_is_cut_at_the_next_look_and_marked():
    """A window of 20 is full after 20 tokens; looks are after 16, 32, 48."""
    completion = one(chain("abc"), ids_of("a"), greedy(window=20))
    assert (len(completion.token_ids), completion.finish_reason) == (32, "loop")
    assert completion.text == ("bca" * 11)[:32]
    assert len(completion.logprobs) == 32


@pytest.mark.parametrize("window", [None, 100])
def test_what_is_no_loop_or_not_looked_at_goes_on(window):
    completion = one(chain("abcdefghijklmnopqrstuvwxyz" * 1), ids_of("a"), greedy(60, window))
    assert (len(completion.token_ids), completion.finish_reason) == (60, "length")


def test_at_the_very_limit_it_is_still_a_loop():
    assert one(chain("ab"), ids_of("a"), greedy(32, 20)).finish_reason == "loop"
    assert one(chain("ab"), ids_of("a"), greedy(31, 20)).finish_reason == "length"


def test_a_stop_before_it_is_a_stop():
    assert one(chain("abc"), ids_of("a"), greedy(window=8, stop=("c",))).finish_reason == "stop"


def test_the_others_do_not_notice():
    """Rows that join late, leave early, loop or not: each is what it is alone."""
    policy = policy_of("qwen2")
    prompts = [tokens(5, seed=i) for i in range(6)]
    cold = Sampling(max_new_tokens=90, temperature=0.05, loop_tokens=16)  # nearly greedy: a small model soon loops
    calls = [(prompt, 2, cold, [10 * i, 10 * i + 1]) for i, prompt in enumerate(prompts)]
    calls.append((tokens(7, seed=9), 2, Sampling(max_new_tokens=40), [70, 71]))
    together = sampled(policy, calls, max_rows=5)
    alone = [sampled(policy, [call], max_rows=1)[0] for call in calls]
    assert [[c.token_ids for c in g] for g in together] == [[c.token_ids for c in g] for g in alone]
    reasons = [c.finish_reason for g in together for c in g]
    assert [c.finish_reason for g in alone for c in g] == reasons
    assert "loop" in reasons and "loop" not in reasons[-2:]
    free = [(prompt, n, Sampling(max_new_tokens=90, temperature=0.05), seeds) for prompt, n, _, seeds in calls[:-1]]
    for cut, whole in zip(together, sampled(policy, free), strict=False):
        for one_cut, one_whole in zip(cut, whole, strict=True):
            assert one_whole.token_ids[: len(one_cut.token_ids)] == one_cut.token_ids


def test_nothing_is_asked_of_rows_that_are_never_cut():
    assert Loops([(0, None), (3, None)])._by_phase == {}


def test_a_window_of_a_few_tokens_is_refused():
    with pytest.raises(EngineError, match="loop_tokens"):
        one(chain("ab"), ids_of("a"), greedy(window=4))


def test_on_a_device_that_is_looked_at_rarely(monkeypatch):
    """Rows run on for some tokens there; nobody gets to see those."""

    async def both():
        engine = EmbeddedEngine(chain("abc"))
        rarely = EmbeddedEngine(chain("abc"))
        rarely._rows._check_every = 8
        call = [(ids_of("a"), 1, greedy(window=20), [0])]
        return await gathered(engine, call), await gathered(rarely, call)

    often, rarely = asyncio.run(both())
    assert often == rarely
    assert char_tokenizer().decode(often[0][0].token_ids[:3]) == "bca"
