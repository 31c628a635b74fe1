"""From logits to tokens: one uniform number per token, and the logprob that the learner will see.

A row's numbers come from its own seed and the place of the token, so a completion does not depend on which other rows
happened to share its batch, and a run that is repeated draws the same tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

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
    scaled = logits / sampling.temperature if sampling.temperature > 0 else logits
    choice = scaled if seen is None else _penalised(logits, seen, sampling)
    if sampling.temperature == 0:
        tokens_B = choice.argmax(-1)
    else:
        tokens_B = _inverse_cdf(_truncated(choice, sampling), uniforms_B)
    # Not `chosen - logsumexp`: two large numbers leave a difference that is rounded as they are.
    return tokens_B, torch.log_softmax(scaled, -1).gather(-1, tokens_B[:, None])[:, 0]


def _penalised(logits: Tensor, seen: Tensor, sampling: Sampling) -> Tensor:
    """Repetition penalty of CTRL (arXiv 1909.05858), on the raw logits, then the temperature."""
    penalty = sampling.repetition_penalty
    logits = torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
    return logits / sampling.temperature if sampling.temperature > 0 else logits


def _truncated(logits: Tensor, sampling: Sampling) -> Tensor:
    """top-k, then top-p (arXiv 1904.09751), then min-p (arXiv 2407.01082); the likeliest token always stays."""
    if 0 < sampling.top_k < logits.shape[-1]:
        smallest = logits.topk(sampling.top_k, -1).values[:, -1:]
        logits = logits.masked_fill(logits < smallest, float("-inf"))
    if sampling.top_p < 1:
        ordered, index = logits.sort(-1, descending=True)
        probabilities = torch.softmax(ordered, -1)
        beyond = probabilities.cumsum(-1) - probabilities >= sampling.top_p
        logits = logits.masked_fill(beyond.scatter(-1, index, beyond), float("-inf"))
    if sampling.min_p > 0:
        floor = logits.amax(-1, keepdim=True) + torch.log(torch.tensor(sampling.min_p))
        logits = logits.masked_fill(logits < floor, float("-inf"))
    return logits


def _inverse_cdf(logits: Tensor, uniforms_B: Tensor) -> Tensor:
    """The token in whose share of the cumulative probability the uniform number falls."""
    cumulative = torch.softmax(logits, -1).cumsum(-1)
    threshold = uniforms_B[:, None] * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, threshold, right=True)[:, 0]
    # Rounding can put the threshold on the very end, behind the last token that has any probability.
    return torch.where(tokens < logits.shape[-1], tokens, logits.argmax(-1))
