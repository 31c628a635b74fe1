"""From logits to tokens: one uniform number per token, and the logprob that the learner will see.

A row's numbers come from its own seed and the place of the token, so a completion does not depend on which other rows
happened to share its batch, and a run that is repeated draws the same tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from groupwise.engines import drawing
from groupwise.errors import EngineError
from groupwise.types import Sampling

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)


def check(sampling: Sampling) -> None:
    """Refuse what cannot be drawn from."""
    possible = {
        "max_new_tokens": sampling.max_new_tokens >= 1,
        "temperature": sampling.temperature >= 0,
        "top_p": 0 < sampling.top_p <= 1,
        "top_k": sampling.top_k >= 0,
        "min_p": 0 <= sampling.min_p < 1,
        "repetition_penalty": sampling.repetition_penalty > 0,
        "stop": all(sampling.stop),
        "loop_tokens": sampling.loop_tokens is None or sampling.loop_tokens >= 8,
    }
    if impossible := [name for name, is_possible in possible.items() if not is_possible]:
        raise EngineError(f"{', '.join(impossible)} cannot be as in {sampling}")


def uniforms(seeds_B: Tensor, places_B: Tensor) -> Tensor:
    """One number in [0, 1) per row from (seed, place): SplitMix64 as a counter (Steele, Lea, Flood 2014).

    int64 in, float32 out with 24 random bits; the same on every device.
    """
    x = seeds_B + (places_B + 1) * _GOLDEN
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    x = x ^ _shift(x, 31)
    return _shift(x, 40).to(torch.float32) * (1.0 / (1 << 24))


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical shift right of a 64-bit pattern kept in int64."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def draw(logits: Tensor, uniforms_B: Tensor, sampling: Sampling, seen: Tensor | None) -> tuple[Tensor, Tensor]:
    """Next token of each row and its logprob: [B, V] -> [B], [B].

    The logprob is that of `Sampling`: full vocabulary, temperature applied, nothing else. `seen` [B, V] marks tokens
    that the repetition penalty applies to.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if seen is None and drawing.fits(logits, sampling):
        return drawing.drawn(logits, uniforms_B, sampling.temperature)
    scaled = logits if sampling.temperature in (0, 1) else logits / sampling.temperature
    if seen is not None:
        choice = _penalised(logits, seen, sampling)
        tokens_B = _chosen(torch.softmax(choice, -1), choice, uniforms_B, sampling)
        # A penalty can choose what is as good as impossible without it, and has no logarithm as a probability.
        return tokens_B, torch.log_softmax(scaled, -1).gather(-1, tokens_B[:, None])[:, 0]
    probabilities = torch.softmax(scaled, -1)
    tokens_B = _chosen(probabilities, scaled, uniforms_B, sampling)
    return tokens_B, probabilities.gather(-1, tokens_B[:, None])[:, 0].log()


def _chosen(probabilities: Tensor, logits: Tensor, uniforms_B: Tensor, sampling: Sampling) -> Tensor:
    if sampling.temperature == 0:
        return logits.argmax(-1)
    return _inverse_cdf(_truncated(probabilities, sampling), uniforms_B)


def _penalised(logits: Tensor, seen: Tensor, sampling: Sampling) -> Tensor:
    """Repetition penalty of CTRL (arXiv 1909.05858), on the raw logits, then the temperature."""
    penalty = sampling.repetition_penalty
    logits = torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
    return logits / sampling.temperature if sampling.temperature > 0 else logits


def _truncated(probabilities: Tensor, sampling: Sampling) -> Tensor:
    """top-k, then top-p (arXiv 1904.09751), then min-p (arXiv 2407.01082); the likeliest token always stays, and so
    does what is as likely as the last that stays."""
    if 0 < sampling.top_k < probabilities.shape[-1]:
        smallest = probabilities.topk(sampling.top_k, -1).values[:, -1:]
        probabilities = probabilities.masked_fill(probabilities < smallest, 0)
    if sampling.top_p < 1:
        smallest = _smallest_of_nucleus(probabilities, sampling.top_p)
        probabilities = probabilities.masked_fill(probabilities < smallest, 0)
    if sampling.min_p > 0:
        smallest = probabilities.amax(-1, keepdim=True) * sampling.min_p
        probabilities = probabilities.masked_fill(probabilities < smallest, 0)
    return probabilities


def _smallest_of_nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """The probability of the last token of the smallest set that has `top_p` of all: [B, 1].

    Sorting a whole vocabulary is dear, and the nucleus is nearly always among its first thousand: only rows in which it
    is not are sorted.
    """
    wanted = top_p * probabilities.sum(-1, keepdim=True)
    vocabulary = probabilities.shape[-1]
    likeliest = probabilities.topk(min(1024, vocabulary), -1).values
    found = _last_inside(likeliest, wanted)
    if likeliest.shape[-1] < vocabulary and bool((wide_B := likeliest.sum(-1) < wanted[:, 0]).any()):
        rows = wide_B.nonzero()[:, 0]
        found[rows] = _last_inside(probabilities[rows].sort(-1, descending=True).values, wanted[rows])
    return found


def _last_inside(sorted_: Tensor, wanted: Tensor) -> Tensor:
    before = sorted_.cumsum(-1) - sorted_
    inside = (before < wanted).sum(-1, keepdim=True).clamp(min=1)
    return sorted_.gather(-1, inside - 1)


_BLOCK = 512


def _inverse_cdf(weights: Tensor, uniforms_B: Tensor) -> Tensor:
    """The token in whose share of the cumulative weight the uniform number falls.

    In two goes for a large vocabulary: first the block of tokens, by the blocks' sums, then the token within it.
    """
    vocabulary = weights.shape[-1]
    whole = vocabulary // _BLOCK
    if whole < 8:
        return _find(weights, uniforms_B[:, None] * weights.sum(-1, keepdim=True))[:, 0]
    sums = weights[:, : whole * _BLOCK].unflatten(-1, (whole, _BLOCK)).sum(-1)
    sums = torch.cat([sums, weights[:, whole * _BLOCK :].sum(-1, keepdim=True)], -1)
    cumulative = sums.cumsum(-1)
    wanted = uniforms_B[:, None] * cumulative[:, -1:]
    block = _find(sums, wanted)
    before = (cumulative - sums).gather(-1, block)
    places = block * _BLOCK + torch.arange(_BLOCK, device=weights.device)
    inside = weights.gather(-1, places.clamp(max=vocabulary - 1)) * (places < vocabulary)
    return (block * _BLOCK + _find(inside, wanted - before)).clamp(max=vocabulary - 1)[:, 0]


def _find(weights: Tensor, wanted: Tensor) -> Tensor:
    """First place where the cumulative weight passes what is wanted, always one that has some weight: [B, 1]. Where
    there is no such place, as all is NaN, the last."""
    cumulative = weights.cumsum(-1)
    # Rounding can put what is wanted before the first or behind the last.
    last = torch.nextafter(cumulative[:, -1:], cumulative.new_zeros(()))
    found = torch.searchsorted(cumulative, torch.minimum(wanted, last).clamp(min=0), right=True)
    return found.clamp(max=weights.shape[-1] - 1)
