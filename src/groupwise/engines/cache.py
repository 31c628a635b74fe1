"""Keys and values while decoding: each prompt's once per group, and each completion's own.

Rows are completions in the making; slots are their prompts. Rows of a slot stand together, slots in order, and both
shrink as completions finish. A query is scored against its trunk and its branch with two matrix products and one
softmax, so no key or value is ever copied or concatenated to decode a token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from groupwise.models.attention import Terms, softmax

_GROWTH = 64
"""Branch room is added in steps of so many tokens, doubling."""


class BranchCache:
    """The layout of a decode step: one new token in each row.

    Example: `cache.admit(trunks, rows=[8, 8])`, then per token `cache.begin()`, a forward with `layout=cache`,
    `cache.advance(open_B)`; `cache.keep(index)` when rows have finished.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._trunks: dict[nn.Module, tuple[Tensor, Tensor]] = {}  # [slots, kv heads, longest prompt, dim]
        self._branches: dict[nn.Module, tuple[Tensor, Tensor]] = {}  # [rows, kv heads, room, dim]
        self._trunk_lengths = torch.empty(0, dtype=torch.long, device=device)  # [slots]
        self._slots = torch.empty(0, dtype=torch.long, device=device)  # [rows]
        self.lengths = torch.empty(0, dtype=torch.long, device=device)
        """Tokens in each row's branch."""
        self._longest = 0
        self._masks: dict[int | None, Tensor] = {}
        self._places: Tensor | None = None
        self._most = 0

    @property
    def positions(self) -> Tensor:
        """Position of the next token of each row."""
        return self._trunk_lengths[self._slots] + self.lengths

    def admit(self, trunks: dict[nn.Module, list[tuple[Tensor, Tensor]]], rows: Sequence[int]) -> None:
        """Add prompts, with their keys and values by layer [1, kv heads, tokens, dim], and `rows[i]` rows for each."""
        old_slots, old_rows = len(self._trunk_lengths), len(self._slots)
        for layer, pairs in trunks.items():
            kept = self._trunks.get(layer)
            self._trunks[layer] = (
                _stack(None if kept is None else kept[0], [key for key, _ in pairs]),
                _stack(None if kept is None else kept[1], [value for _, value in pairs]),
            )
            room = self._branches[layer][0].shape[2] if layer in self._branches else _GROWTH
            fresh = (sum(rows), pairs[0][0].shape[1], room, pairs[0][0].shape[3])
            empty = pairs[0][0].new_zeros(fresh), pairs[0][1].new_zeros((*fresh[:3], pairs[0][1].shape[3]))
            if layer in self._branches:
                empty = tuple(torch.cat([a, b]) for a, b in zip(self._branches[layer], empty, strict=True))
            self._branches[layer] = (empty[0], empty[1])
        lengths = [pair[0].shape[2] for pair in next(iter(trunks.values()))]
        self._trunk_lengths = torch.cat([self._trunk_lengths, torch.tensor(lengths, device=self._device)])
        slots = torch.arange(old_slots, old_slots + len(rows), device=self._device)
        self._slots = torch.cat([self._slots, slots.repeat_interleave(torch.tensor(rows, device=self._device))])
        self.lengths = torch.cat([self.lengths, self.lengths.new_zeros(len(self._slots) - old_rows)])
        self._arrange()

    def keep(self, index: Tensor) -> None:
        """Keep only these rows (in order), and only the slots that still have one."""
        slots, self._slots = torch.unique_consecutive(self._slots[index], return_inverse=True)
        self.lengths = self.lengths[index]
        self._longest = int(self.lengths.max()) if len(self.lengths) else 0
        for layer, (keys, values) in self._branches.items():
            self._branches[layer] = (keys[index], values[index])
        if len(slots) < len(self._trunk_lengths):
            self._trunk_lengths = self._trunk_lengths[slots]
            longest = int(self._trunk_lengths.max()) if len(slots) else 0
            for layer, (keys, values) in self._trunks.items():
                self._trunks[layer] = (keys[slots, :, :longest], values[slots, :, :longest])
        self._arrange()

    def begin(self) -> None:
        """Make room for one more token in every row."""
        self._longest += 1
        self._masks.clear()
        for layer, (keys, values) in self._branches.items():
            if self._longest > keys.shape[2]:
                self._branches[layer] = (_doubled(keys), _doubled(values))

    def advance(self, open_B: Tensor) -> None:
        """Count the token that the forward has just stored, in the rows that go on. In the others the next token will
        take its place: a row that is over must not run past the model's last position."""
        self.lengths = self.lengths + open_B

    def attend(self, layer: nn.Module, query: Tensor, key: Tensor, value: Tensor, terms: Terms) -> Tensor:
        """See `Layout`. One token per row: [rows, heads, 1, dim]."""
        branch_keys, branch_values = self._branches[layer]
        rows = torch.arange(len(self._slots), device=self._device)
        branch_keys[rows, :, self.lengths] = key[:, :, 0]
        branch_values[rows, :, self.lengths] = value[:, :, 0]
        branch_keys, branch_values = branch_keys[:, :, : self._longest], branch_values[:, :, : self._longest]
        trunk_keys, trunk_values = self._trunks[layer]
        heads, kv_heads = query.shape[1], key.shape[1]
        q = (query[:, :, 0] * terms.scaling).unflatten(1, (kv_heads, heads // kv_heads))  # [rows, kv, repeats, dim]
        scores = torch.cat(
            [self._by_slot(q, trunk_keys.transpose(-1, -2)), torch.matmul(q, branch_keys.transpose(-1, -2))], -1
        )
        if terms.softcap is not None:
            scores = torch.tanh(scores / terms.softcap) * terms.softcap
        scores = scores.masked_fill(self._hidden(terms.window)[:, None, None], float("-inf"))
        weights = softmax(scores).to(value.dtype)
        trunk_weights, branch_weights = weights.split([trunk_keys.shape[2], self._longest], -1)
        out = self._by_slot(trunk_weights, trunk_values) + torch.matmul(branch_weights, branch_values)
        return out.flatten(1, 2)[:, None].contiguous()

    def _by_slot(self, rows: Tensor, shared: Tensor) -> Tensor:
        """Multiply each row [kv, repeats, x] with its slot's matrix [kv, x, y], all rows of a slot at once."""
        kv_heads, repeats, inner = rows.shape[1:]
        slots = shared.shape[0]
        block = rows
        if self._places is not None:
            block = rows.new_zeros((slots * self._most, kv_heads, repeats, inner))
            block[self._places] = rows
        block = block.view(slots, self._most, kv_heads, repeats, inner).transpose(1, 2)
        block = torch.matmul(block.reshape(slots, kv_heads, self._most * repeats, inner), shared)
        block = block.unflatten(2, (self._most, repeats)).transpose(1, 2).flatten(0, 1)
        return block if self._places is None else block[self._places]

    def _hidden(self, window: int | None) -> Tensor:
        """[rows, longest prompt + longest branch] what a row's new token must not see."""
        if window not in self._masks:
            widest = next(iter(self._trunks.values()))[0].shape[2]
            trunk = torch.arange(widest, device=self._device)[None]
            branch = torch.arange(self._longest, device=self._device)[None]
            lengths, trunk_lengths = self.lengths[:, None], self._trunk_lengths[self._slots][:, None]
            hidden_trunk, hidden_branch = trunk >= trunk_lengths, branch > lengths
            if window is not None:
                hidden_trunk = hidden_trunk | (trunk_lengths + lengths - trunk >= window)
                hidden_branch = hidden_branch | (lengths - branch >= window)
            self._masks[window] = torch.cat([hidden_trunk, hidden_branch], 1)
        return self._masks[window]

    def _arrange(self) -> None:
        """Where each row stands in a [slots, most rows of a slot] block; `None` if the block has no gaps."""
        slots = len(self._trunk_lengths)
        counts = torch.bincount(self._slots, minlength=slots)
        self._most = int(counts.max()) if slots else 0
        first = counts.cumsum(0) - counts
        rank = torch.arange(len(self._slots), device=self._device) - first[self._slots]
        full = len(self._slots) == slots * self._most
        self._places = None if full else self._slots * self._most + rank
        self._masks.clear()


def _stack(kept: Tensor | None, trunks: Sequence[Tensor]) -> Tensor:
    """Prompts of different length as one block, zero behind the shorter ones."""
    longest = max([trunk.shape[2] for trunk in trunks] + ([] if kept is None else [kept.shape[2]]))
    blocks = [] if kept is None else [kept]
    padded = [torch.nn.functional.pad(block, (0, 0, 0, longest - block.shape[2])) for block in [*blocks, *trunks]]
    return torch.cat(padded)


def _doubled(block: Tensor) -> Tensor:
    return torch.cat([block, torch.zeros_like(block)], 2)
