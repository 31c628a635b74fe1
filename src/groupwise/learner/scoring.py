"""Logprobs of micro-batches: by the policy as it is trained, and by whoever it is compared with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from groupwise.learner.packing import MicroBatch
from groupwise.learner.world import ALONE, World
from groupwise.maths.whole import Whole
from groupwise.models.policy import Policy


@dataclass(frozen=True, slots=True)
class Scorer:
    """A policy, and how it is asked.

    Example: `Scorer(policy, temperature=1.0, chunk=1024).score(batch)` are logprobs and entropies, both [T].
    """

    policy: Policy
    temperature: float
    chunk: int
    world: World = ALONE

    def score(self, batch: MicroBatch, *, entropy_gradient: bool = False) -> tuple[Tensor, Tensor]:
        """Logprobs and entropies of the micro-batch's tokens. Gradients flow through the logprobs, and through the
        entropies if they are asked to."""
        logprobs_T, entropies_T = self.policy.logprobs(
            batch.trees,
            temperature=self.temperature,
            chunk=self.chunk,
            with_entropy=True,
            entropy_gradient=entropy_gradient,
        )
        assert entropies_T is not None
        return logprobs_T, entropies_T

    @torch.no_grad()
    def gather(self, batches: Sequence[MicroBatch], as_policy: AbstractContextManager[None] | None = None) -> Tensor:
        """The logprobs of all tokens, each at its place; with `as_policy` those of whom that makes of the policy."""
        with as_policy or nullcontext():
            return _placed(
                batches,
                (
                    self.policy.logprobs(batch.trees, temperature=self.temperature, chunk=self.chunk)[0]
                    for batch in batches
                ),
            )

    @torch.no_grad()
    def look_ahead(self, batches: Sequence[MicroBatch], old_T: Tensor | None, draws_T: Tensor) -> list[Whole]:
        """All tokens of an update as they are before it, on all ranks, once for each of its micro-batches here. Where
        there are no old logprobs yet, they are those of now."""
        scores = [self.score(batch) for batch in batches]
        nothing = draws_T[:0]
        places_T = torch.cat([nothing.long(), *(batch.places_T for batch in batches)])
        logprobs_T = torch.cat([nothing, *(logprobs_T for logprobs_T, _ in scores)])
        gathered = [
            self.world.gather(values_T.to(nothing))  # a rank without tokens has the dtype of the others, too
            for values_T in (
                logprobs_T,
                logprobs_T if old_T is None else old_T[places_T],
                torch.cat([nothing, *(batch.advantages_T for batch in batches)]),
                torch.cat([nothing, *(entropies_T for _, entropies_T in scores)]),
                draws_T[places_T],
            )
        ]
        first = gathered[0][1]
        here_T = torch.arange(first, first + len(places_T), device=places_T.device)
        whole = Whole(*(values_T for values_T, _ in gathered), here_T=here_T)
        return [whole._replace(here_T=part_T) for part_T in here_T.split([len(b.places_T) for b in batches])]


def sampled(batches: Sequence[MicroBatch]) -> Tensor:
    """The sampler's logprobs of all tokens, each at its place."""
    return _placed(batches, (batch.sampled_T for batch in batches))


def _placed(batches: Sequence[MicroBatch], values: Iterable[Tensor]) -> Tensor:
    places = max((int(batch.places_T[-1]) + 1 for batch in batches), default=0)
    placed_T = torch.zeros(places)
    for batch, values_T in zip(batches, values, strict=True):
        if placed_T.dtype != batch.advantages_T.dtype or placed_T.device != batch.advantages_T.device:
            placed_T = placed_T.to(batch.advantages_T)
        placed_T[batch.places_T] = values_T.to(placed_T.dtype)
    return placed_T
