"""Length penalties: what a completion's length takes off its reward before completions are compared.

Floats in, floats out, no torch; the rewards themselves stay as they were graded. An entry names what it looks at, lists
of the whole step:

- `rewards_QG`   rewards, `None` where nothing graded the completion
- `lengths_QG`   tokens of each completion
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from groupwise.maths.groups import Lengths, Rewards
from groupwise.maths.tables import Count, Fraction, Positive, Table


def none(lengths_QG: Lengths) -> list[list[float]]:
    """No penalty: the length counts only through what the reward functions say of it."""
    return [[0.0] * len(lengths_G) for lengths_G in lengths_QG]


def soft_overlong(
    lengths_QG: Lengths,
    *,
    max_new_tokens: Count,
    overlong_share: Fraction = 0.2,
    overlong_penalty: Positive = 1.0,
) -> list[list[float]]:
    """DAPO's soft overlong punishment: nothing up to `1 - overlong_share` of the longest completion that there may be,
    then rising in a straight line to `overlong_penalty` at the longest.

    DAPO, arXiv 2503.14476, section 3.4, whose buffer is 4,096 of 20,480 tokens and whose rewards are -1 and 1.

    Example: 100 tokens at most, share 0.2: 80 tokens cost 0, 90 cost 0.5, 100 cost 1.
    """
    buffer = overlong_share * max_new_tokens
    return [
        [overlong_penalty * max(0.0, length - (max_new_tokens - buffer)) / buffer for length in lengths_G]
        for lengths_G in lengths_QG
    ]


def shorter_of_right(rewards_QG: Rewards, lengths_QG: Lengths, *, length_share: Fraction = 0.1) -> list[list[float]]:
    """A right completion loses up to `length_share` of its reward, the more the longer it is beside the other right
    ones of its group: `share * r * sigmoid((length - mean) / std)`. Right is what has a reward above 0; std is that of
    the population, and where all are of one length everyone loses half.

    Training Language Models to Reason Efficiently, arXiv 2502.04463.

    Example: rewards `[[1, 1, 0]]`, lengths `[[2, 4, 9]]`, share 0.1: mean 3, std 1: the first loses
    0.1 * sigmoid(-1) = 0.027, the second 0.073, the third nothing.
    """
    return [_beside_right(*group, length_share) for group in zip(rewards_QG, lengths_QG, strict=True)]


def _beside_right(rewards_G: Sequence[float | None], lengths_G: Sequence[int], share: float) -> list[float]:
    right = [length for reward, length in zip(rewards_G, lengths_G, strict=True) if reward is not None and reward > 0]
    mean = math.fsum(right) / max(len(right), 1)
    std = math.sqrt(math.fsum((length - mean) ** 2 for length in right) / max(len(right), 1))
    return [
        share * reward / (1 + math.exp(-(length - mean) / std if std > 0 else 0.0))
        if reward is not None and reward > 0
        else 0.0
        for reward, length in zip(rewards_G, lengths_G, strict=True)
    ]


LENGTH_PENALTIES: Table[list[list[float]]] = Table(
    "length_penalty",
    {"none": none, "soft_overlong": soft_overlong, "shorter_of_right": shorter_of_right},
    offers=("rewards_QG", "lengths_QG"),
)
