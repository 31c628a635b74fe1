"""Logprobs over a large vocabulary, a tile of logits at a time, in fp32 on a CPU where there is a compiler (tiles.c).

A chunk of logits as wide as the vocabulary goes through memory once for every operation of a softmax, and most of the
time is theirs. A tile, some hundred logits of each token, stays in the processor's cache, and no more is kept of it
than the running maximum and sums of a token, as in FlashAttention (arXiv 2205.14135; over a vocabulary, 2411.09009).
The gradient of a logprob by its own features does not depend on the loss, so it comes with the forward pass; where the
head is trained, the backward pass computes the logits again, for its gradient.

    logprobs_T, entropies_T = scored(features_T, targets_T, policy.head, temperature=1.0, chunk=1024, with_entropy=True)
"""

# ruff: noqa: N803, N806 - axis letters; H is the width of the features, V the vocabulary

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from groupwise.maths.logprobs import chunked_logprobs
from groupwise.models.compiled import library
from groupwise.models.head import Head
from groupwise.models.products import multiply
from groupwise.models.tables import gradient_of

SOURCE = Path(__file__).with_name("tiles.c")
TOKENS, COLUMNS = 2048, 512
"""Of a tile: 4 MB. The matrix products are the faster, the more tokens they have."""
WORTH_TILES = 8 * COLUMNS
"""Tokens of the vocabulary; one that is smaller is no trouble at once."""


class _Seen(ctypes.Structure):
    """See tiles.c."""

    _fields_ = (
        *(("total", ctypes.c_double), ("weighted", ctypes.c_double)),
        *(("top", ctypes.c_float), ("chosen", ctypes.c_float)),
    )


@cache
def _compiled() -> Any:
    return library(SOURCE)


