"""Runs of tokens taken out of the packed row and put back: as a view where that is possible, else by index."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from groupwise.models.transfer import on_device


class Places:
    """Where some runs of tokens lie in the packed row, which is [1, heads, tokens, ...] here.

    `padded` takes them as lines of one length, [lines, heads, longest, ...], shorter ones filled up with their last
    token; otherwise they are joined, [1, heads, tokens, ...]. Runs do not overlap, and none is empty.

    Example: with runs 0:3 and 3:5 of the row a b c d e, `padded` takes a b c and d e e, and puts back five tokens.
    """

    def __init__(self, runs: Sequence[slice], device: torch.device, *, padded: bool) -> None:
        lengths = [run.stop - run.start for run in runs]
        longest, self._start, self._count = max(lengths), runs[0].start, sum(lengths)
        self._lines = len(runs) if padded else 1
        self._ragged = padded and min(lengths) < longest
        self.is_view = not self._ragged and all(one.stop == other.start for one, other in pairwise(runs))
        """Whether what is taken is the row's own memory."""
        if self.is_view:
            return
        start, length = torch.tensor([[run.start] for run in runs]), torch.tensor(lengths)[:, None]
        column = torch.arange(longest)[None]
        real = column < length
        index = start + torch.minimum(column, length - 1)
        self._hidden = on_device((~real)[:, None], device)
        self._real = on_device(real.flatten().nonzero()[:, 0], device)
        self._places = on_device(index[real], device)
        self._index = on_device(index.flatten(), device) if padded else self._places

    def take(self, row: Tensor) -> Tensor:
        """[1, heads, tokens, ...] -> [lines, heads, longest, ...] or [1, heads, joined, ...]."""
        if self.is_view:
            taken = row.narrow(2, self._start, self._count)
            return taken if self._lines == 1 else taken[0].unflatten(1, (self._lines, -1)).transpose(0, 1)
        taken = row[0].transpose(0, 1).index_select(0, self._index)
        return taken.unflatten(0, (self._lines, -1)).transpose(1, 2)

    def take_lse(self, row: Tensor) -> Tensor:
        """As `take`, with infinity in the padding: exp(score - lse) is then 0, so padding pulls at nothing."""
        taken = self.take(row)
        return taken.masked_fill(self._hidden, torch.inf) if self._ragged else taken

    def put(self, row: Tensor, taken: Tensor) -> None:
        """Write what has the shape of what was taken to its places in the row; padding is left out."""
        if self.is_view:
            self.take(row).copy_(taken)
        else:
            row[0].transpose(0, 1).index_copy_(0, self._places, self._tokens(taken).to(row.dtype))

    def add(self, row: Tensor, taken: Tensor) -> None:
        """As `put`, added to what is there."""
        if self.is_view:
            self.take(row).add_(taken)
        else:
            row[0].transpose(0, 1).index_add_(0, self._places, self._tokens(taken))

    def _tokens(self, taken: Tensor) -> Tensor:
        """[real tokens, heads, ...]."""
        tokens = taken.transpose(1, 2).flatten(0, 1)
        return tokens.index_select(0, self._real) if self._ragged else tokens
