"""Keys and values in pages of 32 tokens, for native.c: a prompt's pages once per group, and each row's own.

A page has all layers. When a row is dropped its pages go back to be used again: no key is ever copied, rooms never grow
and memory follows the tokens that are alive. (Pages as in PagedAttention, arXiv 2309.06180.)

    slot 0   [32 tokens][32][ 9 . .]           read by all rows of the slot
    row 0        [32][ 3 . .]                  what it has drawn
    row 1        [32][ 3 . .]
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

PANEL = 32
"""Tokens of a page, and columns of a panel: native.c's PANEL."""


class Pages:
    """The tables that native.c walks along.

    Example: `pages.admit(trunks, rows=[8, 8])`, then per token `pages.begin()`, a step, `pages.end()`;
    `pages.keep(index)` when rows have finished.
    """

    def __init__(self, layers: int, kv_heads: int, dim: int) -> None:
        self._size = layers * kv_heads * PANEL * (dim + padded(dim))
        self._pools: list[Tensor] = []
        self._free: list[int] = []
        self._trunks: list[Tensor] = []
        self._branches: list[list[int]] = []
        """Addresses of each row's pages."""
        self._slots: list[int] = []
        self.trunk_lengths = _integers([])
        self.branch_lengths = _integers([])
        self._arrange()

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def bytes(self) -> int:
        """Of a page."""
        return 4 * self._size

    def admit(self, trunks: Sequence[Sequence[tuple[Tensor, Tensor]]], rows: Sequence[int]) -> None:
        """Add prompts, given by layer and prompt as keys and values [1, kv heads, tokens, dim], and `rows[i]` rows for
        each."""
        first = len(self._trunks)
        self._trunks += [_paged([layer[i] for layer in trunks]) for i in range(len(rows))]
        lengths = [key.shape[2] for key, _ in trunks[0]]
        self.trunk_lengths = np.concatenate([self.trunk_lengths, _integers(lengths)])
        self.branch_lengths = np.concatenate([self.branch_lengths, _integers([0] * sum(rows))])
        self._slots += [first + i for i, n in enumerate(rows) for _ in range(n)]
        self._branches += [[] for _ in range(sum(rows))]
        self._arrange()

    def keep(self, index: Sequence[int]) -> None:
        """Keep only these rows (in order), and the slots that still have one."""
        kept = set(index)
        self._free += [page for row, pages in enumerate(self._branches) if row not in kept for page in pages]
        slots = sorted({self._slots[i] for i in index})
        self._trunks = [self._trunks[slot] for slot in slots]
        self.trunk_lengths = self.trunk_lengths[_integers(slots)]
        self.branch_lengths = self.branch_lengths[_integers(index)]
        self._branches = [self._branches[i] for i in index]
        self._slots = [slots.index(self._slots[i]) for i in index]
        if not index:
            self._pools, self._free = [], []
        self._arrange()

    def begin(self) -> bool:
        """See that every row has a place for its next token. Whether tables have moved."""
        full = np.flatnonzero(self.branch_lengths % PANEL == 0)
        if not len(full):
            return False
        for row in full.tolist():
            self._branches[row].append(self._page())
        self._arrange()
        return True

    def end(self) -> None:
        """Every row has one token more."""
        self.branch_lengths += 1

    @property
    def tokens(self) -> int:
        """The most tokens of any row, trunk and branch each rounded up to whole pages."""
        return PANEL * (self.trunk_pages.shape[1] + self.branch_pages.shape[1])

    def _page(self) -> int:
        if not self._free:
            pool = torch.empty(max(len(self), 8), self._size, dtype=torch.float32, device="cpu")
            self._pools.append(pool)
            self._free = [pool.data_ptr() + 4 * self._size * i for i in reversed(range(len(pool)))]
        return self._free.pop()

    def _arrange(self) -> None:
        """The tables, anew."""
        trunks = [[pages.data_ptr() + 4 * self._size * i for i in range(len(pages))] for pages in self._trunks]
        self.trunk_pages, self.branch_pages = _table(trunks), _table(self._branches)
        self.slot_of = _integers(self._slots)
        self.first_row = np.searchsorted(self.slot_of, np.arange(len(self._trunks) + 1)).astype(np.int64)


def padded(columns: int) -> int:
    """Rounded up to whole panels."""
    return -(-columns // PANEL) * PANEL


def _integers(values: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, dtype=np.int64)


def _table(rows: Sequence[Sequence[int]]) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    table = np.zeros((len(rows), max(map(len, rows), default=0)), dtype=np.int64)
    for row, entries in zip(table, rows, strict=True):
        row[: len(entries)] = entries
    return table


def _paged(layers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """A prompt's keys and values by layer -> [pages, floats of a page]."""
    parts = [part for key, value in layers for part in (_key_pages(key[0].float()), _value_pages(value[0].float()))]
    return torch.cat(parts, 1)


def _key_pages(key: Tensor) -> Tensor:
    """[kv heads, tokens, dim] -> [pages, kv heads * dim * PANEL]."""
    key = F.pad(key, (0, 0, 0, padded(key.shape[1]) - key.shape[1])).unflatten(1, (-1, PANEL))
    return key.permute(1, 0, 3, 2).flatten(1)


def _value_pages(value: Tensor) -> Tensor:
    """[kv heads, tokens, dim] -> [pages, kv heads * panels of dim * tokens * PANEL]."""
    tokens, dim = value.shape[1:]
    value = F.pad(value, (0, padded(dim) - dim, 0, padded(tokens) - tokens))
    return value.unflatten(1, (-1, PANEL)).unflatten(3, (-1, PANEL)).permute(1, 0, 3, 2, 4).flatten(1)
