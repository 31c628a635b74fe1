"""The same decode step as one launch, on a GPU.

The model's forward over trunk and branch as it is, captured for each form of its cache: see `graphs.py` for what that
saves, and `fixed_cache.py` for what it asks for.
"""

from __future__ import annotations

import torch
from torch import Tensor

from groupwise.engines.decoders import TrunkAndBranchDecoder
from groupwise.engines.fixed_cache import FixedCache
from groupwise.engines.fused import UnfitError
from groupwise.engines.graphs import Launched, graphs_of
from groupwise.engines.holding import Batch, Holding
from groupwise.engines.tape import as_it_is
from groupwise.models.policy import Policy

KEPT = 1 / 16
"""The share of the device's memory that room for keys and values may take while nobody samples. What takes more is
given back, and steps are captured anew for the next batch."""


class GraphedDecoder(TrunkAndBranchDecoder):
    """Reads prompts as `TrunkAndBranchDecoder` does, and launches its steps.

    Example: `GraphedDecoder(policy)` raises `UnfitError` on a CPU.
    """

    _cache: FixedCache

    def __init__(self, policy: Policy) -> None:
        graphs = graphs_of(policy.device)
        if graphs is None:
            raise UnfitError("there are no graphs on this device")
        super().__init__(policy, FixedCache(policy.device))
        self._graphs = graphs
        self._launched = Launched(graphs)
        self._generation = 0
        self._tokens: dict[int, Tensor] = {}
        """By number of rows, at addresses that stay."""

    def rest(self) -> None:
        """See `Decoder`."""
        if self._cache.bytes > KEPT * self._graphs.memory:
            self._cache.release()
            self._forget()

    def holds(self, batch: Batch) -> Holding:
        """Rows, slots and prompts are rounded up."""
        size = super().holds(batch).keys_and_values
        return Holding(0, size, stays=size <= KEPT * self._graphs.memory)

    def step(self, tokens_B: Tensor) -> Tensor:
        """See `Decoder`."""
        self._cache.begin()
        if self._generation != self._cache.generation:
            self._forget()
        form = self._cache.form
        if form.rows not in self._tokens:
            with torch.inference_mode(False):  # so that any mode may write to them
                self._tokens[form.rows] = torch.zeros(form.rows, dtype=torch.long, device=self._policy.device)
        self._tokens[form.rows][: len(tokens_B)] = tokens_B
        # What autocast makes of the weights goes when it ends, and a graph would read it there.
        cast = torch.is_autocast_enabled(self._policy.device.type)
        features = self._computed() if cast else self._launched(form, self._computed)
        # The head is called: logits in every graph would be the vocabulary times the rows, as often as there are forms.
        return self._policy.head(features[: len(tokens_B)])

    def _forget(self) -> None:
        self._generation = self._cache.generation
        self._launched.forget()

    def _computed(self) -> Tensor:
        """The features of all rows, those that are nobody's, too."""
        self._cache.look_again()
        tokens, positions = self._tokens[self._cache.form.rows], self._positions()
        return self._forward.behind(tokens[:, None], positions[:, None], as_it_is)
