"""The features that predict completion tokens, taken out of the row in one pass and with one pass back.

Every branch token predicts the next one, the trunk's last token the first of each branch, and the rest of the trunk
nothing, nor what stands before the words of an environment. torch's own indexing would scatter the gradient token by
token, for fear of repeats; here they are known.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from groupwise.models.trees import PackedTrees


def predicting(features: Tensor, packed: PackedTrees) -> Tensor:
    """[tokens of the row, hidden] -> [completion tokens, hidden]."""
    return cast(Tensor, _Predicting.apply(features, packed))


class _Predicting(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, packed: PackedTrees) -> Tensor:
        ctx.packed, ctx.tokens = packed, len(features)
        return features.index_select(0, packed.sources_T)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        packed, (grad,) = cast(PackedTrees, ctx.packed), grads
        if not len(grad):
            return grad.new_zeros(ctx.tokens, *grad.shape[1:]), None
        predicts = torch.zeros(ctx.tokens, dtype=torch.long, device=grad.device)
        predicts[packed.sources_T] = torch.arange(len(grad), device=grad.device)
        back = grad.index_select(0, predicts)
        for span in packed.spans:
            back[span.trunk] = 0
        if len(packed.silent_T):
            back.index_fill_(0, packed.silent_T, 0)
        first = packed.first_B
        return back.index_add_(0, packed.sources_T[first], grad.index_select(0, first)), None
