"""Surrogates whose gradient is that of the logprob, times the advantage, times a weight that is not differentiated.

`-weight * A * logprob`. Unlike a clipped ratio none of them has to lose a token: a weight can be bounded and the
gradient stays. What they are given is told in `surrogates`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from groupwise.maths.sequences import LARGEST_LOG_RATIO, cut_exp, likelihood, sum_of_rollout
from groupwise.maths.tables import NotNegative, NotNegatives, Positive, Share

SMALLEST_WEIGHT = 1e-8
"""VESPO cuts the weight of a completion here before it takes its logarithm, as its authors do."""


def reinforce(logprobs_T: Tensor, advantages_T: Tensor) -> Tensor:
    """`-A * logprob`: the policy gradient itself, right only on policy. With an advantage of 1 it is the likelihood of
    the warm start.

    REINFORCE, Williams (1992), doi 10.1007/BF00992696; the loss of GPG, arXiv 2504.02546.

    Example: probability 0.5, A 2: loss 1.386, gradient -2.
    """
    return -advantages_T * likelihood(logprobs_T)


def cispo_cap(log_ratio_T: Tensor, advantages_T: Tensor, logprobs_T: Tensor, *, cap: Positive = 5.0) -> Tensor:
    """CISPO as TRL and ScaleRL have it: `-min(ratio, cap) * A * logprob`. The cap is a ratio; 5 means five times.

    ScaleRL, arXiv 2510.13786; from MiniMax-M1, arXiv 2506.13585. No lower bound. In TRL the cap is `epsilon_high`
    itself, not 1 + epsilon_high.

    Example: ratio 8, cap 5, A 1: gradient -5.
    """
    return -_capped(log_ratio_T, cap) * advantages_T * likelihood(logprobs_T)


def cispo_clip(
    log_ratio_T: Tensor, advantages_T: Tensor, logprobs_T: Tensor, *, clip_low: Share, clip_high: NotNegative
) -> Tensor:
    """CISPO as its paper, verl and SkyRL have it: `-clip(ratio, 1 - clip_low, 1 + clip_high) * A * logprob`.

    MiniMax-M1, arXiv 2506.13585. There clip_low is 1, so that only the upper bound counts.

    Example: ratio 8, clip_high 4, A 1: gradient -5.
    """
    weight_T = cut_exp(log_ratio_T).detach().clamp(1.0 - clip_low, 1.0 + clip_high)
    return -weight_T * advantages_T * likelihood(logprobs_T)


def vespo(
    log_ratio_T: Tensor,
    advantages_T: Tensor,
    logprobs_T: Tensor,
    correction_T: Tensor,
    rollout_T: Tensor,
    *,
    k_lambda_pos: NotNegatives = (2.0, 3.0),
    k_lambda_neg: NotNegatives = (3.0, 2.0),
) -> Tensor:
    """`-phi(w) * A * logprob` with `phi(w) = w^k * exp(lambda * (1 - w))` and w the ratio of the whole completion to
    the *sampler*: the product of its tokens' ratios and corrections. phi is 1 on policy and falls on both sides.

    VESPO, arXiv 2602.10693. k and lambda by the sign of the advantage. As w takes the correction in, it has to be one
    by token.

    Example: one token, ratio 2, A 1: phi = 2^2 * exp(3 * -1) = 0.199, gradient -0.199.
    """
    lowest = math.log(SMALLEST_WEIGHT)
    moved_T = log_ratio_T.detach().clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
    mismatch_T = correction_T.log().clamp(lowest, LARGEST_LOG_RATIO)
    log_weight_T = sum_of_rollout(moved_T + mismatch_T, rollout_T).clamp(lowest, LARGEST_LOG_RATIO)
    good_T = advantages_T >= 0
    k_T = torch.where(good_T, k_lambda_pos[0], k_lambda_neg[0])
    lambda_T = torch.where(good_T, k_lambda_pos[1], k_lambda_neg[1])
    phi_T = torch.exp(k_T * log_weight_T + lambda_T * (1.0 - log_weight_T.exp())).nan_to_num(posinf=0.0)
    return -phi_T * advantages_T * likelihood(logprobs_T)


def topr(log_ratio_T: Tensor, advantages_T: Tensor, logprobs_T: Tensor) -> Tensor:
    """Good completions by their likelihood, bad ones by a ratio of at most 1: `-A * logprob` and
    `-min(ratio, 1) * A * logprob`. What is bad and has become rare is left alone.

    Tapered Off-Policy REINFORCE, arXiv 2503.14286. The paper's ratio is that of the whole completion:
    `ratio = "product"`.

    Example: ratio 0.5, A -1: gradient 0.5. Ratio 2, A -1: gradient 1. A 1, whatever the ratio: gradient -1.
    """
    weight_T = torch.where(advantages_T > 0, 1.0, _capped(log_ratio_T, 1.0))
    return -weight_T * advantages_T * likelihood(logprobs_T)


def dppo_tv(
    log_ratio_T: Tensor,
    advantages_T: Tensor,
    logprobs_T: Tensor,
    old_logprobs_T: Tensor,
    *,
    mask_low: NotNegative = 0.2,
    mask_high: NotNegative = 0.2,
    cap: Positive = 20.0,
) -> Tensor:
    """`-min(ratio, cap) * A * logprob`, without the tokens whose *probability* has already moved by more than the
    threshold, in the direction that the advantage asks for. The difference of probabilities is the total variation of
    "this token or any other".

    DPPO, Rethinking the Trust Region in LLM Reinforcement Learning, arXiv 2602.04879. verl's `dppo_tv`; prime-rl's
    loss is this with `anchor = "sampler"`. A clipped ratio lets a token of probability 0.9 become certain and stops
    one of 0.001 at 0.0012.

    Example: probability 0.3, old 0.2, A 1, mask_high 0.2: 0.1 is within, gradient -1.5. At 0.5 it is 0.
    """
    moved_T = logprobs_T.detach().exp() - old_logprobs_T.exp()
    kept_T = torch.where(advantages_T > 0, moved_T <= mask_high, moved_T >= -mask_low)
    return -_capped(log_ratio_T, cap) * kept_T * advantages_T * likelihood(logprobs_T)


def dppo_kl(
    log_ratio_T: Tensor,
    advantages_T: Tensor,
    logprobs_T: Tensor,
    old_logprobs_T: Tensor,
    *,
    mask_low: NotNegative = 0.05,
    mask_high: NotNegative = 0.05,
    cap: Positive = 20.0,
) -> Tensor:
    """As `dppo_tv`, with the KL of "this token or any other", `p_old log(p_old/p) + (1-p_old) log((1-p_old)/(1-p))`, in
    place of the difference of probabilities.

    DPPO, arXiv 2602.04879. verl's `dppo_kl`.

    Example: probability 0.3, old 0.2: 0.2 log(2/3) + 0.8 log(8/7) = 0.0257.
    """
    p_T, old_T = logprobs_T.detach().exp(), old_logprobs_T.exp()
    kl_T = torch.special.xlogy(old_T, old_T / p_T) + (1 - old_T) * torch.log((1 - old_T + 1e-8) / (1 - p_T + 1e-8))
    # What moves back towards the old policy is never masked.
    kept_T = torch.where(advantages_T > 0, (kl_T <= mask_high) | (p_T <= old_T), (kl_T <= mask_low) | (p_T >= old_T))
    return -_capped(log_ratio_T, cap) * kept_T * advantages_T * likelihood(logprobs_T)


def dro(log_ratio_T: Tensor, advantages_T: Tensor, logprobs_T: Tensor, *, pull: NotNegative = 0.1) -> Tensor:
    """`-A * logprob + pull / 2 * log_ratio^2`: the policy gradient, and a spring back to the old policy.

    Direct Reward Optimisation, arXiv 2405.19107, whose squared error has this gradient; verl's and tinker's `dro`.
    Rollouts of advantage 0 are pulled, too.

    Example: log ratio 0.5, A 1, pull 0.1: gradient -1 + 0.05.
    """
    spring_T = 0.5 * pull * log_ratio_T.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).square()
    return -advantages_T * likelihood(logprobs_T) + spring_T


def _capped(log_ratio_T: Tensor, cap: float) -> Tensor:
    return cut_exp(log_ratio_T).detach().clamp(max=cap)
