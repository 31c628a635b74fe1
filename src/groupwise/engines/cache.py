"""Keys and values while decoding: each prompt's once per group, and each completion's own.

Rows are completions in the making; slots are their prompts. Rows of a slot stand together, slots in order, and both
shrink as completions finish. A query is scored against its trunk and its branch with two matrix products and one
softmax, so no key or value is copied or concatenated to decode a token.

Time is a column: a step writes the new key of every row into the same column, whenever the row began. That is one
copy for all rows, and no row's length is needed on the way.

    row 0   k k k k k k
    row 1   k k k k k k          both began in column 0
    row 2   . . . k k k          joined in column 3; what stands before is hidden from it
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from groupwise.engines.holding import Batch
from groupwise.models.attention import Terms, softmax
from groupwise.models.transfer import on_device

_ROOM = 64
"""Columns are added so many at a time, or by a quarter."""


class Views(NamedTuple):
    """One layer's keys and values as a step multiplies them."""

    trunk_keys: Tensor  # [kv heads * slots, dim, longest prompt]
    trunk_values: Tensor  # [kv heads * slots, longest prompt, dim]
    branch_keys: Tensor  # [kv heads * rows, dim, columns]
    branch_values: Tensor  # [kv heads * rows, columns, dim]

    @classmethod
    def of(cls, trunk_keys: Tensor, trunk_values: Tensor, branch_keys: Tensor, branch_values: Tensor) -> Views:
        """Blocks of [kv heads, slots or rows, tokens, dim]."""
        return cls(
            trunk_keys.flatten(0, 1).transpose(1, 2),
            trunk_values.flatten(0, 1),
            branch_keys.flatten(0, 1).transpose(1, 2),
            branch_values.flatten(0, 1),
        )


