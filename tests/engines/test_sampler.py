"""From logits to tokens: the numbers behind the draw, the distribution, and what may be drawn at all."""

import math
from dataclasses import replace

import pytest
import torch
from toy_engine import ids, one, sampled, without_ends
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from architectures import model_of, policy_of, tokens
from groupwise.engines.sampler import draw, uniforms
from groupwise.errors import EngineError
from groupwise.types import Sampling


def integers(*values):
    return torch.tensor(values, dtype=torch.long)


# --- the numbers ----------------------------------------------------------------------------------------------------


def test_the_first_numbers_are_those_of_splitmix64():
    """Published outputs for seed 0: E220A8397B1DCDAF, 6E789E6AA1B965F4, 06C45D188009454F; the upper 24 bits count."""
    found = uniforms(integers(0, 0, 0), integers(0, 1, 2))
    assert found.tolist() == [0xE220A8 / 2**24, 0x6E789E / 2**24, 0x06C45D / 2**24]
    # and for seed 1234567: 6457827717110365317, 3203168211198807973
    assert uniforms(integers(1234567, 1234567), integers(0, 1)).tolist() == [
        (6457827717110365317 >> 40) / 2**24,
        (3203168211198807973 >> 40) / 2**24,
    ]


def test_they_are_numbers_from_0_up_to_1_in_fp32():
    found = uniforms(torch.arange(-5000, 5000), torch.arange(10000))
    assert found.dtype == torch.float32
    assert 0 <= float(found.min()) < 0.001 and 0.999 < float(found.max()) < 1


def test_mean_variance_and_independence():
    """1000 neighbouring seeds, 200 places: as uniform numbers, along both axes and between neighbours."""
    count, places = 1000, 200
    grid = uniforms(torch.arange(count).repeat_interleave(places), torch.arange(places).repeat(count)).double()
    grid = grid.view(count, places)
    assert float(grid.mean()) == pytest.approx(0.5, abs=4 * math.sqrt(1 / 12 / grid.numel()))
    assert float(grid.var()) == pytest.approx(1 / 12, abs=2e-3)
    assert (grid.mean(0) - 0.5).abs().max() < 5 * math.sqrt(1 / 12 / count)
    assert (grid.mean(1) - 0.5).abs().max() < 5 * math.sqrt(1 / 12 / places)
    centred = grid - 0.5
    for neighbours in (centred[1:] * centred[:-1], centred[:, 1:] * centred[:, :-1]):
        assert abs(float(neighbours.mean())) < 5 / 12 / math.sqrt(neighbours.numel())
    counts = torch.bincount((grid.flatten() * 64).long(), minlength=64)
    assert chi_square(counts, torch.full((64,), 1 / 64)) < 5


def test_a_seed_of_64_bits_is_taken_whole():
    """Seeds come from a hash: two that differ in their highest bit only draw differently."""
    policy = policy_of("qwen2")
    sampling = Sampling(max_new_tokens=12)
    low, high, same = (one(policy, tokens(5), sampling, seed=s) for s in (7, 7 + (1 << 63), 7 + (1 << 63)))
    assert low.token_ids != high.token_ids == same.token_ids
    assert one(policy, tokens(5), sampling, seed=(1 << 64) - 1).token_ids


# --- the distribution -----------------------------------------------------------------------------------------------


def chi_square(counts, probabilities):
    """How many standard deviations the statistic lies above its mean."""
    expected = probabilities.double() * counts.sum()
    statistic = float(((counts - expected) ** 2 / expected).sum())
    freedom = len(counts) - 1
    return (statistic - freedom) / math.sqrt(2 * freedom)


def drawn(logits, sampling, count=20_000, seen=None):
    """Counts of the tokens drawn from one distribution by so many seeds."""
    rows = logits.expand(count, -1)
    marks = None if seen is None else seen.expand(count, -1)
    found, _ = draw(rows, uniforms(torch.arange(count), torch.zeros(count, dtype=torch.long)), sampling, marks)
    return torch.bincount(found, minlength=logits.shape[-1])


