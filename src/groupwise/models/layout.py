"""Trunk-and-branch attention over a packed row, for the learner and for the engine's prefill.

    trunk token   sees the tokens of its trunk up to itself
    branch token  sees its whole trunk, and the tokens of its own branch up to itself

A sliding window counts positions, not places in the row, so that a branch sees exactly what it would see if it stood
behind its prompt alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from groupwise.models.attention import Terms, attend
from groupwise.models.trees import PackedTrees, Span


@dataclass(frozen=True, slots=True)
class _Branches:
    """The branches of one tree as a padded block of rows. Only attention sees the padding."""

    places: Tensor  # [branches, longest] places in the row; padding repeats the first token
    real: Tensor  # [branches, longest] not padding
    positions: Tensor  # [longest] position of each column behind the trunk


class PackedLayout:
    """The layout of `PackedTrees`. One object serves one forward and its backward (checkpointing may call it again).

    `on_trunk` is told each layer's keys and values of every trunk, [1, kv heads, tokens, dim]: the engine keeps them.
    """

    def __init__(
        self, packed: PackedTrees, on_trunk: Callable[[nn.Module, int, Tensor, Tensor], None] | None = None
    ) -> None:
        self._spans = packed.spans
        self._on_trunk = on_trunk
        self._branches = [_branches(span, packed.ids.device) for span in packed.spans]
        self._trunk_masks: dict[tuple[int, int], Tensor] = {}
        self._branch_masks: dict[tuple[int, int | None], Tensor] = {}
        self.windows_seen: set[tuple[nn.Module, int | None]] = set()

    def attend(self, layer: nn.Module, query: Tensor, key: Tensor, value: Tensor, terms: Terms) -> Tensor:
        """See `Layout`. The row is [1, heads, tokens, dim]."""
        self.windows_seen.add((layer, terms.window))
        outputs: list[Tensor] = []
        for index, span in enumerate(self._spans):
            trunk_q, trunk_k, trunk_v = (x[:, :, span.trunk] for x in (query, key, value))
            if self._on_trunk is not None:
                self._on_trunk(layer, index, trunk_k, trunk_v)
            mask = self._trunk_mask(index, terms.window, query.device)
            outputs.append(attend(trunk_q, trunk_k, trunk_v, mask, terms)[0].transpose(0, 1))
            branches = self._branches[index]
            if branches is not None:
                rows = branches.places.shape[0]
                q, k, v = (x[0][:, branches.places].transpose(0, 1) for x in (query, key, value))
                k = torch.cat([trunk_k.expand(rows, -1, -1, -1), k], 2)
                v = torch.cat([trunk_v.expand(rows, -1, -1, -1), v], 2)
                out = attend(q, k, v, self._branch_mask(index, branches, terms.window), terms)
                outputs.append(out.transpose(1, 2)[branches.real])
        return torch.cat(outputs)[None]

    def _trunk_mask(self, index: int, window: int | None, device: torch.device) -> Tensor | None:
        length = self._spans[index].trunk.stop - self._spans[index].trunk.start
        if window is None or length <= window:
            return None
        if (index, window) not in self._trunk_masks:
            positions = torch.arange(length, device=device)
            self._trunk_masks[index, window] = within(positions, positions, window)
        return self._trunk_masks[index, window]

    def _branch_mask(self, index: int, branches: _Branches, window: int | None) -> Tensor:
        if (index, window) not in self._branch_masks:
            trunk = torch.arange(int(branches.positions[0]), device=branches.positions.device)
            everything = torch.cat([trunk, branches.positions])
            self._branch_masks[index, window] = within(branches.positions, everything, window)
        return self._branch_masks[index, window]


def within(query_positions: Tensor, key_positions: Tensor, window: int | None) -> Tensor:
    """[q, k] whether a key lies at or before its query and, with a window, less than that far behind it."""
    distance = query_positions[:, None] - key_positions[None, :]
    visible = distance >= 0
    return visible if window is None else visible & (distance < window)


def _branches(span: Span, device: torch.device) -> _Branches | None:
    lengths = torch.tensor([s.stop - s.start for s in span.branches if s.stop > s.start], dtype=torch.long)
    if not lengths.numel():
        return None
    starts = torch.tensor([s.start for s in span.branches if s.stop > s.start])
    columns = torch.arange(int(lengths.max()))
    real = columns[None] < lengths[:, None]
    places = starts[:, None] + columns[None] * real
    first = span.trunk.stop - span.trunk.start
    return _Branches(places.to(device), real.to(device), (first + columns).to(device))
