"""Means and stds of the graded rollouts of a group, in floats."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

Rewards: TypeAlias = Sequence[Sequence[float | None]]
Lengths: TypeAlias = Sequence[Sequence[int]]
Parts: TypeAlias = Sequence[Sequence[Mapping[str, float | None]]]

STD_FLOOR = 1e-4
"""Added to the std, so that a group of nearly equal rewards is not blown up. The value of the seeds and of TRL."""


def above_lowest(rewards_G: Sequence[float | None]) -> list[float]:
    """The graded rewards, measured from the smallest: equal ones are exactly 0, and so are differences of theirs, even
    where `n * r / n` is not `r`. Example: `[0.3, None, 0.1]` gives `[0.2, 0.0]`."""
    graded = [float(reward) for reward in rewards_G if reward is not None]
    assert all(map(math.isfinite, graded)), f"rewards must be finite before they become advantages, got {graded}"
    return [reward - min(graded) for reward in graded]


def centred(rewards_G: Sequence[float | None]) -> list[float]:
    """`r - mean` of the graded rollouts. Example: `[1.0, None, 0.0]` gives `[0.5, -0.5]`."""
    rewards = above_lowest(rewards_G)
    mean = math.fsum(rewards) / max(len(rewards), 1)
    return [reward - mean for reward in rewards]


def std_of(deviations: Sequence[float]) -> float:
    """Bessel's std of numbers whose mean is 0; 0 for fewer than two. Example: `[1.0, 0.0, -1.0]` has 1.0."""
    # hypot is the root of the sum of squares, without overflow on the way.
    return math.hypot(*deviations) / math.sqrt(max(len(deviations) - 1, 1))


def normalized(rewards_G: Sequence[float | None]) -> list[float]:
    """`(r - mean) / (std + 1e-4)` of the graded rollouts."""
    deviations = centred(rewards_G)
    std = std_of(deviations)
    return [value / (std + STD_FLOOR) for value in deviations]


def placed(rewards_G: Sequence[float | None], graded: Iterable[float]) -> list[float]:
    """Values of the graded rollouts back in their places, 0 for the others."""
    values = iter(graded)
    return [0.0 if reward is None else next(values) for reward in rewards_G]


def flat(rewards_QG: Rewards) -> list[float]:
    """All graded rewards of the step."""
    return [float(reward) for rewards_G in rewards_QG for reward in rewards_G if reward is not None]
