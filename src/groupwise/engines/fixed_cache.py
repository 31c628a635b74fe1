"""Keys and values whose shapes and addresses stay as they are from token to token, for a step that is captured once.

What a CUDA graph launches again reads and writes the same memory in the same shapes. So rows, slots, prompts and
columns are rounded up to few sizes here, and what differs from token to token (which column is open, what is hidden)
stands in tensors. When rows or columns come or go, all is laid out anew in the same piece of memory:

    form      48 rows, 6 slots of up to 8, prompts of up to 256, 128 columns
    row 0     k k k k . . . .      columns behind the open one are hidden by the mask
    row 47    . . . . . . . .      nobody's: computed in vain
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from groupwise.engines.cache import BranchCache, Views, grid
from groupwise.engines.holding import Batch

_TOKENS = 64
"""Prompts and completions have room for a multiple of it; matrix products of other sizes are slower, too."""


class Form(NamedTuple):
    """All that the shapes of a step depend on."""

    rows: int
    slots: int
    most: int
    """Rows of a slot."""
    prompt: int
    room: int


class FixedCache(BranchCache):
    """The layout of a decode step that can be captured: what was captured is good for its `form`, until `generation`
    moves on.

    Example: after `cache.admit(trunks, rows=[7])`, `cache.form.rows` is 8, and attention is for 8 rows.
    """

    def __init__(self, device: torch.device) -> None:
        self.form = Form(0, 0, 0, 0, 0)
        self.generation = 0
        """How often memory that steps refer to was given back."""
        self._memory: dict[tuple[nn.Module, str], Tensor] = {}
        self._whole: dict[nn.Module, tuple[Tensor, Tensor, Tensor, Tensor]] = {}
        """Each layer's trunks and branches, with the slots and rows that are nobody's."""
        self._indexes: dict[tuple[str, int], Tensor] = {}
        """What is known about rows, slots and columns, by name and by how many there are of them."""
        with torch.inference_mode(False):  # what stays may be written to in any mode
            self._column = torch.zeros(1, dtype=torch.long, device=device)
        super().__init__(device)

    @property
    def bytes(self) -> int:
        """Of all keys and values that there is room for."""
        return sum(memory.nbytes for memory in self._memory.values())

    @staticmethod
    def tokens_for(batch: Batch) -> int:
        """See `BranchCache`."""
        return rounded(batch.prompts) * room_for(batch.prompt) + rounded(batch.rows) * room_for(batch.completion)

    def begin(self) -> None:
        """See `BranchCache`."""
        self._columns += 1
        if self._columns > self.form.room:
            self._arrange()
            for layer, (keys, values) in list(self._branches.items()):
                self._hold(layer, (keys.clone(), values.clone()))
        self._column.fill_(self._columns - 1)
        self._hidden.clear()

    def look_again(self) -> None:
        """The same column once more. What was worked out for it stands in memory of who worked it out."""
        self._hidden.clear()

    def release(self) -> None:
        """Drop all rows, and give the memory back."""
        for held in (self._memory, self._whole, self._indexes, self._trunks, self._branches, self._views):
            held.clear()
        self._slots, self._starts, self._trunk_lengths, self._columns = [], [], [], 0
        self.generation += 1
        self._arrange()

    @property
    def _newest(self) -> Tensor:
        return self._column

    @property
    def _width(self) -> int:
        return self.form.room

    def _room(self, columns: int) -> int:
        return self.form.room

    def _write(self, layer: nn.Module, key: Tensor, value: Tensor) -> None:
        for block, new in zip(self._whole[layer][2:], (key, value), strict=True):
            block.index_copy_(2, self._column, new.transpose(0, 1).to(block.dtype))

    def _hold(
        self, layer: nn.Module, branches: tuple[Tensor, Tensor], trunks: tuple[Tensor, Tensor] | None = None
    ) -> None:
        """Copied to where the layer's lie in this form."""
        form, rows = self.form, branches[0].shape[1]
        keys = self._laid(layer, "keys", branches[0], form.rows, form.room)
        values = self._laid(layer, "values", branches[1], form.rows, form.room)
        self._branches[layer] = (keys[:, :rows], values[:, :rows])
        if trunks is None:
            trunk_keys, trunk_values, *_ = self._whole[layer]
        else:
            slots, longest = trunks[0].shape[1:3]
            trunk_keys = self._laid(layer, "trunk keys", trunks[0], form.slots, form.prompt)
            trunk_values = self._laid(layer, "trunk values", trunks[1], form.slots, form.prompt)
            self._trunks[layer] = (trunk_keys[:, :slots, :longest], trunk_values[:, :slots, :longest])
        self._whole[layer] = (trunk_keys, trunk_values, keys, values)
        self._views[layer] = Views.of(*self._whole[layer])

    def _without_token(self, columns: Tensor) -> Tensor:
        return super()._without_token(columns) | (columns > self._column)

    def _laid(self, layer: nn.Module, name: str, block: Tensor, count: int, length: int) -> Tensor:
        """`block` [kv heads, rows or slots, tokens, dim] in memory of the layer's own, with zeros around it."""
        shape = (block.shape[0], count, length, block.shape[3])
        memory = self._memory.get((layer, name))
        if memory is None or memory.numel() < math.prod(shape):
            with torch.inference_mode(False):
                memory = torch.empty(math.prod(shape), dtype=block.dtype, device=block.device)
            self._memory[layer, name] = memory
            self.generation += 1
        whole = memory[: math.prod(shape)].view(shape).zero_()
        whole[:, : block.shape[1], : block.shape[2]] = block
        return whole

    def _arrange(self) -> None:
        """What follows from which rows there are: the form, and the numbers in it."""
        self._hidden.clear()
        counts = [self._slots.count(slot) for slot in range(len(self._trunk_lengths))]
        form = self.form = Form(
            rows=rounded(len(self._slots)),
            slots=rounded(len(counts)),
            most=rounded(max(counts, default=0)),
            prompt=room_for(max(self._trunk_lengths, default=0)),
            room=room_for(max(self._columns, 1)),
        )
        self._rows, self._most, self._widest, self._is_ragged = form.rows, form.most, form.prompt, True
        nobodys = form.rows - len(self._slots)
        # They see the first token of the first prompt, as a softmax over nothing is no number.
        lengths = [*(self._trunk_lengths[slot] for slot in self._slots), *[1] * nobodys]
        starts = [*self._starts, *[0] * nobodys]
        places, filled = grid(counts, form.most)
        self._origins = self._index("origins", [length - start for length, start in zip(lengths, starts, strict=True)])
        self._starts_of_rows = self._index("starts", starts)[:, None]
        self._lengths_of_rows = self._index("lengths", lengths)[:, None]
        self._places = self._index("places", [*places, *[0] * nobodys])
        self._filled = self._index("filled", [*filled, *[0] * (form.slots * form.most - len(filled))])

    def _index(self, name: str, values: Sequence[int]) -> Tensor:
        """At an address that stays, one for each number of values: of all forms only one is at work."""
        with torch.inference_mode(False):
            fresh = self._integers(values)
        held = self._indexes.setdefault((name, len(values)), fresh)
        return held if held is fresh else held.copy_(fresh)


def rounded(count: int) -> int:
    """Up to one of few numbers: 0, 1, 2, 3, 4, 6, 8, 12, 16, 24, ..."""
    power = 1 << max(count - 1, 0).bit_length()
    return 0 if not count else power // 4 * 3 if count <= power // 4 * 3 and power >= 4 else power


def room_for(tokens: int) -> int:
    """The same for tokens: 64, 128, 192, ... and from 512 on in steps of a quarter of a power of two, or less."""
    step = max(_TOKENS, (1 << max(tokens - 1, 0).bit_length()) // 8)
    return -(-tokens // step) * step
