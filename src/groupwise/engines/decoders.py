"""How the next logits of all rows are computed: over trunk and branch, or through the model's own cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from groupwise.engines.cache import BranchCache
from groupwise.models.layout import PackedLayout
from groupwise.models.policy import Policy
from groupwise.models.trees import PackedTrees, Tree


class Decoder(Protocol):
    """Keeps whatever the model needs to go on with every row."""

    def admissible(self, prompt_lengths: Sequence[int], busy: bool) -> int:
        """How many of the waiting prompts, from the first on, may join now."""
        ...

    def admit(self, prompts: Sequence[Sequence[int]], rows: Sequence[int]) -> Tensor:
        """Read the prompts, once each; logits of the first token of each of their rows: [sum(rows), V]."""
        ...

    def step(self, tokens_B: Tensor) -> Tensor:
        """Feed one token to every row; logits of the next: [rows, V]."""
        ...

    def keep(self, index: Tensor) -> None:
        """Drop all other rows."""
        ...


class TrunkAndBranchDecoder:
    """Prompts are read in one packed pass; their keys and values are kept once per group. Rows join at any time."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._cache = BranchCache(policy.device)

    def admissible(self, prompt_lengths: Sequence[int], busy: bool) -> int:
        """All of them."""
        return len(prompt_lengths)

    def admit(self, prompts: Sequence[Sequence[int]], rows: Sequence[int]) -> Tensor:
        """See `Decoder`."""
        trunks: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {}
        packed = PackedTrees.of([Tree(tuple(prompt)) for prompt in prompts], self._policy.device)
        layout = PackedLayout(packed, lambda layer, _, k, v: trunks.setdefault(layer, []).append((k, v)))
        features = self._run(packed.ids, packed.positions, layout)[0]
        last = torch.tensor([span.trunk.stop - 1 for span in packed.spans], device=self._policy.device)
        self._cache.admit(trunks, rows)
        repeats = torch.tensor(rows, device=self._policy.device)
        return self._policy.head(features[last]).repeat_interleave(repeats, 0)

    def step(self, tokens_B: Tensor) -> Tensor:
        """See `Decoder`."""
        positions = self._cache.positions
        self._cache.begin()
        features = self._run(tokens_B[:, None], positions[:, None], self._cache)
        self._cache.advance()
        return self._policy.head(features[:, 0])

    def keep(self, index: Tensor) -> None:
        """See `Decoder`."""
        self._cache.keep(index)

    def _run(self, ids: Tensor, positions: Tensor, layout: Any) -> Tensor:
        output = self._policy.run_backbone(input_ids=ids, position_ids=positions, use_cache=False, layout=layout)
        return self._policy.features_of(output)


class PlainDecoder:
    """The model's own attention and cache. Prompts of one length go together, so nothing is ever padded; each is read
    once and its cache then repeated for its rows."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._state: dict[str, Any] = {}

    def admissible(self, prompt_lengths: Sequence[int], busy: bool) -> int:
        """Those of the first one's length, and only when nothing is in flight."""
        if busy:
            return 0
        return next((i for i, n in enumerate(prompt_lengths) if n != prompt_lengths[0]), len(prompt_lengths))

    def admit(self, prompts: Sequence[Sequence[int]], rows: Sequence[int]) -> Tensor:
        """See `Decoder`."""
        self._state = {}
        logits = self._run(torch.tensor([list(prompt) for prompt in prompts], device=self._policy.device))
        index = torch.arange(len(prompts)).repeat_interleave(torch.tensor(rows)).to(self._policy.device)
        self._reorder(index)
        return logits[index]

    def step(self, tokens_B: Tensor) -> Tensor:
        """See `Decoder`."""
        return self._run(tokens_B[:, None])

    def keep(self, index: Tensor) -> None:
        """See `Decoder`."""
        self._reorder(index)

    def _run(self, ids: Tensor) -> Tensor:
        output = self._policy.run_backbone(input_ids=ids, use_cache=True, **self._state)
        # Recurrent models call their cache by another name; either goes back in as it came out.
        self._state = {k: output[k] for k in ("past_key_values", "cache_params") if output.get(k) is not None}
        return self._policy.head(self._policy.features_of(output)[:, -1])

    def _reorder(self, index: Tensor) -> None:
        for cache in self._state.values():
            cache.reorder_cache(index)
