"""What an update looked like from outside. Observed beside the loss, never part of it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from groupwise.learner.packing import MicroBatch


class UpdateReport:
    """Sums over the tokens of all micro-batches, and the means that they become.

    Example: `report.metrics()` is `{"loss": ..., "clip_low": 0.01, "entropy": 1.3, "grad_norm": 0.7, ...}`
    """

    def __init__(self, clip_low: float, clip_high: float) -> None:
        self._lower, self._upper = 1.0 - clip_low, 1.0 + clip_high
        self._sums: dict[str, float] = {}
        self._largest_gap = 0.0
        self._tokens = 0
        self._losses: list[float] = []
        self._pending_loss = 0.0
        self._norms: list[float] = []
        self._learning_rate = 0.0

    @torch.no_grad()
    def observe_tokens(
        self,
        loss: Tensor,
        logprobs_T: Tensor,
        old_T: Tensor,
        batch: MicroBatch,
        *,
        entropies_T: Tensor | None,
        kl_T: Tensor | None,
    ) -> None:
        """Note one micro-batch."""
        first = not self._norms
        ratio_T = torch.exp((logprobs_T - old_T).clamp(-20, 20))
        sums = {
            "ratio": ratio_T.sum(),
            "clip_low": ((ratio_T < self._lower) & (batch.advantages_T < 0)).sum(),
            "clip_high": ((ratio_T > self._upper) & (batch.advantages_T > 0)).sum(),
        }
        if entropies_T is not None:
            sums["entropy"] = entropies_T.sum()
        if kl_T is not None:
            sums["kl"] = kl_T.sum()
        for name, value in sums.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value)
        if first and len(logprobs_T):
            # Only before the first update do sampler and learner speak of the same weights.
            gap = float((logprobs_T - batch.sampled_T).abs().max())
            self._largest_gap = max(self._largest_gap, gap)
        self._tokens += len(logprobs_T)
        self._pending_loss += float(loss)

    def observe_step(self, learning_rate: float, gradient_norm: float) -> None:
        """Note one optimizer step."""
        self._losses.append(self._pending_loss)
        self._pending_loss = 0.0
        self._norms.append(gradient_norm)
        self._learning_rate = learning_rate

    def metrics(self) -> Mapping[str, float]:
        """Means over trained tokens, and over the optimizer steps of the batch."""
        steps = max(len(self._norms), 1)
        means = {name: value / max(self._tokens, 1) for name, value in self._sums.items()}
        return {
            "loss": sum(self._losses) / steps,
            "grad_norm": sum(self._norms) / steps,
            "learning_rate": self._learning_rate,
            "sampler_gap": self._largest_gap,
            "trained_tokens": float(self._tokens),
            **means,
        }
