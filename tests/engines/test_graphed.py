"""A decode step that is captured and launched again: the model's own numbers, wherever rows and columns have gone."""

import asyncio
import gc
import inspect
import random
import threading
import weakref
from contextlib import contextmanager, nullcontext
from functools import cache
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from toy_engine import as_trees, gathered, ids, reported, sampled, without_ends

from architectures import TRUNK_AND_BRANCH, alone, model_of, policy_of, tokens
from frozen import FrozenGraphs, Waits
from groupwise.config.sections import LoraSection
from groupwise.engines.choice import choose_decoder
from groupwise.engines.decoders import TrunkAndBranchDecoder
from groupwise.engines.embedded import EmbeddedEngine
from groupwise.engines.fixed_cache import FixedCache
from groupwise.engines.fused import UnfitError
from groupwise.engines.graphed import GraphedDecoder
from groupwise.engines.graphs import Launched, _stream_of, graphs_of, tell
from groupwise.engines.holding import Batch, Holding
from groupwise.engines.watch import UncapturableError, Watch, groups_on_the_device
from groupwise.types import Sampling

pytestmark = pytest.mark.usefixtures("by_torch")

LOOKS_AT_VALUES = ["llama, dynamic rope"]
"""Architectures whose forward does, so that nothing of it can be captured."""


@pytest.fixture(autouse=True)
def untold():
    tell.cache_clear()


@pytest.fixture
def graphs(monkeypatch):
    """A device that can capture, made of a CPU."""
    made = FrozenGraphs()
    monkeypatch.setattr("groupwise.engines.graphed.graphs_of", lambda device: made)
    monkeypatch.setattr("groupwise.models.parts.fits", lambda *tensors: False)  # no operation of torch
    monkeypatch.setattr("groupwise.engines.watch.groups_on_the_device", lambda x: True)  # as an H100 does in bf16
    return made


def calls_of(lengths=(5, 9, 9, 1, 26), n=4, **sampling):
    settings = Sampling(**{"max_new_tokens": 10, "temperature": 0.7, **sampling})
    return [
        (tokens(length, i), n, settings, [1000 * i + branch for branch in range(n)]) for i, length in enumerate(lengths)
    ]


def worst(policy, name, calls, groups):
    """Difference from transformers' own forward of each sequence alone, and from the learner."""
    trees = as_trees(calls, groups)
    with torch.no_grad():
        expected = alone(model_of(name), trees, temperature=0.7), policy.logprobs(trees, temperature=0.7)[0]
    return max(float((reported(groups) - x).abs().max()) for x in expected)


def test_a_cpu_has_no_graphs():
    assert graphs_of(torch.device("cpu")) is None
    with pytest.raises(UnfitError, match="no graphs on this device"):
        GraphedDecoder(policy_of("llama"))
    assert choose_decoder(policy_of("llama")) is not GraphedDecoder


def told(caplog):
    return [text for record in caplog.records if "without CUDA graphs" in (text := record.getMessage())]


@pytest.mark.parametrize("name", TRUNK_AND_BRANCH)
def test_logprobs_are_the_learners_and_no_batch_changes_the_tokens(name, graphs, caplog):
    policy = policy_of(name)
    calls = calls_of()
    groups = sampled(policy, calls)
    assert choose_decoder(policy) is GraphedDecoder
    assert worst(policy, name, calls, groups) < 1e-5
    assert bool(told(caplog)) is (name in LOOKS_AT_VALUES)
    if name not in LOOKS_AT_VALUES:
        assert graphs.launches > 2 * graphs.captures > 0
    for max_rows in (8, 3):
        order = random.Random(max_rows).sample(range(len(calls)), len(calls))
        again = sampled(policy, [calls[i] for i in order], max_rows)
        assert ids(again) == [ids(groups)[i] for i in order]


@pytest.mark.parametrize("name", ["qwen2", "mistral", "gemma3"])
def test_rooms_grow_on_the_way(name, graphs):
    policy = without_ends(policy_of(name))
    calls = calls_of((5, 30), n=2, max_new_tokens=140)
    groups = sampled(policy, calls)
    assert worst(policy, name, calls, groups) < 1e-5
    assert graphs.launches > 120


