"""Attention of a whole packed row: every line sees itself, and every branch its trunk, put together as one softmax.

    lse = log(exp(lse_own) + exp(lse_trunk))                    over all keys that a branch token sees
    out = (1 - share) out_own + share out_trunk                 share = exp(lse_trunk - lse)

The branches of a tree stand side by side in the row, so all of them see their trunk in one rectangular call without a
mask, and nothing of the trunk is ever copied. The backward pass asks each kernel call for its share of the gradients
of the merged softmax, see `groupwise.models.kernels`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from groupwise.models import compiled_attention
from groupwise.models.compiled_attention import CompiledRow
from groupwise.models.kernels import Call, CpuFlash, CudaFlash, Heads, Kernel, Row, Seen, empty_like

log = logging.getLogger(__name__)

CLOSE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.05}
"""Difference from a softmax written out that is only rounding, relative to the largest number."""


class RowAttention(Protocol):
    """Attends for one row, whose lines it knows."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """[1, heads, tokens, dim] -> output of that shape, and logsumexp [1, heads, tokens]."""
        ...

    def backward(self, grad: Tensor, row: Row, scale: float) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of the row's queries, keys and values."""
        ...


Lines = Callable[[Sequence[Seen], Sequence[Seen], Heads, torch.device], RowAttention]
"""(own, trunk, heads, device): own lines, which tile the row, and what branches see of their trunk."""


@dataclass(frozen=True, slots=True)
class Calls:
    """The kernel calls of one row: `own` covers each token's own line, `trunk` what branches see of their trunk."""

    own: Sequence[Call]
    trunk: Sequence[Call]

    @classmethod
    def of(
        cls, kernel: Kernel, own: Sequence[Seen], trunk: Sequence[Seen], heads: Heads, device: torch.device
    ) -> Calls:
        """See `Lines`."""
        return cls(kernel.calls(own, heads, device, causal=True), kernel.calls(trunk, heads, device, causal=False))

    def forward(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """See `RowAttention`."""
        out = empty_like(query)
        lse = empty_like(query[..., 0], torch.promote_types(query.dtype, torch.float32))
        for call in self.own:
            own, own_lse = call.forward(query, key, value, scale)
            call.queries.put(out, own)
            call.queries.put(lse, own_lse)
        for call in self.trunk:
            _merge(call, out, lse, *call.forward(query, key, value, scale))
        return out, lse

    def backward(self, grad: Tensor, row: Row, scale: float) -> tuple[Tensor, Tensor, Tensor]:
        """See `RowAttention`."""
        dq, dk, dv = empty_like(row.query), empty_like(row.key), empty_like(row.value)
        for call in self.own:
            q, k, v = call.backward(grad, row, scale)
            call.queries.put(dq, q)
            call.keys.put(dk, k)
            call.keys.put(dv, v)
        for call in self.trunk:
            q, k, v = call.backward(grad, row, scale)
            call.queries.add(dq, q)
            call.keys.add(dk, k)
            call.keys.add(dv, v)
        return dq, dk, dv


def _merge(call: Call, out: Tensor, lse: Tensor, more: Tensor, more_lse: Tensor) -> None:
    """Take further keys into the softmax of the call's queries."""
    so_far, so_far_lse = call.queries.take(out), call.queries.take(lse)
    share = torch.sigmoid(more_lse - so_far_lse)[..., None]
    if call.queries.is_view and out.dtype == share.dtype:
        so_far.lerp_(more, share)
    else:
        call.queries.put(out, torch.lerp(so_far.to(share.dtype), more.to(share.dtype), share))
    call.queries.put(lse, torch.logaddexp(so_far_lse, more_lse))


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, calls: RowAttention, scale: float) -> Tensor:
        out, lse = calls.forward(query, key, value, scale)
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.calls, ctx.scale = calls, scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        row = Row(*cast("tuple[Tensor, Tensor, Tensor, Tensor, Tensor]", ctx.saved_tensors))
        return *cast(RowAttention, ctx.calls).backward(grads[0], row, ctx.scale), None, None


