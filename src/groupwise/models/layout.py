"""Trunk-and-branch attention over a packed row, for the learner and for the engine's prefill.

    trunk token   sees the tokens of its trunk up to itself
    branch token  sees its whole trunk, and the tokens of its own branch up to itself

Trunks and branches are *lines*. Lines of about the same size are attended to together, as a padded block: many small
groups then cost few calls, and nobody but attention ever sees the padding. A sliding window counts positions, not
places in the row, so that a branch sees exactly what it would see if it stood behind its prompt alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from groupwise.models.attention import Terms, attend
from groupwise.models.trees import PackedTrees, Span

WASTE = 1.25
"""A block may compute so many times the query-key pairs that its lines would need alone, ..."""
FREE = 1 << 14
"""... and this many pairs more: below that, one call more costs more than the pairs."""


@dataclass(frozen=True, slots=True)
class _Line:
    """A run of tokens that attend to themselves, causally, and to all of what they follow (nothing, for a trunk)."""

    start: int
    length: int
    follows: int
    followed: int

    @property
    def pairs(self) -> int:
        return self.length * (self.followed + self.length)


class _Block:
    """Lines as the rows of one attention call. A padded query repeats its line's last token; a padded key is hidden."""

    def __init__(self, lines: Sequence[_Line], device: torch.device) -> None:
        longest, prefix = max(line.length for line in lines), max(line.followed for line in lines)
        start, length, follows, followed = (
            torch.tensor(column)[:, None]
            for column in zip(*((x.start, x.length, x.follows, x.followed) for x in lines), strict=True)
        )
        column = torch.arange(longest)[None]
        within_line = torch.minimum(column, length - 1)
        front = torch.arange(prefix)[None]
        queries, positions = start + within_line, followed + within_line
        real_front, self._real = front < followed, column < length
        self.places = queries[self._real].to(device)
        """Where in the row the outputs belong."""
        self._queries = queries.to(device)
        self._keys = torch.cat([follows + front * real_front, queries], 1).to(device)
        self._positions = positions.to(device)
        self._key_positions = torch.cat([front.expand(len(lines), -1), followed + column], 1).to(device)
        self._key_real = torch.cat([real_front, self._real], 1).to(device)
        self._real = self._real.to(device)
        self._plain = prefix == 0
        self._reach = longest + prefix
        self._masks: dict[int | None, Tensor | None] = {}

    def attend(self, query: Tensor, key: Tensor, value: Tensor, terms: Terms) -> Tensor:
        """[tokens, heads, dim] of the packed row -> [real tokens of the block, heads, dim]."""
        q = query[self._queries].transpose(1, 2)
        k, v = key[self._keys].transpose(1, 2), value[self._keys].transpose(1, 2)
        return attend(q, k, v, self._visible(terms.window), terms).transpose(1, 2)[self._real]

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


class PackedLayout:
    """The layout of `PackedTrees`. One object serves one forward and its backward (checkpointing may call it again).

    `on_trunk` is told each layer's keys and values of every trunk, [1, kv heads, tokens, dim]: the engine keeps them.
    """

    def __init__(
        self, packed: PackedTrees, on_trunk: Callable[[nn.Module, int, Tensor, Tensor], None] | None = None
    ) -> None:
        self._spans = packed.spans
        self._on_trunk = on_trunk
        self._blocks = [_Block(lines, packed.ids.device) for lines in _blocks(_lines(packed.spans))]
        self._order = torch.cat([block.places for block in self._blocks]).argsort()
        self.heard: list[tuple[nn.Module, int | None]] = []
        """The layers that attended, in turn, each with the window that it named."""

    def attend(self, layer: nn.Module, query: Tensor, key: Tensor, value: Tensor, terms: Terms) -> Tensor:
        """See `Layout`. The row is [1, heads, tokens, dim]."""
        self.heard.append((layer, terms.window))
        if self._on_trunk is not None:
            for index, span in enumerate(self._spans):
                self._on_trunk(layer, index, key[:, :, span.trunk], value[:, :, span.trunk])
        q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
        return torch.cat([block.attend(q, k, v, terms) for block in self._blocks])[self._order][None]


def _lines(spans: Sequence[Span]) -> list[_Line]:
    lines: list[_Line] = []
    for span in spans:
        trunk = _Line(span.trunk.start, span.trunk.stop - span.trunk.start, 0, 0)
        branches = (slice_ for slice_ in span.branches if slice_.stop > slice_.start)
        lines += [trunk, *(_Line(b.start, b.stop - b.start, trunk.start, trunk.length) for b in branches)]
    return lines


def _blocks(lines: Sequence[_Line]) -> list[list[_Line]]:
    """Lines of about the same size together: sorted, and a new block wherever padding would cost too much."""
    blocks: list[list[_Line]] = []
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
