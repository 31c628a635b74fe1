"""Trunk-and-branch attention by masks, for any device, any window and any cap: lines in padded blocks.

Lines of about the same size are attended to together, as a padded block with the keys of their trunk in front: many
small groups then cost few calls, and nobody but attention ever sees the padding. A sliding window counts positions, not
places in the row, so that a branch sees exactly what it would see if it stood behind its prompt alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from groupwise.models.attention import Terms, attend
from groupwise.models.transfer import on_device

WASTE = 1.25
"""A block may compute so many times the query-key pairs that its lines would need alone, ..."""
FREE = 1 << 14
"""... and this many pairs more: below that, one call more costs more than the pairs."""


@dataclass(frozen=True, slots=True)
class Line:
    """A run of tokens that attend to themselves, causally, and to all of what they follow (nothing, for a trunk)."""

    start: int
    length: int
    follows: int
    followed: int

    @property
    def pairs(self) -> int:
        """Query-key pairs, hidden ones included."""
        return self.length * (self.followed + self.length)


class _Block:
    """Lines as the rows of one attention call. A padded query repeats its line's last token; a padded key is hidden."""

    def __init__(self, lines: Sequence[Line], device: torch.device) -> None:
        longest, prefix = max(line.length for line in lines), max(line.followed for line in lines)
        start, length, follows, followed = (
            torch.tensor(column)[:, None]
            for column in zip(*((x.start, x.length, x.follows, x.followed) for x in lines), strict=True)
        )
        column = torch.arange(longest)[None]
        within_line = torch.minimum(column, length - 1)
        front = torch.arange(prefix)[None]
        queries, positions = start + within_line, followed + within_line
        real_front, real = front < followed, column < length
        self.places = on_device(queries[real], device)
        """Where in the row the outputs belong."""
        self._queries = on_device(queries, device)
        self._keys = on_device(torch.cat([follows + front * real_front, queries], 1), device)
        self._positions = on_device(positions, device)
        self._key_positions = on_device(torch.cat([front.expand(len(lines), -1), followed + column], 1), device)
        self._key_real = on_device(torch.cat([real_front, real], 1), device)
        self._real = on_device(real.flatten().nonzero()[:, 0], device)
        """As numbers: what a mask takes out, a GPU would have to count first."""
        self._plain = prefix == 0
        self._reach = longest + prefix
        self._masks: dict[int | None, Tensor | None] = {}

    def attend(self, query: Tensor, key: Tensor, value: Tensor, terms: Terms) -> Tensor:
        """[tokens, heads, dim] of the packed row -> [real tokens of the block, heads, dim]."""
        q = _taken(query, self._queries).transpose(1, 2)
        k, v = (_taken(x, self._keys).transpose(1, 2) for x in (key, value))
        out = attend(q, k, v, self._visible(terms.window), terms).transpose(1, 2)
        return out.flatten(0, 1).index_select(0, self._real)

    def _visible(self, window: int | None) -> Tensor | None:
        """[lines, 1, queries, keys]; `None` where causality alone says it, which also hides padding at the end."""
        if window is not None and window >= self._reach:
            window = None
        if window not in self._masks:
            self._masks[window] = None if self._plain and window is None else self._mask(window)
        return self._masks[window]

    def _mask(self, window: int | None) -> Tensor:
        distance = self._positions[:, None, :, None] - self._key_positions[:, None, None, :]
        visible = (distance >= 0) & self._key_real[:, None, None, :]
        return visible if window is None else visible & (distance < window)


def _taken(x: Tensor, places: Tensor) -> Tensor:
    """`x[places]`, whose gradient is the same every time: indexed, threads add to a key in whatever order they come."""
    return x.index_select(0, places.flatten()).unflatten(0, places.shape)


class Blocks:
    """All lines of a row, which they tile."""

    def __init__(self, lines: Sequence[Line], device: torch.device) -> None:
        self._blocks = [_Block(block, device) for block in _blocks(lines)]
        self._order = torch.cat([block.places for block in self._blocks]).argsort()

    def attend(self, query: Tensor, key: Tensor, value: Tensor, terms: Terms) -> Tensor:
        """[tokens, heads, dim] of the row, keys and values with their own heads -> [tokens, heads, dim]."""
        return torch.cat([block.attend(query, key, value, terms) for block in self._blocks])[self._order]


def _blocks(lines: Sequence[Line]) -> list[list[Line]]:
    """Lines of about the same size together: sorted, and a new block wherever padding would cost too much."""
    blocks: list[list[Line]] = []
    needed = prefix = 0
    for line in sorted(lines, key=lambda line: (line.followed > 0, line.length, line.followed)):
        needed, prefix = needed + line.pairs, max(prefix, line.followed)
        # Sorted by length, so the newest line is the longest.
        padded = (len(blocks[-1]) + 1) * line.length * (prefix + line.length) if blocks else 0
        same_kind = bool(blocks) and (blocks[-1][0].followed > 0) == (line.followed > 0)
        if same_kind and padded <= WASTE * needed + FREE:
            blocks[-1].append(line)
        else:
            blocks.append([line])
            needed, prefix = line.pairs, line.followed
    return blocks
