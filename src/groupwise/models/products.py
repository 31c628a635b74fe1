"""Matrix products in compiled code (products.c), on processors of which torch's use half.

MKL, which multiplies fp32 for torch on a CPU, uses vectors of 512 bits on Intel's processors only; on AMD's that have
them the same product takes half of its time here. So a linear layer, which is most of what a learner computes, becomes
a function with its own backward pass.

    if (forward := linear_of(module)) is not None:
        y = forward(x)  # module(x)
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from groupwise.models.compiled import library
from groupwise.models.tables import gradient_of

SOURCE = Path(__file__).with_name("products.c")
PROCESSORS = Path("/proc/cpuinfo")
WIDE = 16
"""Numbers in a vector of 512 bits. A compiler that cannot make them gains nothing over MKL."""
WORTH = 48
"""Rows that a matrix has to be multiplied with, to be worth laying it out."""
NARROW = 8
"""Columns of which a panel is more than a waste."""
FEW, LARGE = 16, 1 << 20
"""Rows, and numbers in the matrix that they are multiplied with: no core's cache holds it, so that it is read once is
what counts."""


class _Matrix(ctypes.Structure):
    """See products.c."""

    _fields_ = (("at", ctypes.c_void_p), ("row", ctypes.c_int64), ("column", ctypes.c_int64))

    @classmethod
    def of(cls, x: Tensor) -> _Matrix:
        return cls(x.data_ptr(), *x.stride())


@cache
def _compiled() -> Any:
    if not torch.backends.mkl.is_available() or not mkl_holds_back():
        return None
    made = library(SOURCE)
    if made is None or made.lanes() < WIDE:
        return None
    made.multiply_floats.restype = ctypes.c_int64
    return made


def mkl_holds_back() -> bool:
    """Whether this processor has vectors of 512 bits that MKL does not use."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not PROCESSORS.is_file():
        return False
    return "GenuineIntel" not in PROCESSORS.read_text()


def fits(*tensors: Tensor) -> bool:
    """Whether there is compiled code for these, and worth it."""
    return all(map(_is_plain, tensors)) and _compiled() is not None


def _is_plain(x: Tensor) -> bool:
    """Whether its numbers stand in memory as they are: no subclass with other ways, nothing sparse, no sign to come."""
    kind = type(x) in (Tensor, nn.Parameter) and x.layout is torch.strided and not x.is_neg()
    return kind and x.dtype == torch.float32 and x.device.type == "cpu"


def multiply(a: Tensor, b: Tensor, out: Tensor, *, onto: bool = False) -> Tensor:
    """`out = a @ b`, or with `onto` that much more, by torch where there is nothing better."""
    (rows, depth), columns = a.shape, b.shape[1]
    few = rows <= FEW and not onto and b.numel() >= LARGE and (a.stride(1), b.stride(0)) == (1, 1)
    many = min(rows, depth) >= WORTH and columns >= NARROW
    whole = out.is_contiguous() and len(b) == depth and out.shape == (rows, columns)
    if not (few or many) or not whole or not fits(a, b, out):
        return out.addmm_(a, b) if onto else torch.mm(a, b, out=out)
    operands = (ctypes.byref(_Matrix.of(x)) for x in (a, b))
    sizes = (ctypes.c_int64(size) for size in (rows, depth, columns))
    to, threads = ctypes.c_void_p(out.data_ptr()), torch.get_num_threads()
    if few:
        _compiled().multiply_few(*operands, *sizes, to, ctypes.c_int(threads))
        return out
    work = a.new_empty(_compiled().multiply_floats(ctypes.c_int64(threads)))
    at = ctypes.c_void_p(work.data_ptr())
    _compiled().multiply(*operands, *sizes, to, ctypes.c_int(onto), at, ctypes.c_int(threads))
    return out


def linear_of(module: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """A forward for a linear layer; None if it is more than that, or torch's is as good."""
    own = vars(module)
    if type(module) is not nn.Linear or "forward" in own or not fits(module.weight):
        return None

    def forward(input: Tensor) -> Tensor:  # the name that torch gives it
        bias = cast(Tensor | None, module.bias)
        given = (input, module.weight) if bias is None else (input, module.weight, bias)
        if not input.numel() or torch.is_autocast_enabled("cpu") or not fits(*given):
            return F.linear(*given)
        return cast(Tensor, _Linear.apply(*given))

    return forward


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        out = multiply(rows, weight.t(), x.new_empty(len(rows), len(weight)))
        # What came in is kept for the weight's gradient alone, which an adapter's base has none of.
        by_x, by_weight, *_ = ctx.needs_input_grad
        ctx.save_for_backward(rows if by_weight else None, weight if by_x or by_weight else None)
        return (out if bias is None else out.add_(bias)).view(*x.shape[:-1], len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        rows, weight = cast(tuple[Tensor | None, Tensor], ctx.saved_tensors)
        grad = grads[0].reshape(-1, grads[0].shape[-1])
        by_x, _, *by_bias = ctx.needs_input_grad
        dx = None
        if by_x:
            dx = multiply(grad, weight, grad.new_empty(len(grad), weight.shape[1])).view(*grads[0].shape[:-1], -1)
        dw = None if rows is None else gradient_of(weight, lambda dw: multiply(grad.t(), rows, dw, onto=True))
        return dx, dw, *(grad.sum(0) if wanted else None for wanted in by_bias)
