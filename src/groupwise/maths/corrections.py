"""Corrections: the engine that sampled and the policy that learns are not quite the same distribution. The same weights
in other kernels, another precision, or weights that are some updates old: `pi_old / mu` is no longer 1.

An entry turns `mismatch_T`, the log of that ratio for each token, into a factor on the token's loss, without gradient.
Where engine and learner are one, as with the embedded engine, mismatch is 0 and every factor is 1. What is rejected
outright is in `filters`, how large the mismatch is in `mismatch`.

A factor of 0 takes a token out of the loss, not out of the counts that the loss is divided by, as in TRL.
"""

from __future__ import annotations

import torch
from torch import Tensor

from groupwise.maths.sequences import cut_exp, sum_of_rollout
from groupwise.maths.tables import Share, Table, UpTo


def token_truncate(mismatch_T: Tensor, *, correction_low: Share = 0.0, correction_high: UpTo = 2.0) -> Tensor:
    """TIS: the ratio of each token, cut to between low and high. verl's `rollout_is = token`.

    Your Efficient RL Framework Secretly Brings You Off-Policy RL Training, Yao and others (2025),
    https://fengyao.notion.site/off-policy-rl

    Example: ratios 0.5, 1, 7 and high 2: factors 0.5, 1, 2.
    """
    return cut_exp(mismatch_T).clamp(correction_low, correction_high)


def token_mask(mismatch_T: Tensor, *, correction_low: Share = 0.5, correction_high: UpTo = 5.0) -> Tensor:
    """IcePop: the ratio of each token, and 0 for one whose ratio is outside of low and high.

    Every Step Evolves (Ring-1T), arXiv 2510.18855. verl's threshold "low_high".

    Example: ratios 0.2, 1, 7, low 0.5 and high 5: factors 0, 1, 0.
    """
    return _masked(cut_exp(mismatch_T), correction_low, correction_high)


def sequence_truncate(
    mismatch_T: Tensor, rollout_T: Tensor, *, correction_low: Share = 0.0, correction_high: UpTo = 2.0
) -> Tensor:
    """TIS of the whole completion: the product of its tokens' ratios, cut to between low and high. Unbiased as long as
    nothing is cut, and of much variance. verl's `rollout_is = sequence`.

    When Speed Kills Stability, Liu, Li and others (2025), https://richardli.xyz/rl-collapse

    Example: ratios 2 and 3 of one completion, high 2: factor 2 at both tokens.
    """
    return cut_exp(sum_of_rollout(mismatch_T, rollout_T)).clamp(correction_low, correction_high)


def sequence_mask(
    mismatch_T: Tensor, rollout_T: Tensor, *, correction_low: Share = 0.0, correction_high: UpTo = 3.0
) -> Tensor:
    """MIS: the product of the completion's ratios, and 0 for a completion whose product is outside of low and high.
    TRL's default under vLLM.

    When Speed Kills Stability, Liu, Li and others (2025), https://richardli.xyz/rl-collapse

    Example: ratios 2 and 3 of one completion, high 3: factor 0 at both tokens.
    """
    return _masked(cut_exp(sum_of_rollout(mismatch_T, rollout_T)), correction_low, correction_high)


CORRECTIONS: Table[Tensor] = Table(
    "correction",
    {
        "token_truncate": token_truncate,
        "token_mask": token_mask,
        "sequence_truncate": sequence_truncate,
        "sequence_mask": sequence_mask,
    },
    offers=("mismatch_T", "rollout_T"),
)


def _masked(ratio_T: Tensor, low: float, high: float) -> Tensor:
    return torch.where((ratio_T >= low) & (ratio_T <= high), ratio_T, 0.0)