def test_a_decoder_that_stays_launches_nearly_all_it_does(graphs):
    """In its third batch nothing is captured any more, and the weights are those of the moment."""
    policy = without_ends(policy_of("llama"))
    engine = EmbeddedEngine(policy)
    calls = calls_of((5, 9), max_new_tokens=30)
    for _ in range(2):
        asyncio.run(gathered(engine, calls))
    captures, launches = graphs.captures, graphs.launches
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(1.5)
    groups = asyncio.run(gathered(engine, calls))
    assert (graphs.captures, graphs.launches - launches) == (captures, 29)
    trees = as_trees(calls, groups)
    with torch.no_grad():
        learners_T = policy.logprobs(trees, temperature=0.7)[0]
    assert float((reported(groups) - learners_T).abs().max()) < 1e-5


def test_an_adapter_is_captured_as_it_is(graphs):
    policy = without_ends(policy_of("llama", lora=LoraSection(r=4)))
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.add_(0.1 * torch.randn_like(parameter))
    calls = calls_of()
    groups = sampled(policy, calls)
    with torch.no_grad():
        learners_T = policy.logprobs(as_trees(calls, groups), temperature=0.7)[0]
    assert float((reported(groups) - learners_T).abs().max()) < 1e-5
    assert graphs.launches > graphs.captures > 0


def test_an_adapter_that_is_switched_off_is_off(graphs):
    policy = without_ends(policy_of("llama", lora=LoraSection(r=4)))
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.add_(0.1 * torch.randn_like(parameter))
    engine, calls = EmbeddedEngine(policy), calls_of((5, 9))
    asyncio.run(gathered(engine, calls))
    for state in (policy.adapted.disable_adapter, nullcontext):
        with state():
            groups = asyncio.run(gathered(engine, calls))
            with torch.no_grad():
                learners_T = policy.logprobs(as_trees(calls, groups), temperature=0.7)[0]
        assert float((reported(groups) - learners_T).abs().max()) < 1e-5


def test_nothing_is_captured_of_what_autocast_makes_of_the_weights(graphs):
    policy = without_ends(policy_of("llama"))
    engine, calls = EmbeddedEngine(policy), calls_of((5, 9))
    expected = asyncio.run(gathered(engine, calls))
    captures = graphs.captures, graphs.launches
    with torch.autocast("cpu", torch.bfloat16):
        groups = asyncio.run(gathered(engine, calls))
    assert (graphs.captures, graphs.launches) == captures
    assert groups != expected
    assert ids(asyncio.run(gathered(engine, calls))) == ids(expected)


def test_what_would_stay_too_large_is_given_back_between_batches(graphs):
    policy = without_ends(policy_of("llama"))
    engine = EmbeddedEngine(policy)
    calls = calls_of((5, 9))
    first = asyncio.run(gathered(engine, calls))
    cache, captures = engine._decoder._cache, graphs.captures
    size = cache.bytes
    assert size > 0
    graphs.memory = 16 * size
    asyncio.run(gathered(engine, calls))
    assert (cache.bytes, graphs.captures) == (size, captures)
    graphs.memory -= 1
    asyncio.run(gathered(engine, calls))
    assert cache.bytes == 0
    assert ids(asyncio.run(gathered(engine, calls))) == ids(first)
    assert graphs.captures > captures


def test_what_is_given_back_is_no_longer_captured(graphs):
    policy = without_ends(policy_of("llama"))
    engine, calls = EmbeddedEngine(policy), calls_of((5, 9))
    graphs.memory = 0
    asyncio.run(gathered(engine, calls))
    assert graphs.captures > 0
    assert not engine._decoder._launched._captured


