"""Out of memory while sampling: the same completions, fewer at a time, remembered and said."""

import asyncio

import pytest
import torch
from toy_engine import gathered, ids, sampled

from architectures import policy_of, tokens
from groupwise.engines import embedded
from groupwise.engines.embedded import EmbeddedEngine
from groupwise.engines.row_limit import RowLimit
from groupwise.errors import EngineError
from groupwise.types import Sampling

OUT = {
    "a GPU": torch.OutOfMemoryError("CUDA out of memory"),
    "the host": MemoryError(),
    "the allocator": RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"),
}


class Scarce:
    """A decoder that has room for so many rows; `where` it finds out."""

    def __init__(self, decoder, room, error, where):
        self._decoder, self._room, self._error, self._where, self._rows = decoder, room, error, where, 0

    def admit(self, prompts, counts):
        self._rows += sum(counts)
        if self._where == "admit" and self._rows > self._room:
            raise self._error
        return self._decoder.admit(prompts, counts)

    def step(self, tokens_B):
        if self._where == "step" and self._rows > self._room:
            raise self._error
        return self._decoder.step(tokens_B)

    def keep(self, index):
        self._rows = len(index)
        self._decoder.keep(index)

    def admissible(self, lengths, busy):
        return self._decoder.admissible(lengths, busy)

    def refresh(self):
        self._decoder.refresh()

    def rest(self):
        self._decoder.rest()


@pytest.fixture
def scarce(monkeypatch):
    """Decoders of every engine that is made have room for so many rows."""
    plain = embedded.choose_decoder

    def install(room, error=OUT["the host"], where="step"):
        def choose(policy):
            make = plain(policy)
            return lambda policy: Scarce(make(policy), room, error, where)

        monkeypatch.setattr(embedded, "choose_decoder", choose)

    return install


def calls(n=4):
    warm = Sampling(max_new_tokens=24)
    return [(tokens(4 + i, seed=i), n, warm, [100 * i + j for j in range(n)]) for i in range(4)]


@pytest.mark.parametrize("where", ["admit", "step"])
@pytest.mark.parametrize("error", OUT.values(), ids=OUT)
def test_the_same_completions_fewer_at_a_time(scarce, error, where):
    policy = policy_of("qwen2")
    expected = sampled(policy, calls())
    scarce(5, error, where)
    told = []
    engine = EmbeddedEngine(policy, max_rows=64)
    engine.limit.say = told.append
    found = asyncio.run(gathered(engine, calls()))
    assert ids(found) == ids(expected)
    assert engine.limit.rows == 4  # of 16 that were tried 8, of those 4
    assert len(told) == 2
    assert told[0] == (
        "out of memory while sampling 16 completions at once: they are sampled again, 8 at a time. To begin with that: "
        "engine.max_rows = 8"
    )
    again = asyncio.run(gathered(engine, calls()))  # remembered
    assert ids(again) == ids(expected) and len(told) == 2


def test_a_group_that_has_no_room_as_a_whole_is_sampled_in_pieces(scarce):
    policy = policy_of("qwen2")
    expected = sampled(policy, calls(7))
    scarce(2)
    engine = EmbeddedEngine(policy, max_rows=64)
    assert ids(asyncio.run(gathered(engine, calls(7)))) == ids(expected)
    assert engine.limit.rows in (1, 2)


def test_a_single_completion_that_has_no_room_is_an_error(scarce):
    scarce(0)
    engine = EmbeddedEngine(policy_of("qwen2"))
    with pytest.raises(EngineError, match="out of memory while sampling a single completion"):
        asyncio.run(gathered(engine, calls()))
    assert engine.limit.rows == 1


def test_another_error_is_what_it_is(scarce):
    scarce(2, RuntimeError("no such operator"))
    engine = EmbeddedEngine(policy_of("qwen2"))
    with pytest.raises(RuntimeError, match="no such operator"):
        asyncio.run(gathered(engine, calls()))
    assert engine.limit.rows == 256


def test_what_was_learnt_of_the_memory_is_kept():
    limit = RowLimit(256, say=lambda text: None)
    assert limit.state() is None
    assert limit.halve(in_flight=100) and limit.rows == 50
    assert limit.state() == 50
    after = RowLimit(256)
    after.restore(50)
    assert after.rows == 50
    fewer = RowLimit(32)
    fewer.restore(50)
    assert fewer.rows == 32
    fewer.restore(None)
    assert fewer.rows == 32
