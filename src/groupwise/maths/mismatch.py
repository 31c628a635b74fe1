"""How far the sampler was from the learner, in the numbers that the field has agreed on.

Sums over one micro-batch, which can be added up, and the metrics that they become:

- `kl`, `k3`       KL(sampler || old policy) by token, by the plain and by the low-variance estimator
- `ppl_ratio`      perplexity of the old policy / of the sampler, mean over completions; 1 where they agree
- `chi2_token`, `chi2_rollout`   mean of the squared ratio - 1: the variance that importance weights would have
- `ess`            effective sample size: the share of the tokens that would be left if ratios were weights

As in verl's `rollout_corr/*`; When Speed Kills Stability, Liu, Li and others (2025), https://richardli.xyz/rl-collapse
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from groupwise.maths.sequences import LARGEST_LOG_RATIO, cut_exp


def mismatch_sums(mismatch_T: Tensor, rollout_T: Tensor) -> dict[str, float]:
    """Sums over the tokens and completions of a micro-batch. `mismatch_T` is log(old policy / sampler).

    Example: `mismatch_sums(tensor([0.1, -0.1]), tensor([0, 0]))["kl"]` is 0.0.
    """
    cut_T = mismatch_T.cpu().double().clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
    rollouts, inverse_T = rollout_T.cpu().unique(return_inverse=True)
    sum_R = cut_T.new_zeros(len(rollouts)).index_add(0, inverse_T, cut_T)
    mean_R = sum_R / torch.bincount(inverse_T, minlength=len(rollouts))
    return {
        "tokens": float(len(cut_T)),
        "rollouts": float(len(rollouts)),
        "kl": -float(cut_T.sum()),
        "k3": float((cut_T.expm1() - cut_T).sum()),
        "weight": float(cut_T.exp().sum()),
        "square": float((2 * cut_T).exp().sum()),
        "ppl_ratio": float(cut_exp(-mean_R).sum()),
        "rollout_square": float(cut_exp(2 * sum_R).sum()),
    }


def mismatch_metrics(sums: Mapping[str, float]) -> dict[str, float]:
    """The metrics of added-up sums.

    Example: two tokens of ratio 1 and 3: `ess` is (1 + 3)^2 / (2 * (1 + 9)) = 0.8.
    """
    tokens, rollouts = max(sums["tokens"], 1.0), max(sums["rollouts"], 1.0)
    return {
        "kl": sums["kl"] / tokens,
        "k3": sums["k3"] / tokens,
        "ppl_ratio": sums["ppl_ratio"] / rollouts,
        "chi2_token": sums["square"] / tokens - 1.0,
        "chi2_rollout": sums["rollout_square"] / rollouts - 1.0,
        "ess": sums["weight"] ** 2 / max(tokens * sums["square"], 1e-300),
    }
