"""Trunk-and-branch attention over a packed row, for the learner and for the engine's prefill.

    trunk token   sees the tokens of its trunk up to itself
    branch token  sees its whole trunk, and the tokens of its own branch up to itself

Trunks and branches are *lines*. Two ways compute this, with the same result. Where the device has a kernel, each line
attends to itself, all branches of a tree to their trunk, and the two are merged: `groupwise.models.trunk_attention`.
A window shorter than the lines, a soft cap, and devices without a kernel take masked blocks: `groupwise.models.blocks`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from groupwise.models.attention import Terms
from groupwise.models.blocks import Blocks, Line
from groupwise.models.kernels import Heads, Seen
from groupwise.models.trees import PackedTrees, Span
from groupwise.models.trunk_attention import RowAttention, attend_row, attention_for


class PackedLayout:
    """The layout of `PackedTrees`. One object serves one forward and its backward (checkpointing may call it again).

    `on_trunk` is told each layer's keys and values of every trunk, [1, kv heads, tokens, dim]: the engine keeps them.
    """

    def __init__(
        self, packed: PackedTrees, on_trunk: Callable[[nn.Module, int, Tensor, Tensor], None] | None = None
    ) -> None:
        self._spans = packed.spans
        self._device = packed.ids.device
        self._on_trunk = on_trunk
        self._lines = _lines(packed.spans)
        self._reach = max(line.followed + line.length for line in self._lines)
        self._calls: dict[Heads, RowAttention] = {}
        self._blocks: Blocks | None = None
        self.heard: list[tuple[nn.Module, int | None]] = []
        """The layers that attended, in turn, each with the window that it named."""

    def attend(self, layer: nn.Module, query: Tensor, key: Tensor, value: Tensor, terms: Terms) -> Tensor:
        """See `Layout`. The row is [1, heads, tokens, dim]."""
        self.heard.append((layer, terms.window))
        if self._on_trunk is not None:
            for index, span in enumerate(self._spans):
                self._on_trunk(layer, index, key[:, :, span.trunk], value[:, :, span.trunk])
        if (calls := self._calls_for(query, key, value, terms)) is not None:
            return attend_row(query, key, value, calls, terms.scaling)
        if self._blocks is None:
            self._blocks = Blocks(self._lines, self._device)
        q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
        return self._blocks.attend(q, k, v, terms)[None]

    def _calls_for(self, query: Tensor, key: Tensor, value: Tensor, terms: Terms) -> RowAttention | None:
        """The kernel calls of this layer; `None` if it asks for what no kernel does."""
        if terms.softcap is not None or (terms.window is not None and terms.window < self._reach):
            return None
        heads = Heads(query.shape[1], key.shape[1], query.shape[3])
        if value.shape != key.shape or (lines := attention_for(query.device, query.dtype, heads)) is None:
            return None
        if heads not in self._calls:
            own = [Seen(run, run) for run in (slice(line.start, line.start + line.length) for line in self._lines)]
            trunk = [Seen(run, span.trunk) for span in self._spans if (run := _branches(span)).stop > run.start]
            self._calls[heads] = lines(own, trunk, heads, self._device)
        return self._calls[heads]


def _lines(spans: Sequence[Span]) -> list[Line]:
    lines: list[Line] = []
    for span in spans:
        trunk = Line(span.trunk.start, span.trunk.stop - span.trunk.start, 0, 0)
        branches = (slice_ for slice_ in span.branches if slice_.stop > slice_.start)
        lines += [trunk, *(Line(b.start, b.stop - b.start, trunk.start, trunk.length) for b in branches)]
    return lines


def _branches(span: Span) -> slice:
    """All branches of a tree: they stand side by side, behind its trunk."""
    return slice(span.trunk.stop, span.branches[-1].stop if span.branches else span.trunk.stop)
