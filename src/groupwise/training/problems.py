"""Which problems a step looks at: a fresh order every epoch, the same for the same seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

import numpy as np

Item = TypeVar("Item")


class Epochs(Generic[Item]):
    """Draws without replacement; when all were drawn, shuffles anew. Batches run across the end of an epoch, so no
    item is ever left out.

    Example: `Epochs(problems, seed=0).batch(start=16, size=8)` are the problems of the third step of eight.
    """

    def __init__(self, items: Sequence[Item], seed: int) -> None:
        assert items, "nothing to draw from"
        self._items = items
        self._seed = seed
        self._orders: dict[int, list[int]] = {}

    def batch(self, start: int, size: int) -> list[Item]:
        """The items `start` to `start + size` of the endless sequence of epochs."""
        return [self._items[self._index(place)] for place in range(start, start + size)]

    def epoch(self, drawn: int) -> float:
        """How many times through the items so many draws are."""
        return drawn / len(self._items)

    def _index(self, place: int) -> int:
        epoch, within = divmod(place, len(self._items))
        if epoch not in self._orders:
            generator = np.random.Generator(np.random.Philox(key=[self._seed, epoch]))
            self._orders = {e: o for e, o in self._orders.items() if e >= epoch - 1}
            self._orders[epoch] = generator.permutation(len(self._items)).tolist()
        return self._orders[epoch][within]
