"""Runs of tokens taken out of the packed row and put back: as a view where that is possible, else by index."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor


class Places:
    """Where some runs of tokens lie in the packed row.

    `padded` takes them as lines of one length, [lines, longest, ...], shorter ones filled up with their last token;
    `joined` takes them one behind the other, [tokens, ...]. Runs must not overlap, and none is empty.

    Example: with runs 0:3 and 3:5 of the row a b c d e, `padded` takes [[a b c], [d e e]], and puts back five tokens.
    """

    def __init__(self, runs: Sequence[slice], device: torch.device, *, padded: bool) -> None:
        lengths = [run.stop - run.start for run in runs]
        longest = max(lengths)
        self._shape = (len(runs), longest) if padded else (sum(lengths),)
        self._ragged = padded and min(lengths) < longest
        together = all(one.stop == other.start for one, other in pairwise(runs))
        self._view = slice(runs[0].start, runs[-1].stop) if together and not self._ragged else None
        if self._view is not None:
            return
        start, length = (torch.tensor(x)[:, None] for x in ([run.start for run in runs], lengths))
        column = torch.arange(longest)[None]
        self._hidden = (column >= length).to(device)
        real = ~self._hidden.cpu()
        index = start + torch.minimum(column, length - 1)
        self._places = index[real].to(device)
        self._real = real.flatten().nonzero()[:, 0].to(device)
        self._index = index.flatten().to(device) if padded else self._places

    @property
    def is_view(self) -> bool:
        """Whether what is taken is the row's own memory."""
        return self._view is not None

    def take(self, row: Tensor) -> Tensor:
        """[tokens of the row, ...] -> [lines, longest, ...] or [tokens, ...]."""
        taken = row[self._view] if self._view is not None else row.index_select(0, self._index)
        return taken.unflatten(0, self._shape)

    def take_lse(self, row: Tensor) -> Tensor:
        """As `take`, with infinity in the padding: exp(score - lse) is then 0, so padding pulls at nothing."""
        taken = self.take(row)
        return taken.masked_fill_(self._hidden[..., None], torch.inf) if self._ragged else taken

    def put(self, row: Tensor, taken: Tensor) -> None:
        """Write to the row what has the shape of what was taken; padding is left out."""
        if self._view is not None:
            row[self._view].unflatten(0, self._shape).copy_(taken)
        else:
            row.index_copy_(0, self._places, self._without_padding(taken))

    def add(self, row: Tensor, taken: Tensor) -> None:
        """As `put`, added to what is there."""
        if self._view is not None:
            row[self._view].unflatten(0, self._shape).add_(taken)
        else:
            row.index_add_(0, self._places, self._without_padding(taken))

    def _without_padding(self, taken: Tensor) -> Tensor:
        tokens = taken.flatten(0, len(self._shape) - 1)
        return tokens.index_select(0, self._real) if self._ragged else tokens