LOGITS = torch.tensor([[0.3, -1.0, 2.0, 0.0, 1.1, -3.0, 0.9]])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_drawn_by_their_probability(temperature):
    counts = drawn(LOGITS, Sampling(temperature=temperature))
    assert chi_square(counts, (LOGITS[0] / temperature).softmax(0)) < 4
    # The test can fail: other probabilities, as close as a temperature of 1.1, are told apart.
    assert chi_square(counts, (LOGITS[0] / temperature / 1.1).softmax(0)) > 10


def test_the_engine_draws_by_probability_too():
    """First tokens of 4000 seeds, of a model whose 99 tokens are put into 9 bins of nearly the same size."""
    policy = policy_of("qwen2")
    prompt = tokens(6)
    group = sampled(policy, [(prompt, 4000, Sampling(max_new_tokens=1), range(4000))], max_rows=1000)[0]
    bins = torch.arange(99) // 11
    counts = torch.bincount(bins[[c.token_ids[0] for c in group]], minlength=9)
    with torch.no_grad():
        probabilities = model_of("qwen2")(torch.tensor([prompt])).logits[0, -1].softmax(0)
    assert chi_square(counts, torch.zeros(9).index_add(0, bins, probabilities)) < 4


TRUNCATIONS = {
    "top_k": Sampling(top_k=3),
    "top_p": Sampling(top_p=0.7),
    "min_p": Sampling(min_p=0.2),
    "all": Sampling(top_k=5, top_p=0.9, min_p=0.1, temperature=1.4),
    "none": Sampling(top_k=0, top_p=1.0, min_p=0.0),
    "k beyond the vocabulary": Sampling(top_k=1000),
}


def truncated(logits, sampling):
    """What transformers leaves of the distribution."""
    steps = [TemperatureLogitsWarper(sampling.temperature)]
    steps += [TopKLogitsWarper(sampling.top_k)] if sampling.top_k else []
    steps += [TopPLogitsWarper(sampling.top_p)] if sampling.top_p < 1 else []
    steps += [MinPLogitsWarper(sampling.min_p)] if sampling.min_p else []
    for step in steps:
        logits = step(None, logits)
    return logits.softmax(-1)


@pytest.mark.parametrize("case", TRUNCATIONS)
def test_only_allowed_tokens_are_drawn_and_by_their_share(case):
    sampling = TRUNCATIONS[case]
    for seed in range(4):
        logits = 2 * torch.randn(1, 12, generator=torch.Generator().manual_seed(seed))
        probabilities = truncated(logits, sampling)[0]
        allowed = probabilities > 0
        counts = drawn(logits, sampling)
        assert counts[~allowed].sum() == 0
        assert chi_square(counts[allowed], probabilities[allowed]) < 5 if allowed.sum() > 1 else counts.max() == 20_000


@pytest.mark.parametrize("sampling", [Sampling(top_k=1), Sampling(top_p=1e-6), Sampling(min_p=0.9999)])
def test_truncated_to_one_token_it_is_greedy(sampling):
    policy = policy_of("llama")
    greedy = Sampling(temperature=0.0)
    both = [replace(way, max_new_tokens=12) for way in (sampling, greedy)]
    groups = ids(sampled(policy, [(tokens(6, i), 3, way, range(3)) for way in both for i in range(3)]))
    assert groups[:3] == groups[3:]
    assert all(len(set(group)) == 1 for group in groups)


def test_the_logprob_is_that_of_the_whole_distribution():
    """Whatever is cut off or penalised before the draw: temperature, the full vocabulary, nothing else."""
    seen = torch.tensor([[True, False, True, False, False, False, False]])
    sampling = Sampling(temperature=0.6, top_k=2, top_p=0.9, min_p=0.01, repetition_penalty=1.5)
    found, logprobs = draw(LOGITS.expand(50, -1), torch.linspace(0, 0.99, 50), sampling, seen.expand(50, -1))
    assert torch.allclose(logprobs, (LOGITS[0] / 0.6).log_softmax(0)[found], atol=1e-6, rtol=0)
    greedy, logprob = draw(LOGITS, torch.tensor([0.3]), Sampling(temperature=0.0), None)
    assert int(greedy) == 2 and float(logprob) == pytest.approx(float(LOGITS[0].log_softmax(0)[2]), abs=1e-6)


