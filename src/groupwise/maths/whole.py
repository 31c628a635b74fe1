"""All tokens of an update at once, for entries that choose among them.

Which tokens have the highest entropy, or the highest covariance of logprob and advantage, depends on all of them. If an
entry looked at its micro-batch only, the choice would depend on how the update was cut (verl issue 7829). So whoever
names `update` is given this, and the learner makes a forward pass over the whole update before it begins.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

NEARLY_EQUAL = 64
"""Values that differ by so many roundings count as equal: a completion that was sampled twice has the same logprobs,
but not to the last bit, and which of the two is chosen must not depend on the company they are computed in."""


class Whole(NamedTuple):
    """One number for each of the update's tokens, in any order, detached.

    `here_T` are the places of the tokens at hand in it. `draws_T` are random numbers between 0 and 1 that belong to the
    token: the same in any order and any split.

    Example: `update.entropies_T[update.here_T]` are the entropies of the tokens at hand before the update.
    """

    logprobs_T: Tensor
    old_logprobs_T: Tensor
    advantages_T: Tensor
    entropies_T: Tensor
    draws_T: Tensor
    here_T: Tensor


def at_least(values_T: Tensor, threshold: Tensor) -> Tensor:
    """`values >= threshold`, ties within rounding included."""
    return values_T >= threshold - NEARLY_EQUAL * torch.finfo(values_T.dtype).eps * threshold.abs()


def largest(values_T: Tensor, count: int) -> Tensor:
    """Which are the `count` largest values; all of those that tie with the last. Example: [3, 1, 2], 2 -> [T, F, T]."""
    if count >= len(values_T):
        return torch.ones_like(values_T, dtype=torch.bool)
    return at_least(values_T, values_T.topk(count).values[-1])


def quantile(values_T: Tensor, share: float) -> Tensor:
    """The value that `share` of all values are below, interpolated; `torch.quantile` without its limit of 16 million.

    Example: [1, 2, 3, 4, 5] and 0.75 give 4.
    """
    ascending_T = values_T.sort().values
    place = share * (len(ascending_T) - 1)
    below = int(place)
    above = min(below + 1, len(ascending_T) - 1)
    return ascending_T[below].lerp(ascending_T[above], place - below)
