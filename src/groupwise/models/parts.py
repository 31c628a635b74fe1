"""RMSNorm, the gated SiLU and rotary positions in compiled code (parts.c): one pass each where torch takes several.

Each is a function of tensors with its own backward pass, for what `fits`: fp32 on a CPU where there is a compiler.
What the compiled code writes to takes its precision from what it reads, never from torch's default, which a user may
have changed: memory of another size would be overrun.

    out = rms_norm(x, weight, 1e-6) if fits(x, weight) else written_out(x, weight)
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from groupwise.models.compiled import library

SOURCE = Path(__file__).with_name("parts.c")


@cache
def _compiled() -> Any:
    return library(SOURCE)


def fits(*tensors: Tensor) -> bool:
    """Whether there is compiled code for these."""
    return all(x.dtype == torch.float32 and x.device.type == "cpu" for x in tensors) and _compiled() is not None


def rms_norm(x: Tensor, weight: Tensor, epsilon: float, add: float = 0.0) -> Tensor:
    """x / sqrt(mean(x^2) + epsilon) * (weight + add), arXiv 1910.07467. Shapes: x [..., dim], weight [dim]."""
    return cast(Tensor, _RmsNorm.apply(x, weight, epsilon, add))


def gated(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, arXiv 2002.05202, of one shape."""
    return cast(Tensor, _Gated.apply(gate, up))


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x cos + rotate_half(x) sin, arXiv 2104.09864. Shapes: x [1, heads, tokens, dim], cos and sin [1, tokens, dim]."""
    return cast(Tensor, _Rotated.apply(x, cos.contiguous(), sin.contiguous()))


def _at(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def _size(number: int) -> ctypes.c_int64:
    return ctypes.c_int64(number)


def _threads() -> ctypes.c_int:
    return ctypes.c_int(torch.get_num_threads())


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float, add: float) -> Tensor:
        rows, weight = x.reshape(-1, x.shape[-1]).contiguous(), weight.contiguous()
        out, inverse = torch.empty_like(rows), rows.new_empty(len(rows))
        sizes = (_size(len(rows)), _size(rows.shape[1]))
        scales = (ctypes.c_float(add), ctypes.c_float(epsilon))
        _compiled().norm_forward(_at(rows), _at(weight), *scales, *sizes, _at(out), _at(inverse), _threads())
        ctx.save_for_backward(rows, weight, inverse)
        ctx.add = add
        return out.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        rows, weight, inverse = cast(tuple[Tensor, Tensor, Tensor], ctx.saved_tensors)
        grad = grads[0].reshape(rows.shape).contiguous()
        dx, dw = torch.empty_like(rows), rows.new_zeros(torch.get_num_threads(), rows.shape[1])
        given = (_at(grad), _at(rows), _at(weight), ctypes.c_float(ctx.add), _at(inverse))
        _compiled().norm_backward(*given, _size(len(rows)), _size(rows.shape[1]), _at(dx), _at(dw), _threads())
        return dx.view(grads[0].shape), dw.sum(0) if ctx.needs_input_grad[1] else None, None, None


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        out = torch.empty_like(gate)
        _compiled().gated_forward(_at(gate), _at(up), _size(gate.numel()), _at(out), _threads())
        ctx.save_for_backward(gate, up)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        gate, up = cast(tuple[Tensor, Tensor], ctx.saved_tensors)
        grad, dgate, dup = grads[0].contiguous(), torch.empty_like(gate), torch.empty_like(up)
        count = _size(gate.numel())
        _compiled().gated_backward(_at(grad), _at(gate), _at(up), count, _at(dgate), _at(dup), _threads())
        return dgate, dup


class _Rotated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(x, cos, sin, back=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _rotated(grads[0], *cast(tuple[Tensor, Tensor], ctx.saved_tensors), back=True), None, None


def _rotated(x: Tensor, cos: Tensor, sin: Tensor, *, back: bool) -> Tensor:
    _, heads, tokens, dim = x.shape
    x = x if x.stride(-1) == 1 else x.contiguous()
    # Token by token in memory, as the layers around attention work.
    out = x.new_empty(1, tokens, heads, dim)
    strides = (_size(x.stride(2)), _size(x.stride(1)))
    sizes = (_size(tokens), _size(heads), _size(dim))
    _compiled().rotate(_at(x), *strides, _at(cos), _at(sin), *sizes, ctypes.c_int(back), _at(out), _threads())
    return out.transpose(1, 2)