def test_the_ends_of_the_unit_interval():
    """0 is the first token that has any probability, the largest number below 1 the last one."""
    logits = torch.tensor([[-math.inf, 0.0, 0.0, -math.inf]])
    for number, token in ((0.0, 1), (0.4999, 1), (0.5001, 2), (1 - 2**-24, 2)):
        assert int(draw(logits, torch.tensor([number]), Sampling(), None)[0]) == token
    many = torch.zeros(1, 50_000)
    assert 0 <= int(draw(many, torch.tensor([1 - 2**-24]), Sampling(), None)[0]) < 50_000


def test_logits_in_16_bits_are_drawn_from_in_fp32():
    logits = (LOGITS * 3).bfloat16()
    counts = drawn(logits, Sampling())
    assert chi_square(counts[counts > 50], logits.float().softmax(-1)[0][counts > 50]) < 5
    assert draw(logits, torch.tensor([0.2]), Sampling(), None)[1].dtype == torch.float32


# --- repetition penalty ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", [1.7, 0.5])
def test_the_penalty_is_transformers_own(penalty):
    prompt = [2, 4, 4, 5]
    probabilities = (RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([prompt]), LOGITS) / 0.8).softmax(-1)[0]
    seen = torch.zeros(1, 7, dtype=torch.bool)
    seen[0, prompt] = True
    counts = drawn(LOGITS, Sampling(temperature=0.8, repetition_penalty=penalty), seen=seen)
    assert chi_square(counts, probabilities) < 4
    assert chi_square(counts, (LOGITS[0] / 0.8).softmax(0)) > 10


@pytest.mark.parametrize("penalty", [1.3, 0.8])
@pytest.mark.parametrize("name", ["qwen2", "mamba"])
def test_greedy_with_a_penalty_is_transformers_generate(name, penalty):
    policy, plain = policy_of(name), model_of(name)
    for seed in range(3):
        prompt = torch.tensor([tokens(7, seed)])
        generated = plain.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=20,
            do_sample=False,
            repetition_penalty=penalty,
        )
        sampling = Sampling(max_new_tokens=20, temperature=0.0, repetition_penalty=penalty)
        assert list(one(policy, prompt[0].tolist(), sampling).token_ids) == generated[0, 7:].tolist()


def test_a_penalty_in_one_request_does_not_touch_the_others():
    """Rows with and without, joining one after the other: the marks follow their rows."""
    policy = without_ends(policy_of("qwen2"))
    penalised, free = (Sampling(max_new_tokens=9, repetition_penalty=p) for p in (1.8, 1.0))
    short = Sampling(max_new_tokens=4, repetition_penalty=1.8)
    calls = [
        (tokens(5, i), 3, sampling, range(3 * i, 3 * i + 3))
        for i, sampling in enumerate((penalised, free, short, free, penalised, short))
    ]
    alone = [ids(sampled(policy, [call]))[0] for call in calls]
    assert ids(sampled(policy, calls)) == alone
    assert ids(sampled(policy, calls, max_rows=6)) == alone
    assert ids(sampled(policy, calls, max_rows=4)) == alone
    assert ids(sampled(policy, [(calls[0][0], 3, free, range(3))]))[0] != alone[0]


# --- what cannot be drawn -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "setting",
    [
        {"temperature": -1.0},
        {"temperature": math.nan},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"top_k": -1},
        {"min_p": 1.0},
        {"repetition_penalty": 0.0},
        {"max_new_tokens": 0},
        {"stop": ("x", "")},
    ],
)
def test_impossible_settings_are_refused(setting):
    with pytest.raises(EngineError, match=next(iter(setting))):
        one(policy_of("qwen2"), tokens(3), Sampling(**setting))