@pytest.mark.parametrize("make", [GraphedDecoder, TrunkAndBranchDecoder])
def test_a_decoder_that_is_dropped_takes_its_memory_along(make, graphs):
    """At once, not when somebody collects garbage: after an error of the memory the next one needs it."""
    policy = without_ends(policy_of("llama"))
    engine = EmbeddedEngine(policy)
    engine._proven["trunk_and_branch"] = make
    asyncio.run(gathered(engine, calls_of((5, 9))))
    gc.collect()
    gc.disable()
    try:
        held = weakref.ref(engine._decoder._cache)
        engine._decoder = None
        assert held() is None
    finally:
        gc.enable()


def test_weights_that_lie_elsewhere_are_followed(graphs):
    """A model that was moved away and back has its parameters still, in other memory; converted, of another type."""
    policy = without_ends(policy_of("llama"))
    engine, calls = EmbeddedEngine(policy), calls_of((5, 9))
    asyncio.run(gathered(engine, calls))
    decoder = engine._decoder
    asyncio.run(gathered(engine, calls))
    assert engine._decoder is decoder
    for change in (lambda x: 1.2 * x, lambda x: x.double()):
        old = [parameter.data for parameter in policy.model.parameters()]
        for parameter in policy.model.parameters():
            parameter.data = change(parameter.data)
        for x in old:
            x.fill_(torch.nan)
        groups = asyncio.run(gathered(engine, calls))
        with torch.no_grad():
            learners_T = policy.logprobs(as_trees(calls, groups), temperature=0.7)[0]
        assert float((reported(groups) - learners_T).abs().max()) < 1e-5


def test_what_it_holds(graphs):
    """The toy has 3 layers of 2 key heads of 8. 5 rows count as 6."""
    size = 3 * 2 * 2 * 8 * 4 * (2 * 64 + 6 * 128)  # room for 64 and 128 tokens
    decoder, batch = GraphedDecoder(policy_of("llama")), Batch(prompts=2, prompt=33, rows=5, completion=100)
    assert decoder.holds(batch) == Holding(0, size, stays=True)
    graphs.memory = 16 * size - 1
    assert decoder.holds(batch) == Holding(0, size, stays=False)


def test_a_number_that_python_counts_is_found_out(graphs, monkeypatch, caplog):
    """Captured, a column that is no tensor would be the same for ever."""
    monkeypatch.setattr(FixedCache, "_newest", property(lambda self: self._columns - 1))
    monkeypatch.setattr(FixedCache, "positions", property(lambda self: self._origins + (self._columns - 1)))
    policy = policy_of("llama")
    assert choose_decoder(policy) is not GraphedDecoder
    calls = calls_of()
    assert worst(policy, "llama", calls, sampled(policy, calls)) < 1e-5


def test_a_device_that_refuses_is_asked_once(graphs, monkeypatch, caplog):
    def refuses(work):
        raise UncapturableError("operation not permitted when stream is capturing")

    monkeypatch.setattr(graphs, "captured", refuses)
    policy = policy_of("llama")
    engine = EmbeddedEngine(policy)
    calls = calls_of()
    caplog.clear()
    groups = asyncio.run(gathered(engine, calls))
    assert worst(policy, "llama", calls, groups) < 1e-5
    asyncio.run(gathered(engine, calls))
    assert set(told(caplog)) == {
        "tokens are decoded without CUDA graphs, which is slower: operation not permitted when stream is capturing"
    }
    assert len(told(caplog)) == 1


def test_memory_that_does_not_suffice_for_capturing_means_fewer_rows(graphs, monkeypatch):
    policy = without_ends(policy_of("llama"))
    engine, calls = EmbeddedEngine(policy), calls_of((5, 9))
    expected = ids(sampled(policy, calls))
    captured = graphs.captured

    gone = []

    def scarce(work):
        if engine._decoder._cache.form.rows > 4:
            gone.append(weakref.ref(engine._decoder._cache))
            raise torch.OutOfMemoryError("CUDA out of memory")
        assert [cache() for cache in gone] == [None]  # its memory is there for those that are tried again
        return captured(work)

    asyncio.run(gathered(engine, calls[:1]))
    monkeypatch.setattr(graphs, "captured", scarce)
    assert ids(asyncio.run(gathered(engine, calls))) == expected
    assert engine.limit.rows == 4