def scored(
    features_T: Tensor,
    targets_T: Tensor,
    head: Callable[[Tensor], Tensor],
    *,
    temperature: float,
    chunk: int,
    with_entropy: bool = False,
    entropy_gradient: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """What `chunked_logprobs` gives, the faster way where that can be gone."""
    if entropy_gradient or not isinstance(head, Head) or not _fits(features_T, head):
        return chunked_logprobs(
            features_T,
            targets_T,
            head,
            temperature=temperature,
            chunk=chunk,
            with_entropy=with_entropy,
            entropy_gradient=entropy_gradient,
        )
    weight, scale = cast(nn.Linear, head.projection).weight, head.scale / temperature
    differentiable = torch.is_grad_enabled() and (features_T.requires_grad or weight.requires_grad)
    logprobs_T, entropies_T = cast(
        tuple[Tensor, Tensor], _TiledLogprobs.apply(features_T, weight, targets_T, scale, differentiable)
    )
    return logprobs_T, entropies_T if with_entropy else None


def _fits(features_T: Tensor, head: Head) -> bool:
    own = vars(head.projection)
    plain = type(head.projection) is nn.Linear and [*own["_parameters"]] == ["weight", "bias"]
    if not plain or own["_parameters"]["bias"] is not None or head.cap is not None or "forward" in own:
        return False
    weight = own["_parameters"]["weight"]
    if own["_forward_hooks"] or own["_forward_pre_hooks"] or type(weight) is not nn.Parameter:
        return False
    at_hand = all(x.dtype == torch.float32 and x.device.type == "cpu" for x in (features_T, weight))
    return at_hand and len(weight) >= WORTH_TILES and _compiled() is not None


class _Tiles:
    """The logits of some tokens, a tile at a time, and what is known of each token so far."""

    def __init__(self, features_TH: Tensor, weight_VH: Tensor, targets_T: Tensor, scale: float) -> None:
        self.features_TH, self.weight_VH = features_TH.contiguous(), weight_VH
        self._targets_T, self._scale = targets_T.contiguous(), ctypes.c_float(scale)
        self._seen = (_Seen * max(len(targets_T), 1))(*[_Seen(top=-math.inf)] * len(targets_T))
        self._room = features_TH.new_empty(min(TOKENS, len(targets_T)) * COLUMNS)

    def all(self) -> Iterator[tuple[slice, slice, Tensor]]:
        """Tokens and columns of each, and its logits. What is done to them must be done before the next."""
        tokens, vocabulary = len(self.features_TH), len(self.weight_VH)
        for first in range(0, vocabulary, COLUMNS):
            columns = slice(first, min(first + COLUMNS, vocabulary))
            matrix_HC = self.weight_VH[columns].t()
            for start in range(0, tokens, TOKENS):
                rows = slice(start, min(start + TOKENS, tokens))
                shape = rows.stop - rows.start, columns.stop - columns.start
                tile = self._room[: shape[0] * shape[1]].view(shape)
                yield rows, columns, multiply(self.features_TH[rows], matrix_HC, tile)

    def observe(self, rows: slice, columns: slice, tile: Tensor, shrunk_T: Tensor | None) -> None:
        """Take this tile in. With `shrunk_T`, its logits become shares of the largest so far, and there it says what
        shares of tiles before it have to be multiplied by."""
        shrunk = None if shrunk_T is None else _at(shrunk_T[rows])
        _compiled().observe(*self._of(rows, columns, tile), shrunk, ctypes.c_int(torch.get_num_threads()))

    def pull(self, rows: slice, columns: slice, tile: Tensor, pull_T: Tensor) -> None:
        """Make of the logits the gradient by them, times the scale."""
        given = (*self._of(rows, columns, tile), _at(pull_T[rows]))
        _compiled().pulled(*given, ctypes.c_int(torch.get_num_threads()))

    def found(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of each token, once all tiles were observed: logprob, entropy, and what its shares add up to."""
        seen = np.ctypeslib.as_array(self._seen)[: len(self._targets_T)]
        names = ("chosen", "top", "total", "weighted")
        chosen, top, total, weighted = (torch.from_numpy(seen[name].astype(np.float64)) for name in names)
        normaliser = total.log()
        return (chosen - top - normaliser).float(), (normaliser - weighted / total).float(), total.float()

    def _of(self, rows: slice, columns: slice, tile: Tensor) -> tuple[Any, ...]:
        sizes = (ctypes.c_int64(n) for n in (*tile.shape, columns.start))
        seen = ctypes.byref(self._seen, rows.start * ctypes.sizeof(_Seen))
        return (_at(tile), *sizes, self._scale, _at(self._targets_T[rows]), seen)


class _TiledLogprobs(torch.autograd.Function):
    """Kept for the backward pass: the gradient of each logprob by its own features, and the sums of each token."""

    @staticmethod
    def forward(
        ctx: Any, features_TH: Tensor, weight_VH: Tensor, targets_T: Tensor, scale: float, differentiable: bool
    ) -> tuple[Tensor, Tensor]:
        tiles = _Tiles(features_TH, weight_VH, targets_T, scale)
        slopes_TH = torch.zeros_like(tiles.features_TH) if differentiable else None
        shrunk_T = features_TH.new_empty(len(targets_T)) if differentiable else None
        for rows, columns, tile in tiles.all():
            tiles.observe(rows, columns, tile, shrunk_T)
            if slopes_TH is not None and shrunk_T is not None:
                multiply(tile, weight_VH[columns], slopes_TH[rows].mul_(shrunk_T[rows, None]), onto=True)
        logprobs_T, entropies_T, total_T = tiles.found()
        if slopes_TH is not None:
            # scale (W[target] - sum of p W)
            slopes_TH.div_(-total_T[:, None]).add_(weight_VH[targets_T]).mul_(scale)
            ctx.save_for_backward(slopes_TH, features_TH, weight_VH)
            ctx.tiles, ctx.scale = tiles, scale
        ctx.mark_non_differentiable(entropies_T)
        return logprobs_T, entropies_T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        slopes_TH, _, weight_VH = cast(tuple[Tensor, Tensor, Tensor], ctx.saved_tensors)
        tiles, grad_T = cast(_Tiles, ctx.tiles), grads[0].contiguous()
        by_features = grad_T[:, None] * slopes_TH
        if not ctx.needs_input_grad[1]:
            return by_features, None, None, None, None
        pull_T = grad_T * ctx.scale

        def add(table_VH: Tensor) -> None:
            for rows, columns, tile in tiles.all():
                tiles.pull(rows, columns, tile, pull_T)
                multiply(tile.t(), tiles.features_TH[rows], table_VH[columns], onto=True)

        return by_features, gradient_of(weight_VH, add), None, None, None


def _at(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())
