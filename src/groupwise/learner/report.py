"""What an update looked like from outside. Observed beside the loss, never part of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import torch

from groupwise.learner.coefficients import Coefficients
from groupwise.learner.objective import Scores, Terms
from groupwise.learner.packing import MicroBatch
from groupwise.maths.mismatch import mismatch_metrics, mismatch_sums
from groupwise.maths.sequences import cut_exp, log_ratio


class UpdateReport:
    """Sums over the tokens of all micro-batches, and the means that they become.

    `clip_high` is the share of tokens that should become likelier and have no gradient any more, `clip_low` of those
    that should become rarer: by the surrogate itself, whatever it is.

    Example: `report.metrics()` is `{"loss": ..., "clip_low": 0.01, "entropy": 1.3, "grad_norm": 0.7, ...}`
    """

    def __init__(self, *, sampler_is_exact: bool) -> None:
        self._exact = sampler_is_exact
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._mismatch: defaultdict[str, float] = defaultdict(float)
        self._largest_gap = 0.0
        self._tokens = 0
        self._losses: list[float] = []
        self._norms: list[float] = []
        self._since_step: defaultdict[str, float] = defaultdict(float)
        self._last: dict[str, float] = {}

    @torch.no_grad()
    def observe_tokens(self, terms: Terms, scores: Scores, batch: MicroBatch) -> None:
        """Note one micro-batch."""
        advantages_T, stopped_T = batch.advantages_T, terms.slope_T == 0
        sums = {
            "ratio": cut_exp(terms.log_ratio_T).sum(),
            "clip_low": (stopped_T & (advantages_T < 0)).sum(),
            "clip_high": (stopped_T & (advantages_T > 0)).sum(),
            "entropy": scores.entropies_T.sum(),
        }
        if terms.kl_T is not None:
            sums["kl"] = terms.kl_T.sum()
        seen = {**sums, "loss": terms.loss}
        first = not self._norms and len(scores.logprobs_T) > 0
        if first:  # only before the first update do sampler and learner speak of the same weights
            seen["gap"] = log_ratio(scores.logprobs_T, batch.sampled_T).abs().max()
        # All at once: a GPU is waited for each time.
        values = dict(zip(seen, torch.stack([x.double() for x in seen.values()]).tolist(), strict=True))
        for name in sums:
            self._sums[name] += values[name]
            self._since_step[name] += values[name]
        self._since_step["loss"] += values["loss"]
        if first:
            self._largest_gap = max(self._largest_gap, values["gap"])
            if not self._exact:
                mismatch_T = log_ratio(scores.old_T, batch.sampled_T)
                for name, value in mismatch_sums(mismatch_T, batch.rollout_T).items():
                    self._mismatch[name] += value
        self._tokens += len(scores.logprobs_T)
        self._since_step["tokens"] += len(scores.logprobs_T)

    def sum_since_step(self, name: str) -> float:
        """The sum over the tokens since the last optimizer step: `entropy`, `kl`, or the number of `tokens`."""
        return self._since_step[name]

    def observe_step(self, learning_rate: float, gradient_norm: float) -> None:
        """Note one optimizer step."""
        self._losses.append(self._since_step["loss"])
        self._norms.append(gradient_norm)
        self._last["learning_rate"] = learning_rate
        self._since_step.clear()

    def observe_coefficients(self, coefficients: Coefficients, kl_in_reward: float | None) -> None:
        """Note the coefficients that move, and the KL, if it stood in the reward."""
        self._last |= coefficients.moving()
        self._last |= {} if kl_in_reward is None else {"kl": kl_in_reward}

    def metrics(self) -> Mapping[str, float]:
        """Means over trained tokens, and over the optimizer steps of the batch."""
        steps = max(len(self._norms), 1)
        return {
            "loss": sum(self._losses) / steps,
            "grad_norm": sum(self._norms) / steps,
            "sampler_gap": self._largest_gap,
            "trained_tokens": float(self._tokens),
            **{name: value / max(self._tokens, 1) for name, value in self._sums.items()},
            **self._last,
            **({f"mismatch/{k}": v for k, v in mismatch_metrics(self._mismatch).items()} if self._mismatch else {}),
        }
