"""Filters: which tokens train at all. Several may be named, and a token has to pass every one.

An entry returns a mask. What is filtered has no policy term; its KL term stays, and it counts in the means.
"""

from __future__ import annotations

import math

from torch import Tensor

from groupwise.maths.sequences import LARGEST_LOG_RATIO, log_ratio, max_of_rollout, mean_of_rollout, sum_of_rollout
from groupwise.maths.tables import Fraction, NotNegative, Positive, Share, Table, UpTo
from groupwise.maths.whole import Whole, at_least, quantile


def geometric_rejection(
    mismatch_T: Tensor, rollout_T: Tensor, *, geometric_low: Fraction = 0.99, geometric_high: UpTo = 1.01
) -> Tensor:
    """Whole completions, by the geometric mean of old policy / sampler over their tokens. verl's `seq_mean_k1`.

    When Speed Kills Stability, part 3, Liu, Li and others (2025), https://richardli.xyz/rl-collapse-3

    Example: log ratios [0.01, 0.03]: geometric mean e^0.02 = 1.0202, above 1.01: rejected.
    """
    mean_T = mean_of_rollout(mismatch_T, rollout_T)
    return (mean_T >= math.log(geometric_low)) & (mean_T <= math.log(geometric_high))


def product_rejection(
    mismatch_T: Tensor, rollout_T: Tensor, *, product_low: Fraction = 0.5, product_high: UpTo = 2.0
) -> Tensor:
    """Whole completions, by the product of old policy / sampler over their tokens, which rejects long ones sooner.
    verl's `seq_sum_k1`.

    When Speed Kills Stability, part 3, Liu, Li and others (2025), https://richardli.xyz/rl-collapse-3

    Example: log ratios [0.4, 0.4]: product e^0.8 = 2.2, above 2: rejected.
    """
    sum_T = sum_of_rollout(mismatch_T, rollout_T)
    return (sum_T >= math.log(product_low)) & (sum_T <= math.log(product_high))


def k3_rejection(mismatch_T: Tensor, rollout_T: Tensor, *, k3_limit: Positive = 0.01) -> Tensor:
    """Whole completions, by the mean over their tokens of `e^x - 1 - x`, x the log ratio old policy / sampler: tokens
    that are off in opposite directions do not make up for each other. verl's `seq_mean_k3`.

    When Speed Kills Stability, Liu, Li and others (2025), https://richardli.xyz/rl-collapse

    Example: log ratios [0.2, -0.2]: mean of 0.0214 and 0.0187 is 0.0201: rejected.
    """
    cut_T = mismatch_T.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
    return mean_of_rollout(cut_T.expm1() - cut_T, rollout_T) <= k3_limit


def worst_token_rejection(mismatch_T: Tensor, rollout_T: Tensor, *, worst_ratio: UpTo = 1e4) -> Tensor:
    """Whole completions, by their worst token: one that is `worst_ratio` times likelier on one side than on the other
    was broken by the engine. verl's `seq_max_k2`, and the veto before it.

    When Speed Kills Stability, Liu, Li and others (2025), https://richardli.xyz/rl-collapse

    Example: log ratios [0.1, -9.3]: e^9.3 = 10938: rejected.
    """
    return max_of_rollout(mismatch_T.abs(), rollout_T) <= math.log(worst_ratio)


def off_policy_mask(
    advantages_T: Tensor,
    logprobs_T: Tensor,
    sampled_logprobs_T: Tensor,
    rollout_T: Tensor,
    *,
    off_policy_limit: NotNegative = 0.1,
) -> Tensor:
    """OPSM: without bad completions that the policy has moved away from already. The mean over a completion of the
    sampler's logprob less the policy's, as it is now, may not be above the limit; good completions always pass.

    DeepSeek-V3.2, arXiv 2512.02556, which does not tell its limit. TRL's `off_policy_mask_threshold`.

    Example: A -1, sampled [-1, -1], now [-1.1, -1.3]: mean 0.2, above 0.1: filtered.
    """
    away_T = mean_of_rollout(log_ratio(sampled_logprobs_T, logprobs_T.detach()), rollout_T)
    return (advantages_T >= 0) | (away_T <= off_policy_limit)


def top_entropy(update: Whole, *, top_share: Share = 0.2) -> Tensor:
    """The tokens of the update at which the policy is least sure, `top_share` of all: where a completion forks.

    Beyond the 80/20 Rule, arXiv 2506.01939. TRL's `top_entropy_quantile`, over the whole update instead of one
    micro-batch.

    Example: entropies [0.1, 2.0, 0.3, 0.2, 1.5], top_share 0.4: the threshold is 0.78, two pass.
    """
    if not len(update.entropies_T):
        return update.here_T.bool()
    return at_least(update.entropies_T[update.here_T], quantile(update.entropies_T, 1.0 - top_share))


FILTERS: Table[Tensor] = Table(
    "filter",
    {
        "geometric_rejection": geometric_rejection,
        "product_rejection": product_rejection,
        "k3_rejection": k3_rejection,
        "worst_token_rejection": worst_token_rejection,
        "off_policy_mask": off_policy_mask,
        "top_entropy": top_entropy,
    },
    offers=(
        "advantages_T",
        "mismatch_T",
        "logprobs_T",
        "old_logprobs_T",
        "sampled_logprobs_T",
        "entropies_T",
        "rollout_T",
        "update",
    ),
)
