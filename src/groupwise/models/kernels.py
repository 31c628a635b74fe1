"""Attention kernels that also tell the logsumexp of their scores, so that a softmax can be put together from parts.

The row is [1, heads, tokens, dim], keys and values with their own (fewer) heads, a logsumexp [1, heads, tokens]. A
kernel turns who sees whom into a few *calls*, once per row; every layer then makes them, forward and backward.

FlashAttention (arXiv 2205.14135, 2307.08691) keeps no probabilities: its backward pass computes each again, as
exp(score - logsumexp). So, if it is given the output and the logsumexp of a softmax over *more* keys than it sees, what
it returns is exactly these keys' share of the gradients, and the shares of all calls add up.

- CPU: torch's own flash attention, one call for a long line, and padded blocks of short ones.
- CUDA in 16 bits: FlashAttention over lines of any length, which pads nothing.

Nothing else has a kernel here, and `groupwise.models.layout` asks for a proof of these before it uses them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from groupwise.models.places import Places
from groupwise.models.transfer import on_device

CALL, GATHER, PAIR = 60.0, 1.0, 2.3e-4
"""On the CPU, in microseconds, both passes together: what a call costs; what it costs to take a token out of the row
and to put it back, where it is no view; and what a query-key pair costs a core, times the dimensions of its heads."""
MOST_PIECES, LEAST_PIECE = 16, 64
"""Into how many lines the queries of one call may be cut, and how short such a line may be."""

ATEN: Any = torch.ops.aten
CPU_FORWARD: Any = ATEN._scaled_dot_product_flash_attention_for_cpu.default
CPU_BACKWARD: Any = ATEN._scaled_dot_product_flash_attention_for_cpu_backward.default


@dataclass(frozen=True, slots=True)
class Seen:
    """A run of queries, and the run of keys that they see: all of them, or, in a causal call, those up to itself."""

    queries: slice
    keys: slice

    @property
    def lengths(self) -> tuple[int, int]:
        """How many keys, how many queries."""
        return self.keys.stop - self.keys.start, self.queries.stop - self.queries.start


class Heads(NamedTuple):
    """Of one layer."""

    queries: int
    keys: int
    dim: int


class Row(NamedTuple):
    """What a forward pass leaves for the backward pass."""

    query: Tensor
    key: Tensor
    value: Tensor
    out: Tensor
    lse: Tensor


def empty_like(row: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Of the same shape, in memory token by token, as the layers around attention work."""
    shape = (row.shape[0], row.shape[2], row.shape[1], *row.shape[3:])
    return torch.empty(shape, dtype=dtype or row.dtype, device=row.device).transpose(1, 2)