class BranchCache:
    """The layout of a decode step: one new token in each row.

    Example: `cache.admit(trunks, rows=[8, 8])`, then per token `cache.begin()` and a forward with `layout=cache`;
    `cache.keep(index)` when rows have finished.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._trunks: dict[nn.Module, tuple[Tensor, Tensor]] = {}  # [kv heads, slots, longest prompt, dim]
        self._branches: dict[nn.Module, tuple[Tensor, Tensor]] = {}  # [kv heads, rows, room, dim]
        self._views: dict[nn.Module, Views] = {}
        self._open: dict[nn.Module, tuple[Tensor, Tensor]] = {}
        """The open column's keys and values: [rows, kv heads, dim]."""
        self._trunk_lengths: list[int] = []  # by slot
        self._slots: list[int] = []  # of each row
        self._starts: list[int] = []  # column of each row's first token
        self._columns = 0
        self._hidden: dict[int | None, Tensor | None] = {}
        self._arrange()

    @property
    def positions(self) -> Tensor:
        """Position of each row's newest token."""
        return self._origins + self._newest

    @property
    def _newest(self) -> int | Tensor:
        """The column that is open."""
        return self._columns - 1

    @property
    def _width(self) -> int:
        """How many columns a step reads."""
        return self._columns

    def _room(self, columns: int) -> int:
        """How many there shall be beside so many that are used."""
        return columns + _ROOM

    @staticmethod
    def tokens_for(batch: Batch) -> int:
        """Tokens that there is room for once such a batch is full: prompts once, branches with room for more."""
        return batch.prompts * batch.prompt + batch.rows * room_for(batch.completion)

    def admit(self, trunks: dict[nn.Module, list[tuple[Tensor, Tensor]]], rows: Sequence[int]) -> None:
        """Add prompts, with their keys and values by layer [1, kv heads, tokens, dim], and `rows[i]` rows for each."""
        first = len(self._trunk_lengths)
        self._trunk_lengths += [key.shape[2] for key, _ in next(iter(trunks.values()))]
        self._slots += [first + i for i, n in enumerate(rows) for _ in range(n)]
        self._starts += [self._columns] * sum(rows)
        self._arrange()
        room = self._room(self._columns)
        for layer, pairs in trunks.items():
            kept = self._trunks.get(layer, (None, None))
            stacked = _stack(kept[0], [k for k, _ in pairs]), _stack(kept[1], [v for _, v in pairs])
            old = self._branches.get(layer, (None, None))
            fresh = (pairs[0][i].new_zeros(pairs[0][i].shape[1], sum(rows), room, pairs[0][i].shape[3]) for i in (0, 1))
            keys, values = (
                new if kept is None else torch.cat([_widened(kept[:, :, : self._columns], room), new], 1)
                for kept, new in zip(old, fresh, strict=True)
            )
            self._hold(layer, (keys, values), stacked)

    def keep(self, index: Sequence[int]) -> None:
        """Keep only these rows (in order), the slots that still have one, and the columns that one of them uses."""
        slots = sorted({self._slots[i] for i in index})
        first = min((self._starts[i] for i in index), default=self._columns)
        which, used = self._integers(index), slice(first, self._columns)
        remaining = self._integers(slots) if len(slots) < len(self._trunk_lengths) else None
        self._trunk_lengths = [self._trunk_lengths[slot] for slot in slots]
        self._slots = [slots.index(self._slots[i]) for i in index]
        self._starts = [self._starts[i] - first for i in index]
        self._columns -= first
        self._arrange()
        room, longest = self._room(self._columns), max(self._trunk_lengths, default=0)
        for layer, (keys, values) in self._branches.items():
            keys, values = (_widened(x[:, :, used].index_select(1, which), room) for x in (keys, values))
            if remaining is None:
                self._hold(layer, (keys, values))
                continue
            trunk_keys, trunk_values = (x[:, :, :longest].index_select(1, remaining) for x in self._trunks[layer])
            self._hold(layer, (keys, values), (trunk_keys, trunk_values))

    def begin(self) -> None:
        """Open the next column."""
        self._columns += 1
        self._hidden.clear()
        for layer, (keys, values) in self._branches.items():
            if self._columns > keys.shape[2]:
                room = _grown(self._columns)
                self._hold(layer, (_widened(keys, room), _widened(values, room)))
        # All layers' views at once: the same few operations after one another cost a third of what they cost in turn
        # with everything else.
        used, newest = slice(0, self._columns), self._columns - 1
        for layer, (keys, values) in self._branches.items():
            self._views[layer] = Views.of(*self._trunks[layer], keys[:, :, used], values[:, :, used])
            self._open[layer] = keys[:, :, newest].transpose(0, 1), values[:, :, newest].transpose(0, 1)

    def _hold(
        self, layer: nn.Module, branches: tuple[Tensor, Tensor], trunks: tuple[Tensor, Tensor] | None = None
    ) -> None:
        """From now on these are the layer's: branches [kv heads, rows, room, dim], and trunks, unless they are as they
        were."""
        self._branches[layer] = branches
        if trunks is not None:
            self._trunks[layer] = trunks

    def attend(self, layer: nn.Module, query: Tensor, key: Tensor, value: Tensor, terms: Terms) -> Tensor:
        """See `Layout`. One token per row: [rows, heads, 1, dim]."""
        views = self._views[layer]
        rows, heads, kv_heads = self._rows, query.shape[1], key.shape[1]
        repeats, prompt = heads // kv_heads, views.trunk_values.shape[1]
        self._write(layer, key, value)
        q = query if terms.scaling == 1 else query * terms.scaling
        q = q.reshape(rows, kv_heads, repeats, -1).transpose(0, 1).reshape(kv_heads * rows, repeats, -1)
        on_trunk = self._by_row(torch.bmm(self._by_slot(q, kv_heads), views.trunk_keys), q)
        scores = torch.cat([on_trunk, torch.bmm(q, views.branch_keys)], -1)
        if terms.softcap is not None:
            scores = torch.tanh(scores / terms.softcap) * terms.softcap
        if (hidden := self._what_is_hidden(terms.window)) is not None:
            scores.view(kv_heads, rows, repeats, -1).masked_fill_(hidden, float("-inf"))
        weights = softmax(scores).to(value.dtype)
        of_trunk = torch.bmm(self._by_slot(weights[..., :prompt], kv_heads), views.trunk_values)
        out = torch.baddbmm(self._by_row(of_trunk, q), weights[..., prompt:], views.branch_values)
        # One key head for each query head leaves the axes turned, and models take a `view` of this.
        return out.view(kv_heads, rows, repeats, -1).transpose(0, 1).reshape(rows, 1, heads, -1).contiguous()

    def _write(self, layer: nn.Module, key: Tensor, value: Tensor) -> None:
        """Into the open column: [rows, kv heads, 1, dim]."""
        new_key, new_value = self._open[layer]
        new_key.copy_(key[:, :, 0])
        new_value.copy_(value[:, :, 0])

    def _by_slot(self, x: Tensor, kv_heads: int) -> Tensor:
        """[kv heads * rows, repeats, n] -> [kv heads * slots, rows of a slot * repeats, n]; gaps are filled up with
        copies of row 0."""
        repeats = x.shape[1]
        if self._filled is not None:
            x = x.unflatten(0, (kv_heads, -1)).index_select(1, self._filled)
        return x.reshape(-1, self._most * repeats, x.shape[-1])

    def _by_row(self, x: Tensor, like: Tensor) -> Tensor:
        """Back again."""
        repeats = like.shape[1]
        if self._places is not None:
            kv_heads = like.shape[0] // self._rows
            x = x.view(kv_heads, -1, repeats, x.shape[-1]).index_select(1, self._places)
        return x.reshape(like.shape[0], repeats, x.shape[-1])

    def _what_is_hidden(self, window: int | None) -> Tensor | None:
        """[rows, 1, longest prompt + columns] what a row's new token must not see; `None` if it sees everything."""
        if window is not None and window >= self._widest + self._width:
            window = None
        if window not in self._hidden:
            self._hidden[window] = self._mask(window) if self._is_ragged or window is not None else None
        return self._hidden[window]

    def _mask(self, window: int | None) -> Tensor:
        trunk = torch.arange(self._widest, device=self._device)[None]
        columns = torch.arange(self._width, device=self._device)[None]
        hidden_trunk = trunk >= self._lengths_of_rows
        hidden_branch = self._without_token(columns)
        if window is not None:
            hidden_trunk = hidden_trunk | (self.positions[:, None] - trunk >= window)
            hidden_branch = hidden_branch | (self._newest - columns >= window)
        return torch.cat([hidden_trunk, hidden_branch], 1)[:, None]

    def _without_token(self, columns: Tensor) -> Tensor:
        """[rows, columns] where a row has none."""
        return columns < self._starts_of_rows

    def _arrange(self) -> None:
        """What follows from which rows there are."""
        counts = [self._slots.count(slot) for slot in range(len(self._trunk_lengths))]
        self._rows, self._most = len(self._slots), max(counts, default=0)
        self._widest = max(self._trunk_lengths, default=0)
        self._is_ragged = min(self._trunk_lengths, default=0) < self._widest or max(self._starts, default=0) > 0
        starts, lengths = self._integers(self._starts), self._integers([self._trunk_lengths[s] for s in self._slots])
        self._origins = lengths - starts
        self._starts_of_rows, self._lengths_of_rows = starts[:, None], lengths[:, None]
        self._hidden.clear()
        self._places = self._filled = None
        if len(self._slots) < len(counts) * self._most:  # slots have lost different numbers of rows
            places, filled = grid(counts, self._most)
            self._places, self._filled = self._integers(places), self._integers(filled)

    def _integers(self, values: Sequence[int]) -> Tensor:
        return on_device(values, self._device, torch.long)


