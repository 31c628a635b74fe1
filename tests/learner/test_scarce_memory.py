"""Memory that does not suffice: smaller micro-batches, the same gradient, and words about it."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from toy_learner import algorithm_of, learner_of, policy_of, ragged_groups, update, weights_of

from groupwise.config.sections import LearnerSection
from groupwise.errors import LearnerError
from groupwise.learner.memory import MicroBatchLimit, token_budget
from groupwise.models.scarce import is_out_of_memory


def tokens_of(trees):
    return sum(len(tree.trunk) + sum(map(len, tree.branches)) for tree in trees)


def make_scarce(policy, most, where):
    """Let passes over more than `most` tokens run out of memory, forward or half-way through backward."""
    features, calls = policy.features, []

    def scarce(trees):
        size = tokens_of(trees)
        calls.append(size)
        if size > most and where == "forward":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        found = features(trees)
        if size > most and where == "backward" and found.requires_grad:
            hidden = policy.model.transformer.h[1].mlp.c_fc.weight

            def fail(gradient):
                hidden.grad = torch.full_like(hidden, 1e9)  # a part of the gradient was added already
                raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes")

            found.register_hook(fail)
        return found

    policy.features = scarce
    return calls


@pytest.mark.parametrize(("gigabytes", "tokens"), [(8, 2048), (15.8, 2048), (24, 4096), (80, 10240), (139.8, 18432)])
def test_a_gpu_has_micro_batches_in_proportion_to_its_memory(monkeypatch, gigabytes, tokens):
    memory = SimpleNamespace(total_memory=int(gigabytes * 2**30))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: memory)
    assert token_budget(LearnerSection(), torch.device("cuda", 0)) == tokens
    assert token_budget(LearnerSection(token_budget=7), torch.device("cuda", 0)) == 7


def test_a_cpu_has_small_ones():
    assert token_budget(LearnerSection(), torch.device("cpu")) == 2048


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"passes": 2, "updates_per_batch": 2}],
    ids=["one update", "several"],
)
@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_the_gradient_is_the_same(where, settings, beta):
    algorithm = algorithm_of(beta=beta)
    groups = ragged_groups(algorithm)
    plenty = learner_of(policy_of(), algorithm, **settings)
    scarce = learner_of(policy_of(), algorithm, **settings)
    said = []
    scarce.limit.say = said.append
    calls = make_scarce(scarce.policy, 40, where)
    expected, got = update(plenty, groups), update(scarce, groups)
    for name, value in weights_of(plenty.policy).items():
        torch.testing.assert_close(weights_of(scarce.policy)[name], value, rtol=1e-9, atol=1e-12)
    assert got == pytest.approx(expected, rel=1e-9, abs=1e-12)  # no token is counted twice
    assert max(calls) > 40 and scarce.limit.tokens <= 40
    assert said and f"learner.token_budget = {scarce.limit.tokens}" in said[-1]
    # The new limit is remembered: nothing runs out of memory again.
    calls.clear()
    told = len(said)
    update(scarce, groups)
    assert max(calls) <= 40 and len(said) == told


def test_one_completion_that_does_not_fit_ends_it_with_the_ways_out():
    algorithm = algorithm_of()
    learner = learner_of(policy_of(), algorithm)
    make_scarce(learner.policy, 3, "forward")
    before = weights_of(learner.policy)
    with pytest.raises(LearnerError, match=r"a single completion.*learner.logprob_chunk.*gradient_checkpointing"):
        update(learner, ragged_groups(algorithm))
    assert all(torch.equal(before[name], value) for name, value in weights_of(learner.policy).items())


def test_half_of_the_largest_that_was_tried():
    limit = MicroBatchLimit(4096, lambda text: None)
    limit.halve([900, 700], [8, 8])
    assert limit.tokens == 450
    limit.halve([900, 700], [8, 8])
    assert limit.tokens == 225


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:119] . DefaultCPUAllocator: can't allocate memory: 12"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error, expected):
    assert is_out_of_memory(error) is expected


UNDER_A_LIMIT = """
import torch
from groupwise.models.scarce import is_out_of_memory
from groupwise.training.machine import lift_limit, limit_memory, resident
torch.set_num_threads(1)
limit_memory(resident() + (300 << 20))
held = torch.ones(25 << 20)                      # 100 MB
try:
    torch.ones(100 << 20)                        # 400 MB
except Exception as error:
    assert is_out_of_memory(error), error
    print("refused")
again = torch.ones(25 << 20)
lift_limit()
torch.ones(100 << 20)
print("lifted")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux holds a process to a limit")
def test_a_budget_on_a_cpu_refuses_what_is_above_it():
    done = subprocess.run(
        [sys.executable, "-c", UNDER_A_LIMIT], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.stdout.split() == ["refused", "lifted"], done.stderr[-1000:]
