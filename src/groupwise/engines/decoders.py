"""How the next logits of all rows are computed: over trunk and branch, through the model's own cache, or anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from groupwise.engines.cache import BranchCache
from groupwise.engines.holding import Batch, Holding, bytes_per_token
from groupwise.engines.tape import Hide, Replayed
from groupwise.models.layout import PackedLayout
from groupwise.models.policy import Policy
from groupwise.models.transfer import on_device
from groupwise.models.trees import PackedTrees, Tree


class Decoder(Protocol):
    """Keeps whatever the model needs to go on with every row."""

    def refresh(self) -> None:
        """The weights may have changed since it was made or last refreshed. Called before each further batch."""
        ...

    def admissible(self, prompt_lengths: Sequence[int], busy: bool) -> int:
        """How many of the waiting prompts, from the first on, may join now."""
        ...

    def admit(self, prompts: Sequence[Sequence[int]], rows: Sequence[int]) -> Tensor:
        """Read the prompts, once each; logits of the first token of each of their rows: [sum(rows), V]."""
        ...

    def step(self, tokens_B: Tensor) -> Tensor:
        """Feed one token to every row; logits of the next: [rows, V]. Rows that are over may be fed on, past the
        model's last position: what comes of them is of no use to anybody, and must not raise."""
        ...

    def keep(self, index: Sequence[int]) -> None:
        """Drop all other rows."""
        ...

    def rest(self) -> None:
        """Nobody waits any more: what the next `refresh` makes anew may go."""
        ...

    def holds(self, batch: Batch) -> Holding:
        """The memory that it has, or would have, for such a batch."""
        ...


@dataclass(frozen=True, slots=True)
class _Hidden:
    """A layout whose attention is one operation of a tape."""

    attend: Callable[..., Tensor]


class _Forward:
    """The model over prompts, or over the rows of a cache. It knows no decoder: what is recorded of it hangs together
    with it, and a decoder that is dropped takes its memory along at once."""

    def __init__(self, policy: Policy, cache: BranchCache) -> None:
        self._policy, self._cache = policy, cache

    def logits(self, ids: Tensor, positions: Tensor, hide: Hide) -> Tensor:
        """Of each row's next token."""
        return self._policy.head(self.behind(ids, positions, hide))

    def behind(self, ids: Tensor, positions: Tensor, hide: Hide) -> Tensor:
        """Features behind each row's newest token."""
        return self.run(ids, positions, _Hidden(hide(self._cache.attend)))[:, 0]

    def run(self, ids: Tensor, positions: Tensor, layout: Any) -> Tensor:
        """Features of all tokens."""
        output = self._policy.run_backbone(input_ids=ids, position_ids=positions, use_cache=False, layout=layout)
        return self._policy.features_of(output)


class TrunkAndBranchDecoder:
    """Prompts are read in one packed pass; their keys and values are kept once per group. Rows join at any time."""

    def __init__(self, policy: Policy, cache: BranchCache | None = None) -> None:
        self._policy = policy
        self._last_position = policy.context - 1
        self._cache = BranchCache(policy.device) if cache is None else cache
        self._windows: dict[nn.Module, int | None] = {}
        """What each layer asked for when it read prompts."""
        self._forward = _Forward(policy, self._cache)
        self._next_logits = Replayed(self._forward.logits)

    def refresh(self) -> None:
        """Nothing to do: it reads the model's own."""

    def rest(self) -> None:
        """Nothing that could go."""

    def holds(self, batch: Batch) -> Holding:
        """What the cache has room for."""
        return Holding(0, bytes_per_token(self._policy) * self._cache.tokens_for(batch))

    def admissible(self, prompt_lengths: Sequence[int], busy: bool) -> int:
        """All of them."""
        return len(prompt_lengths)

    def admit(self, prompts: Sequence[Sequence[int]], rows: Sequence[int]) -> Tensor:
        """See `Decoder`."""
        trunks, logits = self._read(prompts)
        self._cache.admit(trunks, rows)
        of_row = [i for i, n in enumerate(rows) for _ in range(n)]
        return logits.index_select(0, on_device(of_row, self._policy.device))

    def _read(self, prompts: Sequence[Sequence[int]]) -> tuple[dict[nn.Module, list[tuple[Tensor, Tensor]]], Tensor]:
        """Keys and values by layer and prompt [1, kv heads, tokens, dim], and the logits behind each prompt."""
        trunks: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {}
        packed = PackedTrees.of([Tree(tuple(prompt)) for prompt in prompts], self._policy.device)
        layout = PackedLayout(packed, lambda layer, _, k, v: trunks.setdefault(layer, []).append((k, v)))
        features = self._forward.run(packed.ids, packed.positions, layout)[0]
        self._windows |= dict(layout.heard)
        last = on_device([span.trunk.stop - 1 for span in packed.spans], self._policy.device)
        return trunks, self._policy.head(features[last])

    def step(self, tokens_B: Tensor) -> Tensor:
        """See `Decoder`."""
        self._cache.begin()
        return self._next_logits(tokens_B[:, None], self._positions()[:, None])

    def keep(self, index: Sequence[int]) -> None:
        """See `Decoder`."""
        self._cache.keep(index)

    def _positions(self) -> Tensor:
        """Where the open column's tokens stand; rows that are over may have gone past the last place."""
        return self._cache.positions.clamp(max=self._last_position)