class Call(Protocol):
    """One call of a kernel. What it returns belongs to the places that it names."""

    queries: Places
    keys: Places

    def forward(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Of the whole row -> output and logsumexp of this call's queries."""
        ...

    def backward(self, grad: Tensor, row: Row, scale: float) -> tuple[Tensor, Tensor, Tensor]:
        """The row's gradient of the output -> gradients of this call's queries, keys and values."""
        ...


class Kernel(Protocol):
    """Makes the calls."""

    def calls(self, seen: Sequence[Seen], heads: Heads, device: torch.device, *, causal: bool) -> Sequence[Call]:
        """The calls that together compute this. In causal ones queries and keys are the same runs."""
        ...


class CpuFlash:
    """torch's flash attention on the CPU. A call keeps as many cores busy as it has lines times key-value heads."""

    def calls(self, seen: Sequence[Seen], heads: Heads, device: torch.device, *, causal: bool) -> Sequence[Call]:
        """See `Kernel`."""
        threads = torch.get_num_threads()
        pair = PAIR * heads.dim * heads.queries / heads.keys / (2 if causal else 1)

        def cost(lines: int, keys: int, queries: int) -> float:
            gathered = GATHER * lines * (keys + queries) / threads if lines > 1 else 0.0
            return CALL + gathered + math.ceil(lines * heads.keys / threads) * keys * queries * pair

        groups = _grouped(seen, cost, one_length=not causal)
        if not causal:
            groups = [part for group in groups for part in _cut(group, heads.keys, threads)]
        return [_CpuCall(group, device, causal) for group in groups]


def _grouped(seen: Sequence[Seen], cost: Callable[[int, int, int], float], *, one_length: bool) -> list[list[Seen]]:
    """Lines of about the same size together, where one padded call is cheaper than two. Keys must have one length,
    unless causality hides their padding."""
    groups: list[list[Seen]] = []
    for line in sorted(seen, key=lambda line: line.lengths):
        last = groups[-1] if groups else [line]
        (keys, queries), before = line.lengths, last[-1].lengths
        fits = bool(groups) and (before[0] == keys or not one_length)
        # Sorted, so the last line is the longest.
        if fits and cost(len(last) + 1, keys, queries) <= cost(len(last), *before) + cost(1, keys, queries):
            last.append(line)
        else:
            groups.append([line])
    return groups


def _cut(group: list[Seen], kv_heads: int, threads: int) -> list[list[Seen]]:
    """A single line leaves cores idle where the key-value heads do not share out evenly among them. So its queries are
    cut into lines of one length, which all see the same keys, and a short rest."""
    if len(group) > 1:
        return [group]
    run, keys = group[0].queries, group[0].keys
    pieces = min(range(1, MOST_PIECES + 1), key=lambda n: (math.ceil(n * kv_heads / threads) / n, n))
    length = (run.stop - run.start) // pieces
    if pieces == 1 or length < LEAST_PIECE:
        return [group]
    ends = [run.start + i * length for i in range(pieces + 1)]
    rest = [Seen(slice(ends[-1], run.stop), keys)] if ends[-1] < run.stop else []
    return [[Seen(slice(start, stop), keys) for start, stop in pairwise(ends)], *([rest] if rest else [])]


class _CpuCall:
    """Padded lines; or lines that all see the same keys."""

    def __init__(self, lines: Sequence[Seen], device: torch.device, causal: bool) -> None:
        self.queries = Places([line.queries for line in lines], device, padded=True)
        self._lines, self._causal = len(lines), causal
        self._shared = len(lines) > 1 and lines[0].keys == lines[1].keys
        keys = [line.keys for line in lines[: 1 if self._shared else None]]
        self.keys = self.queries if causal else Places(keys, device, padded=True)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        return CPU_FORWARD(*self._taken(query, key, value), 0.0, self._causal, scale=scale)

    def backward(self, grad: Tensor, row: Row, scale: float) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self._taken(row.query, row.key, row.value)
        g, out, lse = self.queries.take(grad), self.queries.take(row.out), self.queries.take_lse(row.lse)
        dq, dk, dv = CPU_BACKWARD(g, q, k, v, out, lse, 0.0, self._causal, scale=scale)
        return (dq, dk.sum(0, keepdim=True), dv.sum(0, keepdim=True)) if self._shared else (dq, dk, dv)

    def _taken(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[lines, heads, tokens, dim] each."""
        q, k, v = self.queries.take(query), self.keys.take(key), self.keys.take(value)
        if self._shared:
            k, v = k.expand(self._lines, -1, -1, -1), v.expand(self._lines, -1, -1, -1)
        return q, k, v


class CudaFlash:
    """FlashAttention in 16 bits over lines of any length: one call for all of them."""

    def calls(self, seen: Sequence[Seen], heads: Heads, device: torch.device, *, causal: bool) -> Sequence[Call]:
        """See `Kernel`."""
        return [_CudaCall(seen, device, causal)] if seen else []


class _CudaCall:
    def __init__(self, seen: Sequence[Seen], device: torch.device, causal: bool) -> None:
        self.queries = Places([line.queries for line in seen], device, padded=False)
        self.keys = self.queries if causal else Places([line.keys for line in seen], device, padded=False)
        keys, queries = zip(*(line.lengths for line in seen), strict=True)
        starts_q, starts_k = (on_device([0, *accumulate(lengths)], device, torch.int32) for lengths in (queries, keys))
        # With a single query per line the kernel swaps heads and queries, and the logsumexp with them.
        self._lines = (starts_q, starts_k, max(2, *queries), max(keys), 0.0, causal)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        q, k, v = _flat(self.queries.take(query), self.keys.take(key), self.keys.take(value))
        out, lse, *_ = ATEN._flash_attention_forward(q, k, v, *self._lines, False, scale=scale)
        return out.transpose(0, 1)[None], lse[None]

    def backward(self, grad: Tensor, row: Row, scale: float) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = _flat(self.queries.take(row.query), self.keys.take(row.key), self.keys.take(row.value))
        g, out = _flat(self.queries.take(grad), self.queries.take(row.out))
        lse = self.queries.take(row.lse)[0].contiguous()
        # Read by the kernel only where there is dropout.
        unused = torch.zeros(2, dtype=torch.uint64, device=q.device)
        found = ATEN._flash_attention_backward(g, q, k, v, out, lse, *self._lines, unused, unused, scale=scale)
        dq, dk, dv = (x.transpose(0, 1)[None] for x in found)
        return dq, dk, dv


def _flat(*taken: Tensor) -> Iterator[Tensor]:
    """[1, heads, tokens, dim] -> [tokens, heads, dim]."""
    return (x[0].transpose(0, 1) for x in taken)