class Counter:
    """Work with a memory of its own, which is not on the device."""

    def __init__(self):
        self.calls, self.number = 0, torch.zeros(1)

    def __call__(self):
        self.calls += 1
        return self.number + 1


def test_launched_follows_what_stands_in_tensors():
    work = Counter()
    launched = Launched(FrozenGraphs())
    for i in range(5):
        work.number.fill_(i)
        assert launched("form", work).tolist() == [i + 1]
    assert work.calls == 3  # called, captured, and beside the first launch
    launched.forget()
    launched("form", work)
    assert work.calls == 4


def test_launched_again_must_be_the_same(caplog):
    work = Counter()
    launched = Launched(FrozenGraphs())
    assert [launched("form", lambda: work() + work.calls).item() for _ in range(4)] == [2, 5, 6, 7]
    assert "launched again it gives something else" in launched.why_not
    assert told(caplog) == [f"tokens are decoded without CUDA graphs, which is slower: {launched.why_not}"]


def test_no_more_than_so_many_are_kept_and_the_one_launched_longest_ago_goes(monkeypatch):
    monkeypatch.setattr("groupwise.engines.graphs.MOST", 3)
    monkeypatch.setattr("groupwise.engines.graphs._MET", 5)
    graphs, work = FrozenGraphs(), Counter()
    launched = Launched(graphs)
    for form in range(10):
        for _ in range(3):
            launched(form, work)
            launched("often", work)
        assert len(launched._captured) <= 3
        assert len(launched._met) <= 5
    assert graphs.captures == 11
    assert list(launched._captured) == [8, 9, "often"]


X, MASK = torch.arange(6.0).reshape(2, 3), torch.tensor([[True, False, True], [False, True, True]])
META, ONE_GROUP = torch.empty(3, device="meta", dtype=torch.long), torch.tensor([8], dtype=torch.int32)
WAITED_FOR = {
    "a number": lambda: X.sum().item(),
    "a truth": lambda: bool(X.any()),
    "a condition": lambda: X if X[0, 0] else X * 2,
    "a mask": lambda: X[MASK],
    "writing by a mask": lambda: X.clone().index_put_((MASK,), torch.ones(())),
    "where": lambda: torch.where(MASK)[0],
    "equal": lambda: torch.equal(X, X),
    "unique": lambda: X.unique(),
    "counts": lambda: X[0].repeat_interleave(torch.ones(3, dtype=torch.long)),
    "another device": lambda: X.to("meta"),
    "a copy to another device": lambda: torch.empty(2, 3, device="meta").copy_(X),
    "numbers of the host": lambda: torch.ops.aten.lift_fresh(torch.empty(3, device="meta")),  # `torch.tensor(...)`
    "places that the host knows": lambda: torch.empty(2, 3, device="meta")[torch.tensor([0, 1])],
    "a number written to places": lambda: torch.empty(3, device="meta").index_put_((META,), torch.tensor(1.0)),
    "one of two numbers": lambda: torch.where(META > 0, META, torch.tensor(1)),
    "a range to be found": lambda: X.histc(4),
    "groups of rows": lambda: F.grouped_mm(torch.ones(8, 8), torch.ones(1, 8, 8), offs=ONE_GROUP),
    "what consists of others": lambda: X.repeat_interleave(torch.ones(2, dtype=torch.long), dim=0),
    "an operation of somebody else": lambda: torch.ops.groupwise_tests.sorted_out(X),
}


