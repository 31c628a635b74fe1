"""What one optimizer step is made of, and what the policy is compared with in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from groupwise.learner.packing import MicroBatch
from groupwise.types import Group


@dataclass(frozen=True, slots=True)
class OneUpdate:
    """What one optimizer step is made of: micro-batches of this rank, tokens and rollouts of all of them."""

    groups: Sequence[Group]
    first_place: int
    micro_batches: list[MicroBatch]
    tokens: int
    rollouts: int


@dataclass(frozen=True, slots=True)
class Anchors:
    """What the policy is compared with, by the places of the tokens; `None` for what is not needed."""

    old_T: Tensor | None
    reference_T: Tensor | None
    draws_T: Tensor | None
    sampler_is_exact: bool
