"""Completions that go round in circles: found while they are drawn, and ended there.

    looping(tokens, 8)        # [8, rows] "abababab" -> True, "abcabcab" -> False: not even three times

All rows at once, without a look at the host, so that it costs nothing per token and row; and nothing at all where no
row may be cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

_LOOK_EVERY = 16
"""Tokens of a row between two looks."""
_TIMES = 4


def looping(tokens: Tensor, window: int) -> Tensor:
    """For each row whether its last `window` tokens have a period of at most a quarter of that: [columns, rows] ->
    [rows]."""
    tail = tokens[len(tokens) - window :]
    found = (tail[1:] == tail[:-1]).all(0)
    for period in range(2, window // _TIMES + 1):
        found |= (tail[period:] == tail[:-period]).all(0)
    return found


class Loops:
    """The rows in flight that may be cut. Each is looked at after every so many of its own tokens, so that it ends at
    the same place whoever shares its batch. `rows` are, in order, where each begins and its window (None: never cut).

    Example: `Loops([(0, 128), (3, None)], integers).cut(tokens, columns=160, ended_at=ended_at)`
    """

    def __init__(
        self, rows: Iterable[tuple[int, int | None]] = (), integers: Callable[[Sequence[int]], Tensor] = torch.tensor
    ) -> None:
        alike: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for place, (start, window) in enumerate(rows):
            if window is not None:
                alike.setdefault((start % _LOOK_EVERY, window), []).append((place, start))
        self._by_phase: dict[int, list[tuple[int, Tensor, Tensor]]] = {}
        for (phase, window), places in alike.items():
            index, starts = (integers(values) for values in zip(*places, strict=True))
            self._by_phase.setdefault(phase, []).append((window, index, starts))

    @property
    def may_cut(self) -> bool:
        """Whether there are such rows at all."""
        return bool(self._by_phase)

    def cut(self, tokens: Tensor, columns: int, ended_at: Tensor) -> None:
        """Let the rows whose turn it is, and that loop, end at the newest of `columns`: tokens [columns, rows]."""
        for window, index, starts in self._by_phase.get(columns % _LOOK_EVERY, ()):
            if columns >= window:
                found = looping(tokens[columns - window : columns].index_select(1, index), window)
                before = ended_at[index]
                cut = found & (starts + window <= columns)
                ended_at[index] = torch.where(cut, before.clamp(max=columns - 1), before)