@torch.library.custom_op("groupwise_tests::sorted_out", mutates_args=())
def sorted_out(x: torch.Tensor) -> torch.Tensor:
    return torch.tensor(sorted(x.flatten().tolist()))


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
@pytest.mark.parametrize("what", WAITED_FOR)
def test_whatever_makes_the_host_wait_is_found(what, mode):
    with mode(), pytest.raises(UncapturableError), Watch():
        WAITED_FOR[what]()


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_what_needs_no_waiting_is_left_alone(mode):
    with mode(), Watch():
        y = X.softmax(-1).masked_fill(MASK, 0.0).index_select(0, X[:, 0].long().clamp(max=1)) @ X.t()
        y = torch.where(y > 0, y, 2 * y).to(torch.float64).view(2, -1)[:, :1].expand(2, 4).contiguous() + len(X)
        y[:, 0].copy_(y[:, 1])
        y = y * torch.tensor(2.0) + X.histc(4, 0, 6)  # a number of the host is launched with a product
        (torch.empty(2, device="meta") * torch.tensor(2.0)).fill_(torch.tensor(3.0))
        F.layer_norm(y, (4,)).square_().sort(-1)
        assert y.shape == (2, 4)


def test_groups_of_rows_are_read_by_the_host_but_on_some_devices(monkeypatch):
    """As torch does it: in one kernel in bf16 on an H100 or B200, elsewhere one group after another."""
    for capability, dtype, hip, on_the_device in [
        ((9, 0), torch.bfloat16, None, True),
        ((10, 0), torch.bfloat16, None, True),
        ((8, 0), torch.bfloat16, None, False),
        ((12, 0), torch.bfloat16, None, False),
        ((9, 0), torch.float32, None, False),
        ((9, 4), torch.bfloat16, "6.3", False),
    ]:
        monkeypatch.setattr("torch.cuda.get_device_capability", lambda device, capability=capability: capability)
        monkeypatch.setattr("torch.version.hip", hip)
        there = SimpleNamespace(device=torch.device("cuda:0"), dtype=dtype)
        assert groups_on_the_device(there) is on_the_device
    assert not groups_on_the_device(X.bfloat16())


def test_groups_that_the_host_reads_are_not_captured(graphs, monkeypatch, caplog):
    monkeypatch.setattr("groupwise.engines.watch.groups_on_the_device", groups_on_the_device)
    policy = policy_of("qwen3-moe")
    calls = calls_of()
    assert worst(policy, "qwen3-moe", calls, sampled(policy, calls)) < 1e-5
    assert graphs.captures == 0
    assert told(caplog)


def test_only_this_thread_is_watched():
    found = []
    with Watch():
        thread = threading.Thread(target=lambda: found.append(X.sum().item()))
        thread.start()
        thread.join()
    assert found == [15.0]


class Torch:
    """`torch.cuda` as far as capturing goes."""

    def __init__(self, monkeypatch):
        self.said, self.error = [], None
        self.at, self.pools = 0, 0
        for name in ("device", "current_stream", "set_stream", "graph_pool_handle", "get_device_properties"):
            monkeypatch.setattr(f"torch.cuda.{name}", getattr(self, name), raising=False)
        monkeypatch.setattr("torch.cuda.current_device", lambda: self.at)
        monkeypatch.setattr("torch.cuda.Stream", lambda device: f"a stream of {device}")
        monkeypatch.setattr("groupwise.engines.graphs._stream_of", cache(_stream_of.__wrapped__))
        asked = {"pool": None, "stream": None, "capture_error_mode": "thread_local"}
        inspect.signature(torch.cuda.graph.__init__).bind(None, None, **asked)
        monkeypatch.setattr("torch.cuda.graph", self.graph)
        monkeypatch.setattr("torch.cuda.CUDAGraph", lambda: SimpleNamespace(replay=lambda: self.said.append("replay")))

    def device(self, device):
        self.at = device.index or 0
        return nullcontext()

    def current_stream(self):
        return "the stream"

    def set_stream(self, stream):
        self.said.append(stream)

    def graph_pool_handle(self):
        self.pools += 1
        return f"pool {self.pools}"

    def get_device_properties(self, device):
        return SimpleNamespace(total_memory=1 << 30)

    @contextmanager
    def graph(self, graph, pool, stream, capture_error_mode):
        self.said.append((pool, stream, capture_error_mode))
        assert not gc.isenabled()
        try:
            yield
        finally:
            if self.error:
                raise self.error