class PlainDecoder:
    """The model's own attention and cache. Prompts of one length go together, so nothing is ever padded; each is read
    once and its cache then repeated for its rows."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._state: dict[str, Any] = {}

    def refresh(self) -> None:
        """Nothing to do: it reads the model's own."""

    def rest(self) -> None:
        """Nothing that could go."""

    def holds(self, batch: Batch) -> Holding:
        """A row's prompt is repeated for it. As for a model that attends to everything; others hold less."""
        return Holding(0, bytes_per_token(self._policy) * batch.rows * (batch.prompt + batch.completion))

    def admissible(self, prompt_lengths: Sequence[int], busy: bool) -> int:
        """Those of the first one's length, and only when nothing is in flight."""
        if busy:
            return 0
        return next((i for i, n in enumerate(prompt_lengths) if n != prompt_lengths[0]), len(prompt_lengths))

    def admit(self, prompts: Sequence[Sequence[int]], rows: Sequence[int]) -> Tensor:
        """See `Decoder`."""
        self._state = {}
        logits = self._run(on_device([list(prompt) for prompt in prompts], self._policy.device))
        index = on_device([i for i, n in enumerate(rows) for _ in range(n)], self._policy.device)
        self._reorder(index)
        return logits[index]

    def step(self, tokens_B: Tensor) -> Tensor:
        """See `Decoder`. All rows are at one position, so none can run past the last alone."""
        return self._run(tokens_B[:, None])

    def keep(self, index: Sequence[int]) -> None:
        """See `Decoder`."""
        self._reorder(on_device(index, self._policy.device, torch.long))

    def _run(self, ids: Tensor) -> Tensor:
        output = self._policy.run_backbone(input_ids=ids, use_cache=True, **self._state)
        # Recurrent models call their cache by another name; either goes back in as it came out.
        self._state = {k: output[k] for k in ("past_key_values", "cache_params") if output.get(k) is not None}
        return self._policy.head(self._policy.features_of(output)[:, -1])

    def _reorder(self, index: Tensor) -> None:
        for cache in self._state.values():
            cache.reorder_cache(index)


class RereadingDecoder:
    """No cache: every row is read again for every token, as the learner reads it. Slow, and right for any model."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._rows: list[tuple[tuple[int, ...], tuple[int, ...]]] = []  # prompt, completion so far

    def refresh(self) -> None:
        """Nothing to do: it reads the model's own."""

    def rest(self) -> None:
        """Nothing that could go."""

    def holds(self, batch: Batch) -> Holding:
        """Nothing from token to token."""
        return Holding(0, 0)

    def admissible(self, prompt_lengths: Sequence[int], busy: bool) -> int:
        """All of them."""
        return len(prompt_lengths)

    def admit(self, prompts: Sequence[Sequence[int]], rows: Sequence[int]) -> Tensor:
        """See `Decoder`."""
        fresh = [(tuple(prompt), ()) for prompt, n in zip(prompts, rows, strict=True) for _ in range(n)]
        self._rows += fresh
        return self._next_logits(fresh)

    def step(self, tokens_B: Tensor) -> Tensor:
        """See `Decoder`."""
        room = self._policy.context - 1
        self._rows = [
            (prompt, (*drawn, token) if len(prompt) + len(drawn) < room else drawn)
            for (prompt, drawn), token in zip(self._rows, tokens_B.tolist(), strict=True)
        ]
        return self._next_logits(self._rows)

    def keep(self, index: Sequence[int]) -> None:
        """See `Decoder`."""
        self._rows = [self._rows[i] for i in index]

    def _next_logits(self, rows: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> Tensor:
        # Features predict the tokens of a branch. One token more, whichever, and the last of them predict the next.
        features = self._policy.features([Tree(prompt, ((*drawn, 0),)) for prompt, drawn in rows])
        lengths = on_device([len(drawn) + 1 for _, drawn in rows], self._policy.device)
        return self._policy.head(features[lengths.cumsum(0) - 1])
