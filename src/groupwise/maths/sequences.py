"""Sums and means over the tokens of each rollout, and log ratios that can always be exponentiated.

`rollout_T` holds the rollout of each token: any non-negative integers. A rollout is never split over two calls, so its
sum here is the sum over all its tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST_LOG_RATIO = 20.0
"""Log ratios are cut to +-20 before `exp`. A token whose probability changed by a factor of more than e^20 = 4.9e8 has
a finite loss, that of the cut ratio, and the gradient 0: a true gradient of that size would leave nothing of the
update's other tokens after gradient clipping."""

LOWEST_LOGPROB = -1e5
"""Logprobs are cut here where they stand in a loss themselves: a token that cannot occur has the logprob -inf, and no
gradient could make it likelier."""


def sum_of_rollout(values_T: Tensor, rollout_T: Tensor) -> Tensor:
    """For each token, the sum over its rollout. Example: values [1, 2, 5], rollouts [0, 0, 1] give [3, 3, 5]."""
    return values_T.new_zeros(_count(rollout_T)).index_add(0, rollout_T, values_T)[rollout_T]


def mean_of_rollout(values_T: Tensor, rollout_T: Tensor) -> Tensor:
    """For each token, the mean over its rollout. Example: values [1, 2, 5], rollouts [0, 0, 1] give [1.5, 1.5, 5]."""
    return sum_of_rollout(values_T, rollout_T) / torch.bincount(rollout_T)[rollout_T]


def max_of_rollout(values_T: Tensor, rollout_T: Tensor) -> Tensor:
    """For each token, the largest value of its rollout. Example: [1, 2, 5], rollouts [0, 0, 1] give [2, 2, 5]."""
    lowest = values_T.new_full((_count(rollout_T),), -torch.inf)
    return lowest.scatter_reduce(0, rollout_T, values_T, "amax")[rollout_T]


def log_ratio(logprobs_T: Tensor, other_T: Tensor) -> Tensor:
    """`logprobs - other`, always a number: a token that cannot occur on one side (-inf) is absurdly far off, one that
    cannot occur on either says nothing. Neither has a gradient.

    Example: logprobs [-1, -inf, -inf], others [-2, -2, -inf] give [1, -1e5, 0].
    """
    return torch.nan_to_num(logprobs_T - other_T, nan=0.0, posinf=-LOWEST_LOGPROB, neginf=LOWEST_LOGPROB)


def cut_exp(log_ratio_T: Tensor) -> Tensor:
    """`exp`, with the exponent cut to +-20."""
    return torch.exp(log_ratio_T.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO))


def likelihood(logprobs_T: Tensor) -> Tensor:
    """The logprobs themselves, where they stand in a loss: never -inf."""
    return logprobs_T.clamp(min=LOWEST_LOGPROB)


def _count(rollout_T: Tensor) -> int:
    return int(rollout_T.max()) + 1 if len(rollout_T) else 0