def test_a_cuda_graph_is_asked_for(monkeypatch):
    cuda = Torch(monkeypatch)
    graphs = graphs_of(torch.device("cuda"))
    assert graphs.memory == 1 << 30
    launch = graphs.captured(lambda: X)
    assert cuda.said == [("pool 1", "a stream of cuda:0", "thread_local"), "the stream"]
    assert launch() is X
    assert cuda.said[2:] == ["replay"]
    assert gc.isenabled()


def test_a_pool_whose_graphs_are_gone_is_not_used_again(monkeypatch):
    """Torch refuses that as long as anything is left in it."""
    cuda = Torch(monkeypatch)
    launched = Launched(graphs_of(torch.device("cuda")))
    for _ in range(2):
        for form in "abab":
            launched(form, lambda: X)
        launched.forget()
    assert [said[0] for said in cuda.said if isinstance(said, tuple)] == ["pool 1", "pool 1", "pool 2", "pool 2"]


def test_each_device_captures_on_a_stream_of_its_own(monkeypatch):
    """On another device's, nothing would be captured, and what was computed meanwhile would look right for once."""
    cuda = Torch(monkeypatch)
    for index in (1, 0, 1):
        graphs_of(torch.device("cuda", index)).captured(lambda: X)
    assert [said[1] for said in cuda.said if isinstance(said, tuple)] == [f"a stream of cuda:{i}" for i in (1, 0, 1)]


def test_memory_that_did_not_suffice_is_seen_behind_the_error_of_the_capture(monkeypatch):
    cuda = Torch(monkeypatch)
    cuda.error = RuntimeError("operation failed due to a previous error during capture")

    def scarce():
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(RuntimeError, match="previous error") as raised:
        graphs_of(torch.device("cuda")).captured(scarce)
    assert not isinstance(raised.value, UncapturableError)


@pytest.mark.parametrize(
    ("error", "becomes"),
    [
        (RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors"), UncapturableError),
        (torch.OutOfMemoryError("CUDA out of memory"), torch.OutOfMemoryError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_a_capture_that_breaks_off_leaves_the_stream_as_it_was(error, becomes, monkeypatch):
    cuda = Torch(monkeypatch)
    cuda.error = error
    with pytest.raises(becomes) as raised:
        graphs_of(torch.device("cuda")).captured(lambda: X)
    assert cuda.said[-1] == "the stream"
    assert "\n" not in str(raised.value)


def times_waited(monkeypatch, **sampling):
    """How often the host waits for 8 rows of up to 200 tokens, where it looks at their ends once in eight."""
    monkeypatch.setattr("groupwise.engines.drawing.fits", lambda *_: False)
    policy = policy_of("llama")
    engine = EmbeddedEngine(policy)
    no_rows = engine._no_rows()
    assert no_rows._check_every == 1  # on a CPU
    no_rows._check_every = 8
    monkeypatch.setattr(engine, "_no_rows", lambda: no_rows)
    engine._rows = no_rows
    asyncio.run(gathered(engine, calls_of((5,), max_new_tokens=1)))  # the decoder is chosen, which does look
    policy.tokenizer.eos_token_id, engine._ends = None, frozenset({98})
    waits = Waits(monkeypatch)
    with waits:
        asyncio.run(gathered(engine, calls_of((5, 9), max_new_tokens=200, **sampling)))
    return waits.count


ENDED = 4 * 8 + 25
"""Each row that ends is read: all ends, its own, its tokens, its logprobs. And a few graphs are compared."""


@pytest.mark.parametrize("family", ["graphed", "by torch"])
def test_nobody_waits_for_a_token(family, request, monkeypatch):
    """On a GPU the host looks once in eight tokens at which rows have ended, and at nothing else between."""
    if family == "graphed":
        request.getfixturevalue("graphs")
    assert 0 < times_waited(monkeypatch) <= 200 // 8 + ENDED


def test_a_stop_string_is_looked_for_in_all_rows_at_once(monkeypatch):
    """Once a token, not once a token and row."""
    assert 200 // 8 < times_waited(monkeypatch, stop=("~~~~~~",)) <= 200 + 200 // 8 + ENDED
