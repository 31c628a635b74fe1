"""Vocabularies of the size of Qwen's: drawn from in two goes, truncated without sorting them whole."""

import pytest
import torch

from groupwise.engines.sampler import draw, uniforms
from groupwise.types import Sampling

VOCABULARY = 10_007  # no multiple of anything


def logits_of(rows, spread=2.0, seed=0):
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * spread


def numbers(count):
    return uniforms(torch.arange(count), torch.zeros(count, dtype=torch.long))


def test_the_token_is_where_the_number_falls():
    """Against one cumulative sum in fp64; fp32 may fall on the neighbour of a border, and only there."""
    logits, u = logits_of(400), numbers(400)
    tokens, logprobs = draw(logits, u, Sampling(), None)
    p = torch.softmax(logits.double(), -1)
    cumulative = p.cumsum(-1)
    upper = cumulative.gather(-1, tokens[:, None])[:, 0]
    lower = upper - p.gather(-1, tokens[:, None])[:, 0]
    assert bool(((u.double() > lower - 1e-6) & (u.double() < upper + 1e-6)).all())
    assert torch.allclose(logprobs.double(), p.gather(-1, tokens[:, None])[:, 0].log(), atol=2e-6)


@pytest.mark.parametrize("place", [0, 511, 512, 5_000, 9_727, 9_728, VOCABULARY - 1])
@pytest.mark.parametrize("number", [0.0, 0.5, 1 - 2**-24])
def test_a_single_possible_token_is_found_wherever_it_stands(place, number):
    logits = torch.full((1, VOCABULARY), float("-inf"))
    logits[0, place] = 3.0
    tokens, logprobs = draw(logits, torch.tensor([number]), Sampling(), None)
    assert tokens.tolist() == [place] and logprobs.tolist() == [0.0]


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.999])
@pytest.mark.parametrize("spread", [0.1, 6.0])
def test_top_p_is_that_of_a_whole_sort(top_p, spread):
    """A flat distribution has a nucleus of thousands, a steep one of a few tokens."""
    logits, u = logits_of(64, spread), numbers(64)
    tokens, _ = draw(logits, u, Sampling(top_p=top_p), None)
    p, order = torch.softmax(logits, -1).sort(-1, descending=True)
    rank = (order == tokens[:, None]).int().argmax(-1)
    before = (p.double().cumsum(-1) - p).gather(-1, rank[:, None])[:, 0]
    assert bool((before < top_p + 1e-6).all())
    assert len(tokens.unique()) > (1 if top_p == 0.05 and spread == 6.0 else 8)


def test_only_rows_with_a_wide_nucleus_are_sorted(monkeypatch):
    sorts, sort = [], torch.Tensor.sort
    logits, u = torch.cat([logits_of(5, spread=6.0), logits_of(2, spread=0.1), logits_of(3, spread=6.0)]), numbers(10)
    each = [draw(logits[i : i + 1], u[i : i + 1], Sampling(top_p=0.9), None)[0] for i in range(10)]
    monkeypatch.setattr(torch.Tensor, "sort", lambda x, *how, **hows: sorts.append(len(x)) or sort(x, *how, **hows))
    together, _ = draw(logits, u, Sampling(top_p=0.9), None)
    assert together.tolist() == torch.cat(each).tolist()
    assert sorts == [2]


def test_what_is_not_a_number_does_not_stop_the_engine():
    """The learner says what is wrong with a policy that has gone to pieces; sampling it must not hide that."""
    tokens, logprobs = draw(torch.full((2, VOCABULARY), float("nan")), numbers(2), Sampling(), None)
    assert bool((tokens < VOCABULARY).all()) and bool(logprobs.isnan().all())
