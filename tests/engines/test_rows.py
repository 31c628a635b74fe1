"""Rows between the sampler and the decoder: when they are looked at, and how many of them go on."""

import asyncio
import itertools

import pytest
import torch
from toy_engine import chain, gathered, ids, sampled

from architectures import policy_of, tokens
from groupwise.engines import drawing
from groupwise.engines.embedded import EmbeddedEngine
from groupwise.engines.rows import Request, Rows
from groupwise.types import Sampling
from toys import char_tokenizer, ids_of

KINDS = [
    Sampling(max_new_tokens=40, stop_token_ids=tuple(range(4, 12))),
    Sampling(max_new_tokens=5),
    Sampling(max_new_tokens=8, temperature=0.5),
    Sampling(max_new_tokens=33, stop=("e", "tt", "Q")),
    Sampling(max_new_tokens=17, repetition_penalty=1.4, top_k=9),
    Sampling(max_new_tokens=1),
]
CALLS = [(tokens(3 + 2 * i, i), 5, kind, range(10 * i, 10 * i + 5)) for i, kind in enumerate(KINDS)]


def looked_at(monkeypatch, every):
    original = Rows.__init__

    def init(self, *args, **kwargs):
        original(self, *args, **{**kwargs, "check_every": every})

    monkeypatch.setattr(Rows, "__init__", init)


@pytest.mark.parametrize("name", ["llama", "gemma3", "mamba"])
@pytest.mark.parametrize("max_rows", [64, 11])
def test_a_look_at_every_eighth_column_changes_no_completion(name, max_rows, monkeypatch):
    policy = policy_of(name)
    at_each = sampled(policy, CALLS, max_rows)
    reasons = {c.finish_reason for group in at_each for c in group}
    assert reasons == {"stop", "length"}
    for every in (8, 3):
        with monkeypatch.context() as patch:
            looked_at(patch, every)
            seldom = sampled(policy, CALLS, max_rows)
        for one, other in zip(itertools.chain(*at_each), itertools.chain(*seldom), strict=True):
            assert (one.token_ids, one.finish_reason, one.text) == (other.token_ids, other.finish_reason, other.text)
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def test_limits_are_kept_to_the_token_whenever_one_looks(monkeypatch):
    looked_at(monkeypatch, 8)
    calls = [(ids_of("a"), 2, Sampling(max_new_tokens=n, temperature=0.0), [0, 1]) for n in range(1, 20)]
    groups = sampled(chain("abcdef"), calls, max_rows=7)
    assert [[c.text for c in group] for group in groups] == [[("bcdefa" * 4)[:n]] * 2 for n in range(1, 20)]


@pytest.mark.parametrize("compiled", [False, True])
def test_the_host_waits_once_in_eight_columns(monkeypatch, compiled):
    """Whether anything has ended is read from the device then and at limits, and at no other time. Compiled drawing
    says it by itself."""
    looked_at(monkeypatch, 8)
    if not compiled:
        monkeypatch.setattr(drawing, "fits", lambda *_: False)
    policy = policy_of("llama")
    looks = []
    original = Rows.newly_finished

    def counted(self):
        before, self._ends_seen = self._ends_seen, -2
        fresh = original(self)
        looks.append(self._ends_seen != -2)
        self._ends_seen = before if self._ends_seen == -2 else self._ends_seen
        return fresh

    monkeypatch.setattr(Rows, "newly_finished", counted)
    policy.model.generation_config.eos_token_id = policy.model.config.eos_token_id = None
    policy.tokenizer.eos_token = None
    sampled(policy, [(tokens(4), 3, Sampling(max_new_tokens=30), range(3))])
    at_hand = compiled and drawing.fits(torch.zeros(1, 1), Sampling())
    assert sum(looks) == (1 if at_hand else 3 + 1), "at 8, 16 and 24 columns, and at the limit"


# --- how many rows go on --------------------------------------------------------------------------------------------


def rows_of(n):
    """`n` rows that have drawn one token each."""
    rows = Rows(torch.device("cpu"), torch.float32, char_tokenizer(), frozenset({1}))
    loop = asyncio.new_event_loop()
    try:
        done = loop.create_future()
    finally:
        loop.close()
    rows.add(Request((5, 6), Sampling(), tuple(range(n)), 50, done))
    rows.draw(torch.zeros(n, 99))
    return rows


@pytest.mark.parametrize("at_once", [False, True])
def test_no_live_row_is_ever_dropped_and_numbers_are_round(at_once):
    numbers = set()
    for n in (1, 7, 8, 9, 31, 64, 100, 128, 200):
        for gone in range(n + 1):
            rows = rows_of(n)
            dead = set(torch.randperm(n, generator=torch.Generator().manual_seed(gone))[:gone].tolist())
            for i in dead:
                rows._rows[i].finished = True
            rows._gone = gone
            index = rows.worth_keeping(at_once=at_once)
            if index is None:
                assert gone == 0 or (not at_once and gone * 8 < n)
                continue
            assert set(range(n)) - dead <= set(index), "all that live"
            assert index == sorted(set(index)) and len(index) < n
            assert not at_once or len(index) == n - gone, "whoever waits needs the place"
            assert len(index) <= 1.125 * (n - gone)
            assert at_once or len(index) % max(2 ** len(bin(n - gone)[2:]) // 16, 1) == 0
            numbers.add(len(index))
    if not at_once:
        assert {x for x in numbers if 32 < x <= 176} == {*range(36, 64, 4), *range(64, 128, 8), *range(128, 177, 16)}


def test_rows_that_only_round_the_number_are_never_heard_of_again(monkeypatch):
    """100 completions of many lengths: each is answered once, and as if nobody had been kept."""
    policy = policy_of("llama")
    ends = tuple(range(0, 99, 17))
    calls = [(tokens(4 + i, i), 20, Sampling(max_new_tokens=30, stop_token_ids=ends), range(20)) for i in range(5)]

    async def work():
        engine = EmbeddedEngine(policy, 128)
        return await gathered(engine, calls), engine.tokens_sampled

    groups, drawn = asyncio.run(work())
    assert drawn == sum(len(c.token_ids) for group in groups for c in group)
    assert len({len(c.token_ids) for group in groups for c in group}) > 10
    kept = []
    original = Rows.worth_keeping

    def exactly(self, *, at_once):
        kept.append(original(self, at_once=at_once))
        return original(self, at_once=True)

    monkeypatch.setattr(Rows, "worth_keeping", exactly)
    assert ids(sampled(policy, calls, 128)) == ids(groups)
