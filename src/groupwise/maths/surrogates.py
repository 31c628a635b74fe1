"""Surrogates: the policy term of the loss, one number per token, to be minimised.

An entry is given packed tensors of shape [T] that hold trained tokens only; there is no mask. It names what it needs:

- `log_ratio_T`           log of policy / old policy, at the level that the recipe's `ratio` says; gradients flow
- `advantages_T`          each token carries its rollout's advantage
- `logprobs_T`            of the policy that is trained; gradients flow through this one, too
- `old_logprobs_T`        of the policy when the optimisation of this batch began
- `sampled_logprobs_T`    as the engine reported them
- `entropies_T`           of the policy, without gradient
- `correction_T`          the sampler-trainer correction; who names it applies it, everyone else's loss is multiplied
- `rollout_T`             the rollout of each token (a rollout is never split over two calls)
- `update`                all tokens of the update, as they were before it (`whole.Whole`); costs a forward pass

How the tokens are averaged is not decided here but in `weights`. The clipped ratio and its relatives are in this file,
`policy_gradients` holds those whose gradient is a weight on that of the logprob, `covariances` those that look at the
whole update.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import torch
from torch import Tensor

from groupwise.maths.covariances import clip_cov, kl_cov
from groupwise.maths.policy_gradients import cispo_cap, cispo_clip, dppo_kl, dppo_tv, dro, reinforce, topr, vespo
from groupwise.maths.sequences import cut_exp, mean_of_rollout
from groupwise.maths.tables import Bounds, NotNegative, Positive, Share, Table

AboveClip: TypeAlias = Annotated[float, Bounds(not_below="1 + clip_high")]
"""A second bound for bad tokens; inside of the clip range it would take the place of the first for good ones."""


def clipped_ratio(log_ratio_T: Tensor, advantages_T: Tensor, *, clip_low: Share, clip_high: NotNegative) -> Tensor:
    """PPO's and GRPO's `-min(ratio * A, clip(ratio, 1 - clip_low, 1 + clip_high) * A)`.

    PPO, arXiv 1707.06347, equation 7; GRPO (DeepSeekMath), arXiv 2402.03300, equation 3. `clip_high > clip_low` is
    the clip-higher of DAPO, arXiv 2503.14476, section 3.1. With the ratio of a whole completion it is GSPO,
    arXiv 2507.18071.

    The gradient with respect to a log ratio is `-ratio * A`, and 0 where the ratio has already left the clip range in
    the direction that the advantage asks for.

    Example: ratio 1.5, A 1, clip_high 0.2: loss -1.2, gradient 0. The same ratio with A -1: loss 1.5, gradient 1.5.
    """
    ratio_T = cut_exp(log_ratio_T)
    clipped_T = ratio_T.clamp(1.0 - clip_low, 1.0 + clip_high)
    return -torch.minimum(ratio_T * advantages_T, clipped_T * advantages_T)


def two_sided(
    log_ratio_T: Tensor, advantages_T: Tensor, *, clip_low: Share, clip_high: NotNegative, delta: AboveClip = 4.0
) -> Tensor:
    """The clipped ratio with a bound for negative advantages, too: `-min(min(ratio, delta) * A, clip(ratio) * A)`.

    INTELLECT-2, arXiv 2505.07291. TRL's `delta`. Without it a token of a bad completion that has become much likelier
    has a loss without bound.

    Example: ratio 6, A -1, delta 4: loss 4, gradient 0, where the clipped ratio has loss 6 and gradient 6.
    """
    ratio_T = cut_exp(log_ratio_T)
    clipped_T = ratio_T.clamp(1.0 - clip_low, 1.0 + clip_high)
    return -torch.minimum(ratio_T.clamp(max=delta) * advantages_T, clipped_T * advantages_T)


def dual_clip(
    log_ratio_T: Tensor, advantages_T: Tensor, *, clip_low: Share, clip_high: NotNegative, dual: AboveClip = 3.0
) -> Tensor:
    """The clipped ratio, but for negative advantages never more than `-dual * A`. verl's `vanilla` with `clip_ratio_c`.

    Dual-clip PPO, arXiv 1912.09729. The same function as `two_sided` with `delta = dual`.

    Example: ratio 6, A -1, dual 3: loss 3, gradient 0.
    """
    loss_T = clipped_ratio(log_ratio_T, advantages_T, clip_low=clip_low, clip_high=clip_high)
    return torch.where(advantages_T < 0, torch.minimum(loss_T, -dual * advantages_T), loss_T)


def sapo(log_ratio_T: Tensor, advantages_T: Tensor, *, tau_pos: Positive = 1.0, tau_neg: Positive = 1.05) -> Tensor:
    """A soft gate in place of the clip: `-(4 / tau) * sigmoid(tau * (ratio - 1)) * A`, tau by the sign of A.

    Soft Adaptive Policy Optimization, arXiv 2511.20347. On policy its gradient is that of the plain policy gradient,
    `-A`; away from ratio 1 it fades, sooner where A is negative (a higher tau).

    Example: ratio 1, tau 1, A 1: loss -4 * 0.5 = -2, gradient -4 * 0.25 = -1.
    """
    tau_T = torch.where(advantages_T > 0, tau_pos, tau_neg).to(advantages_T.dtype)
    return -(4.0 / tau_T) * torch.sigmoid(tau_T * (cut_exp(log_ratio_T) - 1.0)) * advantages_T


def gmpo(
    log_ratio_T: Tensor, advantages_T: Tensor, rollout_T: Tensor, *, clip_low: NotNegative, clip_high: NotNegative
) -> Tensor:
    """The geometric mean of a completion's ratios, each clipped: `-exp(mean of clipped log ratios) * A`.

    Geometric-Mean Policy Optimization, arXiv 2507.20673. `clip_low` and `clip_high` bound the *log* ratio (the paper:
    0.4 and 0.4), and as in PPO only in the direction that the advantage asks for. A token beyond them has no gradient
    of its own; the others of its completion keep theirs.

    Example: log ratios [0.1, 0.9], clip_high 0.4, A 1: loss -exp(0.25) = -1.284 at both tokens.
    """
    clipped_T = torch.where(advantages_T > 0, log_ratio_T.clamp(max=clip_high), log_ratio_T.clamp(min=-clip_low))
    return -cut_exp(mean_of_rollout(clipped_T, rollout_T)) * advantages_T


SURROGATES: Table[Tensor] = Table(
    "surrogate",
    {
        "clipped_ratio": clipped_ratio,
        "two_sided": two_sided,
        "dual_clip": dual_clip,
        "sapo": sapo,
        "gmpo": gmpo,
        "reinforce": reinforce,
        "cispo_cap": cispo_cap,
        "cispo_clip": cispo_clip,
        "vespo": vespo,
        "topr": topr,
        "dppo_tv": dppo_tv,
        "dppo_kl": dppo_kl,
        "dro": dro,
        "clip_cov": clip_cov,
        "kl_cov": kl_cov,
    },
    offers=(
        "log_ratio_T",
        "advantages_T",
        "logprobs_T",
        "old_logprobs_T",
        "sampled_logprobs_T",
        "entropies_T",
        "correction_T",
        "rollout_T",
        "update",
    ),
)
