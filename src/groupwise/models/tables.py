"""Gradients of a vocabulary's tables, added up where they belong: of the embedding, and of a head, tied to it or not.

Autograd hands a gradient over as a tensor of the parameter's shape, once for every use in every micro-batch, and adds
it to `.grad` then. Of a table of a hundred thousand rows most rows are zeros, or the tensor is as large as all else
together; with a tied table there are two of them. While `adding_up()`, whoever computes such a gradient adds it to
`.grad` and hands over nothing; otherwise, as for `torch.autograd.grad`, all is as usual.

    with adding_up():
        loss.backward()
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_ADDING_UP: ContextVar[bool] = ContextVar("_ADDING_UP", default=False)


@contextmanager
def adding_up() -> Generator[None]:
    """Inside, a backward pass is one whose gradients are to be found in `.grad`, where they are added up."""
    token = _ADDING_UP.set(True)
    try:
        yield
    finally:
        _ADDING_UP.reset(token)


def gradient_of(parameter: Tensor, add: Callable[[Tensor], object]) -> Tensor | None:
    """What a backward pass returns for a parameter. `add` adds the gradient to the tensor that it is given.

    Example: `return gradient_of(weight, lambda table: table.addmm_(grad.t(), x))`
    """
    if not _ADDING_UP.get() or not isinstance(parameter, nn.Parameter) or _is_watched(parameter):
        table = torch.zeros_like(parameter)
        add(table)
        return table
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    add(parameter.grad)
    return None


def _is_watched(parameter: nn.Parameter) -> bool:
    """By hooks, which see what autograd hands over."""
    known = cast(Any, parameter)
    return bool(known._backward_hooks) or bool(known._post_accumulate_grad_hooks)


def rows_of(module: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """A forward for an embedding whose gradient touches only the rows that were asked for; None if it is more than a
    plain table."""
    if type(module) is not nn.Embedding or module.max_norm is not None or module.scale_grad_by_freq or module.sparse:
        return None

    def forward(ids: Tensor) -> Tensor:
        weight = module.weight
        exact = weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.float64)
        if not (exact and weight.requires_grad and torch.is_grad_enabled()):
            return F.embedding(ids, weight, module.padding_idx)
        return cast(Tensor, _Rows.apply(ids, weight, module.padding_idx))

    return forward


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight_VH: Tensor, padding: int | None) -> Tensor:  # noqa: N803 - axes
        ctx.save_for_backward(ids, weight_VH)
        ctx.padding = padding
        return F.embedding(ids, weight_VH)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        ids, weight_VH = cast(tuple[Tensor, Tensor], ctx.saved_tensors)  # noqa: N806
        ids_T, grad_TH = ids.reshape(-1), grads[0].reshape(-1, weight_VH.shape[1])  # noqa: N806
        if ctx.padding is not None:
            grad_TH = grad_TH.masked_fill((ids_T == ctx.padding)[:, None], 0)  # noqa: N806
        return None, gradient_of(weight_VH, lambda table: table.index_add_(0, ids_T, grad_TH)), None