def attend_row(query: Tensor, key: Tensor, value: Tensor, calls: RowAttention, scale: float) -> Tensor:
    """[1, heads, tokens, dim], keys and values with their own heads -> [1, tokens, heads, dim]. Differentiable once."""
    return cast(Tensor, _Attention.apply(query, key, value, calls, scale)).transpose(1, 2)


@cache
def attention_for(device: torch.device, dtype: torch.dtype, heads: Heads) -> Lines | None:
    """The fastest way on this device and in this precision, proven there once for heads of this kind; `None` if there
    is none."""
    for lines in _ways(device, dtype, heads):
        if not (why := _differs(lines, device, dtype, heads)):
            return lines
        log.warning("attention on %s in %s takes a slower way: %s", device, dtype, why)
    return None


def _ways(device: torch.device, dtype: torch.dtype, heads: Heads) -> list[Lines]:
    ways: list[Lines] = []
    if compiled_attention.fits(device, dtype):
        ways.append(CompiledRow.of)
    # Before 2.9 the kernel of the CPU read keys beyond their end if they had fewer heads than the queries.
    if device.type == "cpu" and (heads.queries == heads.keys or torch.__version__ >= "2.9"):
        ways.append(partial(Calls.of, CpuFlash()))
    if device.type == "cuda" and dtype in (torch.float16, torch.bfloat16):
        ways.append(partial(Calls.of, CudaFlash()))
    return ways


def _differs(lines: Lines, device: torch.device, dtype: torch.dtype, heads: Heads) -> str:
    """How it differs from a softmax written out, forward or backward, on three small trees; empty if it does
    not."""
    # Trunks of 9, 1 and 3 tokens; branches of 2, 7 and 1, of none, and of 40.
    own = [slice(*ends) for ends in pairwise((0, 9, 11, 18, 19, 20, 23, 63))]
    trunk = [Seen(slice(9, 19), own[0]), Seen(slice(23, 63), slice(20, 23))]
    visible = torch.block_diag(*(torch.ones(run.stop - run.start, run.stop - run.start).tril() for run in own)).bool()
    for line in trunk:
        visible[line.queries, line.keys] = True
    with torch.inference_mode(False), torch.enable_grad():
        generator = torch.Generator().manual_seed(9)
        shapes = [(1, count, 63, heads.dim) for count in (heads.queries, heads.keys, heads.keys, heads.queries)]
        query, key, value, grad = (torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes)
        exact = [x.to(torch.promote_types(dtype, torch.float32)).requires_grad_() for x in (query, key, value)]
        expected = _written_out((exact[0], exact[1], exact[2]), visible.to(device), 0.3)
        expected_grads = torch.autograd.grad(expected, exact, grad.to(expected.dtype))
        try:
            calls = lines([Seen(run, run) for run in own], trunk, heads, device)
            with torch.no_grad():
                out, lse = calls.forward(query, key, value, 0.3)
                grads = calls.backward(grad, Row(query, key, value, out, lse), 0.3)
        except Exception as error:  # whatever it is, there is another way
            return f"{type(error).__name__}: {error}".splitlines()[0][:200]
        pairs = zip((out, *grads), (expected.detach(), *expected_grads), strict=True)
        gap = max(float((one.to(other.dtype) - other).abs().max() / other.abs().max()) for one, other in pairs)
    return "" if gap <= CLOSE[dtype] else f"the fast one is wrong by {gap:.1e}"


def _written_out(row: tuple[Tensor, Tensor, Tensor], visible: Tensor, scale: float) -> Tensor:
    query, key, value = row
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    scores = torch.matmul(query, key.transpose(2, 3)) * scale
    return torch.matmul(scores.masked_fill(~visible, -torch.inf).softmax(-1), value)
