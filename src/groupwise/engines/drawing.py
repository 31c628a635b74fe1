"""Drawing tokens in compiled code (draw.c): one call where torch takes a dozen, each dearer than its arithmetic.

For fp32 on a CPU where there is a compiler, and plain sampling: a temperature and nothing else. What it draws is what
`groupwise.engines.sampler` draws, but for uniform numbers within rounding of the border between two tokens.

    tokens_B, logprobs_B = drawn(logits, uniforms_B, 0.8) if fits(logits, sampling) else ...
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groupwise.models.compiled import library
from groupwise.types import Sampling

SOURCE = Path(__file__).with_name("draw.c")
WORTH_THREADS = 1 << 16
"""Logits. Below, one thread is through before a second has woken up."""


@cache
def _compiled() -> Any:
    made = library(SOURCE)
    if made is not None:
        made.draw.restype = ctypes.c_int64
    return made


def fits(logits: Tensor, sampling: Sampling) -> bool:
    """Whether there is compiled code for these: [B, V], each row's side by side."""
    plain = (sampling.top_k, sampling.top_p, sampling.min_p, sampling.repetition_penalty) == (0, 1, 0, 1)
    at_hand = logits.dtype == torch.float32 and logits.device.type == "cpu" and logits.stride(-1) == 1
    return plain and sampling.temperature > 0 and at_hand and logits.numel() > 0 and _compiled() is not None


def drawn(logits: Tensor, uniforms_B: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Next token of each row and its logprob: [B, V] -> [B], [B]."""
    tokens_B = torch.empty(len(logits), dtype=torch.long)
    logprobs_B = torch.empty(len(logits), dtype=torch.float32)
    nothing = tokens_B[:0]
    fill(tokens_B, logprobs_B, nothing, logits, uniforms_B, temperature, ends=nothing, column=0)
    return tokens_B, logprobs_B


def fill(
    tokens_B: Tensor,
    logprobs_B: Tensor,
    ended_at_B: Tensor,
    logits: Tensor,
    uniforms_B: Tensor,
    temperature: float,
    *,
    ends: Tensor,
    column: int,
) -> int:
    """The same into tensors that are there; rows that draw one of `ends` have ended at this column, unless they had
    before. Returns how many."""
    rows, vocabulary = logits.shape
    uniforms_B = uniforms_B.contiguous()
    threads = torch.get_num_threads() if logits.numel() > WORTH_THREADS else 1
    return _compiled().draw(
        *(ctypes.c_void_p(logits.data_ptr()), ctypes.c_int64(logits.stride(0))),
        *(ctypes.c_void_p(uniforms_B.data_ptr()), ctypes.c_float(temperature)),
        *(ctypes.c_int64(rows), ctypes.c_int64(vocabulary)),
        *(ctypes.c_void_p(x.data_ptr()) for x in (tokens_B, logprobs_B, ends)),
        *(ctypes.c_int64(len(ends)), ctypes.c_int64(column), ctypes.c_void_p(ended_at_B.data_ptr())),
        ctypes.c_int(threads),
    )
