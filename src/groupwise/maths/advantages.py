"""Advantages: how much better each completion did than the others of its group.

Floats in, floats out, no torch. `rewards_QG` holds one list per problem (groups may differ in size) and may come from
a whole step, so an entry that looks across groups fits the same signature.

A reward of `None` (nothing graded it) takes no part in mean or std, and its advantage is 0: it trains nothing.
A group with fewer than two graded rollouts, or with equal rewards, says nothing about which was better: all 0, exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from groupwise.maths.tables import Table

STD_FLOOR = 1e-4
"""Added to the std, so that a group of nearly equal rewards is not blown up. The value of the seeds and of TRL."""


def group_normalized(rewards_QG: Sequence[Sequence[float | None]]) -> list[list[float]]:
    """GRPO: `A = (r - mean) / (std + 1e-4)`, over the group, with Bessel's std (divided by n - 1).

    DeepSeekMath, arXiv 2402.03300, section 4.1.2; the paper does not say which std, and has no floor.

    Example: 4 right of 8, `[[1, 1, 1, 1, 0, 0, 0, 0]]`: mean 0.5, std sqrt(8 * 0.25 / 7) = 0.5345, so
    0.5 / 0.5346 = +0.94 for the right ones and -0.94 for the wrong.
    """
    return [_normalized(rewards_G) for rewards_G in rewards_QG]


def group_centred(rewards_QG: Sequence[Sequence[float | None]]) -> list[list[float]]:
    """Dr. GRPO: `A = r - mean`, over the group. Without the std, easy and hard problems weigh as their rewards do.

    Understanding R1-Zero-Like Training, arXiv 2503.20783, section 3.2.

    Example: `[[1.0, 0.0, 0.0, 0.0]]` gives `[[0.75, -0.25, -0.25, -0.25]]`.
    """
    return [_spread(rewards_G, _centred(rewards_G)) for rewards_G in rewards_QG]


ADVANTAGES: Table[list[list[float]]] = Table(
    "advantage", {"group_normalized": group_normalized, "group_centred": group_centred}
)


def _normalized(rewards_G: Sequence[float | None]) -> list[float]:
    centred = _centred(rewards_G)
    # hypot is the root of the sum of squares, without overflow on the way.
    std = math.hypot(*centred) / math.sqrt(max(len(centred) - 1, 1))
    return _spread(rewards_G, [value / (std + STD_FLOOR) for value in centred])


def _centred(rewards_G: Sequence[float | None]) -> list[float]:
    """`r - mean` of the graded rollouts.

    Measured from the smallest reward, so that equal rewards give exactly 0 even where `n * r / n` is not `r`.
    """
    graded = [float(reward) for reward in rewards_G if reward is not None]
    assert all(map(math.isfinite, graded)), f"rewards must be finite before they become advantages, got {graded}"
    above_lowest = [reward - min(graded) for reward in graded]
    mean = math.fsum(above_lowest) / max(len(graded), 1)
    return [value - mean for value in above_lowest]


def _spread(rewards_G: Sequence[float | None], graded: Sequence[float]) -> list[float]:
    """Values of the graded rollouts back in their places, 0 for the others."""
    values = iter(graded)
    return [0.0 if reward is None else next(values) for reward in rewards_G]