def grid(counts: Sequence[int], most: int) -> tuple[list[int], list[int]]:
    """For rows that stand slot by slot, `counts[i]` in slot i: the place of each in a grid of `most` a slot, and the
    row of each place; gaps have row 0.

    Example: `grid([1, 2], 2)` is `([0, 2, 3], [0, 0, 1, 2])`.
    """
    places = [slot * most + i for slot, n in enumerate(counts) for i in range(n)]
    filled = [0] * (len(counts) * most)
    for row, place in enumerate(places):
        filled[place] = row
    return places, filled


def room_for(columns: int) -> int:
    """The columns that there are once so many are used."""
    room = _ROOM
    while room < columns:
        room = _grown(room + 1)
    return room


def _grown(columns: int) -> int:
    return columns + max(_ROOM, columns // 4)


def _stack(kept: Tensor | None, trunks: Sequence[Tensor]) -> Tensor:
    """Prompts of different length as one block [kv heads, slots, longest, dim], zero behind the shorter ones."""
    blocks = (
        [trunk.transpose(0, 1) for trunk in trunks] if kept is None else [kept, *(t.transpose(0, 1) for t in trunks)]
    )
    longest = max(block.shape[2] for block in blocks)
    return torch.cat([_widened(block, longest) for block in blocks], 1)


def _widened(block: Tensor, room: int) -> Tensor:
    """With room for so many tokens, zero where there is none yet: what is hidden must still be a number."""
    return torch.nn.functional.pad(block, (0, 0, 0, room - block.shape[2])) if room > block.shape[2] else block
