"""Surrogates against the collapse of entropy: it falls by the tokens whose logprob and advantage covary the most.

The Entropy Mechanism of Reinforcement Learning for Reasoning Language Models, arXiv 2505.22617. Means and ranks are
those of the whole update, so that no split into micro-batches changes the choice.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from groupwise.maths.sequences import LARGEST_LOG_RATIO, cut_exp, likelihood, log_ratio
from groupwise.maths.tables import Bounds, NotNegative, Share
from groupwise.maths.whole import Whole, largest


def clip_cov(
    log_ratio_T: Tensor,
    advantages_T: Tensor,
    update: Whole,
    *,
    clip_low: Share,
    clip_high: NotNegative,
    cov_share: Share = 2e-4,
    cov_low: float = 1.0,
    cov_high: Annotated[float, Bounds(not_below="cov_low")] = 5.0,
) -> Tensor:
    """Clip-Cov: the clipped ratio, and a few tokens of high covariance, chosen at random, lose their gradient.

    arXiv 2505.22617. The covariance is `(A - mean A) * (logprob - mean logprob)`. Candidates have one between cov_low
    and cov_high and are not clipped already; `cov_share` of the update's tokens, at least one, are taken. verl's
    `clip_cov`.

    Example: A 2 (mean 0), logprob -1 (mean -3): covariance 4, a candidate; if drawn, loss 0 and gradient 0.
    """
    ratio_T = cut_exp(log_ratio_T)
    clipped_T = ratio_T.clamp(1.0 - clip_low, 1.0 + clip_high)
    loss_T = -torch.minimum(ratio_T * advantages_T, clipped_T * advantages_T)
    covariance_T, moved_T = _covariance(update), cut_exp(log_ratio(update.logprobs_T, update.old_logprobs_T))
    is_clipped_T = torch.where(update.advantages_T > 0, moved_T > 1.0 + clip_high, moved_T < 1.0 - clip_low)
    candidates_T = (covariance_T > cov_low) & (covariance_T < cov_high) & ~is_clipped_T
    # The luckiest candidates: an order that no micro-batch has a part in.
    luck_T = torch.where(candidates_T, update.draws_T, -1.0)
    chosen_T = candidates_T & largest(luck_T, _number(cov_share, update))
    return torch.where(chosen_T[update.here_T], 0.0, loss_T)


def kl_cov(
    log_ratio_T: Tensor,
    advantages_T: Tensor,
    update: Whole,
    *,
    cov_share: Share = 2e-4,
    kl_pull: NotNegative = 1.0,
) -> Tensor:
    """KL-Cov: `-ratio * A`, and the tokens of the highest covariance are held back by `kl_pull * |log ratio|`.

    arXiv 2505.22617. `cov_share` of the update's tokens, at least one; only such as do raise the covariance. verl's
    `kl_cov`.

    Example: ratio e^0.1, A 1, chosen, kl_pull 1: loss -1.105 + 0.1, gradient -1.105 + 1.
    """
    covariance_T = _covariance(update)
    chosen_T = largest(covariance_T, _number(cov_share, update)) & (covariance_T > 0)
    held_T = kl_pull * log_ratio_T.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).abs()
    return -cut_exp(log_ratio_T) * advantages_T + torch.where(chosen_T[update.here_T], held_T, 0.0)


def _covariance(update: Whole) -> Tensor:
    """Each token's share in the covariance of advantage and logprob over the update."""
    logprobs_T = likelihood(update.logprobs_T)
    return (update.advantages_T - update.advantages_T.mean()) * (logprobs_T - logprobs_T.mean())


def _number(share: float, update: Whole) -> int:
    return max(int(share * len(update.logprobs_T)), 1)
